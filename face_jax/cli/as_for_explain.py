"""Options that commands share with `explain`, which has the words for them."""

from __future__ import annotations

import pathlib
from typing import Annotated

import typer

_SAID = "As for explain."

Model = Annotated[str, typer.Option(help=_SAID)]
Weights = Annotated[str, typer.Option(help=_SAID)]
TransformInput = Annotated[bool | None, typer.Option("--transform-input/--no-transform-input", help=_SAID)]
ClassNames = Annotated[pathlib.Path | None, typer.Option(help=_SAID)]
MultiLabels = Annotated[bool | None, typer.Option("--multi-label/--multi-class", help=_SAID)]
Threshold = Annotated[float | None, typer.Option(help=_SAID)]
Layer = Annotated[str | None, typer.Option(help=_SAID)]
Crops = Annotated[str | None, typer.Option(help=_SAID)]
Batch = Annotated[int, typer.Option(help=_SAID)]
NoCache = Annotated[bool, typer.Option("--no-cache", help=_SAID)]

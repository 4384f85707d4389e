"""What a concept is, in a few words and crops, for pages that speak of concepts by their numbers."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import urllib.parse
from collections.abc import Iterable
from typing import Any

from ..explanation.concepts import Concept
from ..explanation.record import Explanation
from ..support.arguments import path_of
from . import pictures
from .tree import Pictures, crop_pictures

_CROPS, _SIZE = 2, 72


@dataclasses.dataclass(frozen=True)
class _Caption:
    """A concept by its number and colour, two crops, and where its report has it, if there is one."""

    concept: Concept
    colour: str
    crops: Pictures
    address: str | None


def captions(explanation: Explanation, concepts: Iterable[int], report: str | None) -> list[_Caption]:
    """Captions of some concepts.

    **Arguments:**

    - `explanation`: whose concepts.
    - `concepts`: which, from 0; each once, in their order.
    - `report`: the report's address from the page; `""` in the report itself, None without one.
    """
    found = []
    for at in sorted(set(concepts)):
        concept = explanation.concepts[at]
        address = None if report is None else f"{report}#concept-{concept.number}"
        crops = crop_pictures(explanation, concept.strongest[:_CROPS], _SIZE)
        found.append(_Caption(concept, pictures.concept_colour(concept.number), crops, address))
    return found


def caption_table(explanation: Explanation, concepts: Iterable[int]) -> list[dict[str, Any]]:
    """The same in plain numbers and words."""
    classes = explanation.model.classes
    return [
        {
            "number": concept.number,
            "importance": concept.importance,
            "perhaps": [guess.word for guess in concept.names],
            "speaks_for": [{"class": classes[one.index], "score": one.score} for one in concept.speaks_for],
        }
        for concept in (explanation.concepts[at] for at in sorted(set(concepts)))
    ]


def address_of(report: str | os.PathLike[str] | None, folder: str | os.PathLike[str]) -> str | None:
    """A report's address from pages in a folder; None where there is no report."""
    if report is None:
        return None
    file = path_of("report", report, "the report.html of this explanation").absolute()
    try:
        return urllib.parse.quote(pathlib.Path(os.path.relpath(file, pathlib.Path(folder).absolute())).as_posix())
    except ValueError:  # on Windows, of another drive
        return file.as_uri()

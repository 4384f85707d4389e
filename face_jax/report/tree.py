"""The page's section on sub-concepts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..explanation.record import Explanation
from ..explanation.sub_concepts import Division
from ..pictures.showing import in_colours
from ..recursion.recurse import suggest_recursion
from . import pictures

Pictures = list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class _Part:
    """A sub-concept with its crops; `likeness` is None where there's one crop, which nothing can be compared with."""

    name: str
    share: float
    coherence: float
    likeness: float | None
    crops: Pictures
    branch: _Branch | None


@dataclasses.dataclass(frozen=True)
class _Branch:
    """A concept that was taken apart: its own crops, then its parts."""

    name: str
    colour: str
    layer: str
    count: int
    coherence: float
    floor: float
    likeness: float | None
    spread: float | None
    crops: Pictures
    parts: list[_Part]


def tree(explanation: Explanation) -> dict[str, Any]:
    """What the page says of concepts' parts: the branches, and which concepts want taking apart if there are none."""
    recursion = explanation.recursion
    suggestion = recursion or suggest_recursion(explanation)
    return {
        "branches": [] if recursion is None else [_branch(explanation, one) for one in recursion.divisions],
        "layer": suggestion.layer,
        "asked": recursion is not None,
        "suggested": [index + 1 for index in suggestion.suggested],
        "threshold": suggestion.threshold,
        "notes": suggestion.notes,
    }


def crop_pictures(explanation: Explanation, crops: tuple[int, ...], size: int = 120) -> Pictures:
    """Crops as small pictures, each with a caption that says where it was taken."""
    shown, preprocess = [], explanation.model.preprocess
    for crop in crops:
        photograph = explanation.photographs[explanation.crops.image[crop]]
        top, left, bottom, right = (int(edge) for edge in explanation.crops.box[crop])
        caption = f"{photograph.name}: {right - left} × {bottom - top} pixels at ({left}, {top})"
        pixels = in_colours(photograph.pixels(preprocess.reads), preprocess.shown)
        shown.append((pictures.thumbnail(pixels, (top, left, bottom, right), size), caption))
    return shown


def _branch(explanation: Explanation, division: Division) -> _Branch:
    """One division; a concept's own crops are shown at the first level only, a part's are there already."""
    concept = division.path[0] - 1
    first = len(division.path) == 1
    return _Branch(
        name=division.name,
        colour=pictures.concept_colour(concept + 1),
        layer=division.layer,
        count=len(division.crops),
        coherence=division.coherence,
        floor=division.floor,
        likeness=_known(division.likeness(division.coherence)),
        spread=_known(division.spread),
        crops=crop_pictures(explanation, explanation.concepts[concept].strongest, 96) if first else [],
        parts=[
            _Part(
                name=part.name,
                share=part.share,
                coherence=part.coherence,
                likeness=_known(division.likeness(part.coherence)),
                crops=crop_pictures(explanation, part.strongest, 96),
                branch=None if part.division is None else _branch(explanation, part.division),
            )
            for part in division.parts
        ],
    )


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None

"""The photographs one by one, and each concept in its photographs: what unfolds on an explanation's page.

Each photograph stands in the page once; outlines of concepts are drawn over it wherever it's shown.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..attribution import upsampled_codes
from ..explanation.concepts import Concept
from ..explanation.record import Explanation
from ..importance import contributions
from ..pictures.crop_and_resize import place_of, within
from ..pictures.showing import in_colours
from . import pictures
from .together import added_in, outline

# So many photographs are shown at most, small, on a grid that outlines are drawn on.
MOST, _SIDE, _GRID, _POINTS = 100, 184, 56, 32
# Concepts of a photograph, photographs of a concept, and how many it adds most to, or takes most from.
_CONCEPTS, _CROPS, _ENDS = 5, 6, 4
# Behind a head that isn't affine, what concepts add takes calls of the head for each photograph.
_MEASURED = 24


@dataclasses.dataclass(frozen=True)
class _Mark:
    """A concept in a photograph: where it is, and what it adds to the score there; None where nobody measured that."""

    number: int
    colour: str
    adds: float | None
    share: float
    outline: str


@dataclasses.dataclass(frozen=True)
class _Shot:
    """A photograph as the page keeps it: small, with the place of what the classifier sees of it."""

    number: int
    name: str
    picture: str
    height: int
    width: int
    seen: tuple[float, float, float, float]
    probability: float
    held_out: bool
    marks: list[_Mark]

    @property
    def transform(self) -> str:
        """From the grid that outlines are drawn on to the photograph."""
        top, left, bottom, right = self.seen
        return f"translate({left:.1f} {top:.1f}) scale({(right - left) / _GRID:.4f} {(bottom - top) / _GRID:.4f})"


@dataclasses.dataclass(frozen=True)
class _Place:
    """A crop in its photograph, with the concept's outline there."""

    shot: _Shot
    box: tuple[int, int, int, int]
    mark: _Mark


@dataclasses.dataclass(frozen=True)
class _Unfolded:
    """What a concept unfolds to: its crops in their photographs, and where it adds and takes most."""

    places: list[_Place]
    most: list[tuple[_Shot, float]]
    least: list[tuple[_Shot, float]]


class Photographs:
    """The photographs of an explanation that its page shows, and its concepts in them."""

    def __init__(self, explanation: Explanation, first: list[int]) -> None:
        self._explanation = explanation
        self._adds = _added(explanation)
        self._strong = np.maximum(np.quantile(explanation.codes.max(axis=(1, 2)), 0.9, axis=0), 1e-12)
        self._maps: dict[int, Float[np.ndarray, "y x concept"]] = {}
        self._shots = {number: self._shot(number) for number in _chosen(explanation, first)}

    @property
    def shots(self) -> list[_Shot]:
        """Those that are shown, in the order of the photographs."""
        return [self._shots[number] for number in sorted(self._shots)]

    def unfolded(self, concept: Concept) -> _Unfolded:
        """What a concept unfolds to."""
        crops, at = self._explanation.crops, concept.index
        places = []
        for crop in concept.strongest:
            shot = self._shots.get(int(crops.image[crop]))
            if shot is not None and len(places) < _CROPS:
                box: Any = tuple(crops.box[crop].tolist())
                places.append(_Place(shot, box, self._mark(shot.number - 1, at, float(self._strong[at]))))
        shown = np.asarray(sorted(self._shots))
        known = shown[np.isfinite(self._adds[shown, at])]
        order = known[np.argsort(-self._adds[known, at], kind="stable")].tolist()
        each = [(self._shots[number], float(self._adds[number, at])) for number in order]
        return _Unfolded(
            places, [one for one in each[:_ENDS] if one[1] > 0], [one for one in each[::-1][:_ENDS] if one[1] < 0]
        )

    def _shot(self, number: int) -> _Shot:
        explanation = self._explanation
        photograph, preprocess = explanation.photographs[number], explanation.model.preprocess
        pixels = in_colours(photograph.pixels(preprocess.reads), preprocess.shown)
        height, width = pixels.shape[:2]
        place, (tall, wide) = place_of((height, width), preprocess), preprocess.shape[:2]
        down, across = height / place.resized[0], width / place.resized[1]
        top, left = place.corner[0] * down, place.corner[1] * across
        probability = explanation.model.outputs.probability(
            explanation.pictures.collected.logits[number : number + 1], explanation.target.index
        )
        longest = min(_SIDE, max(within((0, 0, height, width), max(height, width))))
        return _Shot(
            number=number + 1,
            name=photograph.name,
            picture=pictures.thumbnail(pixels, (0, 0, height, width), longest),
            height=height,
            width=width,
            seen=(top, left, top + tall * down, left + wide * across),
            probability=float(probability[0]),
            held_out=not explanation.single and number in explanation.pictures.held_out,
            marks=self._marks(number),
        )

    def _marks(self, number: int) -> list[_Mark]:
        """The concepts that change the score most, or of which there is most where nobody measured that."""
        adds, peak = self._adds[number], self._explanation.codes[number].max(axis=(0, 1))
        size = np.abs(adds) if np.isfinite(adds).all() else peak / self._strong
        order = [at for at in np.argsort(-size, kind="stable")[:_CONCEPTS].tolist() if size[at] > 0 and peak[at] > 0]
        return [self._mark(number, at, float(peak[at]), float(size[at] / size.sum())) for at in order]

    def _mark(self, number: int, at: int, full: float, share: float = 0.0) -> _Mark:
        if number not in self._maps:
            codes = jnp.asarray(self._explanation.codes[number : number + 1])
            self._maps[number] = np.asarray(upsampled_codes(codes, (_GRID, _GRID)))[0]
        adds = float(self._adds[number, at])
        return _Mark(
            at + 1, pictures.concept_colour(at + 1), adds if np.isfinite(adds) else None, share,
            outline(self._maps[number][..., at] / full, _POINTS),
        )  # fmt: skip


def _chosen(explanation: Explanation, first: list[int]) -> list[int]:
    """All photographs, or the first ones given, those of the concepts' strongest crops, and others evenly."""
    count = len(explanation.photographs)
    if count <= MOST:
        return list(range(count))
    image = explanation.crops.image
    strongest = [int(image[crop]) for concept in explanation.concepts for crop in concept.strongest[:2]]
    evenly = np.linspace(0, count - 1, MOST).round().astype(int).tolist()
    return list(dict.fromkeys([*first, *strongest[: MOST // 2], *evenly]))[:MOST]


def _added(explanation: Explanation) -> Float[np.ndarray, "image concept"]:
    """What each concept adds to the score in each photograph: exactly, or what the score loses without it; else NaN."""
    target, model = explanation.target.index, explanation.model
    head, dictionary = model.head_for(target), jnp.asarray(explanation.dictionary)
    if head.affine:
        return contributions(head, jnp.asarray(explanation.codes), dictionary, target)
    found = np.full((len(explanation.photographs), len(dictionary)), np.nan)
    for number in _spread(len(found)).tolist():
        found[number] = added_in(explanation, number)
    return found


def _spread(count: int) -> Int[np.ndarray, " some"]:
    return np.unique(np.linspace(0, count - 1, min(_MEASURED, count)).round().astype(np.int64))

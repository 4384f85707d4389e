"""Crops that stand for concepts, and pictures of them."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from ..explanation.concepts import overlap, strongest_crops
from ..model import Preprocess
from ..pictures.crop_rules import Crops
from ..pictures.photographs import Photograph, resized, within
from ..pictures.showing import in_colours
from ..support.arguments import Concepts
from ..support.concepts import concepts_of
from ..support.reprs import short_repr
from .trials import Picture

# Crops that a concept is shown by are among its so many strongest.
_POOL = 12
# A crop of another concept has less of this one than this share of what its typical strong crop has.
_ABSENT = 0.5
# Pictures on the page are so many pixels wide and high: sharp at the size they are shown in.
_PIXELS = 200


@runtime_checkable
class CroppedConcepts(Protocol):
    """Anything with crops and how much of each concept is in them: an explanation, or a concept's sub-concepts."""

    @property
    def photographs(self) -> tuple[Photograph, ...]:
        """The photographs that the crops are of."""
        ...

    @property
    def crops(self) -> Crops:
        """Where the crops lie."""
        ...

    @property
    def crop_codes(self) -> Float[np.ndarray, "crop concept"]:
        """How much of each concept each crop has."""
        ...


@runtime_checkable
class TakenApart(Protocol):
    """A concept's sub-concepts as `face_jax.recurse` finds them: which crops were used, and their codes."""

    @property
    def crops(self) -> Int[np.ndarray, " crop"]:
        """Which of the explanation's crops."""
        ...

    @property
    def codes(self) -> Float[np.ndarray, "crop concept"]:
        """How much of each sub-concept each of them has."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """A concept's sub-concepts with their crops, for trials."""

    photographs: tuple[Photograph, ...]
    crops: Crops
    crop_codes: Float[np.ndarray, "crop concept"]
    preprocess: Preprocess | None = None

    __repr__ = short_repr


def parts_of(explanation: CroppedConcepts, division: TakenApart) -> Parts:
    """Sub-concepts in the form that trials take.

    **Arguments:**

    - `explanation`: whose crops they were found in.
    - `division`: one of `explanation.recursion.divisions`, or anything with `crops` and `codes`.

    **Returns:** them with their crops and photographs.

    **Example:**

    >>> recursion = fj.recurse(explanation, earlier, concepts=[0], rank=2, fewest=4).recursion
    >>> parts = fj.study.parts_of(explanation, recursion.divisions[0])
    >>> parts.crop_codes.shape[1]
    2
    """
    check_cropped("explanation", explanation)
    missing = [field for field in ("crops", "codes") if not hasattr(division, field)]
    if missing or isinstance(division, type):
        raise ValueError(f"division is a {type(division).__name__}; give one of explanation.recursion.divisions")
    crops = explanation.crops
    subset = Crops(image=crops.image[division.crops], box=crops.box[division.crops])
    return Parts(explanation.photographs, subset, division.codes, _preprocess_of(explanation))


def _preprocess_of(explanation: CroppedConcepts) -> Preprocess | None:
    """How the model of an explanation gets its photographs, where it's known."""
    own = explanation.preprocess if isinstance(explanation, Parts) else None
    return own or getattr(getattr(explanation, "model", None), "preprocess", None)


def check_cropped(name: str, value: Any) -> None:
    """Raises `ValueError` for what has no concepts in crops of photographs."""
    missing = [field for field in ("photographs", "crops", "crop_codes") if not hasattr(value, field)]
    if missing or isinstance(value, type):
        raise ValueError(f"{name} is a {type(value).__name__}; give the result of explain, or of parts_of")


def pools_of(
    explanation: CroppedConcepts, need: int, concepts: Concepts, *, least: int = 2
) -> dict[int, tuple[int, ...]]:
    """Each concept's strongest crops, for the concepts that have as many as a trial needs."""
    codes = explanation.crop_codes
    wanted = concepts_of(concepts, codes.shape[1], of="")
    found = {concept: strongest_crops(codes[:, concept], explanation.crops, max(_POOL, need)) for concept in wanted}
    enough = {concept: pool for concept, pool in found.items() if len(pool) >= need}
    short = {concept: len(pool) for concept, pool in found.items() if len(pool) < need}
    if len(enough) < least or (concepts is not None and short):
        raise ValueError(
            f"{len(enough)} concepts have the {need} crops that a trial takes ({least} or more must; crops of the "
            f"others: {short}); explain more photographs or crops, or give a smaller crops="
        )
    return enough


def pair(
    explanation: CroppedConcepts, pools: dict[int, tuple[int, ...]], number: int, draw: np.random.Generator
) -> tuple[int, int]:
    """The concept whose turn it is, and another one with crops that don't have it."""
    numbers = sorted(pools)
    for concept in np.roll(numbers, -(number % len(numbers))).tolist():
        others = [other for other in numbers if other != concept and without(explanation, pools[other], concept)]
        if others:
            return concept, int(draw.choice(others))
    raise ValueError(
        f"concepts={numbers} are all strong in the same crops, so no crop of one is without another; explain more "
        "photographs, or with a smaller rank"
    )


def without(explanation: CroppedConcepts, pool: tuple[int, ...], concept: int) -> list[int]:
    """Crops of a pool that have little of another concept."""
    codes = explanation.crop_codes[:, concept]
    typical = np.sort(codes)[-10:].mean()
    return [crop for crop in pool if codes[crop] < _ABSENT * typical]


def apart(
    explanation: CroppedConcepts,
    pool: tuple[int, ...],
    stranger: tuple[CroppedConcepts, int],
    count: int,
    draw: np.random.Generator,
) -> list[int]:
    """Crops of a pool that don't show what another crop shows: another photograph or, failing that, another place."""
    crops = explanation.crops
    other, place = stranger
    digest, box = other.photographs[other.crops.image[place]].digest(), other.crops.box[place]

    def shared(crop: int) -> tuple[bool, float]:
        same = explanation.photographs[crops.image[crop]].digest() == digest
        return same, overlap(crops.box[crop], box) if same else 0.0

    return sorted((int(crop) for crop in draw.permutation(pool)), key=shared)[:count]


def crop_picture(explanation: CroppedConcepts, crop: int) -> Picture:
    """One of the crops, at the size of the page's pictures."""
    photograph = explanation.photographs[explanation.crops.image[crop]]
    top, left, bottom, right = (int(edge) for edge in explanation.crops.box[crop])
    box = (top, left, bottom, right)
    preprocess = _preprocess_of(explanation) or Preprocess()
    whole = in_colours(photograph.pixels(preprocess.reads), preprocess.shown)
    pixels = resized(whole, box, within(box, _PIXELS), Preprocess(interpolation="bicubic"))
    return Picture(pixels, "picture")

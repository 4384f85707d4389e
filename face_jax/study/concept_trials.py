"""Trials about single concepts: the intruder among crops, and the choice between two."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..concepts import overlap, strongest_crops
from ..crops import Crops
from ..model import Preprocess
from ..photographs import Photograph, resized
from .trials import Option, Picture, Trial, generator, trial_name

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


def parts_of(explanation: CroppedConcepts, division: TakenApart) -> Parts:
    """Sub-concepts in the form that trials take.

    **Arguments:**

    - `explanation`: whose crops they were found in.
    - `division`: one of `explanation.recursion.divisions`, or anything with `crops` and `codes`.

    **Returns:** them with their crops and photographs.
    """
    crops = explanation.crops
    subset = Crops(image=crops.image[division.crops], box=crops.box[division.crops])
    return Parts(explanation.photographs, subset, division.codes)


def intruder_trials(
    explanation: CroppedConcepts,
    *,
    trials: int = 15,
    crops: int = 4,
    concepts: Sequence[int] | None = None,
    condition: str = "concept",
    key: Key[Array, ""] | None = None,
) -> tuple[Trial, ...]:
    """Trials of finding the crop that doesn't belong (CRAFT, section 4.2): several of one concept, one of another.

    If a concept means one thing to people, they find the intruder; chance is `1 / (crops + 1)`. Call it again with a
    concept's sub-concepts and `condition="sub-concept"` for the paper's comparison. Crops are drawn from each
    concept's strongest; the intruder is strong in its own concept and has little of the other, and comes from a
    photograph that none of the others shows wherever there are several photographs.

    **Arguments:**

    - `explanation`: an explanation, a concept's sub-concepts (`parts_of`), or anything with `photographs`, `crops` and
        `crop_codes`.
    - `trials`: how many; the paper asks 15. Concepts take turns.
    - `crops`: crops of the concept in each trial, beside the intruder; the paper shows 4.
    - `concepts`: which concepts, counted from 0; by default every one with enough crops.
    - `condition`: what scores call these trials.
    - `key`: for every choice.

    **Returns:** the trials. Raises `ValueError` where the crops don't suffice.
    """
    key = jax.random.key(0) if key is None else key
    _check_count("trials", trials, 1)
    _check_count("crops", crops, 2)
    pools = _pools(explanation, crops, concepts)
    made = []
    for number in range(trials):
        draw = generator(key, number)
        concept, other = _pair(explanation, pools, number, draw)
        intruder = int(draw.choice(_without(explanation, pools[other], concept)))
        alike = _apart(explanation, pools[concept], (explanation, intruder), crops, draw)
        mixed = draw.permutation([*alike, intruder])
        made.append(
            Trial(
                name=trial_name(key, "intruder", condition, number, mixed.tolist()),
                kind="intruder",
                condition=condition,
                question="One of these pictures doesn't belong with the others. Which one?",
                shown=(),
                options=tuple(Option((_crop(explanation, int(crop)),)) for crop in mixed),
                correct=int(np.flatnonzero(mixed == intruder)[0]),
                about={"concept": concept + 1, "intruder": other + 1, "crops": mixed.tolist()},
            )
        )
    return tuple(made)


def binary_trials(
    explanation: CroppedConcepts,
    sub_concepts: CroppedConcepts | None = None,
    *,
    parent: int | None = None,
    trials: int = 15,
    crops: int = 6,
    concepts: Sequence[int] | None = None,
    key: Key[Array, ""] | None = None,
) -> tuple[Trial, ...]:
    """Trials of choosing between two (CRAFT, section 4.2); chance is a half.

    With `sub_concepts`, the paper's experiment: a crop that a concept and its sub-concept both have, and two groups
    of crops, the sub-concept's and the concept's; which does it suit better? The sub-concept counts as correct, so
    that the accuracy is the paper's share of choices for it. Without, the question is whether concepts can be told
    apart: crops of one concept are shown, and two more crops, one of it and one of another concept; which belongs?

    **Arguments:**

    - `explanation`: an explanation, or anything with `photographs`, `crops` and `crop_codes`.
    - `sub_concepts`: the parts of one of its concepts (`parts_of`), or anything of the same form.
    - `parent`: that concept, counted from 0.
    - `trials`: how many; the paper asks 15. Concepts take turns.
    - `crops`: crops in each group.
    - `concepts`: which (sub-)concepts, counted from 0; by default every one with enough crops.
    - `key`: for every choice.

    **Returns:** the trials, with condition `"sub-concept"` or `"concept"`. Raises `ValueError` where the crops don't
    suffice, or `parent` is missing.
    """
    key = jax.random.key(0) if key is None else key
    _check_count("trials", trials, 1)
    _check_count("crops", crops, 1)
    if sub_concepts is None:
        return _told_apart(explanation, trials, crops, concepts, key)
    known = explanation.crop_codes.shape[1]
    if parent is None or not 0 <= parent < known:
        raise ValueError(
            f"parent={parent} is none of {known} concepts; say which one sub_concepts are of, 0 to {known - 1}"
        )
    return _suited(explanation, sub_concepts, parent, trials, crops, concepts, key)


def _told_apart(
    explanation: CroppedConcepts, trials: int, crops: int, concepts: Sequence[int] | None, key: Key[Array, ""]
) -> tuple[Trial, ...]:
    pools = _pools(explanation, crops + 1, concepts)
    made = []
    for number in range(trials):
        draw = generator(key, number)
        concept, other = _pair(explanation, pools, number, draw)
        wrong = int(draw.choice(_without(explanation, pools[other], concept)))
        right, *group = _apart(explanation, pools[concept], (explanation, wrong), crops + 1, draw)
        mixed = draw.permutation([right, wrong])
        made.append(
            Trial(
                name=trial_name(key, "binary", "concept", number, mixed.tolist()),
                kind="binary",
                condition="concept",
                question="Which of the two pictures below belongs with these?",
                shown=tuple(_crop(explanation, crop) for crop in group),
                options=tuple(Option((_crop(explanation, int(crop)),)) for crop in mixed),
                correct=int(np.flatnonzero(mixed == right)[0]),
                about={"concept": concept + 1, "other": other + 1, "crops": mixed.tolist()},
            )
        )
    return tuple(made)


def _suited(
    explanation: CroppedConcepts,
    parts: CroppedConcepts,
    parent: int,
    trials: int,
    crops: int,
    concepts: Sequence[int] | None,
    key: Key[Array, ""],
) -> tuple[Trial, ...]:
    pools = _pools(parts, crops + 1, concepts, least=1)
    # One more than are shown: the probe may be among them.
    whole = _pools(explanation, crops + 1, [parent], least=1)[parent]
    numbers = sorted(pools)
    made = []
    for number in range(trials):
        draw = generator(key, number)
        concept = numbers[number % len(numbers)]
        probe, *group = (int(crop) for crop in draw.permutation(pools[concept])[: crops + 1])
        both = [
            Option(tuple(_crop(parts, crop) for crop in group)),
            Option(tuple(_crop(explanation, crop) for crop in _apart(explanation, whole, (parts, probe), crops, draw))),
        ]
        order = draw.permutation(2)
        made.append(
            Trial(
                name=trial_name(key, "binary", "sub-concept", number, parent, concept, probe),
                kind="binary",
                condition="sub-concept",
                question="Which of the two groups below does this picture suit better?",
                shown=(_crop(parts, probe),),
                options=tuple(both[place] for place in order),
                correct=int(np.flatnonzero(order == 0)[0]),
                about={"concept": parent + 1, "sub_concept": concept + 1, "crop": probe},
            )
        )
    return tuple(made)


def _check_count(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}={value} is too few; give {least} or more")


def _pools(
    explanation: CroppedConcepts, need: int, concepts: Sequence[int] | None, *, least: int = 2
) -> dict[int, tuple[int, ...]]:
    """Each concept's strongest crops, for the concepts that have as many as a trial needs."""
    codes = explanation.crop_codes
    wanted = range(codes.shape[1]) if concepts is None else concepts
    wrong = [concept for concept in wanted if not 0 <= concept < codes.shape[1]]
    if wrong:
        raise ValueError(f"concepts={wrong} of {codes.shape[1]}; give numbers from 0 to {codes.shape[1] - 1}")
    found = {concept: strongest_crops(codes[:, concept], explanation.crops, max(_POOL, need)) for concept in wanted}
    enough = {concept: pool for concept, pool in found.items() if len(pool) >= need}
    short = {concept: len(pool) for concept, pool in found.items() if len(pool) < need}
    if len(enough) < least or (concepts is not None and short):
        raise ValueError(
            f"{len(enough)} concepts have the {need} crops that a trial takes ({least} or more must; crops of the "
            f"others: {short}); explain more photographs or crops, or give a smaller crops="
        )
    return enough


def _pair(
    explanation: CroppedConcepts, pools: dict[int, tuple[int, ...]], number: int, draw: np.random.Generator
) -> tuple[int, int]:
    """The concept whose turn it is, and another one with crops that don't have it."""
    numbers = sorted(pools)
    for concept in np.roll(numbers, -(number % len(numbers))).tolist():
        others = [other for other in numbers if other != concept and _without(explanation, pools[other], concept)]
        if others:
            return concept, int(draw.choice(others))
    raise ValueError(
        f"concepts={numbers} are all strong in the same crops, so no crop of one is without another; explain more "
        "photographs, or with a smaller rank"
    )


def _without(explanation: CroppedConcepts, pool: tuple[int, ...], concept: int) -> list[int]:
    """Crops of a pool that have little of another concept."""
    codes = explanation.crop_codes[:, concept]
    typical = np.sort(codes)[-10:].mean()
    return [crop for crop in pool if codes[crop] < _ABSENT * typical]


def _apart(
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


def _crop(explanation: CroppedConcepts, crop: int) -> Picture:
    photograph = explanation.photographs[explanation.crops.image[crop]]
    top, left, bottom, right = (int(edge) for edge in explanation.crops.box[crop])
    pixels = resized(photograph.pixels(), (top, left, bottom, right), _PIXELS, Preprocess(interpolation="bicubic"))
    return Picture(pixels, "picture")

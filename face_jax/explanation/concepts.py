"""Concepts of an explanation: in the order of importance, each with its strongest crops."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from ..activations import Crops
from ..importance import Reading
from ..metrics import Removal
from ..support.fields import lately, within

# Two crops of one photograph that overlap more than this (intersection over union) show the same thing twice.
_SAME_PLACE = 0.25


@dataclasses.dataclass(frozen=True)
class NameGuess:
    """A word for a concept that a text–image model found nearest to its strongest crops: a guess.

    **Arguments:**

    - `word`: from the vocabulary that was given.
    - `score`: how much nearer the word is to these crops than to all the crops (a difference of cosines).
    - `margin`: how far its score is above that of the next word; 0 for all but the first.
    - `chance`: in how many of as many random crops the best word's score is as high; of all words the same.
    """

    word: str
    score: float = dataclasses.field(metadata=within(-2, 2))
    margin: float = dataclasses.field(metadata=within(0, 4))
    chance: float = dataclasses.field(metadata=within(0, 1))


@dataclasses.dataclass(frozen=True)
class Concept:
    """One concept of a class.

    **Arguments:**

    - `number`: its place in the order of importance, from 1; what reports call it.
    - `importance`: total Sobol index for the class's logit, averaged over images.
    - `low`, `high`: its 95 % interval; equal to it where it's exact.
    - `contribution`: what it adds to the logit of a mean image; negative if it speaks against the class. None
        behind a head that isn't affine.
    - `coverage`: share of photographs that have it; for a single photograph, of its crops.
    - `strongest`: its strongest crops, strongest first.
    - `speaks_for`, `speaks_against`: the classes that the model's own head reads in it by itself, strongest first, and
        those that it speaks against; empty where it says nothing of any.
    - `without`: what its removal does to photographs of the class. None in explanations that were made before there
        was such.
    """

    number: int = dataclasses.field(metadata=within(1, "concept"))
    importance: float = dataclasses.field(metadata=within(-1e3, 1e3))
    low: float = dataclasses.field(metadata=within(-1e3, 1e3))
    high: float = dataclasses.field(metadata=within(-1e3, 1e3))
    contribution: float | None
    coverage: float = dataclasses.field(metadata=within(0, 1 + 1e-6))
    strongest: tuple[int, ...] = dataclasses.field(metadata=within(0, "crop"))
    speaks_for: tuple[Reading, ...] = dataclasses.field(default=(), metadata=lately())
    speaks_against: tuple[Reading, ...] = dataclasses.field(default=(), metadata=lately())
    without: Removal | None = dataclasses.field(default=None, metadata=lately())
    names: tuple[NameGuess, ...] = dataclasses.field(default=(), metadata=lately())

    @property
    def index(self) -> int:
        """Its row of the explanation's dictionary, from 0: what arguments named `concepts` take."""
        return self.number - 1


def strongest_crops(
    codes: Float[np.ndarray, " crop"], crops: Crops, count: int, *, one_each: bool = True
) -> tuple[int, ...]:
    """The crops in which a concept is strongest.

    Of several photographs, one crop each; of a single photograph, crops that don't show the same place.

    **Arguments:**

    - `codes`: the concept's code in each crop.
    - `crops`: where they lie.
    - `count`: at most that many.
    - `one_each`: if not, several crops of one photograph, as long as they don't show the same place.

    **Returns:** crops with a positive code, strongest first.
    """
    several = not one_each or len(np.unique(crops.image)) == 1
    chosen: list[int] = []
    for crop in np.argsort(-codes, kind="stable"):
        if codes[crop] <= 0 or len(chosen) == count:
            break
        beside = [other for other in chosen if crops.image[crop] == crops.image[other]]
        if not beside or (
            several and all(overlap(crops.box[crop], crops.box[other]) <= _SAME_PLACE for other in beside)
        ):
            chosen.append(int(crop))
    return tuple(chosen)


def coverage(codes: Float[np.ndarray, "crop concept"], crops: Crops) -> Float[np.ndarray, " concept"]:
    """The share of photographs (of a single photograph: of its crops) that have each concept.

    A photograph has it when its strongest crop reaches half of what the concept's typical strong crops reach: the
    mean code of its ten strongest crops.
    """
    images = np.unique(crops.image)
    having = clearly_have(codes)
    return (
        having.mean(axis=0)
        if len(images) == 1
        else np.mean([having[crops.image == image].any(axis=0) for image in images], axis=0)
    )


def clearly_have(codes: Float[np.ndarray, "crop concept"]) -> Bool[np.ndarray, "crop concept"]:
    """Which crops reach half of what each concept's typical strong crops reach: the mean code of its ten strongest."""
    typical = np.sort(codes, axis=0)[-10:].mean(axis=0)
    return (codes >= 0.5 * typical[None]) & (codes > 0)


def overlap(first: Int[np.ndarray, " 4"], second: Int[np.ndarray, " 4"]) -> float:
    """Intersection over union of two boxes `(top, left, bottom, right)`."""
    inside = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    shared = float(np.prod(np.maximum(inside, 0)))
    areas = float(np.prod(first[2:] - first[:2]) + np.prod(second[2:] - second[:2]))
    return shared / (areas - shared)

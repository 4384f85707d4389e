"""The pictures that banks are fitted and scored on: activations, or photographs through the model."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..activations import Collected, survey
from ..model import SplitModel, photographs_for
from ..pipeline.selection import choose_class, units


def pictures_of(model: SplitModel, given: Any, target: int, name: str) -> Collected:
    """Activations as they are; of photographs, those of the ones that the model puts in the class.

    **Arguments:**

    - `model`: the split classifier.
    - `given`: `Collected`, or what `face_jax.photographs` takes.
    - `target`: the class.
    - `name`: the argument's.

    **Returns:** them. Raises `ValueError` for none, for another model's, and `NoneOfTheClassError` for photographs of
    other classes.
    """
    if not isinstance(given, Collected):
        return choose_class(model, survey(model, photographs_for(model, given), target), target)[2].kept
    if not len(given):
        raise ValueError(f"{name} has no pictures; give at least one")
    if given.logits.shape[1] != len(model.classes):
        raise ValueError(
            f"{name} has logits of {given.logits.shape[1]} classes and {model.name} has {len(model.classes)}; give "
            "what this model makes of pictures"
        )
    return given


def in_both(first: Collected, second: Collected) -> int:
    """How many pictures of the second are among the first, by their activations."""
    known = {_digest(first, number) for number in range(len(first))}
    return sum(_digest(second, number) in known for number in range(len(second)))


def same_pictures(pictures: Collected) -> list[tuple[int, int]]:
    """Pairs of pictures whose activations are the same."""
    seen: dict[bytes, int] = {}
    pairs = []
    for number in range(len(pictures)):
        digest = _digest(pictures, number)
        if digest in seen:
            pairs.append((seen[digest], number))
        seen.setdefault(digest, number)
    return pairs


def as_scored(pictures: Collected, *, averaged: bool) -> Collected:
    """Maps, or their averages."""
    return units(pictures, np.arange(len(pictures)), affine=averaged)


def _digest(pictures: Collected, number: int) -> bytes:
    kept = b"" if pictures.kept is None else pictures.kept[number].tobytes()
    return pictures.maps[number].tobytes() + kept

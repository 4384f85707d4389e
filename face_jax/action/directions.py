"""What goes with concepts, with a record of what it was learned from and for which edit."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from ..pictures.photographs import Photograph, UnreadablePhotographError
from ..support.reprs import short_repr


@dataclasses.dataclass(frozen=True)
class Learned:
    """What directions were learned from.

    **Arguments:**

    - `concepts`: those that are edited together, from 0.
    - `linear`: whether codes are those of least squares.
    - `bank`: a digest of the explanation's dictionary.
    - `photographs`: digests of the photographs' contents.
    """

    concepts: tuple[int, ...]
    linear: bool
    bank: str
    photographs: frozenset[bytes]

    __repr__ = short_repr


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class ErasingDirections:
    """What goes with concepts, as `face_jax.erasing_directions` finds it: a pytree with one array, which NumPy takes.

    **Arguments:**

    - `directions`: what is taken out with each unit of a concept's codes.
    - `learned`: what it was learned from, and for which edit: others refuse it.
    """

    directions: Any
    learned: Learned = dataclasses.field(metadata={"static": True})

    __repr__ = short_repr

    @property
    def shape(self) -> tuple[int, ...]:
        """Concepts and channels."""
        return tuple(self.directions.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.directions, dtype=dtype, copy=copy)


def bank_digest(dictionary: Float[np.ndarray, "concept channel"]) -> str:
    """What tells a dictionary from others."""
    return hashlib.sha256(np.ascontiguousarray(dictionary).tobytes()).hexdigest()[:16]


def check_meant(
    learned: Learned,
    dictionary: Float[np.ndarray, "concept channel"],
    edited: Bool[np.ndarray, " concept"],
    *,
    linear: bool,
) -> None:
    """Raises `ValueError` where an edit isn't the one that directions were learned for."""
    if learned.bank != bank_digest(dictionary):
        raise ValueError(
            "along was learned for another explanation; give what face_jax.erasing_directions finds for this one"
        )
    concepts = tuple(np.flatnonzero(edited).tolist())
    if learned.concepts != concepts:
        raise ValueError(
            f"along was learned for concepts {list(learned.concepts)} together, and concepts {list(concepts)} are "
            f"edited; call face_jax.erasing_directions with remove={list(concepts)}"
        )
    if learned.linear != linear:
        rules = ["linear" if each else "exact" for each in (learned.linear, linear)]
        raise ValueError(
            f"along was learned with codes={rules[0]!r}, and the edit has codes={rules[1]!r}; give both the same"
        )


def content_of(photographs: Sequence[Photograph]) -> dict[bytes, str]:
    """The photographs' names by digests of their contents, without what can't be read."""
    found: dict[bytes, str] = {}
    for photograph in photographs:
        try:
            found.setdefault(photograph.digest(), photograph.name)
        except UnreadablePhotographError:
            continue
    return found


def check_apart(learned: Collection[bytes], measured: Sequence[Photograph], names: tuple[str, str]) -> None:
    """Raises `ValueError` for photographs that directions were learned from and an edit is to be measured on.

    **Arguments:**

    - `learned`: digests of the former.
    - `measured`: the latter.
    - `names`: the arguments that have them.
    """
    if not learned:
        return
    there = content_of(measured)
    if common := [name for digest, name in there.items() if digest in learned]:
        raise ValueError(
            f"{len(common)} photographs of {names[0]} are in {names[1]} as well, such as {min(common)}; what is "
            "learned from a photograph can't be measured on it: give each in one of them"
        )

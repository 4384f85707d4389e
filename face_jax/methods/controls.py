"""Methods that learned nothing, or less: what scores have to beat."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..metrics import mean_direction, random_dictionary, unit_length
from ..nmf import NNDSVD
from ..nmf.validate import rank_of
from ..support.arguments import flag
from .bank import Bank, averages_of


@dataclasses.dataclass(frozen=True)
class _Control:
    name: str = "control"
    signed: Any = None

    def __post_init__(self) -> None:
        if self.signed is not None:
            flag("signed", self.signed)

    def _signed(self, rows: Float[np.ndarray, "row channel"]) -> bool:
        """Whether entries may be below zero."""
        return bool((rows < 0).any()) if self.signed is None else self.signed


@dataclasses.dataclass(frozen=True)
class RandomDirections(_Control):
    """Directions drawn at random, `metrics.random_dictionary`.

    **Arguments:**

    - `name`: what tables call it.
    - `signed`: whether entries may be below zero; where activations are if None.
    """

    name: str = "random directions"

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Draw."""
        rows = averages_of(activations)
        drawn = random_dictionary(rows.shape[1], rank, key=key, signed=self._signed(rows))
        return Bank(drawn.astype(rows.dtype), self.name)


@dataclasses.dataclass(frozen=True)
class MeanDirection(_Control):
    """The mean activation, and noise: `metrics.mean_direction`.

    **Arguments:** as for `RandomDirections`.
    """

    name: str = "mean activation and noise"

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """The mean, then draw."""
        rows = averages_of(activations)
        return Bank(mean_direction(rows, rank, key=key, signed=self._signed(rows)), self.name)


@dataclasses.dataclass(frozen=True)
class NNDSVDStart(_Control):
    """The start of a factorization, of which no step was taken.

    **Arguments:** as for `RandomDirections`.
    """

    name: str = "NNDSVD start, no steps taken"

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """The non-negative double SVD alone."""
        rows = averages_of(activations)
        begun = NNDSVD()(jnp.asarray(rows), rank_of(rank), signed=self._signed(rows), key=key)[1]
        return Bank(unit_length(np.asarray(begun)), self.name)


CONTROLS = (NNDSVDStart(), MeanDirection(), RandomDirections())

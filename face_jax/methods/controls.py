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
from .bank import Bank, averages_of


@dataclasses.dataclass(frozen=True)
class RandomDirections:
    """Directions drawn at random, `metrics.random_dictionary`; with entries below zero where activations have such.

    **Arguments:**

    - `name`: what tables call it.
    """

    name: str = "random directions"

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Draw."""
        rows = averages_of(activations)
        drawn = random_dictionary(rows.shape[1], rank, key=key, signed=bool((rows < 0).any()))
        return Bank(drawn.astype(rows.dtype), self.name)


@dataclasses.dataclass(frozen=True)
class MeanDirection:
    """The mean activation, and noise: `metrics.mean_direction`.

    **Arguments:** as for `RandomDirections`.
    """

    name: str = "mean activation and noise"

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """The mean, then draw."""
        rows = averages_of(activations)
        return Bank(mean_direction(rows, rank, key=key, signed=bool((rows < 0).any())), self.name)


@dataclasses.dataclass(frozen=True)
class NNDSVDStart:
    """The start of a factorization, of which no step was taken.

    **Arguments:** as for `RandomDirections`.
    """

    name: str = "NNDSVD start, no steps taken"

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """The non-negative double SVD alone."""
        rows = averages_of(activations)
        signed: Any = bool((rows < 0).any())
        begun = NNDSVD()(jnp.asarray(rows), rank_of(rank), signed=signed, key=key)[1]
        return Bank(unit_length(np.asarray(begun)), self.name)


CONTROLS = (NNDSVDStart(), MeanDirection(), RandomDirections())

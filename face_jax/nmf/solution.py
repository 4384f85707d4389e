"""The solution of a factorization: factors, result code and statistics."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..support.reprs import short_repr
from .results import Result
from .shapes import Codes, CodesT, Dictionary


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stats:
    """What happened on the way.

    **Arguments:**

    - `objective`: its value at the start and after each step; behind the last one, which `steps` tells, its
        value again. In the activations' unit squared: 0 or infinite where the dtype can't hold that; where the
        last one is infinite, `result` isn't successful.
    - `residual`: the scaled KKT residual likewise, as the loop saw it; -1 where it isn't looked at, as by `PaperAdam`.
    - `steps`: passes over the activations.
    - `restarts`: steps that were taken back because the objective would have risen.
    - `final_objective`, `final_residual`: measured once more, at the factors that are returned.
    - `dead`: concepts that no row uses.
    - `duplicated`: concepts whose cosine with an earlier one is above 0.999.
    """

    objective: Float[Array, "*batch step"]
    residual: Float[Array, "*batch step"]
    steps: Int[Array, "*batch"]
    restarts: Int[Array, "*batch"]
    final_objective: Float[Array, "*batch"]
    final_residual: Float[Array, "*batch"]
    dead: Int[Array, "*batch"]
    duplicated: Int[Array, "*batch"]

    __repr__ = short_repr


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solution:
    """A factorization `A ≈ codes @ dictionary`.

    **Arguments:**

    - `codes`: how much of each concept is in each row, `row concept`; of rows in blocks an array on disk.
    - `dictionary`: the concepts, each of unit length.
    - `scale`: each concept's length where the penalties were measured: the objective belongs to `codes / scale`
        and `dictionary * scale`. Ones without penalties, where any scale is as good.
    - `result`: how it ended.
    - `stats`: what happened on the way.
    """

    codes: Any
    dictionary: Float[Array, "*batch concept channel"]
    scale: Float[Array, "*batch concept"]
    result: Result
    stats: Stats

    __repr__ = short_repr

    def with_factors(self, codes: Codes, dictionary: Dictionary) -> Solution:
        """The same with other factors, brought to unit length."""
        columns, dictionary, scale = normalized(codes.T, dictionary)
        return dataclasses.replace(self, codes=columns.T, dictionary=dictionary, scale=scale)


def normalized(codes: CodesT, dictionary: Dictionary) -> tuple[CodesT, Dictionary, Float[Array, " concept"]]:
    """Concepts of unit length, their length moved to the codes; a concept of length zero points everywhere."""
    # Two steps, so that squares neither overflow nor vanish. Outside `jit` these are few programs to compile, and
    # squares are summed by one of their own: together they would be rounded otherwise.
    shrunk, unit = _of_order_one(dictionary)
    return _of_length_one(codes, shrunk, unit, jnp.sum(shrunk**2, axis=1))


@jax.jit
def _of_order_one(
    dictionary: Float[Array, "concept channel"],
) -> tuple[Float[Array, "concept channel"], Float[Array, " concept"]]:
    # Only a unit to measure in: it cancels, and so takes no part in derivatives.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(dictionary), axis=1))
    alive = largest > 0
    safe = jnp.where(alive, largest, 1)
    return jnp.where(alive[:, None], dictionary / safe[:, None], 1), jnp.where(alive, largest, 0)


@jax.jit
def _of_length_one(
    codes: Float[Array, "concept row"],
    shrunk: Float[Array, "concept channel"],
    unit: Float[Array, " concept"],
    squares: Float[Array, " concept"],
) -> tuple[Float[Array, "concept row"], Float[Array, "concept channel"], Float[Array, " concept"]]:
    length = jnp.sqrt(squares)
    scale = unit * length
    return codes * scale[:, None], shrunk / length[:, None], scale


def count_dead(codes: CodesT) -> Int[Array, ""]:
    """Concepts that no row uses."""
    return jnp.sum(~jnp.any(codes > 0, axis=1), dtype=jnp.int32)


def count_duplicated(dictionary: Dictionary) -> Int[Array, ""]:
    """Concepts that point where an earlier one does already."""
    cosine = jnp.tril(dictionary @ dictionary.T, k=-1)
    return jnp.sum(jnp.any(cosine > 0.999, axis=1), dtype=jnp.int32)

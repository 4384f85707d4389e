"""Coordinate descent that visits the components in an order drawn anew in each sweep."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from ..nmf import HALS
from ..nmf.shapes import Columns, Gram
from ..nmf.solvers.rule import Memory
from ..nmf.steps import sweep


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ShuffledHALS(HALS):
    """`HALS` in an order drawn anew for each factor in each pass.

    **Arguments:** as for `HALS`, and

    - `seed`: of the orders.
    """

    seed: Any = 0  # traced where it is a program's

    def remember(self, x: Columns) -> Memory:
        """How many updates there were, in each entry: what rules remember has a factor's shape."""
        return (jnp.zeros_like(x),)

    def update(self, x: Columns, gram: Gram, cross: Columns, memory: Memory) -> tuple[Columns, Memory]:
        """So many sweeps, each in another order."""
        (count,) = memory
        key = jax.random.fold_in(jax.random.key(jnp.asarray(self.seed, jnp.uint32)), count[0, 0].astype(jnp.int32))
        for number in range(self.sweeps):
            order = jax.random.permutation(jax.random.fold_in(key, number), x.shape[0])
            x = sweep(x[order], gram[order][:, order], cross[order])[jnp.argsort(order)]
        return x, (count + 1,)

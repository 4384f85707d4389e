"""Problems of one kind, stacked: what they share once, and what each has along a leading axis."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_zero(leaf: Any) -> bool:
    """Whether a leaf is a number that is known to be 0."""
    return isinstance(leaf, int | float) and leaf == 0


@dataclasses.dataclass(frozen=True)
class Plan:
    """Where the parts of each problem are: the same in all, or its own, along the leading axis.

    **Arguments:**

    - `tree`: of a problem.
    - `zeros`: which leaves are 0 in all of them, and known to be.
    - `own`: which are each problem's own.
    """

    tree: Any
    zeros: tuple[bool, ...]
    own: tuple[bool, ...]

    def whole(self, shared: list[Any], own: list[Any]) -> Any:
        """One problem."""
        theirs, mine = iter(shared), iter(own)
        leaves = [
            0.0 if zero else next(mine if ours else theirs) for zero, ours in zip(self.zeros, self.own, strict=True)
        ]
        return jax.tree.unflatten(self.tree, leaves)


def stacked(
    flat: list[tuple[list[Any], Any]], dtype: Any, rows: int, with_rows: int
) -> tuple[Plan, list[Any], list[Any]]:
    """The leaves that problems share, and those of each, stacked; the first leaves filled up to so many rows."""
    plan: list[tuple[bool, bool]] = []
    shared, own = [], []
    for number, column in enumerate(zip(*(leaves for leaves, _ in flat), strict=True)):
        zero = all(map(is_zero, column))
        mine = not zero and any(leaf is not column[0] for leaf in column)
        plan.append((zero, mine))
        if number < with_rows:
            if mine:
                own.append(_filled(column, rows))
            else:  # what has all rows stays where it is
                shared.append(column[0] if len(column[0]) == rows else _filled(column[:1], rows)[0])
        elif mine:
            own.append(_stacked(column, dtype))
        elif not zero:
            shared.append(column[0])
    zeros, ours = zip(*plan, strict=True)
    return Plan(flat[0][1], zeros, ours), shared, own


def _stacked(leaves: tuple[Any, ...], dtype: Any) -> Any:
    """One array of all; Python's numbers in the activations' dtype."""
    if isinstance(leaves[0], int | float):
        return np.asarray(leaves, dtype)
    keys = jnp.issubdtype(leaves[0].dtype, jax.dtypes.prng_key)
    return (jnp if keys or any(isinstance(leaf, Tracer) for leaf in leaves) else np).stack(leaves)


def _filled(leaves: tuple[Any, ...], rows: int) -> Any:
    """One array of all, each with rows of zeros behind its own, written once."""
    if any(isinstance(leaf, Tracer) for leaf in leaves):
        return jnp.stack([jnp.pad(x, [(0, rows - len(x)), *((0, 0),) * (x.ndim - 1)]) for x in leaves])
    first = leaves[0]
    out = np.zeros((len(leaves), rows, *first.shape[1:]), first.dtype)
    for place, x in zip(out, leaves, strict=True):
        place[: len(x)] = x
    return out

"""Linear systems of very many columns, each on the concepts that its column has.

Concepts come first and one column is a problem, so that all columns advance side by side in vector registers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ...linalg.conjugate_gradients import conjugate_gradient
from ...linalg.control_flow import cond, fori_loop, while_loop
from ...linalg.inner_products import Columns as EachColumn
from ...linalg.row_blocks import RowBlocks, map_blocks, put_columns
from ...linalg.row_shards import on_each_device
from ..shapes import Columns, Grams

Support = Bool[Array, "concept item"]

CG_STEPS = 16
_ROUNDS = 6
_TOGETHER = 4  # columns that the Cholesky factorization subtracts at a time
# Columns that are solved together. 25 concepts then stay in a CPU core's second cache; an accelerator wants many at a
# time, and memory for a matrix of each.
_BLOCK_CPU, _BLOCK = 1024, 65_536


def by_blocks(solve: Callable[..., Columns], gram: Grams, *columns: Array) -> Columns:
    """`solve(gram, *columns)`, some of the columns at a time."""
    most = _BLOCK_CPU if jax.default_backend() == "cpu" else _BLOCK
    blocks = RowBlocks.of(columns[-1].shape[1], most)
    if blocks.count == 1:
        return solve(gram, *columns)

    def one(start: Array) -> Columns:
        mine = gram if gram.ndim == 2 else blocks.take(gram, start, axis=2)
        return solve(mine, *(blocks.take(x, start, axis=x.ndim - 1) for x in columns))

    return map_blocks(blocks, one, jnp.zeros_like(columns[-1]), put=put_columns)


def rows_axis(gram: Grams) -> int | None:
    """Which axis of the matrices is that of the columns; None if all columns share one."""
    return 2 if gram.ndim == 3 else None


def in_rounds(
    improve: Callable[[Columns], Columns], open_columns: Callable[[Columns], Bool[Array, " item"]], x: Columns
) -> tuple[Columns, Bool[Array, " item"]]:
    """A few rounds for the columns that are open, and which are in the end; the others stand still."""

    def going(carry: tuple[Columns, Array, Array]) -> Bool[Array, ""]:
        return jnp.any(carry[1]) & (carry[2] < _ROUNDS)

    def once(carry: tuple[Columns, Array, Array]) -> tuple[Columns, Array, Array]:
        x = jnp.where(carry[1][None], improve(carry[0]), carry[0])
        return x, open_columns(x), carry[2] + 1

    return while_loop(going, once, (x, open_columns(x), jnp.zeros((), jnp.int32)))[:2]


def times(gram: Grams, x: Columns) -> Columns:
    """`G x`, column by column."""
    return gram @ x if gram.ndim == 2 else jnp.einsum("klm,lm->km", gram, x)


def solve_on(gram: Grams, support: Support, rhs: Columns) -> Columns:
    """The solution on each column's support, zero elsewhere, for right-hand sides that are zero elsewhere.

    As many conjugate directions as a system has unknowns end at its solution, and cost less than its factors. Whether
    they do, in finite precision, is checked: to a backward error of a few roundings. If not, with dependent or nearly
    dependent concepts, factors are made.
    """
    return on_each_device(partial(by_blocks, _solve_some), (rows_axis(gram), 1, 1), 1, gram, support, rhs)


def _solve_some(gram: Grams, support: Support, rhs: Columns) -> Columns:
    eps = float(jnp.finfo(rhs.dtype).eps)
    steps = min(rhs.shape[0], CG_STEPS)
    size = jnp.max(jnp.sum(jnp.abs(gram), axis=0), axis=0)

    def product(v: Columns) -> Columns:
        return jnp.where(support, times(gram, v), 0)

    def open_columns(x: Columns) -> Bool[Array, " item"]:
        goal = 8 * eps * (jnp.max(jnp.abs(rhs), axis=0) + size * jnp.max(jnp.abs(x), axis=0))
        return ~(jnp.max(jnp.abs(rhs - product(x)), axis=0) <= goal)

    x, left = in_rounds(
        lambda x: conjugate_gradient(
            product, rhs, inner=EachColumn(), rtol=eps / 4, max_steps=steps, x0=x, scanned=True
        ),
        open_columns,
        jnp.zeros_like(rhs),
    )
    return cond(jnp.any(left), lambda: masked_solve(masked_cholesky(gram, support), rhs), lambda: x)


def masked_cholesky(gram: Grams, support: Support) -> tuple[Array, Columns]:
    """`L Lᵀ` of the rows and columns in each item's support: L, column by column, and its diagonal's inverse.

    A pivot that is zero to rounding belongs to a concept that depends on earlier ones; its inverse is set to 0,
    and so it drops out.
    """
    concepts = support.shape[0]
    diagonal = jnp.diagonal(gram).T if gram.ndim == 3 else jnp.diagonal(gram)[:, None]
    floor = 4 * concepts * jnp.finfo(gram.dtype).eps * diagonal

    def body(k: Array, carry: tuple[Array, Columns]) -> tuple[Array, Columns]:
        columns, inverses = carry
        mine = jax.lax.dynamic_index_in_dim(gram, k, axis=1, keepdims=False)
        schur = jnp.broadcast_to(mine if gram.ndim == 3 else mine[:, None], support.shape)

        def subtract(i: Array, schur: Columns) -> Columns:
            some = jax.lax.dynamic_slice_in_dim(columns, i * _TOGETHER, _TOGETHER)
            at_k = jax.lax.dynamic_index_in_dim(some, k, axis=1, keepdims=False)
            # Written out, not as a sum over an axis: on a CPU that is 20 times faster.
            for j in range(_TOGETHER):
                schur = schur - some[j] * at_k[j][None]
            return schur

        schur = fori_loop(0, (k + _TOGETHER - 1) // _TOGETHER, subtract, schur)
        pivot = jax.lax.dynamic_index_in_dim(schur, k, axis=0, keepdims=False)
        used = support[k] & (pivot > floor[k])
        inverse = jnp.where(used, jax.lax.rsqrt(jnp.where(used, pivot, 1)), 0)
        below = support & (jnp.arange(concepts) >= k)[:, None]
        return columns.at[k].set(jnp.where(below, schur * inverse[None], 0)), inverses.at[k].set(inverse)

    padded = -(-concepts // _TOGETHER) * _TOGETHER
    start = (jnp.zeros((padded, *support.shape), gram.dtype), jnp.zeros(support.shape, gram.dtype))
    return fori_loop(0, concepts, body, start)


def masked_solve(factor: tuple[Array, Columns], rhs: Columns) -> Columns:
    """The solution on the support for right-hand sides that are zero elsewhere; zero elsewhere."""
    columns, inverses = factor
    concepts = rhs.shape[0]

    def forward(k: Array, y: Columns) -> Columns:
        mine = y[k] * inverses[k]
        after = (jnp.arange(concepts) > k)[:, None]
        return jnp.where(after, y - columns[k] * mine[None], y).at[k].set(mine)

    def backward(i: Array, x: Columns) -> Columns:
        k = concepts - 1 - i
        after = (jnp.arange(concepts) > k)[:, None]
        return x.at[k].set((x[k] - jnp.sum(jnp.where(after, columns[k] * x, 0), axis=0)) * inverses[k])

    return fori_loop(0, concepts, backward, fori_loop(0, concepts, forward, rhs))

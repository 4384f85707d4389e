"""Exact non-negative least squares for very many right-hand sides, with its exact derivative.

Coordinate descent finds most of each column's support; an active-set method (block principal pivoting) then makes it
exact. Concepts come first and one column is a problem, so that all columns advance side by side in vector registers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .linear import conjugate_gradient
from .masked import (
    CG_STEPS,
    Columns,
    Grams,
    Support,
    by_blocks,
    in_rounds,
    masked_cholesky,
    masked_solve,
    solve_on,
    times,
)
from .solvers import sweep

_SWEEPS = 10
_BACKUP = 3  # full exchanges without progress before single ones, Kim & Park 2011


@jax.custom_jvp
def nnls(gram: Grams, cross: Columns) -> Columns:
    """`argmin ½ xᵀ G x − cᵀ x, x ≥ 0` for each column c.

    Solved to rounding. With dependent concepts the solution isn't unique; then later concepts of a dependent set
    are left at zero. Differentiable in both modes with respect to both arguments: on the support,
    `dx_S = G_SS⁻¹ (dc − dG x)_S`; a code of zero stays zero, also where its multiplier is zero (the one-sided
    derivative towards the inside of the zero set).

    **Arguments:**

    - `gram`: G, symmetric positive semidefinite; one for all columns, or one for each.
    - `cross`: the c's.

    **Returns:** the x's.
    """
    return by_blocks(_solve_block, gram, cross)


@nnls.defjvp
def _nnls_jvp(primals: tuple[Grams, Columns], tangents: tuple[Grams, Columns]) -> tuple[Columns, Columns]:
    gram, cross = primals
    d_gram, d_cross = tangents
    x = nnls(gram, cross)
    support = x > 0
    right = jnp.where(support, d_cross - times(d_gram, x), 0)

    def product(v: Columns) -> Columns:
        return jnp.where(support, times(gram, jnp.where(support, v, 0)), 0)

    def solve(_: object, b: Columns) -> Columns:
        return solve_on(gram, support, jnp.where(support, b, 0))

    # Linear in `right` and symmetric, which is what transposing it (the backward mode) needs to know.
    return x, jax.lax.custom_linear_solve(product, right, solve, symmetric=True)


def _solve_block(gram: Grams, cross: Columns) -> Columns:
    """Rounds of coordinate descent and conjugate gradients on the support, then pivoting if it's needed.

    The two products with small matrices that a round takes are far cheaper than a factor for every column.
    """
    eps = float(jnp.finfo(cross.dtype).eps)
    # float32 has digits for little more than the tolerance; float64 has some to spare.
    tolerance = 4 * eps if eps > 1e-10 else 64 * eps
    goal = tolerance * jnp.max(jnp.abs(cross), axis=0)
    steps = min(cross.shape[0], CG_STEPS)

    def open_columns(x: Columns) -> Bool[Array, " item"]:
        return _residual(gram, cross, x) > goal

    def improve(x: Columns) -> Columns:
        x = jax.lax.fori_loop(0, _SWEEPS, lambda _, x: _sweep(x, gram, cross), x)
        support = x > 0
        y = conjugate_gradient(
            lambda v: jnp.where(support, times(gram, v), 0), jnp.where(support, cross, 0), x, steps, eps / 4
        )
        fits = jnp.all(y >= 0, axis=0) & (_residual(gram, cross, y) <= _residual(gram, cross, x))
        return jnp.where(fits[None], y, x)

    x, left = in_rounds(improve, open_columns, jnp.zeros_like(cross))
    return jax.lax.cond(jnp.any(left), lambda: _polish(gram, cross, x), lambda: x)


def _sweep(x: Columns, gram: Grams, cross: Columns) -> Columns:
    if gram.ndim == 2:
        return sweep(x, gram, cross)
    diagonal = jnp.diagonal(gram).T
    safe = jnp.where(diagonal > 0, diagonal, 1)

    def coordinate(k: Array, x: Columns) -> Columns:
        ascent = (cross[k] - jnp.sum(gram[k] * x, axis=0)) / safe[k]
        return x.at[k].set(jnp.maximum(x[k] + ascent, 0))

    return jax.lax.fori_loop(0, x.shape[0], coordinate, x)


def _residual(gram: Grams, cross: Columns, x: Columns) -> Float[Array, " item"]:
    """How far each column is from optimal: its longest coordinate step, in units of the right-hand side."""
    diagonal = jnp.diagonal(gram).T if gram.ndim == 3 else jnp.diagonal(gram)[:, None]
    slope = times(gram, x) - cross
    step = x - jnp.maximum(x - slope / jnp.where(diagonal > 0, diagonal, 1), 0)
    return jnp.max(jnp.abs(step) * diagonal, axis=0)


def _polish(gram: Grams, cross: Columns, x: Columns) -> Columns:
    """Block principal pivoting (Kim & Park 2011) from the support of a good guess.

    Each column exchanges all its infeasible concepts at once while that makes progress, then one at a time (the
    last of them, Murty's rule), which ends for certain. The guess stays where it was better, which can only be
    with dependent concepts.
    """
    concepts = x.shape[0]
    eps = jnp.finfo(x.dtype).eps
    order = jnp.arange(concepts)[:, None]
    magnitude = jnp.max(jnp.abs(cross), axis=0, keepdims=True)

    def exact(support: Support) -> tuple[Columns, Columns]:
        factor = masked_cholesky(gram, support)
        y = masked_solve(factor, jnp.where(support, cross, 0))
        # One step of refinement: the factor is only as good as the condition number lets it be.
        y = y + masked_solve(factor, jnp.where(support, cross - times(gram, y), 0))
        return y, times(gram, y) - cross

    def infeasible(support: Support, y: Columns, slope: Columns) -> Support:
        below = y < -8 * eps * jnp.max(jnp.abs(y), axis=0, keepdims=True)
        uphill = slope < -8 * eps * magnitude
        return jnp.where(support, below, uphill)

    def going(carry: tuple) -> Bool[Array, ""]:
        return (carry[5] == 0) | (jnp.any(carry[2]) & (carry[5] < 10 * concepts + 20))

    def exchange(carry: tuple) -> tuple:
        support, _, wrong, fewest, patience, step = carry
        number = jnp.sum(wrong, axis=0)
        better = (number < fewest) | (step == 0)
        patience = jnp.where(better, _BACKUP, patience - 1)
        fewest = jnp.where(step == 0, fewest, jnp.minimum(number, fewest))
        last = order == jnp.max(jnp.where(wrong, order, -1), axis=0, keepdims=True)
        flip = jnp.where((patience >= 0)[None], wrong, wrong & last)
        support = support ^ flip
        y, slope = exact(support)
        return support, y, infeasible(support, y, slope), fewest, patience, step + 1

    # The first exchange has nothing to exchange: it solves on the guess's support.
    nothing = jnp.zeros_like(x, dtype=bool)
    many = jnp.full(x.shape[1:], concepts + 1)
    patience = jnp.full(x.shape[1:], _BACKUP)
    start = (x > 0, x, nothing, many, patience, jnp.zeros((), jnp.int32))
    y = jnp.maximum(jax.lax.while_loop(going, exchange, start)[1], 0)
    finite = jnp.all(jnp.isfinite(y), axis=0)
    better = finite & (_residual(gram, cross, y) <= _residual(gram, cross, x))
    return jnp.where(better[None], y, x)

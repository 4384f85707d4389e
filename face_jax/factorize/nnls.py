"""Exact non-negative least squares for very many right-hand sides, with its exact derivative.

Coordinate descent finds most of each column's support; an active-set method (block principal pivoting) then makes it
exact. Concepts come first and one column is a problem, so that all columns advance side by side in vector registers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .solvers import sweep

Columns = Float[Array, "concept item"]
Support = Bool[Array, "concept item"]
# one matrix for all columns, or one for each (with weighted entries), the columns last
Grams = Float[Array, "concept concept"] | Float[Array, "concept concept item"]

_BLOCK = 1024  # columns that are solved together; 25 concepts then stay in a CPU core's second cache
_SWEEPS = 12
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
    columns = cross.shape[1]
    if columns <= _BLOCK:
        return _solve_block(gram, cross)
    count = -(-columns // _BLOCK)
    size = -(-columns // count)

    def body(i: Array, out: Columns) -> Columns:
        start = jnp.minimum(i * size, columns - size)
        block = jax.lax.dynamic_slice_in_dim(cross, start, size, axis=1)
        mine = gram if gram.ndim == 2 else jax.lax.dynamic_slice_in_dim(gram, start, size, axis=2)
        return jax.lax.dynamic_update_slice_in_dim(out, _solve_block(mine, block), start, axis=1)

    return jax.lax.fori_loop(0, count, body, jnp.zeros_like(cross))


@nnls.defjvp
def _nnls_jvp(primals: tuple[Grams, Columns], tangents: tuple[Grams, Columns]) -> tuple[Columns, Columns]:
    gram, cross = primals
    d_gram, d_cross = tangents
    x = nnls(gram, cross)
    support = x > 0
    right = jnp.where(support, d_cross - times(d_gram, x), 0)
    factor = masked_cholesky(gram, support)

    def product(v: Columns) -> Columns:
        return jnp.where(support, times(gram, jnp.where(support, v, 0)), 0)

    def solve(_: object, b: Columns) -> Columns:
        return masked_solve(factor, jnp.where(support, b, 0))

    # Linear in `right` and symmetric, which is what transposing it (the backward mode) needs to know.
    return x, jax.lax.custom_linear_solve(product, right, solve, symmetric=True)


def times(gram: Grams, x: Columns) -> Columns:
    """`G x`, column by column."""
    return gram @ x if gram.ndim == 2 else jnp.einsum("klm,lm->km", gram, x)


def masked_cholesky(gram: Grams, support: Support) -> tuple[Array, Columns]:
    """`L D Lᵀ` of the rows and columns in each item's support: the unit factor L, and 1/D.

    A pivot that is zero to rounding belongs to a concept that depends on earlier ones; it gets 1/D = 0 and so
    drops out.
    """
    concepts = support.shape[0]
    grams = gram if gram.ndim == 3 else gram[:, :, None]
    diagonal = jnp.diagonal(gram).T if gram.ndim == 3 else jnp.diagonal(gram)[:, None]
    floor = 4 * concepts * jnp.finfo(gram.dtype).eps * diagonal

    def column(j: Array, carry: tuple[Array, Columns]) -> tuple[Array, Columns]:
        lower, inverse = carry
        # Column j of the Schur complement; factors are stored as L·D in `lower` scaled back here.
        row = jax.lax.dynamic_index_in_dim(lower, j, axis=0, keepdims=False)
        safe = jnp.where(inverse > 0, 1 / jnp.where(inverse > 0, inverse, 1), 0)
        schur = grams[:, j] - jnp.sum(lower * (row * safe)[None], axis=1)
        pivot = jax.lax.dynamic_index_in_dim(schur, j, axis=0, keepdims=False)
        used = support[j] & (pivot > floor[j])
        reciprocal = jnp.where(used, 1 / jnp.where(used, pivot, 1), 0)
        below = (jnp.arange(concepts) > j)[:, None] & support
        new = jnp.where(below, schur * reciprocal[None], 0)
        return lower.at[:, j].set(new), inverse.at[j].set(reciprocal)

    start = (jnp.zeros((concepts, *support.shape), gram.dtype), jnp.zeros(support.shape, gram.dtype))
    return jax.lax.fori_loop(0, concepts, column, start)


def masked_solve(factor: tuple[Array, Columns], right: Columns) -> Columns:
    """The solution on the support for one factor and right-hand sides that are zero elsewhere; zero elsewhere."""
    lower, inverse = factor
    concepts = right.shape[0]

    def forward(i: Array, y: Columns) -> Columns:
        return y.at[i].add(-jnp.sum(lower[i] * y, axis=0))

    def backward(i: Array, x: Columns) -> Columns:
        k = concepts - 1 - i
        return x.at[k].add(-jnp.sum(lower[:, k] * x, axis=0))

    y = jax.lax.fori_loop(0, concepts, forward, right)
    return jax.lax.fori_loop(0, concepts, backward, jnp.where(inverse > 0, y * inverse, 0))


def _solve_block(gram: Grams, cross: Columns) -> Columns:
    x = jnp.zeros_like(cross)
    x = jax.lax.fori_loop(0, _SWEEPS, lambda _, x: _sweep(x, gram, cross), x)
    return _polish(gram, cross, x)


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
        return jnp.any(carry[2]) & (carry[5] < 10 * concepts + 20)

    def exchange(carry: tuple) -> tuple:
        support, _, wrong, fewest, patience, step = carry
        number = jnp.sum(wrong, axis=0)
        better = number < fewest
        patience = jnp.where(better, _BACKUP, patience - 1)
        fewest = jnp.minimum(number, fewest)
        last = order == jnp.max(jnp.where(wrong, order, -1), axis=0, keepdims=True)
        flip = jnp.where((patience >= 0)[None], wrong, wrong & last)
        support = support ^ flip
        y, slope = exact(support)
        return support, y, infeasible(support, y, slope), fewest, patience, step + 1

    support = x > 0
    y, slope = exact(support)
    wrong = infeasible(support, y, slope)
    many = jnp.full(x.shape[1:], concepts + 1)
    patience = jnp.full(x.shape[1:], _BACKUP)
    start = (support, y, wrong, many, patience, jnp.zeros((), jnp.int32))
    y = jnp.maximum(jax.lax.while_loop(going, exchange, start)[1], 0)
    finite = jnp.all(jnp.isfinite(y), axis=0)
    better = finite & (_residual(gram, cross, y) <= _residual(gram, cross, x))
    return jnp.where(better[None], y, x)

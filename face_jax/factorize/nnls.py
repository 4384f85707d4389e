"""Exact non-negative least squares for very many right-hand sides, with its exact derivative.

Coordinate descent finds most of each column's support; an active-set method (block principal pivoting) then makes it
exact. Concepts come first and one column is a problem, so that all columns advance side by side in vector registers.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .linear import conjugate_gradient
from .solvers import sweep

Columns = Float[Array, "concept item"]
Support = Bool[Array, "concept item"]
# one matrix for all columns, or one for each (with weighted entries), the columns last
Grams = Float[Array, "concept concept"] | Float[Array, "concept concept item"]

_BLOCK = 1024  # columns that are solved together; 25 concepts then stay in a CPU core's second cache
_TOGETHER = 4  # columns that the Cholesky factorization subtracts at a time
_ROUNDS, _SWEEPS, _CG_STEPS = 6, 10, 16
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

    def product(v: Columns) -> Columns:
        return jnp.where(support, times(gram, jnp.where(support, v, 0)), 0)

    def solve(_: object, b: Columns) -> Columns:
        return solve_on(gram, support, jnp.where(support, b, 0))

    # Linear in `right` and symmetric, which is what transposing it (the backward mode) needs to know.
    return x, jax.lax.custom_linear_solve(product, right, solve, symmetric=True)


def solve_on(gram: Grams, support: Support, right: Columns) -> Columns:
    """The solution on each column's support, zero elsewhere, block by block so that it stays in a CPU's cache."""
    columns = support.shape[1]
    if columns <= _BLOCK or jax.default_backend() != "cpu":
        return _solve_some(gram, support, right)
    count = -(-columns // _BLOCK)
    size = -(-columns // count)

    def body(i: Array, out: Columns) -> Columns:
        start = jnp.minimum(i * size, columns - size)
        take = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=x.ndim - 1)  # noqa: E731
        solved = _solve_some(gram if gram.ndim == 2 else take(gram), take(support), take(right))
        return jax.lax.dynamic_update_slice_in_dim(out, solved, start, axis=1)

    return jax.lax.fori_loop(0, count, body, jnp.zeros_like(right))


def _solve_some(gram: Grams, support: Support, right: Columns) -> Columns:
    """As many conjugate directions as a system has unknowns end at its solution, and cost less than its factors.

    Whether they do, in finite precision, is checked: to a backward error of a few roundings. If not, with dependent
    or nearly dependent concepts, factors are made.
    """
    eps = float(jnp.finfo(right.dtype).eps)
    steps = min(right.shape[0], _CG_STEPS)
    size = jnp.max(jnp.sum(jnp.abs(gram), axis=0), axis=0)

    def product(v: Columns) -> Columns:
        return jnp.where(support, times(gram, v), 0)

    def open_columns(x: Columns) -> Bool[Array, " item"]:
        goal = 8 * eps * (jnp.max(jnp.abs(right), axis=0) + size * jnp.max(jnp.abs(x), axis=0))
        return ~(jnp.max(jnp.abs(right - product(x)), axis=0) <= goal)

    def going(carry: tuple[Columns, Array, Array]) -> Bool[Array, ""]:
        return jnp.any(carry[1]) & (carry[2] < _ROUNDS)

    def round_(carry: tuple[Columns, Array, Array]) -> tuple[Columns, Array, Array]:
        x = conjugate_gradient(product, right, carry[0], steps, eps / 4)
        return x, open_columns(x), carry[2] + 1

    zeros = jnp.zeros_like(right)
    x, left, _ = jax.lax.while_loop(going, round_, (zeros, open_columns(zeros), jnp.zeros((), jnp.int32)))
    return jax.lax.cond(jnp.any(left), lambda: masked_solve(masked_cholesky(gram, support), right), lambda: x)


def times(gram: Grams, x: Columns) -> Columns:
    """`G x`, column by column."""
    return gram @ x if gram.ndim == 2 else jnp.einsum("klm,lm->km", gram, x)


def masked_cholesky(gram: Grams, support: Support) -> tuple[Array, Columns]:
    """`L Lᵀ` of the rows and columns in each item's support: L, column by column, and its diagonal's inverse.

    A pivot that is zero to rounding belongs to a concept that depends on earlier ones; its inverse is set to 0,
    and so it drops out.
    """
    concepts = support.shape[0]
    diagonal = jnp.diagonal(gram).T if gram.ndim == 3 else jnp.diagonal(gram)[:, None]
    floor = 4 * concepts * jnp.finfo(gram.dtype).eps * diagonal

    def finish(schur: Columns, pivot: Float[Array, " item"], k: int | Array) -> tuple[Columns, Array]:
        used = support[k] & (pivot > floor[k])
        inverse = jnp.where(used, jax.lax.rsqrt(jnp.where(used, pivot, 1)), 0)
        return schur * inverse[None], inverse

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

        schur = jax.lax.fori_loop(0, (k + _TOGETHER - 1) // _TOGETHER, subtract, schur)
        pivot = jax.lax.dynamic_index_in_dim(schur, k, axis=0, keepdims=False)
        used = support[k] & (pivot > floor[k])
        inverse = jnp.where(used, jax.lax.rsqrt(jnp.where(used, pivot, 1)), 0)
        below = support & (jnp.arange(concepts) >= k)[:, None]
        return columns.at[k].set(jnp.where(below, schur * inverse[None], 0)), inverses.at[k].set(inverse)

    padded = -(-concepts // _TOGETHER) * _TOGETHER
    start = (jnp.zeros((padded, *support.shape), gram.dtype), jnp.zeros(support.shape, gram.dtype))
    return jax.lax.fori_loop(0, concepts, body, start)


def masked_solve(factor: tuple[Array, Columns], right: Columns) -> Columns:
    """The solution on the support for right-hand sides that are zero elsewhere; zero elsewhere."""
    columns, inverses = factor
    concepts = right.shape[0]

    def forward(k: Array, y: Columns) -> Columns:
        mine = y[k] * inverses[k]
        after = (jnp.arange(concepts) > k)[:, None]
        return jnp.where(after, y - columns[k] * mine[None], y).at[k].set(mine)

    def backward(i: Array, x: Columns) -> Columns:
        k = concepts - 1 - i
        after = (jnp.arange(concepts) > k)[:, None]
        return x.at[k].set((x[k] - jnp.sum(jnp.where(after, columns[k] * x, 0), axis=0)) * inverses[k])

    return jax.lax.fori_loop(0, concepts, backward, jax.lax.fori_loop(0, concepts, forward, right))


def _solve_block(gram: Grams, cross: Columns) -> Columns:
    """Rounds of coordinate descent and conjugate gradients on the support, then pivoting if it's needed.

    The two products with small matrices that a round takes are far cheaper than a factor for every column.
    """
    eps = float(jnp.finfo(cross.dtype).eps)
    # float32 has digits for little more than the tolerance; float64 has some to spare.
    tolerance = 4 * eps if eps > 1e-10 else 64 * eps
    goal = tolerance * jnp.max(jnp.abs(cross), axis=0)
    steps = min(cross.shape[0], _CG_STEPS)

    def open_columns(x: Columns) -> Bool[Array, " item"]:
        return _residual(gram, cross, x) > goal

    def going(carry: tuple[Columns, Array, Array]) -> Bool[Array, ""]:
        return jnp.any(carry[1]) & (carry[2] < _ROUNDS)

    def round_(carry: tuple[Columns, Array, Array]) -> tuple[Columns, Array, Array]:
        x, _, count = carry
        x = jax.lax.fori_loop(0, _SWEEPS, lambda _, x: _sweep(x, gram, cross), x)
        support = x > 0
        y = conjugate_gradient(
            lambda v: jnp.where(support, times(gram, v), 0), jnp.where(support, cross, 0), x, steps, eps / 4
        )
        fits = jnp.all(y >= 0, axis=0) & (_residual(gram, cross, y) <= _residual(gram, cross, x))
        x = jnp.where(fits[None], y, x)
        return x, open_columns(x), count + 1

    x = jnp.zeros_like(cross)
    x, left, _ = jax.lax.while_loop(going, round_, (x, open_columns(x), jnp.zeros((), jnp.int32)))
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

"""Exact non-negative least squares for very many right-hand sides, with its exact derivative.

Coordinate descent and conjugate gradients solve most columns; where each has a matrix of its own, block principal
pivoting solves most of the others. Concepts come first and one column is a problem, so that all columns advance side
by side in vector registers. Dependent concepts, and columns that these leave open, are solved from the concepts
themselves (`active_set`).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.conjugate_gradients import conjugate_gradient
from ...linalg.control_flow import cond, fori_loop, while_loop
from ...linalg.inner_products import Columns as EachColumn
from ...linalg.row_shards import on_each_device
from ...support.precision import full_precision
from ...support.scaling import bound, exponent, shifted
from ..shapes import Activations, Columns, Dictionary, Grams
from ..steps import coordinate_step, sweep
from .active_set import active_set
from .masked_systems import (
    CG_STEPS,
    Support,
    by_blocks,
    in_rounds,
    masked_cholesky,
    masked_solve,
    rows_axis,
    solve_on,
    times,
)

_SWEEPS = 10
_COARSE = 1e-9
# Columns that are solved from their rows at a time have orthogonal bases of so many numbers, and are at least so many.
_MEMORY_CPU, _MEMORY, _LEAST = 160_000, 2**26, 64
_BACKUP = 3  # full exchanges without progress before single ones, Kim & Park 2011


class Rows(NamedTuple):
    """What the products were formed of, for columns that these aren't precise enough for.

    **Arguments:**

    - `units`: the concepts, of length about 1.
    - `activations`, `weights`: row by row, as they were given, and between 0 and 1.
    - `ridge`: root of the square penalty, for concepts in these units; for all rows, or for each.
    - `penalty`: the linear penalty, for concepts in these units and rows in theirs.
    - `of_rows`, `of_columns`: the powers of two by which rows were divided before products were formed, and columns
        after that.
    - `of_concepts`: with weights, those by which concepts were divided after products were formed.
    """

    units: Dictionary
    activations: Activations
    weights: Activations | None
    ridge: Float[Array, "concept _"]
    penalty: Columns
    of_rows: Int[Array, " row"]
    of_columns: Int[Array, " row"]
    of_concepts: Int[Array, "concept row"] | None

    @property
    def axes(self) -> tuple[int | None, ...]:
        """Which axis is that of the rows, for each array that's there."""
        axes = (None, 0, 0, None if self.weights is None else 1, 1, 0, 0, 1)
        return tuple(axis for axis, array in zip(axes, self, strict=True) if array is not None)


@jax.custom_jvp
def nnls(gram: Grams, cross: Columns, rows: Rows | None = None) -> Columns:
    """`argmin ½ xᵀ G x − cᵀ x, x ≥ 0` for each column c.

    Solved to rounding, each column as if it were alone. With dependent concepts the solution isn't unique; then it's
    the one that Lawson & Hanson's method finds from zero where the first of equally steep concepts joins. Its
    concepts are independent, and later duplicates of a concept are left at zero.

    Differentiable in both modes with respect to the first two arguments: on the support,
    `dx_S = G_SS⁻¹ (dc − dG x)_S`; a code of zero stays zero, also where its multiplier is zero (the one-sided
    derivative towards the inside of the zero set), as that of a duplicate is. Concepts of the support that G can't
    tell from combinations of earlier ones stand still.

    **Arguments:**

    - `gram`: G, symmetric positive semidefinite; one for all columns, or one for each. Its diagonal is about 1.
    - `cross`: the c's.
    - `rows`: what both were formed of; without, dependent concepts are solved only as far as G allows.

    **Returns:** the x's.
    """
    arrays, tree = jax.tree.flatten((gram, cross, rows))
    axes = (rows_axis(gram), 1, *(rows.axes if rows else ()))
    return on_each_device(lambda *arrays: _solved_alone(*jax.tree.unflatten(tree, arrays)), axes, 1, *arrays)


def nnls_or_nan(gram: Grams, cross: Columns) -> Columns:
    """The same without a derivative, and NaN for columns that G alone doesn't decide: seldom any.

    What decides these is most of the program, which without it is compiled in a third of the time.
    """
    return on_each_device(_solved_or_marked, (rows_axis(gram), 1), 1, gram, cross)


def _solved_or_marked(gram: Grams, cross: Columns) -> Columns:
    dependent = _dependent(gram)
    if gram.ndim == 2:
        everything = lambda: jnp.full_like(cross, jnp.nan)  # noqa: E731
        return cond(dependent[0], everything, lambda: by_blocks(_solve_or_mark, gram, cross))
    return jnp.where(dependent[None], jnp.nan, by_blocks(_solve_or_mark, gram, cross))


def _solved_alone(gram: Grams, cross: Columns, rows: Rows | None) -> Columns:
    """The solutions on one device."""
    if rows is None:

        def solve(gram: Grams, cross: Columns) -> Columns:
            return _polished(gram, cross, *_rounds(gram, cross))[0]

        return by_blocks(solve, gram, cross)
    x = _solved_or_marked(gram, cross)
    left = jnp.any(jnp.isnan(x), axis=0)
    return cond(jnp.any(left), lambda: _from_rows(rows, left, x), lambda: x)


@nnls.defjvp
@full_precision
def _nnls_jvp(primals: tuple, tangents: tuple) -> tuple[Columns, Columns]:
    gram, cross, rows = primals
    d_gram, d_cross = tangents[:2]
    x = nnls(gram, cross, rows)
    support = x > 0
    rhs = jnp.where(support, d_cross - times(d_gram, x), 0)

    def product(v: Columns) -> Columns:
        return jnp.where(support, times(gram, jnp.where(support, v, 0)), 0)

    def solve(_: object, b: Columns) -> Columns:
        return solve_on(gram, support, jnp.where(support, b, 0))

    # Linear in `rhs` and symmetric, which is what transposing it (the backward mode) needs to know.
    return x, jax.lax.custom_linear_solve(product, rhs, solve, symmetric=True)


def unit(dtype: jnp.dtype) -> float:
    """What the tolerance is a multiple of: float32 has digits for little more than it; float64 has some to spare."""
    eps = float(jnp.finfo(dtype).eps)
    return eps if eps > 1e-10 else 16 * eps


def tolerance(dtype: jnp.dtype, channels: int, concepts: int) -> float:
    """The largest violation, relative to the lengths of a row and its codes, that solutions have."""
    return 4 * unit(dtype) * (channels**0.5 + concepts)


def _dependent(gram: Grams) -> Bool[Array, " matrix"]:
    """Whether G can't tell some concept from a combination of others."""
    grams = jnp.moveaxis(gram, 2, 0) if gram.ndim == 3 else gram[None]
    diagonal = jnp.diagonal(grams, axis1=1, axis2=2)
    dead = jnp.where((diagonal <= 0)[:, :, None], jnp.eye(len(gram), dtype=gram.dtype)[None], 0)
    # NaN for matrices that rounding has made indefinite.
    pivots = jnp.diagonal(jnp.linalg.cholesky(grams + dead), axis1=1, axis2=2) ** 2
    # From pivots as small as the second, codes would have about half of their digits.
    floor = max(4 * len(gram) * float(jnp.finfo(gram.dtype).eps), _COARSE)
    return jnp.any(~(pivots > floor * diagonal), axis=1)


def _solve_or_mark(gram: Grams, cross: Columns) -> Columns:
    """The solutions; NaN where they aren't good enough."""
    x, left = _rounds(gram, cross)
    # A matrix for each column is cheaper to pivot in than a triangle for each is to make.
    x, left = _polished(gram, cross, x, left) if gram.ndim == 3 else (x, left & _wrong(gram, cross, x))
    return jnp.where(left[None], jnp.nan, x)


def _from_rows(rows: Rows, left: Bool[Array, " item"], x: Columns) -> Columns:
    """Columns that are left, some at a time, from their activations."""
    concepts, items = x.shape
    together = min(items, max(_LEAST, (_MEMORY_CPU if jax.default_backend() == "cpu" else _MEMORY) // concepts**2))
    count = jnp.sum(left)
    order = jnp.pad(jnp.argsort(~left, stable=True), (0, -items % together))
    limit = jnp.asarray(bound(x.dtype), x.dtype)

    def root_of(concepts: Float[Array, "channel concept"], ridge: Float[Array, " concept"]) -> tuple[Array, Array]:
        return jnp.linalg.qr(jnp.concatenate([concepts, jnp.diag(ridge)]))

    shared = root_of(rows.units.T, rows.ridge[:, 0]) if rows.weights is None else None

    def some(step: Array, x: Columns) -> Columns:
        which = jax.lax.dynamic_slice_in_dim(order, step * together, together)
        real = step * together + jnp.arange(together) < count
        some, penalty = rows.activations[which], rows.penalty[:, which]
        if rows.weights is None:
            by = exponent(jnp.max(jnp.abs(some), axis=1))
            assert shared is not None
            basis, root = shared
            target = (shifted(some, -by[:, None]) @ basis[: some.shape[1]]).T
            penalty = shifted(penalty, (rows.of_rows[which] - by)[None])
        else:
            assert rows.of_concepts is not None
            entries, by_concepts = jnp.sqrt(rows.weights[which]), rows.of_concepts[:, which]
            some = some * entries
            by = exponent(jnp.max(jnp.abs(some), axis=1))
            penalty = shifted(shifted(penalty, (rows.of_rows[which] - by)[None]), -by_concepts)
            weighted = shifted(rows.units.T[None] * entries[:, :, None], -by_concepts.T[:, None])
            basis, root = jax.vmap(root_of)(weighted, shifted(rows.ridge[:, which], -by_concepts).T)
            target = jnp.einsum("mp,mpk->km", shifted(some, -by[:, None]), basis[:, : some.shape[1]])
            root = jnp.moveaxis(root, 0, 2)
        found = active_set(root, target, jnp.minimum(penalty, limit), real)
        found = shifted(found, (by - rows.of_rows[which] - rows.of_columns[which])[None])
        return x.at[:, jnp.where(real, which, items)].set(found, mode="drop")

    return fori_loop(0, (count + together - 1) // together, some, x)


def _rounds(gram: Grams, cross: Columns) -> tuple[Columns, Bool[Array, " item"]]:
    """Rounds of coordinate descent and conjugate gradients on the support, and which columns aren't solved by them.

    The two products with small matrices that a round takes are far cheaper than a factor for every column. Columns
    that have arrived stand still while others go on.
    """
    eps = float(jnp.finfo(cross.dtype).eps)
    goal = _goal(cross)
    steps = min(cross.shape[0], CG_STEPS)

    def open_columns(x: Columns) -> Bool[Array, " item"]:
        return _residual(gram, cross, x) > goal

    def improve(x: Columns) -> Columns:
        x = fori_loop(0, _SWEEPS, lambda _, x: sweep(x, gram, cross), x)
        support = x > 0
        y = conjugate_gradient(
            lambda v: jnp.where(support, times(gram, v), 0), jnp.where(support, cross, 0),
            inner=EachColumn(), rtol=eps / 4, max_steps=steps, x0=x, scanned=True,
        )  # fmt: skip
        fits = jnp.all(y >= 0, axis=0) & (_residual(gram, cross, y) <= _residual(gram, cross, x))
        return jnp.where(fits[None], y, x)

    return in_rounds(improve, open_columns, jnp.zeros_like(cross))


def _goal(cross: Columns) -> Float[Array, " item"]:
    return 4 * unit(cross.dtype) * jnp.max(jnp.maximum(cross, 0), axis=0)


def _wrong(gram: Grams, cross: Columns, x: Columns) -> Bool[Array, " item"]:
    """Which columns aren't solved; concepts are at least ½ long, so that slopes of the others keep the tolerance."""
    return ~(_residual(gram, cross, x) <= min(4, max(1, len(x) / 2)) * _goal(cross))


def _polished(
    gram: Grams, cross: Columns, x: Columns, left: Bool[Array, " item"]
) -> tuple[Columns, Bool[Array, " item"]]:
    """What's left by pivoting, if anything is, and which of it isn't solved then."""

    def polished() -> tuple[Columns, Bool[Array, " item"]]:
        y = jnp.where(left[None], _polish(gram, cross, x), x)
        return y, _wrong(gram, cross, y)

    return cond(jnp.any(left), polished, lambda: (x, left))


def _residual(gram: Grams, cross: Columns, x: Columns) -> Float[Array, " item"]:
    """How far each column is from optimal: its longest coordinate step, in units of the right-hand side."""
    diagonal = jnp.diagonal(gram).T if gram.ndim == 3 else jnp.diagonal(gram)[:, None]
    slope = times(gram, x) - cross
    step = x - coordinate_step(x, slope, diagonal)
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
    magnitude = jnp.max(jnp.maximum(cross, 0), axis=0, keepdims=True)

    def exact(support: Support) -> tuple[Columns, Columns]:
        factor = masked_cholesky(gram, support)
        # One step of refinement: the factor is only as good as the condition number lets it be.
        refine = lambda _, y: y + masked_solve(factor, jnp.where(support, cross - times(gram, y), 0))  # noqa: E731
        y = fori_loop(0, 2, refine, jnp.zeros_like(cross))
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
    y = jnp.maximum(while_loop(going, exchange, start)[1], 0)
    finite = jnp.all(jnp.isfinite(y), axis=0)
    better = finite & (_residual(gram, cross, y) <= _residual(gram, cross, x))
    return jnp.where(better[None], y, x)

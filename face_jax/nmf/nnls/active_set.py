"""Non-negative least squares for dependent and nearly dependent concepts (Lawson & Hanson 1974).

Works on the concepts themselves, reduced to a triangle, and not on their products, whose condition number is squared:
a concept is left out as dependent only where its distance from the others is no more than rounding. One column is a
problem, and all advance side by side: in each step, each adds a concept to its orthogonal basis, or none.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.control_flow import fori_loop, while_loop
from ...support.scaling import positive
from ..shapes import Columns, Gram
from .masked_systems import Support

_STEEP = 0.99  # concepts as steep as this share of the steepest count as equally steep
_STEPS = 60  # a bound that keeps a column from going on forever; a few for each concept are usual

Items = Bool[Array, " item"]
# one for all columns, or one for each, the columns last
Roots = Gram | Float[Array, "concept concept item"]


class _Basis(NamedTuple):
    """Some concepts of each column, made orthogonal in the order in which they came: the slots below `filled`."""

    # The unit vector, its concept's shares of the vectors before, what's left of the concept's length beyond these,
    # the linear term's part of what the triangle's solution is asked for, and the whole of that.
    table: Float[Array, "slot part item"]
    slot: Int[Array, "concept item"]  # where a concept is
    filled: Int[Array, " item"]


class _State(NamedTuple):
    x: Columns  # the minimizer on its own support, positive there
    trial: Columns  # on the way from it to the next one
    wanted: Support  # the concepts whose minimizer is looked for, or the support again
    blocked: Support  # tried from here
    trying: Items
    done: Items
    steps: Array
    basis: _Basis


def active_set(root: Roots, target: Columns, linear: Columns, real: Items) -> Columns:
    """`argmin ½‖R x − b‖² + ℓᵀ x, x ≥ 0` for each column b, whatever the columns of R.

    From zero, the steepest concept joins the support, the first of equally steep ones; concepts that would become
    negative leave it. A change is kept only if it lowers the objective, so that it ends, and what is found follows
    from R, b and ℓ alone. The concepts of the support are independent.

    **Arguments:**

    - `root`: R, whose columns are the concepts, of length about 1; one for all, or one for each b.
    - `target`: the b's, of length about 1 or less.
    - `linear`: the ℓ's.
    - `real`: columns to solve; others are left at zero.

    **Returns:** the x's.
    """
    concepts = root.shape[1]
    eps = float(jnp.finfo(root.dtype).eps)
    lengths = jnp.sqrt(jnp.sum(root**2, axis=0))
    lengths = lengths if root.ndim == 3 else lengths[:, None]
    safe = positive(lengths)
    size = jnp.sqrt(jnp.sum(target**2, axis=0))
    order = jnp.arange(concepts, dtype=jnp.int32)[:, None]

    def step(state: _State) -> _State:
        x, basis = state.x, state.basis
        slope = _adjoint(root, _times(root, x) - target) + linear
        steep = -slope / safe
        tolerance = 4 * eps * (size + jnp.sum(x * lengths, axis=0))
        missing = state.wanted & (basis.slot >= basis.filled[None])
        choosing = ~state.trying & ~jnp.any(missing, axis=0)
        open_ = ~state.wanted & ~state.blocked & (steep > tolerance[None])
        equal = open_ & (steep >= _STEEP * jnp.max(jnp.where(open_, steep, 0), axis=0, keepdims=True))
        # The next concept: one to try, or one whose place in the basis was lost.
        first = jnp.min(jnp.where(jnp.where(choosing[None], equal, missing), order, concepts), axis=0)
        chosen = order == first[None]
        begun = choosing & (first < concepts)
        trying = state.trying | begun
        trial = jnp.where(begun[None], x, state.trial)

        basis, used = _add(basis, root, target, linear, first)
        wanted = jnp.where(chosen, used[None], state.wanted)
        ready = trying & ~jnp.any(wanted & (basis.slot >= basis.filled[None]), axis=0)
        y = _solved(basis, ready)
        useless = begun & jnp.any(chosen & ~(wanted & (y > 0)), axis=0)
        below = wanted & (y <= 0)
        feasible = ~jnp.any(below, axis=0)
        # What is gained, from differences: the objectives themselves agree in most of their digits.
        way = y - x
        loss = jnp.sum(slope * way + _times(root, way) ** 2 / 2, axis=0)
        better = ready & ~useless & feasible & (loss < 0)
        moving = ready & ~useless & ~feasible
        worse = ready & ~better & ~moving
        # As far towards the minimizer as no code becomes negative; those that reach zero leave.
        ratio = jnp.where(below, trial / jnp.where(below & (trial > y), trial - y, 1), jnp.inf)
        share = jnp.min(ratio, axis=0, keepdims=True)
        stays = wanted & ~(moving[None] & below & (ratio <= share))
        moved = jnp.maximum(trial + jnp.where(moving[None], share, 0) * (y - trial), 0)
        wanted = jnp.where(worse[None], x > 0, stays)
        # The basis is good as far as the first that left.
        count = jnp.min(jnp.where(wanted, basis.filled[None], jnp.minimum(basis.slot, basis.filled[None])), axis=0)
        return _State(
            x=jnp.where(better[None], y, x),
            trial=jnp.where(stays, moved, 0),
            wanted=wanted,
            blocked=~better[None] & (state.blocked | (begun[None] & chosen)),
            trying=trying & ~better & ~worse,
            done=~trying & (first == concepts),
            steps=state.steps + 1,
            basis=_Basis(basis.table, jnp.where(basis.slot < count[None], basis.slot, concepts), count),
        )

    going = lambda state: ~jnp.all(state.done) & (state.steps < _STEPS * concepts + 200)  # noqa: E731
    return while_loop(going, step, _init_state(target, real)).x


def _init_state(target: Columns, real: Items) -> _State:
    concepts = len(target)
    zero = jnp.zeros_like(target)
    no = jnp.zeros(target.shape, bool)
    table = jnp.zeros((concepts, 2 * concepts + 3, target.shape[1]), target.dtype)
    basis = _Basis(table, jnp.full(target.shape, concepts, jnp.int32), jnp.zeros(target.shape[1], jnp.int32))
    return _State(zero, zero, no, no | ~real[None], no[0], no[0], jnp.zeros((), jnp.int32), basis)


def _add(
    basis: _Basis, root: Roots, target: Columns, linear: Columns, which: Int[Array, " item"]
) -> tuple[_Basis, Items]:
    """The basis with a concept more where it's independent of those before, and where it is; past the last is none."""
    concepts, items = target.shape
    wished = which < concepts
    index = jnp.minimum(which, concepts - 1)
    column = root[:, index] if root.ndim == 2 else root[:, index, jnp.arange(items)]
    most = jnp.max(jnp.where(wished, basis.filled, 0))
    order = jnp.arange(concepts, dtype=jnp.int32)[:, None]

    def subtract(i: Array, carry: tuple[Columns, Columns]) -> tuple[Columns, Columns]:
        column, shares = carry
        j = jnp.where(i < most, i, i - most)
        vector = basis.table[j, :concepts]
        share = jnp.where(j < basis.filled, jnp.sum(vector * column, axis=0), 0)
        return column - vector * share[None], shares + jnp.where(order == j, share[None], 0)

    # Gram–Schmidt is as good as Householder's reflections when done twice.
    column, shares = fori_loop(0, 2 * most, subtract, (column, jnp.zeros_like(column)))
    rest = jnp.sqrt(jnp.sum(column**2, axis=0))
    used = wished & (rest > 8 * float(jnp.finfo(root.dtype).eps))
    chosen = order == which[None]
    pull = jnp.sum(jnp.where(chosen, linear, 0) - shares * basis.table[:, 2 * concepts + 1], axis=0)
    rhs = jnp.sum(column * target, axis=0) - pull
    left = jnp.where(used, rest, 1)[None]
    new = jnp.concatenate([column / left, shares, left, pull[None] / left, rhs[None] / left])[None]

    def write(j: Array, table: Array) -> Array:
        old = jax.lax.dynamic_slice_in_dim(table, j, 1)
        here = (used & (basis.filled == j))[None, None]
        return jax.lax.dynamic_update_slice_in_dim(table, jnp.where(here, new, old), j, 0)

    least = jnp.min(jnp.where(used, basis.filled, most))
    table = fori_loop(least, most + 1, write, basis.table)
    slot = jnp.where(chosen & used[None], basis.filled[None], basis.slot)
    return _Basis(table, slot, basis.filled + used.astype(jnp.int32)), used


def _solved(basis: _Basis, ready: Items) -> Columns:
    """The minimizer on the basis's concepts, zero elsewhere."""
    concepts = len(basis.slot)
    most = jnp.max(jnp.where(ready, basis.filled, 0))

    def back(i: Array, carry: tuple[Columns, Columns]) -> tuple[Columns, Columns]:
        rhs, y = carry
        j = most - 1 - i
        mine = basis.table[j]
        value = jnp.where(j < basis.filled, rhs[j] / mine[2 * concepts], 0)
        return rhs - mine[concepts : 2 * concepts] * value[None], jnp.where(basis.slot == j, value[None], y)

    rhs = basis.table[:, 2 * concepts + 2]
    return fori_loop(0, most, back, (rhs, jnp.zeros_like(rhs)))[1]


def _times(root: Roots, x: Columns) -> Columns:
    return root @ x if root.ndim == 2 else jnp.einsum("klm,lm->km", root, x)


def _adjoint(root: Roots, x: Columns) -> Columns:
    return root.T @ x if root.ndim == 2 else jnp.einsum("lkm,lm->km", root, x)

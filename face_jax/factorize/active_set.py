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

from .masked import Columns, Support

_STEEP = 0.99  # concepts as steep as this share of the steepest count as equally steep
_EXCHANGES = 30  # a bound that keeps a column from going on forever; a few for each concept are usual

Items = Bool[Array, " item"]
# one for all columns, or one for each, the columns last
Roots = Float[Array, "concept concept"] | Float[Array, "concept concept item"]
Slots = Float[Array, "slot concept item"]


class _Basis(NamedTuple):
    """Some concepts of each column, made orthogonal in the order in which they came: the slots below `count`."""

    vectors: Slots
    shares: Slots  # what each slot's concept has of the slots before
    lengths: Columns  # what's left of it beyond them
    right: Columns  # what the triangle's solution is asked for
    pull: Columns  # the linear term's part of that
    slot: Int[Array, "concept item"]  # where a concept is
    count: Int[Array, " item"]


class _State(NamedTuple):
    x: Columns  # the minimizer on its own support, positive there
    support: Support
    trial: Columns  # on the way from it to the next one
    wanted: Support  # the concepts whose minimizer is looked for, or the support again
    entered: Support  # the concept that is tried
    blocked: Support  # tried from here, and no better
    trying: Items
    done: Items
    steps: Int[Array, " item"]
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
    safe = jnp.where(lengths > 0, lengths, 1)
    size = jnp.sqrt(jnp.sum(target**2, axis=0))
    order = jnp.arange(concepts, dtype=jnp.int32)[:, None]

    def step(state: _State) -> _State:
        basis = state.basis
        slope = _adjoint(root, _times(root, state.x) - target) + linear
        steep = -slope / safe
        tolerance = 4 * eps * (size + jnp.sum(state.x * lengths, axis=0))
        missing = state.wanted & (basis.slot >= basis.count[None])
        begun = ~state.trying & ~jnp.any(missing, axis=0)
        open_ = begun[None] & ~state.support & ~state.blocked & (steep > tolerance[None]) & (lengths > 0)
        equal = open_ & (steep >= _STEEP * jnp.max(jnp.where(open_, steep, 0), axis=0, keepdims=True))
        # The next concept: one to try, or one whose place in the basis was lost.
        candidate = jnp.where(begun[None], equal, missing)
        first = jnp.min(jnp.where(candidate, order, concepts), axis=0)
        chosen = order == first[None]
        begun = begun & (first < concepts)
        done = state.done | ~(state.trying | begun | jnp.any(missing, axis=0))
        entered = jnp.where(begun[None], chosen, state.entered)
        trial = jnp.where(begun[None], state.x, state.trial)

        wished = ~done & (first < concepts)
        basis, used = _add(basis, root, target, linear, jnp.minimum(first, concepts - 1), wished)
        wanted = jnp.where(chosen, used[None], state.wanted)
        ready = ~done & (state.trying | begun) & ~jnp.any(wanted & (basis.slot >= basis.count[None]), axis=0)
        y = _solved(basis, done)
        useless = begun & ~jnp.any(entered & wanted & (y > 0), axis=0)
        below = wanted & (y <= 0)
        feasible = ~jnp.any(below, axis=0)
        # What is gained, from differences: the objectives themselves agree in most of their digits.
        way = y - state.x
        gain = -(jnp.sum(slope * way, axis=0) + jnp.sum(_times(root, way) ** 2, axis=0) / 2)
        better = ready & ~useless & feasible & (gain > 0)
        worse = ready & (useless | (feasible & ~better))
        moving = ready & ~better & ~worse
        # As far towards the minimizer as no code becomes negative; those that reach zero leave.
        ratio = jnp.where(below, trial / jnp.where(below & (trial > y), trial - y, 1), jnp.inf)
        share = jnp.min(ratio, axis=0)
        stays = wanted & ~(below & (ratio <= share[None]))
        share = jnp.where(moving, share, 0)[None]
        trial = jnp.where(stays, jnp.maximum(trial + share * (y - trial), 0), 0)
        wanted = jnp.where(worse[None], state.support, jnp.where(moving[None], stays, wanted))
        # The basis is good as far as the first that left.
        count = jnp.min(jnp.where(wanted, basis.count[None], jnp.minimum(basis.slot, basis.count[None])), axis=0)
        return _State(
            x=jnp.where(better[None], y, state.x),
            support=jnp.where(better[None], wanted, state.support),
            trial=trial,
            wanted=wanted,
            entered=entered,
            blocked=~better[None] & (state.blocked | (worse[None] & entered)),
            trying=(state.trying | begun) & ~better & ~worse,
            done=done | (state.steps > _EXCHANGES * concepts + 100),
            steps=state.steps + ready.astype(jnp.int32),
            basis=basis._replace(count=count, slot=jnp.where(basis.slot < count[None], basis.slot, concepts)),
        )

    zero = jnp.zeros_like(target)
    none = jnp.zeros(target.shape, bool)
    never = jnp.zeros(target.shape[1], jnp.int32)
    slots = jnp.zeros((concepts, *target.shape), target.dtype)
    basis = _Basis(slots, slots, zero, zero, zero, jnp.full(target.shape, concepts, jnp.int32), never)
    start = _State(zero, none, zero, none, none, none, never > 0, ~real, never, basis)
    return jax.lax.while_loop(lambda state: ~jnp.all(state.done), step, start).x


def _add(
    basis: _Basis, root: Roots, target: Columns, linear: Columns, which: Array, wished: Items
) -> tuple[_Basis, Items]:
    """The basis with a concept more where that's wished and it's independent of those before, and where it is."""
    items = jnp.arange(which.shape[0])
    column = root[:, which] if root.ndim == 2 else root[:, which, items]
    length = jnp.sqrt(jnp.sum(column**2, axis=0))
    most = jnp.max(jnp.where(wished, basis.count, 0))

    def subtract(i: Array, carry: tuple[Columns, Columns]) -> tuple[Columns, Columns]:
        column, shares = carry
        j = jnp.where(i < most, i, i - most)
        vector = basis.vectors[j]
        share = jnp.where(j < basis.count, jnp.sum(vector * column, axis=0), 0)
        return column - vector * share[None], shares.at[j].add(share)

    # Gram–Schmidt is as good as Householder's reflections when done twice.
    column, shares = jax.lax.fori_loop(0, 2 * most, subtract, (column, jnp.zeros_like(column)))
    rest = jnp.sqrt(jnp.sum(column**2, axis=0))
    used = wished & (rest > 8 * float(jnp.finfo(root.dtype).eps) * length)
    rest = jnp.where(used, rest, 1)
    column = column / rest[None]
    mine = linear[which, items]
    pull = (mine - jnp.sum(shares * basis.pull, axis=0)) / rest
    right = jnp.sum(column * target, axis=0) - pull

    def write(j: Array, basis: _Basis) -> _Basis:
        here = used & (basis.count == j)
        put = lambda old, new: old.at[j].set(jnp.where(here if new.ndim == 1 else here[None], new, old[j]))  # noqa: E731
        return basis._replace(
            vectors=put(basis.vectors, column),
            shares=put(basis.shares, shares),
            lengths=put(basis.lengths, rest),
            right=put(basis.right, right),
            pull=put(basis.pull, pull),
        )

    least = jnp.min(jnp.where(used, basis.count, most))
    written = jax.lax.fori_loop(least, most + 1, write, basis)
    chosen = used[None] & (jnp.arange(len(basis.slot), dtype=jnp.int32)[:, None] == which[None])
    slot = jnp.where(chosen, basis.count[None], basis.slot)
    return written._replace(slot=slot, count=basis.count + used.astype(jnp.int32)), used


def _solved(basis: _Basis, done: Items) -> Columns:
    """The minimizer on the basis's concepts, zero elsewhere."""
    most = jnp.max(jnp.where(done, 0, basis.count))

    def back(i: Array, carry: tuple[Columns, Columns]) -> tuple[Columns, Columns]:
        right, y = carry
        j = most - 1 - i
        value = jnp.where(j < basis.count, right[j] / basis.lengths[j], 0)
        return right - basis.shares[j] * value[None], jnp.where(basis.slot == j, value[None], y)

    return jax.lax.fori_loop(0, most, back, (basis.right, jnp.zeros_like(basis.right)))[1]


def _times(root: Roots, x: Columns) -> Columns:
    return root @ x if root.ndim == 2 else jnp.einsum("klm,lm->km", root, x)


def _adjoint(root: Roots, x: Columns) -> Columns:
    return root.T @ x if root.ndim == 2 else jnp.einsum("lkm,lm->km", root, x)

"""Non-negative least squares for dependent and nearly dependent concepts (Lawson & Hanson 1974).

Works on the concepts themselves, reduced to a triangle, and not on their products, whose condition number is squared:
a concept is left out as dependent only where its distance from the others is no more than rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Bool, Float

_STEEP = 0.99  # concepts as steep as this share of the steepest count as equally steep
_EXCHANGES = 30  # a bound that keeps a column from going on forever; a few for each concept are usual

Codes = Float[Array, " concept"]
Mask = Bool[Array, " concept"]


class _State(NamedTuple):
    x: Codes  # the minimizer on its own support, positive there
    support: Mask
    trial: Codes  # on the way from it to the next one
    trial_support: Mask
    entered: Mask  # the concept that is tried
    blocked: Mask  # tried from here, and no better
    inner: Bool[Array, ""]
    done: Bool[Array, ""]
    steps: Array


def active_set(root: Float[Array, "concept concept"], target: Codes, linear: Codes) -> Codes:
    """`argmin ½‖R x − b‖² + ℓᵀ x, x ≥ 0` for one b, whatever the columns of R.

    From zero, the steepest concept joins the support, the first of equally steep ones; concepts that would become
    negative leave it. A change is kept only if it lowers the objective, so that it ends, and what is found follows
    from R, b and ℓ alone. The concepts of the support are independent.

    **Arguments:**

    - `root`: R, whose columns are the concepts, of length about 1.
    - `target`: b, of length about 1 or less.
    - `linear`: ℓ.

    **Returns:** x.
    """
    concepts = root.shape[1]
    eps = float(jnp.finfo(root.dtype).eps)
    lengths = jnp.sqrt(jnp.sum(root**2, axis=0))
    safe = jnp.where(lengths > 0, lengths, 1)
    size = jnp.sqrt(jnp.sum(target**2))
    nothing = jnp.zeros(concepts, bool)

    def step(state: _State) -> _State:
        slope = root.T @ (root @ state.x - target) + linear
        steep = -slope / safe
        tolerance = 4 * eps * (size + jnp.sum(state.x * lengths))
        open_ = ~state.support & ~state.blocked & (steep > tolerance) & (lengths > 0)
        best = jnp.max(jnp.where(open_, steep, 0))
        first = jnp.argmax(open_ & (steep >= _STEEP * best))
        entered = jnp.where(state.inner, state.entered, (jnp.arange(concepts) == first) & open_)
        begun = ~state.inner
        support = jnp.where(begun, state.support | entered, state.trial_support)
        x = jnp.where(begun, state.x, state.trial)
        done = begun & ~jnp.any(open_)

        y, kept = _least_squares(root, target, linear, support)
        useless = begun & (jnp.any(support & ~kept) | ~jnp.any(entered & (y > 0)))
        below = support & (y <= 0)
        feasible = ~jnp.any(below)
        # What is gained, from differences: the objectives themselves agree in most of their digits.
        way = y - state.x
        gain = -(jnp.sum(slope * way) + jnp.sum((root @ way) ** 2) / 2)
        better = ~useless & feasible & (gain > 0)
        worse = useless | (feasible & ~better)
        # As far towards the minimizer as no code becomes negative; those that reach zero leave.
        ratio = jnp.where(below, x / jnp.where(below & (x > y), x - y, 1), jnp.inf)
        share = jnp.min(ratio)
        left = support & ~(below & (ratio <= share))
        moved = jnp.where(left, jnp.maximum(x + jnp.where(feasible, 0, share) * (y - x), 0), 0)
        keep = worse | done
        return _State(
            x=jnp.where(better & ~done, y, state.x),
            support=jnp.where(better & ~done, support, state.support),
            trial=moved,
            trial_support=left,
            entered=entered,
            blocked=jnp.where(better, nothing, jnp.where(keep, state.blocked | entered, state.blocked)),
            inner=~better & ~keep,
            done=done,
            steps=state.steps + 1,
        )

    def going(state: _State) -> Bool[Array, ""]:
        return ~state.done & (state.steps < _EXCHANGES * concepts + 100)

    zero = jnp.zeros_like(target)
    no = jnp.zeros((), bool)
    start = _State(zero, nothing, zero, nothing, nothing, nothing, no, no, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(going, step, start).x


def _least_squares(
    root: Float[Array, "concept concept"], target: Codes, linear: Codes, support: Mask
) -> tuple[Codes, Mask]:
    """The minimizer on the support, and which of its concepts are independent of earlier ones; others get 0."""
    concepts = root.shape[1]
    floor = 8 * float(jnp.finfo(root.dtype).eps)

    def orthogonalize(k: Array, carry: tuple[Array, Array, Mask]) -> tuple[Array, Array, Mask]:
        basis, triangle, kept = carry
        column = root[:, k]
        length = jnp.sqrt(jnp.sum(column**2))
        shares = jnp.zeros_like(column)
        for _ in range(2):  # Gram–Schmidt is as good as Householder's reflections when done twice.
            more = basis.T @ column
            column, shares = column - basis @ more, shares + more
        rest = jnp.sqrt(jnp.sum(column**2))
        used = support[k] & (rest > floor * length)
        basis = basis.at[:, k].set(jnp.where(used, column / jnp.where(used, rest, 1), 0))
        triangle = triangle.at[:, k].set(jnp.where(used, shares, 0)).at[k, k].set(jnp.where(used, rest, 1))
        return basis, triangle, kept.at[k].set(used)

    start = (jnp.zeros_like(root), jnp.zeros_like(root), jnp.zeros(concepts, bool))
    basis, triangle, kept = jax.lax.fori_loop(0, concepts, orthogonalize, start)
    pull = jsl.solve_triangular(triangle, jnp.where(kept, linear, 0), trans=1)
    return jnp.where(kept, jsl.solve_triangular(triangle, basis.T @ target - pull), 0), kept

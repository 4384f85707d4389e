"""Refinement of factors from the solver's tolerance to where they can be differentiated: damped Newton steps.

A derivative asks more of the factors than a fit does: which entries are zero has to be settled. Solvers that alternate
between codes and dictionary may take thousands of steps to that. Here both move together, by conjugate gradients on
the entries that are free, projected (Bertsekas 1982) and damped (Levenberg, Marquardt), since the ways along which
codes and dictionary can be mixed are flat, or slope down behind an entry's bound.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.conjugate_gradients import descend
from ...linalg.line_search import armijo, backtrack, select
from ...linalg.stored_matrix import StoredMatrix
from ..shapes import Factors, Number
from ..steps import ridged, sweep
from .conditions import Conditions, on
from .hessian import hessian_at
from .kkt import scaled_residual

_TRIALS = 12  # halvings of a step
_CG_STEPS = 300
_DAMPING = 1e-4  # of the first step, relative to the curvature
_UNDAMPED = 3e-5  # below it a step tells where the solution is
_PATIENCE = 80  # rounds without half the residual, far from the dtype's resolution
_PATIENCE_NEAR = 4  # near it


class _Run(NamedTuple):
    factors: Factors
    residual: Number
    best: Factors
    least: Number
    settled: Bool[Array, ""]
    damping: Number
    waited: Int[Array, ""]
    round: Int[Array, ""]


def refine(
    conditions: Conditions, factors: Factors, *, goal: Number, max_rounds: int
) -> tuple[Factors, Bool[Array, ""], Bool[Array, ""]]:
    """The stationary point nearby, as far as the dtype allows; no step raises the objective by more than rounding.

    **Arguments:**

    - `conditions`: those of the problem.
    - `factors`: where a solver has ended, at the scale that the objective sees.
    - `goal`: the scaled KKT residual to come to; factors that are there already come back as they are.
    - `max_rounds`: Newton steps at most.

    **Returns:** the factors of the least residual; whether that is as small as was asked for, or about the least that
    the dtype can tell from zero; and whether it's settled besides which entries are zero.
    """
    eps = float(jnp.finfo(conditions.activations.dtype).eps)
    low = jnp.maximum(2 * goal, 16 * eps)

    def going(run: _Run) -> Bool[Array, ""]:
        patience = jnp.where(run.least <= low, _PATIENCE_NEAR, _PATIENCE)
        done = (run.residual <= goal) & run.settled
        return ~done & (run.waited < patience) & (run.round < max_rounds) & jnp.isfinite(run.residual)

    def step(run: _Run) -> _Run:
        begun = _swept(conditions, run.factors)
        # At the end of the dtype's accuracy no step is accepted, and what it tells is all that it's taken for.
        damping = jnp.where(run.residual <= low, jnp.minimum(run.damping, _UNDAMPED), run.damping)
        new, residual, settled, damping = _newton(conditions, begun, run.residual, damping)
        better = residual < run.least
        return _Run(
            factors=new,
            residual=residual,
            best=select(better, new, run.best),
            least=jnp.where(better, residual, run.least),
            settled=settled,
            damping=damping,
            waited=jnp.where(residual < run.least / 2, 0, run.waited + 1).astype(jnp.int32),
            round=run.round + 1,
        )

    first = scaled_residual(conditions, factors)
    zero = jnp.zeros((), jnp.int32)
    damping = jnp.asarray(_DAMPING, first.dtype)
    start = _Run(factors, first, factors, first, jnp.ones((), bool), damping, zero, zero)
    run = jax.lax.while_loop(going, step, start)
    # A term's slopes may be known no better than single entries of its predictions.
    near = run.least <= jnp.maximum(2 * goal, eps ** (0.8 if conditions.plain else 0.6))
    return run.best, near, near & run.settled


def _swept(conditions: Conditions, factors: Factors) -> Factors:
    """One pass of coordinate descent, where it's a matter of two small matrices: it finds entries that are zero."""
    if conditions.signed_dictionary or not conditions.plain:
        return factors
    activations, objective = conditions.activations, conditions.objective
    codes, dictionary = factors
    gram = ridged(dictionary @ dictionary.T, objective.l2_codes)
    codes = sweep(codes.T, gram, dictionary @ activations.T - objective.l1_codes).T
    weighed = codes if objective.row_weights is None else codes * objective.row_weights[:, None]
    gram = ridged(weighed.T @ codes, objective.l2_dictionary)
    return codes, sweep(dictionary, gram, weighed.T @ activations - objective.l1_dictionary)


def _newton(
    conditions: Conditions, factors: Factors, residual: Number, damping: Number
) -> tuple[Factors, Number, Bool[Array, ""], Number]:
    """Factors behind a damped, projected step, and their residual; whether the zeros are left; the next damping."""
    signed = conditions.signed_dictionary
    wanted = conditions.targets(factors)
    masks = wanted[0] > 0, wanted[1] > 0
    # Entries on their way out of the bound are put onto it; the line search sees that too.
    inside = on(masks, factors)
    hessian = hessian_at(conditions, inside, masks)
    slopes = conditions.equations(inside)
    direction, stats = hessian.solve(
        (-slopes[0], -slopes[1]),
        rtol=jnp.minimum(0.1, jnp.sqrt(residual)).astype(residual.dtype),
        max_steps=_CG_STEPS,
        method=descend,
        damping=damping,
    )
    steepest = conditions.gradient(factors)
    value, change_to = _changes(conditions, factors)

    def at(t: Number) -> Factors:
        codes, dictionary = inside[0] + t * direction[0], inside[1] + t * direction[1]
        return jnp.maximum(codes, 0), dictionary if signed else jnp.maximum(dictionary, 0)

    def falls(new: Factors, change: Number) -> Bool[Array, ""]:
        slope = jnp.sum(steepest[0] * (new[0] - factors[0])) + jnp.sum(steepest[1] * (new[1] - factors[1]))
        return armijo(change, jnp.minimum(slope, 0))

    def trial(t: Number, _: Array) -> tuple[Array, Array, Factors]:
        new = at(t)
        return falls(new, change_to(new)), t / 2, new

    # Near the solution objectives are equal to rounding; slopes still tell which is nearer.
    whole = at(jnp.ones((), residual.dtype))
    eps = float(jnp.finfo(residual.dtype).eps)
    # Terms may be small differences of what they are computed from.
    rounding = (8 * eps if conditions.plain else eps**0.75) * jnp.abs(value)
    there, change = scaled_residual(conditions, whole), change_to(whole)
    first = falls(whole, change) | ((there < residual) & (jnp.abs(change) <= rounding))
    t, kept, none = backtrack(
        trial, select(first, whole, factors), ~first, trials=_TRIALS - 1, dtype=residual.dtype, first=0.5
    )
    good, t = ~none, jnp.where(first, 1, t)
    there = jax.lax.cond(first, lambda: there, lambda: scaled_residual(conditions, kept))
    full = good & (t == 1) & ~stats.indefinite
    growth = jnp.where(full, 0.2, jnp.where(good & (t > 0.2), jnp.where(stats.indefinite, 2, 1), 5))
    settled = ~stats.indefinite & (damping <= _UNDAMPED)
    settled = settled & ~jnp.any(_crosses(inside[0] + direction[0], masks[0], factors[0], axis=0))
    if not signed:
        settled = settled & ~jnp.any(_crosses(inside[1] + direction[1], masks[1], factors[1], axis=1))
    return kept, there, settled, jnp.maximum(damping * growth, eps).astype(residual.dtype)


def _crosses(
    new: Float[Array, "_ _"], mask: Bool[Array, "_ _"], old: Float[Array, "_ _"], *, axis: int
) -> Bool[Array, "_ _"]:
    """Entries that a whole step makes zero, or not zero any more, by more than what is at a kink anyway."""
    margin = float(jnp.finfo(new.dtype).eps) ** 0.6 * jnp.max(jnp.abs(old), axis=axis, keepdims=True)
    return jnp.where(mask, (new < -margin) | ((old <= 0) & (new > margin)), old > margin)


def _changes(conditions: Conditions, old: Factors) -> tuple[Number, Callable[[Factors], Number]]:
    """The objective without penalties, and how all of it changes.

    The squared error's share is taken from differences: that of two values would be rounding.
    """
    activations, objective = conditions.activations, conditions.objective
    known: list[Any] = [
        part.term.recalled(part.term.prepare(conditions.dense), conditions.dense) for part in objective.terms
    ]

    def terms(factors: Factors) -> Number:
        total = jnp.zeros((), activations.dtype)
        for part, mine in zip(objective.terms, known, strict=True):
            total = total + part.weight * part.term.value(mine, *factors)
        return total

    before = terms(old)
    if isinstance(activations, StoredMatrix):
        return _changes_of_stored(conditions, old)
    product = old[0] @ old[1]
    misfit = product - activations

    def entries(new: Factors, v: Array, x: Array) -> Array:
        """How each entry's misfit changes by the steps to new factors."""
        # One product: two would be two matrices of the activations' size.
        move = jnp.concatenate([v, old[0]], axis=1) @ jnp.concatenate([new[1], x])
        if not objective.squared_error:
            return objective.fit.entry_changes(activations, product, move)
        moved = move * (2 * misfit + move) / 2
        return moved if objective.weights is None else moved * objective.weights

    def change_to(new: Factors) -> Number:
        v, x = new[0] - old[0], new[1] - old[1]
        penalty = v * (objective.l1_codes + objective.l2_codes / 2 * (old[0] + new[0]))
        rows = jnp.sum(entries(new, v, x), axis=1) + jnp.sum(penalty, axis=1)
        if objective.row_weights is not None:
            rows = rows * objective.row_weights
        penalty = x * (objective.l1_dictionary + objective.l2_dictionary / 2 * (old[1] + new[1]))
        return jnp.sum(rows) + jnp.sum(penalty) + (terms(new) - before)

    if not objective.squared_error:
        return jnp.sum(objective.fit.row_values(activations, product)) + before, change_to
    error = misfit**2 if objective.weights is None else objective.weights * misfit**2
    return jnp.sum(error) / 2 + before, change_to


def _changes_of_stored(conditions: Conditions, old: Factors) -> tuple[Number, Callable[[Factors], Number]]:
    """The same of sparse activations, from products with the differences."""
    objective, misfit = conditions.objective, conditions.misfit(old)
    counts = objective.row_weights

    def weighed(x: Array) -> Array:
        return x if counts is None else x * counts[:, None]

    pulled = weighed(old[0]).T @ misfit

    def change_to(new: Factors) -> Number:
        v, x = new[0] - old[0], new[1] - old[1]
        # The product changes by v Wᵀ_new + U_old xᵀ.
        left, right = jnp.concatenate([v, old[0]], axis=1), jnp.concatenate([new[1], x])
        squares = jnp.sum((weighed(left).T @ left) * (right @ right.T)) / 2
        slope = jnp.sum(weighed(v) * (new[1] @ misfit.T).T) + jnp.sum(x * pulled)
        penalty = v * (objective.l1_codes + objective.l2_codes / 2 * (old[0] + new[0]))
        other = x * (objective.l1_dictionary + objective.l2_dictionary / 2 * (old[1] + new[1]))
        return slope + squares + jnp.sum(weighed(penalty)) + jnp.sum(other)

    # `‖U Wᵀ − A‖²` is `⟨U, R W⟩ − ⟨A, U Wᵀ⟩ + ‖A‖²`.
    rest, pulling = (old[1] @ misfit.T).T, weighed(old[0]).T @ conditions.activations
    return (jnp.sum(weighed(old[0]) * rest) - jnp.sum(old[1] * pulling) + conditions.size) / 2, change_to

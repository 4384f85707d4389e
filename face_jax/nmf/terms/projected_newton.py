"""Codes for a dictionary that stands still, terms included: projected Newton steps, each group of rows on its own.

Bertsekas 1982 (two-metric projection): codes that are zero and want to become negative are held there, the others take
a Newton step by conjugate gradients, and the way back into the non-negative ones is searched along its projection. The
set of positive codes is found after finitely many steps; from then on it is Newton's method.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Bool, Float

from ..objective import Local
from .block_solver import Groups, conjugate_gradient
from .problem import DESCENT, Codes, Dictionary, Problem, layout

_MAX_STEPS, _TRIALS, _HALVED = 100, 20, 8
_LESS, _PATIENCE = 0.5, 8  # steps by slopes alone go on while every so many leave at most that share of their squares
_CG_STEPS, _CG_RTOL = 100, 1e-2  # the tolerance of the first step; each halves it
_TOLERANCE = 50  # roundings of the right-hand side


def minimize_codes(problem: Problem, codes: Codes, dictionary: Dictionary) -> Codes:
    """The codes with the least objective, from the given ones; none of the groups ends above where it began.

    Where no step lowers the objective by more than it's rounded, a convex problem is followed by its slopes, which are
    known far better: a heavy term's value is a large number whose last digit hides what its slope still shows.
    """
    size, count = layout(problem.rows, problem.group)
    if count == 1:
        return _minimize(problem.recalled(), codes, dictionary)

    def body(i: Array, out: Codes) -> Codes:
        # The last block is moved back so that all are equally long.
        start = jnp.minimum(i * size, problem.rows - size)
        mine = jax.lax.dynamic_slice_in_dim(codes, start, size)
        new = _minimize(problem.take(start, size).recalled(), mine, dictionary)
        return jax.lax.dynamic_update_slice_in_dim(out, new, start, axis=0)

    return jax.lax.fori_loop(0, count, body, codes)


def _minimize(problem: Problem, first: Codes, dictionary: Dictionary) -> Codes:
    groups, concepts, dtype = Groups(problem.group), first.shape[1], first.dtype
    weights = problem.quadratic.row_weights
    weights = jnp.ones((first.shape[0], 1), dtype) if weights is None else weights[:, None]
    gram = dictionary @ dictionary.T + problem.penalty("l2_codes") * jnp.eye(concepts, dtype=dtype)
    cross = problem.activations @ dictionary.T - problem.penalty("l1_codes")
    goal = _TOLERANCE * jnp.finfo(dtype).eps * _largest(weights * cross, groups)
    convex = all(part.term.convex_in_codes for part in problem.parts)

    def slope_at(codes: Codes) -> tuple[Codes, Codes, list[tuple[Array, Local]]]:
        """The whole slope, that of the squared error, and the terms' models."""
        models = [(part.weight, part.term.local_codes(part.prepared, codes, dictionary)) for part in problem.parts]
        quadratic = (codes @ gram - cross) * weights
        return sum((weight * model.slope for weight, model in models), quadratic), quadratic, models

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        codes, values, _, count, least, waited = carry
        slope, quadratic, models = slope_at(codes)
        terms = sum((weight * model.gram for weight, model in models if model.gram is not None), jnp.zeros_like(gram))
        diagonal = jnp.diagonal(gram)[None] * weights + jnp.diagonal(terms)[None]
        diagonal = jnp.where(diagonal > 0, diagonal, 1)
        inverse = inverse_of(jnp.mean(weights) * gram + terms)

        off = codes - jnp.maximum(codes - slope / diagonal, 0)
        far = _largest(off * diagonal, groups) > goal
        # Codes that are about to be zero count as zero, or they would cut each step to nothing.
        near = jnp.minimum(_largest(off, groups), 1e-3 * _largest(codes, groups))
        held = (slope > 0) & (codes <= groups.spread(near))

        def free(v: Array) -> Array:
            return jnp.where(held, 0, v)

        def product(v: Codes) -> Codes:
            return free(sum((weight * model.product(v) for weight, model in models), (v @ gram) * weights))

        right = groups.where(far, free(-slope), jnp.zeros_like(slope))
        newton = conjugate_gradient(
            product, lambda v: free(free(v) @ inverse), right, jnp.zeros_like(codes), groups,
            steps=_CG_STEPS, rtol=jnp.maximum(_CG_RTOL * jnp.exp2(-count.astype(dtype)), 10 * jnp.finfo(dtype).eps),
        )  # fmt: skip
        direction = jnp.where(held, -slope / diagonal, newton)
        expected = groups.dot(slope, newton)

        def change_to(new: Codes) -> tuple[Array, Array]:
            shift = new - codes
            found = problem.values(new, dictionary)
            return groups.dot(quadratic, shift) + groups.dot(
                shift, (shift @ gram) * weights
            ) / 2 + found - values, found

        def shorten(t: Array, trial: Array) -> Array:
            # Where a prediction is all but certain, curvature is nearly none and a Newton step far too long.
            return t * jnp.where(trial < _HALVED, 0.5, 0.125).astype(dtype)

        def going(carry: tuple[Array, ...]) -> Bool[Array, ""]:
            return jnp.any(carry[3]) & (carry[4] < _TRIALS)

        def shorter(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            t, best, best_values, looking, trial = carry
            new = jnp.maximum(codes + groups.spread(t) * direction, 0)
            change, found = change_to(new)
            promised = t * expected + groups.dot(jnp.where(held, slope, 0), new - codes)
            good = looking & (change <= DESCENT * promised) & (change < 0)
            best = groups.where(good, new, best)
            best_values = jnp.where(good, found, best_values)
            return shorten(t, trial), best, best_values, looking & ~good, trial + 1

        looking = far & jnp.isfinite(expected)
        one = jnp.ones(looking.shape, dtype)
        none = jnp.zeros((), jnp.int32)
        _, new, found, stuck, _ = jax.lax.while_loop(going, shorter, (one, codes, values, looking, none))
        if not convex:
            return new, found, looking & ~stuck, count + 1, least, waited

        def settling(carry: tuple[Array, ...]) -> Bool[Array, ""]:
            return jnp.any(carry[2]) & (carry[3] < _TRIALS)

        def settle(carry: tuple[Array, ...]) -> tuple[Array, ...]:
            t, best, looking, trial = carry
            new = jnp.maximum(codes + groups.spread(t) * direction, 0)
            # The trapezoid rule's change of the objective.
            change = groups.dot(slope + slope_at(new)[0], new - codes) / 2
            promised = t * expected + groups.dot(jnp.where(held, slope, 0), new - codes)
            good = looking & (change <= DESCENT * promised) & (change < 0)
            return shorten(t, trial), groups.where(good, new, best), looking & ~good, trial + 1

        wrong = groups.dot(off * diagonal, off * diagonal)
        waited = jnp.where(stuck, jnp.where(wrong < _LESS * least, 0, waited + 1), waited)
        least = jnp.where(stuck, jnp.minimum(least, wrong), least)
        hopeful = stuck & (waited < _PATIENCE)
        _, new, lost, _ = jax.lax.while_loop(settling, settle, (one, new, hopeful, none))
        settled = hopeful & ~lost
        found = jnp.where(settled, problem.values(new, dictionary), found)
        return new, found, (looking & ~stuck) | settled, count + 1, least, waited

    def going(carry: tuple[Any, ...]) -> Bool[Array, ""]:
        return jnp.any(carry[2]) & (carry[3] < _MAX_STEPS)

    values = problem.values(first, dictionary)
    none = jnp.zeros(values.shape, jnp.int32)
    begun = (first, values, jnp.ones(values.shape, bool), none.sum(), jnp.full_like(values, jnp.finfo(dtype).max), none)
    return jax.lax.while_loop(going, step, begun)[0]


def _largest(x: Float[Array, "row concept"], groups: Groups) -> Float[Array, " group"]:
    return jnp.max(jnp.abs(x).reshape(-1, groups.rows * x.shape[1]), axis=1)


def inverse_of(like: Float[Array, "concept concept"]) -> Float[Array, "concept concept"]:
    """A preconditioner: the inverse, dependent concepts set apart a little."""
    eye = jnp.eye(like.shape[0], dtype=like.dtype)
    # Rounding can take so much off an eigenvalue, and a factor wants it positive.
    share = max(1e-6, 10 * like.shape[0] * float(jnp.finfo(like.dtype).eps))
    damping = share * jnp.trace(like) / like.shape[0] + jnp.finfo(like.dtype).tiny
    return jsl.cho_solve(jsl.cho_factor(like + damping * eye, lower=True), eye)

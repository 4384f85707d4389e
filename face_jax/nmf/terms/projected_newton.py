"""Codes for a dictionary that stands still, terms included: projected Newton steps, each group of rows on its own.

Bertsekas 1982 (two-metric projection): codes that are zero and want to become negative are held there, the others take
a Newton step by conjugate gradients, and the way back into the non-negative ones is searched along its projection. The
set of positive codes is found after finitely many steps; from then on it is Newton's method.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.conjugate_gradients import conjugate_gradient
from ...linalg.inner_products import RowGroups
from ...linalg.line_search import armijo, backtrack
from ...linalg.row_blocks import map_blocks
from ...support.scaling import positive
from ..objective import Local
from ..shapes import Codes, Dictionary, Gram, Scalar
from ..steps import coordinate_step, damped_inverse
from .problem import Problem

Models = list[tuple[Scalar, Local]]

_MAX_STEPS, _TRIALS, _HALVED = 100, 20, 8
_LESS, _PATIENCE = 0.5, 8  # steps by slopes alone go on while every so many leave at most that share of their squares
_CG_STEPS, _CG_RTOL = 100, 1e-2  # the tolerance of the first step; each halves it
_TOLERANCE = 50  # roundings of the right-hand side


def minimize_codes(problem: Problem, codes: Codes, dictionary: Dictionary) -> Codes:
    """The codes with the least objective, from the given ones; none of the groups ends above where it began.

    Where no step lowers the objective by more than it's rounded, a convex problem is followed by its slopes, which are
    known far better: a heavy term's value is a large number whose last digit hides what its slope still shows.
    """
    if problem.at_once:
        return _minimize(problem.recalled(), codes, dictionary)

    def alone(part: Problem, codes: Codes) -> tuple[Codes, tuple[()]]:
        blocks = part.blocks

        def one(start: Array) -> Codes:
            return _minimize(part.take(start, blocks.size).recalled(), blocks.take(codes, start), dictionary)

        return map_blocks(blocks, one, codes), ()

    return problem.on_each_device(alone, codes)[0]


@dataclasses.dataclass(frozen=True)
class _Rows:
    """The objective of some rows' codes, the dictionary standing still."""

    problem: Problem
    dictionary: Dictionary
    weights: Float[Array, "row 1"]
    gram: Gram
    cross: Codes
    groups: RowGroups

    @staticmethod
    def of(problem: Problem, codes: Codes, dictionary: Dictionary) -> _Rows:
        """Of all rows of a problem."""
        cross = problem.activations @ dictionary.T - problem.quadratic.l1_codes
        weights, gram = problem.weights(codes)[:, None], problem.codes_gram(dictionary)
        return _Rows(problem, dictionary, weights, gram, cross, RowGroups(problem.group))

    def slope(self, codes: Codes) -> tuple[Codes, Codes, Models]:
        """The whole slope, that of the squared error, and the terms' models."""
        parts = self.problem.parts
        models = [(part.weight, part.term.local_codes(part.prepared, codes, self.dictionary)) for part in parts]
        quadratic = (codes @ self.gram - self.cross) * self.weights
        return sum((weight * model.slope for weight, model in models), quadratic), quadratic, models

    def squared_change(self, quadratic: Codes, shift: Codes) -> Float[Array, " group"]:
        """How much the squared error changes by a shift, from its slope."""
        square = self.groups.dot(shift, (shift @ self.gram) * self.weights)
        return self.groups.dot(quadratic, shift) + square / 2


class _Way(NamedTuple):
    """Where a step goes: for codes that are held along their slope, for others along Newton's direction."""

    direction: Codes
    held: Bool[Array, "row concept"]
    expected: Float[Array, " group"]  # how much the objective falls by the others' moving, to first order
    far: Bool[Array, " group"]
    wrong: Float[Array, " group"]  # squared length of the steps that codes are away from optimal


def _way(rows: _Rows, codes: Codes, slope: Codes, models: Models, count: Array, goal: Array) -> _Way:
    groups, dtype, gram, weights = rows.groups, codes.dtype, rows.gram, rows.weights
    terms = sum((weight * model.gram for weight, model in models if model.gram is not None), jnp.zeros_like(gram))
    diagonal = positive(jnp.diagonal(gram)[None] * weights + jnp.diagonal(terms)[None])
    inverse = inverse_of(jnp.mean(weights) * gram + terms)

    off = codes - coordinate_step(codes, slope, diagonal)
    far = groups.largest(off * diagonal) > goal
    # Codes that are about to be zero count as zero, or they would cut each step to nothing.
    near = jnp.minimum(groups.largest(off), 1e-3 * groups.largest(codes))
    held = (slope > 0) & (codes <= groups.spread(near))

    def free(v: Array) -> Array:
        return jnp.where(held, 0, v)

    def product(v: Codes) -> Codes:
        return free(sum((weight * model.product(v) for weight, model in models), (v @ gram) * weights))

    rhs = groups.where(far, free(-slope), jnp.zeros_like(slope))
    newton = conjugate_gradient(
        product, rhs, inner=groups, preconditioner=lambda v: free(free(v) @ inverse), max_steps=_CG_STEPS,
        rtol=jnp.maximum(_CG_RTOL * jnp.exp2(-count.astype(dtype)), 10 * jnp.finfo(dtype).eps),
    )  # fmt: skip
    direction = jnp.where(held, -slope / diagonal, newton)
    return _Way(direction, held, groups.dot(slope, newton), far, groups.dot(off * diagonal, off * diagonal))


def _minimize(problem: Problem, first: Codes, dictionary: Dictionary) -> Codes:
    rows, dtype = _Rows.of(problem, first, dictionary), first.dtype
    groups = rows.groups
    goal = _TOLERANCE * jnp.finfo(dtype).eps * groups.largest(rows.weights * rows.cross)
    convex = all(part.term.convex_in_codes for part in problem.parts)

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        codes, values, _, count, least, waited = carry
        slope, quadratic, models = rows.slope(codes)
        way = _way(rows, codes, slope, models, count, goal)

        def trial_of(t: Array, count: Array) -> tuple[Codes, Array, Array]:
            new = jnp.maximum(codes + groups.spread(t) * way.direction, 0)
            promised = t * way.expected + groups.dot(jnp.where(way.held, slope, 0), new - codes)
            # Where a prediction is all but certain, curvature is nearly none and a Newton step far too long.
            return new, promised, t * jnp.where(count < _HALVED, 0.5, 0.125).astype(dtype)

        def by_values(t: Array, count: Array) -> tuple[Array, Array, tuple[Codes, Array]]:
            new, promised, shorter = trial_of(t, count)
            found = problem.values(new, dictionary)
            change = rows.squared_change(quadratic, new - codes) + found - values
            return armijo(change, promised) & (change < 0), shorter, (new, found)

        def by_slopes(t: Array, count: Array) -> tuple[Array, Array, Codes]:
            new, promised, shorter = trial_of(t, count)
            # The trapezoid rule's change of the objective.
            change = groups.dot(slope + rows.slope(new)[0], new - codes) / 2
            return armijo(change, promised) & (change < 0), shorter, new

        def put(good: Array, new: tuple[Codes, Array], old: tuple[Codes, Array]) -> tuple[Codes, Array]:
            return groups.where(good, new[0], old[0]), jnp.where(good, new[1], old[1])

        looking = way.far & jnp.isfinite(way.expected)
        _, (new, found), stuck = backtrack(by_values, (codes, values), looking, trials=_TRIALS, dtype=dtype, select=put)
        if not convex:
            return new, found, looking & ~stuck, count + 1, least, waited
        waited = jnp.where(stuck, jnp.where(way.wrong < _LESS * least, 0, waited + 1), waited)
        least = jnp.where(stuck, jnp.minimum(least, way.wrong), least)
        hopeful = stuck & (waited < _PATIENCE)
        _, new, lost = backtrack(by_slopes, new, hopeful, trials=_TRIALS, dtype=dtype, select=groups.where)
        settled = hopeful & ~lost
        found = jnp.where(settled, problem.values(new, dictionary), found)
        return new, found, (looking & ~stuck) | settled, count + 1, least, waited

    def going(carry: tuple[Any, ...]) -> Bool[Array, ""]:
        return jnp.any(carry[2]) & (carry[3] < _MAX_STEPS)

    values = problem.values(first, dictionary)
    none = jnp.zeros(values.shape, jnp.int32)
    begun = (first, values, jnp.ones(values.shape, bool), none.sum(), jnp.full_like(values, jnp.finfo(dtype).max), none)
    return jax.lax.while_loop(going, step, begun)[0]


def inverse_of(like: Gram) -> Gram:
    """A preconditioner: the inverse, dependent concepts set apart a little."""
    # Rounding can take so much off an eigenvalue, and a factor wants it positive.
    return damped_inverse(like, max(1e-6, 10 * like.shape[0] * float(jnp.finfo(like.dtype).eps)))

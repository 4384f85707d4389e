"""Codes for activations and a given dictionary that weigh further terms, with their derivative."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ...linalg.conjugate_gradients import conjugate_gradient
from ...linalg.inner_products import RowGroups
from ..nnls.least_squares import codes_of
from ..objective import Objective
from ..shapes import Activations, Codes, Dictionary
from .lambda_weights import prepare
from .problem import Settings, problem_of
from .projected_newton import inverse_of, minimize_codes

_POLISHES = 2


def encode(activations: Activations, dictionary: Dictionary, objective: Objective) -> Codes:
    """Codes for a given dictionary that weigh the terms too, the input already checked except for the terms'.

    Differentiable in both modes with respect to activations, dictionary, weights and what the terms hold, through
    the optimality conditions: a code of zero stays zero.
    """
    prepared = prepare(objective.terms, activations)
    return _encode(activations, dictionary, objective, prepared)


@jax.jit
def _encode(activations: Activations, dictionary: Dictionary, objective: Objective, prepared: tuple[Any, ...]) -> Codes:
    fixed = jax.lax.stop_gradient((activations, dictionary, objective, prepared))
    problem = problem_of(fixed[0], fixed[2], fixed[3], Settings())
    codes = minimize_codes(problem, _first(*fixed[:3]), fixed[1])
    positive, groups = codes > 0, RowGroups(problem.group)
    inverse = inverse_of(problem.recalled().like(codes, fixed[1]))
    tolerance = 10 * float(jnp.finfo(codes.dtype).eps)

    def on_positive(v: Array) -> Array:
        return jnp.where(positive, v, 0)

    def solved(product: Callable[[Array], Array], rhs: Array) -> Array:
        """On the positive codes, where it's the second derivative: symmetric, and definite if the problem is convex."""

        def masked(v: Array) -> Array:
            return on_positive(product(on_positive(v)))

        def solve(_: object, b: Array) -> Array:
            return conjugate_gradient(
                masked, b, inner=groups, rtol=tolerance, max_steps=20 * b.shape[1],
                preconditioner=lambda v: on_positive(on_positive(v) @ inverse),
            )  # fmt: skip

        return jax.lax.custom_linear_solve(masked, on_positive(rhs), solve, symmetric=True)

    # Newton's steps on the positive codes, for the groups whose codes stay so: objectives can only be compared to
    # rounding, slopes can be zero to rounding, as the derivative wants them.
    nearly = _conditions(positive, *fixed)
    for _ in range(_POLISHES):
        off, push = jax.linearize(nearly, codes)
        new = codes - solved(push, off)
        allowed = groups.total(jnp.sum(jnp.minimum(new, 0), axis=1)) == 0
        better = allowed & (groups.dot(nearly(new), nearly(new)) < groups.dot(off, off))
        codes = groups.where(better, new, codes)
    # A step whose right-hand side is a function of everything: none is taken, only its derivative.
    exactly = _conditions(positive, activations, dictionary, objective, prepared)
    _, push = jax.linearize(nearly, codes)
    step = solved(push, exactly(codes))
    return codes - (step - jax.lax.stop_gradient(step))


def _conditions(
    positive: Bool[Array, "row concept"],
    activations: Activations,
    dictionary: Dictionary,
    objective: Objective,
    prepared: tuple[Any, ...],
) -> Callable[[Array], Array]:
    """Zero at the solution: slopes where a code is positive, the code itself where it's zero."""
    parts = list(zip(objective.terms, prepared, strict=True))
    known = [(part.weight, part.term, part.term.recalled(mine, activations)) for part, mine in parts]

    def conditions(codes: Array) -> Array:
        slope = objective.quadratic.gradient(activations, codes, dictionary)[0]
        for weight, term, mine in known:
            slope = slope + jnp.asarray(weight, codes.dtype) * term.gradient(mine, codes, dictionary)[0]
        return jnp.where(positive, slope, codes)

    return conditions


def _first(activations: Activations, dictionary: Dictionary, objective: Objective) -> Codes:
    """The codes without the terms."""
    return codes_of(activations, dictionary, dataclasses.replace(objective.quadratic, weights=None))[0]

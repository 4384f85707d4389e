"""Factorizations and encodings whose objective has terms besides the squared error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import jax.scipy.sparse.linalg
import numpy as np
from jaxtyping import Array, Float, Key

from . import composite, driver
from .nnls import nnls
from .objective import Objective, SquaredError, Weighted
from .problem import problem_of, settings_of
from .solution import Solution
from .solvers import ADMM, SemiNMF, Solver
from .starts import Given, Start

_POLISHES = 2
_WARM_STEPS = 20  # steps without the terms, which cost next to nothing beside those with them


def active(objective: SquaredError | Objective) -> tuple[Weighted, ...]:
    """The terms whose weight isn't known to be zero; raises `ValueError` for weights that can't be."""
    found = []
    for weighted in objective.terms:
        weight = weighted.weight
        if not isinstance(weight, jax.core.Tracer):
            known = np.asarray(weight)
            if known.shape != () or not np.isfinite(known) or known < 0:
                raise ValueError(
                    f"λ={weight!r} is no weight of a term; give a finite number of at least 0 (0 leaves the term out)"
                )
            if known == 0:
                continue
        found.append(weighted)
    return tuple(found)


def check_solver(objective: SquaredError | Objective, solver: Any) -> None:
    """Raise `ValueError` for solvers and weights that terms can't be combined with."""
    if isinstance(solver, Solver) and not isinstance(solver, (ADMM, SemiNMF)):
        raise ValueError(
            f"solver={type(solver).__name__}() can only fit a squared error, and the objective has a further term; use "
            "solver=ADMM(), or SemiNMF() for activations of either sign, or PaperAdam()"
        )
    if isinstance(solver, Solver) and objective.quadratic.weights is not None:
        raise ValueError(
            "weights of single entries can't be combined with a further term; give row_weights, or leave one out"
        )


def prepare(terms: tuple[Weighted, ...], activations: Float[Array, "row channel"]) -> tuple[Any, ...]:
    """What the terms remember of the activations, checked."""
    for weighted in terms:
        weighted.term.check(activations)
    prepared = _prepare(tuple(weighted.term for weighted in terms), activations)
    for weighted, one in zip(terms, prepared, strict=True):
        weighted.term.check_prepared(one)
    return prepared


@jax.jit
def _prepare(terms: tuple[Any, ...], activations: Float[Array, "row channel"]) -> tuple[Any, ...]:
    return tuple(term.prepare(activations) for term in terms)


def factorize(
    activations: Float[Array, "row channel"],
    rank: int,
    objective: Objective,
    solver: Solver,
    start: Start,
    key: Key[Array, ""],
) -> Solution:
    """The factorization, its input already checked except for the terms'."""
    if not isinstance(solver, ADMM | SemiNMF):
        raise TypeError(f"solver={type(solver).__name__}() passed check_solver")  # can't happen
    prepared = prepare(objective.terms, activations)
    return _factorize(activations, rank, objective, prepared, solver, start, key)


@partial(jax.jit, static_argnames="rank")
def _factorize(
    activations: Float[Array, "row channel"],
    rank: int,
    objective: Objective,
    prepared: tuple[Any, ...],
    solver: ADMM | SemiNMF,
    start: Start,
    key: Key[Array, ""],
) -> Solution:
    codes, dictionary = start(activations, rank, signed=solver.signed_dictionary, key=key)
    settings = settings_of(solver)
    if not isinstance(start, Given):
        warm = dataclasses.replace(solver, max_steps=min(_WARM_STEPS, solver.max_steps))
        begun = driver.solve(activations, objective.quadratic, warm, codes, dictionary)
        # Where penalties were measured, which is where they'll be measured again.
        scale = jnp.where(begun.scale > 0, begun.scale, 1)
        codes, dictionary = (begun.codes / scale[None]).T, begun.dictionary * scale[:, None]
        if not _penalized(objective.quadratic):
            codes, dictionary = begun.codes.T, begun.dictionary
    problem = problem_of(activations, objective, prepared, settings)
    return composite.solve(problem, codes.T, dictionary)


def _penalized(quadratic: SquaredError) -> bool:
    """Whether a penalty may be there: one whose value isn't known yet counts."""
    penalties = (quadratic.l1_codes, quadratic.l2_codes, quadratic.l1_dictionary, quadratic.l2_dictionary)
    return any(isinstance(value, jax.core.Tracer) or float(value) != 0 for value in penalties)


def encode(
    activations: Float[Array, "row channel"], dictionary: Float[Array, "concept channel"], objective: Objective
) -> Float[Array, "row concept"]:
    """Codes for a given dictionary that weigh the terms too, the input already checked except for the terms'.

    Differentiable in both modes with respect to activations, dictionary, weights and what the terms hold, through
    the optimality conditions: a code of zero stays zero.
    """
    prepared = prepare(objective.terms, activations)
    return _encode(activations, dictionary, objective, prepared)


@jax.jit
def _encode(
    activations: Float[Array, "row channel"],
    dictionary: Float[Array, "concept channel"],
    objective: Objective,
    prepared: tuple[Any, ...],
) -> Float[Array, "row concept"]:
    fixed = jax.lax.stop_gradient((activations, dictionary, objective, prepared))
    codes = _minimized(*fixed)
    positive = codes > 0
    tolerance = 10 * float(jnp.finfo(codes.dtype).eps)

    def conditions_of(
        activations: Any, dictionary: Any, objective: Objective, prepared: tuple[Any, ...]
    ) -> Callable[[Array], Array]:
        """Zero at the solution: slopes where a code is positive, the code itself where it's zero."""
        known = [
            weighted.term.recalled(mine, activations) for weighted, mine in zip(objective.terms, prepared, strict=True)
        ]

        def conditions(codes: Array) -> Array:
            slope = objective.quadratic.gradient(activations, codes, dictionary)[0]
            for weighted, mine in zip(objective.terms, known, strict=True):
                weight = jnp.asarray(weighted.weight, codes.dtype)
                slope = slope + weight * weighted.term.gradient(mine, codes, dictionary)[0]
            return jnp.where(positive, slope, codes)

        return conditions

    def solved(product: Callable[[Array], Array], right: Array) -> Array:
        # Symmetric and positive definite where the problem is convex: the second derivative on the positive codes.
        return jax.scipy.sparse.linalg.cg(product, right, tol=tolerance, maxiter=20 * right.shape[1])[0]

    # Newton's steps on the positive codes, while they stay so: exact to rounding, as the derivative wants it.
    nearly = conditions_of(*fixed)
    for _ in range(_POLISHES):
        off, push = jax.linearize(nearly, codes)
        new = codes - solved(push, off)
        better = jnp.all(jnp.isfinite(new) & (new >= 0)) & (jnp.sum(nearly(new) ** 2) < jnp.sum(off**2))
        codes = jnp.where(better, new, codes)
    # One more, whose right-hand side is a function of everything: next to nothing as a step, exact as a derivative.
    exactly = conditions_of(activations, dictionary, objective, prepared)
    _, push = jax.linearize(nearly, codes)
    return jnp.where(positive, codes - solved(push, exactly(codes)), 0)


def _minimized(
    activations: Float[Array, "row channel"],
    dictionary: Float[Array, "concept channel"],
    objective: Objective,
    prepared: tuple[Any, ...],
) -> Float[Array, "row concept"]:
    dtype = activations.dtype
    l1, l2 = (jnp.asarray(getattr(objective.quadratic, name), dtype) for name in ("l1_codes", "l2_codes"))
    ridge = l2 * jnp.eye(dictionary.shape[0], dtype=dtype)
    first = nnls(dictionary @ dictionary.T + ridge, dictionary @ activations.T - l1).T
    problem = problem_of(activations, objective, prepared, composite.ENCODING)
    return composite.encode(problem, first, dictionary)

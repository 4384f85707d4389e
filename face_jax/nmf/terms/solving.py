"""Factorizations whose objective has terms besides the squared error."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.core
import numpy as np
from jaxtyping import Array, Float, Key

from ..linalg.steps import positive
from ..magnitude import check_beside_terms
from ..objective import Objective, SquaredError, Weighted, penalized
from ..solution import Solution
from ..solvers import loop
from ..solvers.starts import Given, Start
from ..solvers.update_rules import ADMM, SemiNMF, Solver
from . import alternation
from .problem import problem_of, settings_of

_WARM_STEPS = 20  # steps without the terms, which cost next to nothing beside those with them


def active(objective: SquaredError | Objective) -> tuple[Weighted, ...]:
    """The terms whose weight isn't known to be zero; raises `ValueError` for weights that can't be."""
    found = []
    for weighted in objective.terms:
        weight = weighted.weight
        if not isinstance(weight, jax.core.Tracer):
            known = np.asarray(weight)
            if isinstance(weight, str) and weight == "auto":
                raise ValueError(
                    'λ="auto" is chosen by faithfulness_path and by explain(faithfulness="auto"); a factorization '
                    "takes a number, such as the path's weight"
                )
            if known.shape != () or known.dtype.kind not in "bifu" or not np.isfinite(known) or known < 0:
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
    if terms:
        check_beside_terms(activations)
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
        begun = loop.solve(activations, objective.quadratic, warm, codes, dictionary)
        # Where penalties were measured, which is where they'll be measured again.
        scale = positive(begun.scale)
        codes, dictionary = (begun.codes / scale[None]).T, begun.dictionary * scale[:, None]
        if not penalized(objective.quadratic):
            codes, dictionary = begun.codes.T, begun.dictionary
    problem = problem_of(activations, objective, prepared, settings)
    return alternation.solve(problem, codes.T, dictionary)

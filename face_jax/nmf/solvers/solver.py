"""Solvers that improve both factors by one rule: the whole way from a start to a solution."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from ...support.scaling import positive
from ..objective import Objective, SquaredError
from ..shapes import Activations
from ..solution import Solution
from ..terms import alternation
from ..terms.lambda_weights import check_weights, prepare
from ..terms.problem import Settings, problem_of
from . import loop
from .rule import UpdateRule
from .starts import Given, Start

WARM_STEPS = 20  # steps without the terms, which cost next to nothing beside those with them


class Solver(UpdateRule):
    """One rule for improving a factor, and the settings of the loop around it.

    Fields that every solver has: `rtol`, the scaled KKT residual at which the loop stops, and `max_steps`.
    """

    @property
    def unrollable(self) -> bool:
        """Whether its steps on a squared error alone can be differentiated one by one."""
        return True

    @property
    def beside_terms(self) -> Settings | None:
        """What the loop with further terms takes from it; None if it can only fit a squared error."""
        return None

    def check_terms(self, objective: Objective) -> None:
        """Raise `ValueError` for an objective whose further terms it can't fit."""
        if self.beside_terms is None:
            raise ValueError(
                f"solver={type(self).__name__}() can only fit a squared error, and the objective has a further term; "
                "use solver=ADMM(), or SemiNMF() for activations of either sign, or PaperAdam()"
            )
        check_weights(objective)

    def solve(
        self,
        activations: Activations,
        rank: int,
        objective: Objective,
        start: Start,
        key: Key[Array, ""],
        *,
        unrolled: bool = False,
    ) -> Solution:
        """The factorization, its input already checked except for the terms'.

        **Arguments:**

        - `activations`, `rank`, `objective`: the problem.
        - `start`, `key`: where from.
        - `unrolled`: make the loop itself differentiable in backward mode; without terms only.

        **Returns:** the solution.
        """
        if not objective.terms:
            return _factorize(activations, rank, objective.quadratic, self, start, key, unrolled=unrolled)
        prepared = prepare(objective.terms, activations)
        return _factorize_with_terms(activations, rank, objective, prepared, self, start, key)


@partial(jax.jit, static_argnames=("rank", "unrolled"))
def _factorize(
    activations: Activations,
    rank: int,
    objective: SquaredError,
    solver: Solver,
    start: Start,
    key: Key[Array, ""],
    *,
    unrolled: bool,
) -> Solution:
    visible = activations
    if objective.weights is not None:
        # Entries that are left out start from what the others of their channel are.
        total = jnp.sum(objective.weights, axis=0)
        mean = jnp.sum(objective.weights * activations, axis=0) / positive(total)
        visible = jnp.where(objective.weights > 0, activations, mean[None])
    # Where the solver ends is told by the objective, not by where it started.
    visible = jax.lax.stop_gradient(visible)
    codes, dictionary = start(visible, rank, signed=solver.signed_dictionary, key=key)
    codes, dictionary = jax.lax.stop_gradient((codes, dictionary))
    return loop.solve(activations, objective, solver, codes, dictionary, unrolled=unrolled)


@partial(jax.jit, static_argnames="rank")
def _factorize_with_terms(
    activations: Activations,
    rank: int,
    objective: Objective,
    prepared: tuple[Any, ...],
    solver: Any,
    start: Start,
    key: Key[Array, ""],
) -> Solution:
    codes, dictionary = start(activations, rank, signed=solver.signed_dictionary, key=key)
    if not isinstance(start, Given):
        warm = dataclasses.replace(solver, max_steps=min(WARM_STEPS, solver.max_steps))
        begun = loop.solve(activations, objective.quadratic, warm, codes, dictionary)
        # Where penalties were measured, which is where they'll be measured again.
        scale = positive(begun.scale)
        codes, dictionary = (begun.codes / scale[None]).T, begun.dictionary * scale[:, None]
        if not objective.penalized:
            codes, dictionary = begun.codes.T, begun.dictionary
    problem = problem_of(activations, objective, prepared, solver.beside_terms)
    return alternation.solve(problem, codes.T, dictionary)

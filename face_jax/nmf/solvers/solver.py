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
from ..shapes import Activations, FactorsT
from ..solution import Solution
from ..terms import alternation
from ..terms.lambda_weights import check_weights, prepare
from ..terms.problem import Settings, problem_of
from . import loop, misfit_loop
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

    @property
    def fits_entries(self) -> bool:
        """Whether it can fit what isn't one Gram matrix for all rows: a β-divergence, weights of single entries."""
        return False

    def improve_items(self, side: Any, x: Any, product: Any) -> Any:
        """A better factor of such a fit; see `misfit_steps.Side` and, of sparse activations, `StoredSide`.

        Only for solvers that say that they can.
        """
        raise NotImplementedError(f"{type(self).__name__} says that it fits entries and doesn't say how")

    def check_divergence(self, objective: Objective) -> None:
        """Raise `ValueError` for a divergence that it can't fit."""
        if not objective.squared_error and not self.fits_entries:
            raise ValueError(
                f"solver={type(self).__name__}() can only fit a squared error, and the objective is a β-divergence; "
                "use solver=ADMM(), HALS() or MultiplicativeUpdate()"
            )

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
            if not objective.squared_error:
                return _factorize_entries(activations, rank, objective.fit, self, start, key)
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
    codes, dictionary = begun_factors(activations, rank, objective, solver, start, key)
    return loop.solve(activations, objective, solver, codes, dictionary, unrolled=unrolled)


@partial(jax.jit, static_argnames="rank")
def _factorize_entries(
    activations: Activations, rank: int, objective: Any, solver: Solver, start: Start, key: Key[Array, ""]
) -> Solution:
    codes, dictionary = (solver.begin(x) for x in begun_factors(activations, rank, objective, solver, start, key))
    return misfit_loop.solve(
        activations, objective, solver.improve_items, codes, dictionary,
        rtol=solver.rtol, max_steps=solver.max_steps, extrapolate=solver.extrapolate,
    )  # fmt: skip


def begun_factors(
    activations: Activations, rank: int, objective: Any, solver: Solver, start: Start, key: Key[Array, ""]
) -> FactorsT:
    """The first factors, made of the entries that count."""
    visible = activations
    if objective.weights is not None:
        # Entries that are left out start from what the others of their channel are.
        total = jnp.sum(objective.weights, axis=0)
        mean = jnp.sum(objective.weights * activations, axis=0) / positive(total)
        visible = jnp.where(objective.weights > 0, activations, mean[None])
    # Where the solver ends is told by the objective, not by where it started.
    visible = jax.lax.stop_gradient(visible)
    return jax.lax.stop_gradient(start(visible, rank, signed=solver.signed_dictionary, key=key))


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

"""`factorize`: a matrix in, codes and concepts out."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Key

from ..linalg.row_shards import explicit, in_auto_axes
from ..support.arguments import Seed, Whole, flag, key_of
from . import magnitude, validate
from .derivative.adjoints import ImplicitAdjoint
from .derivative.conditions import Conditions
from .objective import Objective, SquaredError
from .options import AnyAdjoint, AnyObjective, AnySolver, AnyStart
from .results import raise_if_unusable, refused
from .settings import check_adjoint, check_solver, check_start
from .shapes import Activations
from .solution import Solution
from .solvers.update_rules import ADMM
from .solvers.warmup import Warmup
from .terms import lambda_weights


def factorize(
    activations: ArrayLike,
    rank: Whole,
    *,
    objective: AnyObjective = SquaredError(),  # noqa: B008 (settings: frozen)
    solver: AnySolver = ADMM(),  # noqa: B008
    start: AnyStart = Warmup(),  # noqa: B008
    adjoint: AnyAdjoint = ImplicitAdjoint(),  # noqa: B008
    key: Seed = None,
    throw: bool = True,
) -> Solution:
    """Non-negative factorization `A ≈ U Wᵀ` into `rank` concepts of unit length.

        min ½ ‖A − U Wᵀ‖²  with  U ≥ 0, W ≥ 0

    with the weights, penalties and terms that `objective` adds; U are the codes, the rows of Wᵀ the dictionary.

    A pure function: `jit` (with `rank` static), `vmap` and `grad` apply. Activations in any unit will do: those that
    aren't of ordinary size (largest entry between 2⁻¹⁶ and 2¹⁶) are brought to the order of 1 by a power of two while
    they are factorized, except beside further terms of the objective, whose head wants them as they are.

    **Arguments:**

    - `activations`: `row × channel`, at least 0 except with `SemiNMF`; a NumPy array will do.
    - `rank`: how many concepts.
    - `objective`: what's minimized.
    - `solver`: how.
    - `start`: from where.
    - `adjoint`: how the solution is differentiated; costs nothing unless it is. Under `grad` and `jvp` the factors are
        refined first, so that after few steps, or `PaperAdam`, their values differ too: see `ImplicitAdjoint`.
    - `key`: for the start's random numbers, or a seed; `jax.random.key(0)` if None.
    - `throw`: raise `FactorizationError` when the factors came out NaN or infinite, or when values that were only known
        inside `jit` are negative, instead of only saying so in `result`. Running out of steps is told by `result` and
        never raises.

    **Returns:** the solution, in the activations' dtype.
    Raises `ValueError` before any work for NaN, infinity, negative entries, shapes that don't fit, and settings that
    make no sense.

    **Example:**

    >>> found = fj.factorize(A, 3)
    >>> found.codes.shape, found.dictionary.shape, found.result.message
    ((60, 3), (3, 12), 'The scaled KKT residual fell below the tolerance.')
    >>> def rebuilt(A):
    ...     found = fj.factorize(A, 3)
    ...     return jnp.sum((found.codes @ found.dictionary) ** 2)
    >>> jax.grad(rebuilt)(A).shape
    (60, 12)
    """
    activations = validate.matrix("activations", activations, "row × channel")
    rank = validate.rank_of(rank)
    check_settings(solver, start, adjoint)
    flag("throw", throw)
    key = key_of(key)

    def at_once(activations: Activations, objective: AnyObjective, start: AnyStart) -> Solution:
        whole = checked(activations, rank, objective, solver, start, adjoint)
        return solved(activations, rank, whole, solver, start, adjoint, key)

    if explicit(activations):
        solution = in_auto_axes(at_once, _placed, activations, objective, start)
    else:
        solution = at_once(activations, objective, start)
    if throw:
        raise_if_unusable(solution.result)
    return solution


def _placed(rows: Any) -> Solution:
    """Where a solution's arrays lie: codes as the activations' rows, the rest on all devices."""
    everywhere: Any = PartitionSpec()
    codes: Any = PartitionSpec(rows, None)
    return Solution(codes, everywhere, everywhere, everywhere, everywhere)


def check_settings(solver: AnySolver, start: AnyStart, adjoint: AnyAdjoint) -> None:
    """Raise `ValueError` for settings that make no sense."""
    check_solver(solver)
    check_start(start)
    check_adjoint(adjoint)


def checked(
    activations: Activations,
    rank: int,
    objective: AnyObjective,
    solver: AnySolver,
    start: AnyStart,
    adjoint: AnyAdjoint,
    name: str = "activations",
) -> Objective:
    """The objective without terms of weight 0; raises `ValueError` for what can't be factorized."""
    signed = solver.signed_dictionary
    validate.factorizable(name, activations, signed=signed)
    validate.squared_error(objective)
    validate.penalties(objective, both=True, signed=signed)
    quadratic = validate.weights_of(objective, activations)
    if start.given is not None:
        validate.given(start.given, activations, rank, signed=signed)
    terms = lambda_weights.active(objective)
    if terms:
        solver.check_terms(objective)
    if adjoint.unrolled and (terms or not solver.unrollable):
        raise ValueError("UnrolledAdjoint goes through the plain solvers' steps only; take ImplicitAdjoint()")
    return quadratic.with_terms(terms)


def solved(
    activations: Activations,
    rank: int,
    objective: Objective,
    solver: AnySolver,
    start: AnyStart,
    adjoint: AnyAdjoint,
    key: Key[Array, ""],
) -> Solution:
    """The solution of a problem that has been checked."""
    quadratic, terms, signed = objective.quadratic, objective.terms, solver.signed_dictionary
    negative = validate.negative_inside(activations, quadratic, start.given, signed=signed)
    unit = None if terms else magnitude.unit_of(activations, quadratic)
    if unit is not None:
        start = start.rescaled(partial(unit.factors, penalized=quadratic.penalized))
        if not magnitude.is_one(unit):
            activations, scaled = unit.into(activations, quadratic)
            magnitude.check_penalties(quadratic, scaled)
            quadratic = scaled

    def solve(activations: Activations, objective: Objective) -> Solution:
        return solver.solve(activations, rank, objective, start, key, unrolled=adjoint.unrolled)

    whole = quadratic.with_terms(terms)
    solution = adjoint.through(solve, Conditions(activations, whole, solver.rtol, signed))
    if unit is not None and not magnitude.is_one(unit):
        solution = unit.back(solution)
    if negative is not None:
        solution = dataclasses.replace(solution, result=refused(solution.result, negative))
    return solution

"""The factorization itself: a matrix in, codes and concepts out."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from . import validate
from .driver import solve
from .objective import Objective, SquaredError
from .results import raise_if_unusable
from .solution import Solution
from .solvers import ADMM, Solver
from .starts import NNDSVD, Given, Start


def factorize(
    activations: Float[Array, "row channel"],
    rank: int,
    *,
    objective: SquaredError | Objective = SquaredError(),
    solver: Solver = ADMM(),
    start: Start = NNDSVD(),
    key: Key[Array, ""] | None = None,
    throw: bool = True,
) -> Solution:
    """Non-negative factorization `A ≈ U Wᵀ` into `rank` concepts of unit length.

    A pure function: `jit` (with `rank` static), `vmap` and `grad` apply.

    **Arguments:**

    - `activations`: at least 0, except with `SemiNMF`.
    - `rank`: how many concepts.
    - `objective`: what's minimized.
    - `solver`: how.
    - `start`: from where.
    - `key`: for the start's random numbers; `jax.random.key(0)` if None.
    - `throw`: raise `FactorizationError` when the factors came out NaN or infinite, instead of only saying so in
        `result`. Running out of steps is told by `result` and never raises.

    **Returns:** the solution, in the activations' dtype.
    Raises `ValueError` before any work for NaN, infinity, negative entries, and shapes that don't fit.
    """
    activations = validate.matrix("activations", activations, "row × channel")
    rank = validate.rank_of(rank)
    validate.finite("activations", activations)
    if not solver.signed_dictionary:
        validate.non_negative("activations", activations, validate.SIGNED)
    validate.penalties(objective, both=True)
    quadratic = validate.weights_of(objective, activations)
    if isinstance(start, Given):
        validate.given(start, activations, rank, signed=solver.signed_dictionary)
    solution = _factorize(activations, rank, quadratic, solver, start, jax.random.key(0) if key is None else key)
    if throw:
        raise_if_unusable(solution.result)
    return solution


@partial(jax.jit, static_argnames="rank")
def _factorize(
    activations: Float[Array, "row channel"],
    rank: int,
    objective: SquaredError,
    solver: Solver,
    start: Start,
    key: Key[Array, ""],
) -> Solution:
    visible = activations
    if objective.weights is not None:
        # Entries that are left out start from what the others of their channel are.
        total = jnp.sum(objective.weights, axis=0)
        mean = jnp.sum(objective.weights * activations, axis=0) / jnp.where(total > 0, total, 1)
        visible = jnp.where(objective.weights > 0, activations, mean[None])
    codes, dictionary = start(visible, rank, signed=solver.signed_dictionary, key=key)
    return solve(activations, objective, solver, codes, dictionary)

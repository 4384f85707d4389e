"""The solvers' loop for rows that are spread over devices, its state kept now and then where it lies.

The loop is compiled once, to go on until some step; between such calls the host saves and tells. Whoever goes on from a
saved state runs the same program on the same numbers.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int, Key

from ..checkpoint import Checkpoint, Keeper, agreed, digest_of_tree
from ..objective import SquaredError
from ..shapes import Activations
from ..solution import Solution
from . import loop
from .loop import State
from .solver import Solver, begun_factors
from .starts import Start

_ROUND = 1.0  # seconds that the compiled loop goes on by itself, about


def solve(
    activations: Activations,
    rank: int,
    objective: SquaredError,
    solver: Solver,
    start: Start,
    key: Key[Array, ""],
    *,
    checkpoint: Checkpoint,
    told: Callable[[State], None],
) -> Solution:
    """The factorization of rows on several devices, also of several processes, its settings already checked.

    **Arguments:**

    - `activations`: of which each device has some rows, by a `NamedSharding`.
    - `rank`, `objective`, `solver`, `start`, `key`: the problem.
    - `checkpoint`: where the state goes, and how often.
    - `told`: called with the state now and then.

    **Returns:** the solution, its codes spread as the rows are.
    """
    sharding: Any = activations.sharding
    rows = tuple(sharding.spec)[:1] or (None,)
    everywhere = NamedSharding(sharding.mesh, PartitionSpec())
    of_codes = NamedSharding(sharding.mesh, PartitionSpec(None, rows[0]))
    placed = State(codes=of_codes, dictionary=everywhere, sums=everywhere, history=everywhere)  # pyright: ignore
    first = jax.jit(_first, static_argnums=1, out_shardings=placed)
    on = jax.jit(_on, out_shardings=placed, donate_argnums=3)
    ended = NamedSharding(sharding.mesh, PartitionSpec(rows[0]))
    out = Solution(ended, everywhere, everywhere, everywhere, everywhere)  # pyright: ignore

    keeper = Keeper(checkpoint, together=True)
    try:
        keeper.check(_problem_of(activations, rank, objective, solver, start, key), solver.max_steps)
        if keeper.last is None:
            state = first(activations, rank, objective, solver, start, key)
        else:

            def like(max_steps: int) -> State:
                before = _of_steps(solver, max_steps)
                given = {"objective": objective, "solver": before, "start": start, "key": key}
                return _spread(jax.eval_shape(partial(_first, rank=rank), activations, **given), placed)

            state, _ = keeper.load(like, [])
            state = jax.jit(_of_length, static_argnums=1, out_shardings=placed)(state, solver.max_steps)
        told(state)
        ahead = 1
        while int(state.history.code) < 0 and (step := int(state.history.step)) < solver.max_steps:
            since = time.monotonic()
            until = min(step + ahead, keeper.saved + checkpoint.steps, solver.max_steps)
            state = on(activations, objective, solver, state, jnp.asarray(until, jnp.int32))
            step = int(state.history.step)
            told(state)
            more = ahead if time.monotonic() - since > _ROUND else 2 * ahead
            save, ahead = agreed(keeper.wanted(step), min(more, solver.max_steps))
            if save:
                keeper.save(step, state, [], {})
        return jax.jit(_end, out_shardings=out)(activations, objective, solver, state)
    finally:
        keeper.close()


def _first(
    activations: Activations, rank: int, objective: SquaredError, solver: Solver, start: Start, key: Key[Array, ""]
) -> State:
    codes, dictionary = begun_factors(activations, rank, objective, solver, start, key)
    return loop.begin(loop.problem_of(activations, objective, solver)[0], codes, dictionary)


def _on(
    activations: Activations, objective: SquaredError, solver: Solver, state: State, until: Int[Array, ""]
) -> State:
    return loop.go_on(loop.problem_of(activations, objective, solver)[0], state, until)


def _of_length(state: State, max_steps: int) -> State:
    return dataclasses.replace(state, history=state.history.of_length(max_steps))


def _end(activations: Activations, objective: SquaredError, solver: Solver, state: State) -> Solution:
    problem, unit = loop.problem_of(activations, objective, solver)
    return loop.end(problem, state, unit)


def _spread(shapes: State, placed: State) -> State:
    """Shapes that say where their arrays lie."""

    def of(part: Any, where: NamedSharding) -> Any:
        return jax.tree.map(lambda one: jax.ShapeDtypeStruct(one.shape, one.dtype, sharding=where), part)

    fields = [field.name for field in dataclasses.fields(State)]
    return State(**{name: of(getattr(shapes, name), getattr(placed, name)) for name in fields})


def _of_steps(solver: Any, max_steps: int) -> Any:
    """The same solver with another number of steps."""
    return dataclasses.replace(solver, max_steps=max_steps)


def _problem_of(
    activations: Activations, rank: int, objective: SquaredError, solver: Solver, start: Start, key: Key[Array, ""]
) -> dict[str, Any]:
    """What a checkpoint has to be of to be gone on from."""
    return {
        "shape": activations.shape,
        "dtype": str(activations.dtype),
        "numbers": digest_of_tree(activations),
        "rank": rank,
        "objective": digest_of_tree(objective),
        # With more steps a run goes on.
        "solver": repr(_of_steps(solver, 0)),
        "start": digest_of_tree(start),
        "key": digest_of_tree(key),
    }

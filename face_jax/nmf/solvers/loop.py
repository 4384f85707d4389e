"""The loop that all solvers share: passes, extrapolation with restart, stopping.

One step is a pass over the activations, which improves the codes, then an update of the dictionary. The solver gives
the rule; everything else is here, once. The pair (extrapolated codes, dictionary) is the iterate: both are feasible,
and the objective's change is known from gradients at no extra pass, so a step that would raise it is taken back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from ...linalg.control_flow import while_loop
from ...linalg.line_search import select
from ...support.scaling import positive
from ..history import History, begun
from ..objective import PENALTIES, SquaredError
from ..shapes import Activations, CodesT, Dictionary, Number
from ..solution import Solution
from ..steps import share
from .passes import Sums
from .problem import Problem
from .rule import Iterate, UpdateRule

_PATIENCE = 2  # steps taken back in a row, the last two of them cautious ones


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Where the loop is: the accepted factors, what they are extrapolated from, and the history."""

    codes: Iterate
    dictionary: Iterate
    sums: Sums
    history: History


def solve(
    activations: Activations,
    objective: SquaredError,
    solver: UpdateRule,
    codes: CodesT,
    dictionary: Dictionary,
    *,
    block_rows: int | None = None,
    unrolled: bool = False,
) -> Solution:
    """Run the loop from the given factors: a pure function of arrays, ready for `jit` and `vmap`.

    **Arguments:**

    - `activations`, `objective`, `solver`: the problem and the rule.
    - `codes`: first codes, concepts first.
    - `dictionary`: first dictionary.
    - `block_rows`: rows that a pass takes at a time.
    - `unrolled`: make the loop itself differentiable in backward mode: `max_steps` long, and kept in memory.

    **Returns:** the solution.
    """
    problem, unit = problem_of(activations, objective, solver, block_rows)
    state = begin(problem, codes, dictionary)
    if unrolled:
        going = lambda state: state.history.going(solver.max_steps)  # noqa: E731
        state = _unrolled(going, lambda state: _step(problem, state), state, solver.max_steps)
    else:
        state = go_on(problem, state, solver.max_steps)
    return end(problem, state, unit)


def problem_of(
    activations: Activations, objective: SquaredError, solver: UpdateRule, block_rows: int | None = None
) -> tuple[Problem, Number]:
    """The problem in the units of the pass, and what objectives are multiplied by."""
    objective, unit = scaled(objective, activations.dtype)
    return Problem(activations, objective, solver, block_rows, objective.size(activations)), unit


def begin(problem: Problem, codes: CodesT, dictionary: Dictionary) -> State:
    """Where the loop begins with these factors."""
    solver = problem.solver
    return _first(problem, solver.begin(codes), dictionary if solver.signed_dictionary else solver.begin(dictionary))


def go_on(problem: Problem, state: State, until: int | Int[Array, ""]) -> State:
    """The loop's steps up to so many, or to its end."""
    return while_loop(lambda state: state.history.going(until), lambda state: _step(problem, state), state)


def end(problem: Problem, state: State, unit: Number) -> Solution:
    """What the loop has come to."""
    codes, dictionary = state.codes.x, state.dictionary.x
    return state.history.solution(codes, dictionary, *problem.measure(codes, dictionary), unit)


def _first(problem: Problem, codes: CodesT, dictionary: Dictionary) -> State:
    return first_state(problem, codes, dictionary, problem.sums(codes, dictionary))


def first_state(problem: Problem, codes: CodesT, dictionary: Dictionary, sums: Sums) -> State:
    """Where the loop begins, with the sums of these factors; the codes may be those of some rows only."""
    solver = problem.solver
    objective, residual = problem.value(dictionary, sums), problem.residual(dictionary, sums)
    return State(
        codes=Iterate(codes, codes, solver.remember(codes)),
        dictionary=Iterate(dictionary, dictionary, () if solver.signed_dictionary else solver.remember(dictionary)),
        sums=sums,
        history=begun(objective, residual, solver.rtol, solver.max_steps, solver.extrapolate),
    )


def _step(problem: Problem, state: State) -> State:
    ahead, first = move_ahead(problem, state)
    history = state.history
    codes, sums = problem.improve_codes(ahead, state.codes, history.extrapolation, history.rejected > 1)
    return judged(problem, state, ahead, first, codes, sums)


def move_ahead(problem: Problem, state: State) -> tuple[Dictionary, Number]:
    """1. The dictionary moves on from where it is, in the direction that it came; and how the objective changes."""
    solver, beta, old = problem.solver, state.history.extrapolation, state.dictionary
    ahead = old.x + beta * (old.x - old.previous)
    if not solver.signed_dictionary:
        ahead = jnp.maximum(ahead, 0)
    gram, cross = problem.dictionary_problem(state.sums)
    shift = ahead - old.x
    return ahead, jnp.sum(shift * (gram @ (old.x + shift / 2) - cross))


def judged(
    problem: Problem,
    state: State,
    ahead: Dictionary,
    first: Number,
    codes: Iterate,
    sums: Sums,
    *,
    remade: bool = False,
) -> State:
    """3. Behind a pass over the activations, the dictionary's own update; 4. the step is kept if the objective fell.

    With `remade` codes no change is known that comes from the codes before; then values are compared, to rounding.
    """
    solver, history, old = problem.solver, state.history, state.dictionary
    cautious = history.rejected > 1
    dictionary, memory, last = problem.improve_dictionary(ahead, sums, old.memory, cautious)
    change = first + sums.change + last
    if problem.objective.weights is None and not remade:
        measured = problem.value(dictionary, sums)
        # Small changes are known better than two values' difference, large ones worse than the value itself.
        objective = jnp.where(jnp.abs(change) > 0.01 * measured, measured, history.objective + change)
    else:
        objective = problem.value(ahead, sums) + last
        change = objective - history.objective

    # This is the residual of the pair (codes, ahead) that the pass started from: the one whose gradients are known.
    moves = problem.codes_move(ahead, sums) + problem.dictionary_move(ahead, state.sums)
    residual = share(moves, problem.size)
    slack = 16 * float(jnp.finfo(ahead.dtype).eps) * problem.size if remade else 0
    accepted = change <= slack
    return State(
        codes=select(accepted, codes, state.codes.taken_back),
        dictionary=select(accepted, Iterate(dictionary, old.x, memory), old.taken_back),
        sums=select(accepted, sums, state.sums),
        history=history.after(
            accepted, objective, residual, rtol=solver.rtol, patience=_PATIENCE, finite=jnp.isfinite(change)
        ),
    )


def _unrolled(
    going: Callable[[State], Bool[Array, ""]], step: Callable[[State], State], state: State, length: int
) -> State:
    """The loop as a scan, whose steps are done as long as it's going."""

    def one(state: State, _: None) -> tuple[State, None]:
        state = jax.lax.cond(going(state), step, lambda state: state, state)
        # What's only told, or chosen by comparisons, has no derivative that would be of use.
        return dataclasses.replace(state, history=jax.lax.stop_gradient(state.history)), None

    return jax.lax.scan(one, state, None, length=length)[0]


def scaled(objective: SquaredError, dtype: jnp.dtype, largest: Number | None = None) -> tuple[SquaredError, Number]:
    """The objective divided by the largest weight, and that weight: the passes' bound holds for weights up to 1."""
    weights, unit = objective.weights, jnp.ones((), dtype)
    if weights is not None:
        unit = positive(jnp.max(weights) if largest is None else largest)
        weights = weights / unit
    penalties = {name: jnp.asarray(getattr(objective, name), dtype) / unit for name in PENALTIES}
    return SquaredError(weights, objective.row_weights, **penalties), unit

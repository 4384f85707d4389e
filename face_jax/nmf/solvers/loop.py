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
from jaxtyping import Array, Bool, Float

from ..history import History, begun, chooser
from ..linalg.steps import positive, share
from ..objective import SquaredError
from ..solution import Solution
from .passes import Codes, Dictionary, Sums
from .problem import Problem
from .rule import UpdateRule

_PATIENCE = 2  # steps taken back in a row, the last two of them cautious ones


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Where the loop is: the accepted factors, what they are extrapolated from, and the history."""

    codes: Codes
    plain_codes: Codes
    codes_memory: tuple[Array, ...]
    dictionary: Dictionary
    plain_dictionary: Dictionary
    dictionary_memory: tuple[Array, ...]
    sums: Sums
    history: History


def solve(
    activations: Float[Array, "row channel"],
    objective: SquaredError,
    solver: UpdateRule,
    codes: Codes,
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
    dtype = activations.dtype
    objective, unit = _scaled(objective, dtype)
    problem = Problem(activations, objective, solver, block_rows, _size(activations, objective))
    state = _first(problem, solver.begin(codes), dictionary if solver.signed_dictionary else solver.begin(dictionary))

    def going(state: State) -> Bool[Array, ""]:
        return state.history.going(solver.max_steps)

    if unrolled:
        state = _unrolled(going, lambda state: _step(problem, state), state, solver.max_steps)
    else:
        state = jax.lax.while_loop(going, lambda state: _step(problem, state), state)
    objective_value, residual = problem.measure(state.codes, state.dictionary)
    return state.history.solution(state.codes, state.dictionary, objective_value, residual, unit)


def _first(problem: Problem, codes: Codes, dictionary: Dictionary) -> State:
    solver = problem.solver
    sums = problem.sums(codes, dictionary)
    objective, residual = problem.value(dictionary, sums), problem.residual(dictionary, sums)
    return State(
        codes=codes,
        plain_codes=codes,
        codes_memory=solver.remember(codes),
        dictionary=dictionary,
        plain_dictionary=dictionary,
        dictionary_memory=() if solver.signed_dictionary else solver.remember(dictionary),
        sums=sums,
        history=begun(
            objective, residual, rtol=solver.rtol, max_steps=solver.max_steps, extrapolate=solver.extrapolate
        ),
    )


def _step(problem: Problem, state: State) -> State:
    solver, history = problem.solver, state.history
    beta = history.extrapolation
    cautious = history.rejected > 1

    # 1. The dictionary moves on from where it is, in the direction that it came.
    ahead = state.dictionary + beta * (state.dictionary - state.plain_dictionary)
    if not solver.signed_dictionary:
        ahead = jnp.maximum(ahead, 0)
    gram, cross = problem.dictionary_problem(state.sums)
    shift = ahead - state.dictionary
    first = jnp.sum(shift * (gram @ (state.dictionary + shift / 2) - cross))

    # 2. A pass over the activations, 3. the dictionary's own update.
    codes, plain, codes_memory, sums = problem.improve_codes(
        ahead, state.codes, state.plain_codes, state.codes_memory, beta, cautious
    )
    dictionary, dictionary_memory, last = problem.improve_dictionary(ahead, sums, state.dictionary_memory, cautious)
    change = first + sums.change + last
    if problem.objective.weights is None:
        measured = problem.value(dictionary, sums)
        # Small changes are known better than two values' difference, large ones worse than the value itself.
        objective = jnp.where(jnp.abs(change) > 0.01 * measured, measured, history.objective + change)
    else:
        objective = problem.value(ahead, sums) + last
        change = objective - history.objective

    # 4. Keep it if the objective fell.
    # This is the residual of the pair (codes, ahead) that the pass started from: the one whose gradients are known.
    moves = problem.codes_move(ahead, sums) + problem.dictionary_move(ahead, state.sums)
    residual = share(moves, problem.size)
    accepted = change <= 0
    keep = chooser(accepted)
    return State(
        codes=keep(codes, state.codes),
        plain_codes=keep(plain, state.codes),
        codes_memory=tuple(keep(a, b) for a, b in zip(codes_memory, state.codes_memory, strict=True)),
        dictionary=keep(dictionary, state.dictionary),
        plain_dictionary=state.dictionary,
        dictionary_memory=tuple(keep(a, b) for a, b in zip(dictionary_memory, state.dictionary_memory, strict=True)),
        sums=jax.tree.map(keep, sums, state.sums),
        history=history.after(
            accepted,
            objective,
            residual,
            rtol=solver.rtol,
            patience=_PATIENCE,
            finite=jnp.isfinite(change),
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


def _size(activations: Float[Array, "row channel"], objective: SquaredError) -> Float[Array, ""]:
    squares = activations**2
    if objective.weights is not None:
        squares = squares * objective.weights
    rows = jnp.sum(squares, axis=1)
    return jnp.sum(rows if objective.row_weights is None else rows * objective.row_weights)


def _scaled(objective: SquaredError, dtype: jnp.dtype) -> tuple[SquaredError, Float[Array, ""]]:
    """The objective divided by the largest weight, and that weight: the passes' bound holds for weights up to 1."""
    unit = jnp.ones((), dtype)
    if objective.weights is not None:
        largest = jnp.max(objective.weights)
        unit = positive(largest)
    part = lambda x: jnp.asarray(x, dtype) / unit  # noqa: E731
    scaled = SquaredError(
        weights=None if objective.weights is None else objective.weights / unit,
        row_weights=objective.row_weights,
        l1_codes=part(objective.l1_codes),
        l2_codes=part(objective.l2_codes),
        l1_dictionary=part(objective.l1_dictionary),
        l2_dictionary=part(objective.l2_dictionary),
    )
    return scaled, unit

"""The loop for a squared error with further terms: alternating blocks that never raise the whole objective.

Each block's quadratic model (exact for the squared error, a positive semidefinite curvature for the terms) is solved
by ADMM; the way to its solution is a descent direction, on which a line search looks at the objective itself. The
codes are improved block of rows by block of rows, each group of rows with its own step length. Then both factors move
together.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...linalg.line_search import select
from ..history import History, begun
from ..shapes import Codes, Dictionary, Gram, Number
from ..solution import Solution
from ..steps import share
from .codes_pass import codes_pass, measure
from .moves import improve_dictionary, move_together
from .problem import Problem

JOINT_ROWS = 8192  # up to this many rows both factors also move together, which holds all predictions at once


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Where the loop is."""

    codes: Codes
    dictionary: Dictionary
    previous_codes: Codes
    previous_dictionary: Dictionary
    gram: Gram
    cross: Dictionary
    values: Float[Array, " group"]
    history: History


def solve(problem: Problem, codes: Codes, dictionary: Dictionary) -> Solution:
    """Run the loop from the given factors: a pure function of arrays, ready for `jit` and `vmap`.

    **Arguments:**

    - `problem`: what's minimized, and how.
    - `codes`, `dictionary`: first factors.

    **Returns:** the solution.
    """
    settings = problem.settings
    state = _first(problem, codes, dictionary)

    def going(state: State) -> Array:
        return state.history.going(settings.max_steps)

    state = jax.lax.while_loop(going, lambda state: _step(problem, state), state)
    return state.history.solution(state.codes.T, state.dictionary, *measure(problem, state.codes, state.dictionary))


def _first(problem: Problem, codes: Codes, dictionary: Dictionary) -> State:
    settings = problem.settings
    _, values, sums = codes_pass(problem, codes, dictionary, codes, improve=False)
    objective = problem.objective(codes, dictionary, sums, values)
    _, slope, gram = problem.dictionary_slope(sums, dictionary)
    residual = share(sums.moves + problem.dictionary_moves(slope, gram, dictionary), problem.size)
    return State(
        codes=codes,
        dictionary=dictionary,
        previous_codes=codes,
        previous_dictionary=dictionary,
        gram=sums.gram,
        cross=sums.cross,
        values=values,
        history=begun(objective, residual, settings.rtol, settings.max_steps, settings.extrapolate),
    )


def ahead(problem: Problem, state: State) -> tuple[Dictionary, Number]:
    """The dictionary, extrapolated, and how the squared error changes by that."""
    dictionary = state.dictionary + state.history.extrapolation * (state.dictionary - state.previous_dictionary)
    if not problem.settings.signed:
        dictionary = jnp.maximum(dictionary, 0)
    shift = dictionary - state.dictionary
    l1, l2 = problem.quadratic.l1_dictionary, problem.quadratic.l2_dictionary
    middle = (state.dictionary + dictionary) / 2
    return dictionary, jnp.sum(shift * (state.gram @ middle - state.cross + l1 + l2 * middle))


def judged(problem: Problem, history: History, change: Number, residual: Number) -> History:
    """The history one step later: the step is kept if the objective fell."""
    accepted = change <= 0
    return history.after(
        accepted,
        history.objective + change,
        residual,
        rtol=problem.settings.rtol,
        # Without extrapolation no block can raise the objective by more than rounding.
        patience=1,
        still=accepted & (change == 0) & (history.extrapolation == 0),
        finite=jnp.isfinite(change),
    )


def _step(problem: Problem, state: State) -> State:
    history = state.history
    beta = history.extrapolation
    codes = jnp.maximum(state.codes + beta * (state.codes - state.previous_codes), 0)
    dictionary, moved = ahead(problem, state)

    new_codes, values, sums = codes_pass(problem, codes, dictionary, state.codes, improve=True)
    new_dictionary, values, last, moves = improve_dictionary(
        problem, new_codes, dictionary, sums, values, history.step * 37
    )
    gram, cross, together = sums.gram, sums.cross, jnp.zeros_like(last)
    if problem.rows <= JOINT_ROWS:
        new_codes, new_dictionary, values, together = move_together(problem, new_codes, new_dictionary, values)
        weighed = new_codes * problem.weights(new_codes)[:, None]
        gram, cross = weighed.T @ new_codes, weighed.T @ problem.activations
    change = moved + sums.change + last + together + jnp.sum(values - state.values)
    residual = share(sums.moves + moves, problem.size)

    accepted = change <= 0
    keep = partial(select, accepted)
    return State(
        codes=keep(new_codes, state.codes),
        dictionary=keep(new_dictionary, state.dictionary),
        previous_codes=state.codes,
        previous_dictionary=state.dictionary,
        gram=keep(gram, state.gram),
        cross=keep(cross, state.cross),
        values=keep(values, state.values),
        history=judged(problem, history, change, residual),
    )

"""The loop for a squared error with further terms: alternating blocks that never raise the whole objective.

Each block's quadratic model (exact for the squared error, a positive semidefinite curvature for the terms) is solved
by ADMM; the way to its solution is a descent direction, on which a line search looks at the objective itself. The
codes are improved block of rows by block of rows, each group of rows with its own step length. Then both factors move
together.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .moves import improve_dictionary, move_together
from .problem import Codes, Dictionary, Problem, Settings, ratio
from .results import RESULTS, Result
from .solution import Solution, Stats, count_dead, count_duplicated, normalized

_JOINT_ROWS = 8192  # up to this many rows both factors also move together, which holds all predictions at once
# As in the plain loop (Ang & Gillis 2019, section 3.3).
_FIRST, _GROWTH, _BOUND_GROWTH, _CUT = 0.5, 1.05, 1.01, 1.5
# What encoding takes: rows alone, solved more exactly.
ENCODING = Settings(inner=3, steps=10, joint=0, cg_rtol=0.01, rtol=0.0, max_steps=50, extrapolate=False, signed=False)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Where the loop is."""

    codes: Codes
    dictionary: Dictionary
    previous_codes: Codes
    previous_dictionary: Dictionary
    gram: Float[Array, "concept concept"]
    cross: Dictionary
    values: Float[Array, " group"]
    objective: Float[Array, ""]
    beta: Float[Array, ""]
    bound: Float[Array, ""]
    rejected: Int[Array, ""]
    restarts: Int[Array, ""]
    step: Int[Array, ""]
    code: Int[Array, ""]
    objectives: Float[Array, " step"]
    residuals: Float[Array, " step"]


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
        return (state.code < 0) & (state.step < settings.max_steps)

    state = jax.lax.while_loop(going, lambda state: _step(problem, state), state)
    value, residual = problem.measure(state.codes, state.dictionary)
    ended = jnp.where(state.code < 0, RESULTS.max_steps_reached.value, state.code)
    ended = jnp.where(jnp.isfinite(value), ended, RESULTS.nonfinite.value).astype(jnp.int32)
    columns, dictionary, scale = normalized(state.codes.T, state.dictionary)
    stats = Stats(
        objective=state.objectives,
        residual=state.residuals,
        steps=state.step,
        restarts=state.restarts,
        final_objective=value,
        final_residual=residual,
        dead=count_dead(columns),
        duplicated=count_duplicated(dictionary),
    )
    return Solution(columns.T, dictionary, scale, Result(ended), stats)


def _first(problem: Problem, codes: Codes, dictionary: Dictionary) -> State:
    settings, dtype = problem.settings, codes.dtype
    _, values, sums = problem.codes_pass(codes, dictionary, codes, improve=False)
    objective = problem.objective(codes, dictionary, sums, values)
    _, slope, gram = problem.dictionary_slope(sums, dictionary)
    residual = ratio(sums.moves + problem.dictionary_moves(slope, gram, dictionary), problem.size)
    empty = jnp.full((settings.max_steps + 1,), jnp.nan, dtype)
    arrived = jnp.where(residual <= settings.rtol, RESULTS.successful.value, -1)
    return State(
        codes=codes,
        dictionary=dictionary,
        previous_codes=codes,
        previous_dictionary=dictionary,
        gram=sums.gram,
        cross=sums.cross,
        values=values,
        objective=objective,
        beta=jnp.asarray(_FIRST if settings.extrapolate else 0.0, dtype),
        bound=jnp.ones((), dtype),
        rejected=jnp.zeros((), jnp.int32),
        restarts=jnp.zeros((), jnp.int32),
        step=jnp.zeros((), jnp.int32),
        code=jnp.where(jnp.isfinite(objective), arrived, RESULTS.nonfinite.value).astype(jnp.int32),
        objectives=empty.at[0].set(objective),
        residuals=empty.at[0].set(residual),
    )


def _step(problem: Problem, state: State) -> State:
    settings = problem.settings
    beta = jnp.where(state.rejected > 0, 0, state.beta)
    codes = jnp.maximum(state.codes + beta * (state.codes - state.previous_codes), 0)
    dictionary = state.dictionary + beta * (state.dictionary - state.previous_dictionary)
    if not settings.signed:
        dictionary = jnp.maximum(dictionary, 0)
    shift = dictionary - state.dictionary
    l1, l2 = problem.penalty("l1_dictionary"), problem.penalty("l2_dictionary")
    middle = (state.dictionary + dictionary) / 2
    moved = jnp.sum(shift * (state.gram @ middle - state.cross + l1 + l2 * middle))

    new_codes, values, sums = problem.codes_pass(codes, dictionary, state.codes, improve=True)
    new_dictionary, values, last, moves = improve_dictionary(
        problem, new_codes, dictionary, sums, values, state.step * 37
    )
    gram, cross, together = sums.gram, sums.cross, jnp.zeros_like(last)
    if settings.joint and problem.rows <= _JOINT_ROWS:
        new_codes, new_dictionary, values, together = move_together(problem, new_codes, new_dictionary, values)
        weights = problem.quadratic.row_weights
        weighed = new_codes if weights is None else new_codes * weights[:, None]
        gram, cross = weighed.T @ new_codes, weighed.T @ problem.activations
    change = moved + sums.change + last + together + jnp.sum(values - state.values)
    residual = ratio(sums.moves + moves, problem.size)

    accepted = change <= 0
    keep = lambda new, old: jnp.where(accepted, new, old)  # noqa: E731
    rejected = jnp.where(accepted, 0, state.rejected + 1).astype(jnp.int32)
    code = jnp.where(accepted & (residual <= settings.rtol), RESULTS.successful.value, -1)
    # Without extrapolation no block can raise the objective by more than rounding.
    code = jnp.where((rejected > 1) | (accepted & (change == 0) & (beta == 0)), RESULTS.stalled.value, code)
    code = jnp.where(jnp.isfinite(change), code, RESULTS.nonfinite.value)
    objective = state.objective + jnp.where(accepted, change, 0)
    grown = jnp.minimum(state.bound, _GROWTH * state.beta)
    return State(
        codes=keep(new_codes, state.codes),
        dictionary=keep(new_dictionary, state.dictionary),
        previous_codes=state.codes,
        previous_dictionary=state.dictionary,
        gram=keep(gram, state.gram),
        cross=keep(cross, state.cross),
        values=keep(values, state.values),
        objective=objective,
        beta=keep(jnp.where(state.rejected > 0, state.beta, grown), state.beta / _CUT),
        bound=keep(jnp.minimum(1, _BOUND_GROWTH * state.bound), state.beta),
        rejected=rejected,
        restarts=state.restarts + (~accepted).astype(jnp.int32),
        step=state.step + 1,
        code=code.astype(jnp.int32),
        objectives=state.objectives.at[state.step + 1].set(objective),
        residuals=state.residuals.at[state.step + 1].set(jnp.where(accepted, residual, state.residuals[state.step])),
    )


def encode(problem: Problem, codes: Codes, dictionary: Dictionary) -> Codes:
    """Codes that minimize the whole objective for a dictionary that stands still, from the given ones."""
    scale = jnp.sqrt(jnp.finfo(codes.dtype).eps)

    def going(carry: tuple[Codes, Array, Array]) -> Array:
        _, moving, step = carry
        return moving & (step < problem.settings.max_steps)

    def step(carry: tuple[Codes, Array, Array]) -> tuple[Codes, Array, Array]:
        codes, _, count = carry
        new, _, sums = problem.codes_pass(codes, dictionary, codes, improve=True)
        far = ratio(sums.moves, problem.size) > scale * 1e-3
        return new, far & jnp.any(new != codes), count + 1

    start = (codes, jnp.ones((), bool), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(going, step, start)[0]

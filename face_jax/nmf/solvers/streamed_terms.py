"""The loop for a squared error with further terms, for rows that come piece by piece: the same steps as in memory.

What the terms have to know of rows, such as what a classifier says of them, is made from the rows wherever it's needed.
A step reads all rows once for the codes, and once for each step length that the dictionary tries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...linalg.line_search import armijo, shorter_by_parabola
from ...linalg.row_blocks import RowBlocks as Division
from ..history import begun
from ..objective import SquaredError
from ..shapes import Codes, Dictionary, Number
from ..solution import Solution, normalized
from ..steps import share
from ..terms.alternation import State, ahead, judged
from ..terms.codes_pass import codes_pass
from ..terms.moves import Way, dictionary_way
from ..terms.problem import TRIALS, Part, Problem, Settings, Sums, sampled_groups
from .stream import Piece, Scale
from .streamed_walk import Known as Known
from .streamed_walk import Terms as Terms
from .streamed_walk import Walk as Walk
from .streamed_walk import together as together

Out = Callable[[int, int, np.ndarray], None]


def solve(
    walk: Walk, dictionary: Dictionary | None, *, out: Out | None, told: Callable[[Any], None], keeper: Any = None
) -> Solution:
    """Run the loop from `walk`'s codes (its array 1) and a dictionary.

    **Arguments:**

    - `walk`, `dictionary`: the problem and first factors.
    - `out`: takes the final codes; they go nowhere if None.
    - `told`: called with the state behind each step.
    - `keeper`: as for a squared error alone; then there's no first dictionary for a run that goes on.

    **Returns:** the solution, without codes.
    """
    settings, dtype = walk.settings, walk.stream.dtype
    if keeper is not None and keeper.last is not None:
        (state, walk.size), said = keeper.load(partial(_like, walk), walk.codes[:2])
        state = dataclasses.replace(state, history=state.history.of_length(settings.max_steps))
        walk.still = bool(said["still"])
    else:
        assert dictionary is not None
        values, (sums, penalty, walk.size) = _measure(walk, dictionary, first=True)
        objective, residual = _first(walk.ends(), dictionary, sums, penalty, values)
        state = _state(walk, dictionary, sums, values, objective, residual)
    told(state)
    while int(state.history.code) < 0 and int(state.history.step) < settings.max_steps:
        state = _step(walk, state)
        told(state)
        if keeper is not None and keeper.wanted(int(state.history.step)):
            said = {"still": walk.still}
            keeper.save(int(state.history.step), (state, walk.size), walk.codes[:2], said)
    found = state.dictionary
    length = normalized(jnp.zeros((walk.rank, 0), dtype), found)[2]
    alive = np.zeros(walk.rank, bool)

    def give(start: int, stop: int, codes: Codes) -> None:
        alive[:] |= np.any(np.asarray(codes) > 0, axis=0)
        if out is not None:
            out(start, stop, np.asarray(codes) * np.asarray(length)[None])

    values, (sums, penalty, _) = _measure(walk, found, give=give)
    objective, residual = _first(walk.ends(), found, sums, penalty, values)
    solution = state.history.solution(jnp.zeros((walk.rank, 0), dtype), found, objective, residual)
    dead = jnp.asarray(np.sum(~alive), jnp.int32)
    return dataclasses.replace(solution, stats=dataclasses.replace(solution.stats, dead=dead))


def _state(walk: Walk, dictionary: Dictionary, sums: Sums, values: Array, objective: Number, residual: Number) -> State:
    settings, none = walk.settings, jnp.zeros((0, walk.rank), dictionary.dtype)
    rtol = jnp.asarray(settings.rtol, dictionary.dtype)
    history = begun(objective, residual, rtol, settings.max_steps, settings.extrapolate)
    return State(none, dictionary, none, dictionary, sums.gram, sums.cross, values, history)


def _like(walk: Walk, max_steps: int) -> Any:
    """A state and `‖A‖²` of the right shapes."""
    number = jnp.zeros((), walk.stream.dtype)
    dictionary = jnp.zeros((walk.rank, walk.stream.shape[1]), number.dtype)
    sums = Sums(jnp.zeros((walk.rank,) * 2, number.dtype), dictionary, dictionary, number, number)
    state = _state(walk, dictionary, sums, jnp.asarray(_values_of_none(walk)), number, number)
    return dataclasses.replace(state, history=state.history.of_length(max_steps)), number


def _measure(walk: Walk, dictionary: Dictionary, *, first: bool = False, give: Any = None) -> tuple[Array, Any]:
    """The terms' values of all groups; and sums, the codes' penalty and `‖A‖²`."""
    values, total = _values_of_none(walk), None
    for piece, terms in walk.pieces():
        codes = walk.some(1, piece.start, piece.stop)
        if first:
            activations = jnp.asarray(piece.values).astype(walk.stream.dtype)
            for weighted, finite in zip(terms, _prepared(activations, terms), strict=True):
                weighted.term.check(activations)
                weighted.term.check_prepared(finite)
        found, more = _measured(
            piece.anywhere, walk.stream.scale, walk.quadratic, terms, codes, dictionary, walk.settings, walk.group
        )
        total = more if total is None else _add(total, more)
        _put(walk, values, piece, found)
        if give is not None:
            give(piece.start, piece.stop, codes)
    return jnp.asarray(values), total


def _step(walk: Walk, state: State) -> State:
    known, stream, group = walk.ends(), walk.stream, walk.group
    dictionary, moved = _ahead(known, state)
    beta = state.history.extrapolation
    groups = stream.shape[0] // group
    chosen = _sample_of(groups, sampled_groups(group), int(state.history.step) * 37)
    order = np.argsort(chosen, kind="stable")
    rows_of_sample = np.zeros((len(chosen), group, stream.shape[1]), stream.source.dtype)
    codes_of_sample = np.zeros((len(chosen), group, walk.rank), stream.dtype)
    values = _values_of_none(walk)
    sums: Any = None
    for piece, terms in walk.pieces():
        now = walk.some(1, piece.start, piece.stop)
        before = now if walk.still else walk.some(0, piece.start, piece.stop)
        new, found, more = _improved(
            piece.anywhere, stream.scale, walk.quadratic, terms, now, before, dictionary, beta, walk.settings, group
        )
        sums = more if sums is None else _add(sums, more)
        new = np.asarray(new)
        walk.put(2, piece.start, piece.stop, new)
        _put(walk, values, piece, found)
        first, last = np.searchsorted(chosen, [piece.start // group, piece.stop // group], sorter=order)
        places = order[first:last]
        here = chosen[places] - piece.start // group
        rows_of_sample[places] = np.asarray(piece.values).reshape(-1, group, stream.shape[1])[here]
        codes_of_sample[places] = new.reshape(-1, group, walk.rank)[here]
    way = _way(
        known, walk.stream.scale, rows_of_sample.reshape(-1, stream.shape[1]), codes_of_sample.reshape(-1, walk.rank),
        walk.of(chosen), dictionary, sums, groups / len(chosen), group,
    )  # fmt: skip
    new_values, t = _searched(walk, way, dictionary, jnp.asarray(values))
    new_dictionary, history, accepted = _judge(known, state, way, t, dictionary, sums, moved, new_values)
    if bool(accepted):
        walk.keep()
    else:
        walk.still = True
    return State(
        codes=state.codes,
        dictionary=new_dictionary if bool(accepted) else state.dictionary,
        previous_codes=state.codes,
        previous_dictionary=state.dictionary,
        gram=sums.gram if bool(accepted) else state.gram,
        cross=sums.cross if bool(accepted) else state.cross,
        values=new_values if bool(accepted) else state.values,
        history=history,
    )


def _searched(walk: Walk, way: Way, dictionary: Dictionary, values: Array) -> tuple[Array, Number]:
    """The terms' values at the dictionary's step, and its length: ever shorter steps, until one is good."""
    t = jnp.ones((), walk.stream.dtype)
    if not bool(way.total < 0):
        return values, 0 * t
    for _ in range(TRIALS):
        tried, found = dictionary + t * way.direction, _values_of_none(walk)
        for piece, terms in walk.pieces():
            codes = walk.some(2, piece.start, piece.stop)
            mine = _values(
                piece.anywhere, walk.stream.scale, walk.quadratic, terms, codes, tried, walk.settings, walk.group
            )
            _put(walk, found, piece, mine)
        found = jnp.asarray(found)
        change = way.squared_change(t) + jnp.sum(found - values)
        if bool(armijo(change, t * way.total)):
            return found, t
        t = shorter_by_parabola(t, change, way.total)
    return values, 0 * t


def _values_of_none(walk: Walk) -> np.ndarray:
    return np.zeros(walk.stream.shape[0] // walk.group, walk.stream.dtype)


def _put(walk: Walk, values: np.ndarray, piece: Piece, found: Array) -> None:
    values[piece.start // walk.group : piece.stop // walk.group] = np.asarray(found)


def _sample_of(groups: int, count: int, offset: int) -> np.ndarray:
    """As `Problem.sample` chooses groups."""
    if groups <= count:
        return np.arange(groups)
    return np.arange(count) * groups // count + offset % (groups // count)


def _problem(
    piece: Piece, scale: Scale, quadratic: SquaredError, terms: tuple[Any, ...], settings: Settings, group: int
) -> Problem:
    activations = scale.activations(piece)
    mine = scale.objective(piece, quadratic)
    parts = tuple(
        Part(
            weighted.weight,
            weighted.term,
            weighted.term.prepare(activations),
            weighted.term.rows_together(len(activations)),
        )
        for weighted in mine.with_terms(terms).in_dtype(activations.dtype).terms
    )
    size = dataclasses.replace(mine, weights=None).size(activations)
    return Problem(activations, mine, parts, settings, group, size, division=piece.division)


@jax.jit
def _prepared(activations: Array, terms: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(weighted.term.prepare(activations) for weighted in terms)


@jax.jit
def _add(first: Any, second: Any) -> Any:
    return jax.tree.map(jnp.add, first, second)


@partial(jax.jit, static_argnames=("settings", "group"))
def _measured(
    piece: Piece, scale: Scale, quadratic: SquaredError, terms: Any, codes: Codes, dictionary: Dictionary,
    settings: Any, group: int,
) -> tuple[Array, Any]:  # fmt: skip
    problem = _problem(piece, scale, quadratic, terms, settings, group)
    _, values, sums = codes_pass(problem, codes, dictionary, codes, improve=False)
    return values, (sums, problem.codes_penalty(codes), problem.size)


@partial(jax.jit, static_argnames=("settings", "group"))
def _improved(
    piece: Piece, scale: Scale, quadratic: SquaredError, terms: Any, now: Codes, before: Codes, dictionary: Dictionary,
    beta: Number, settings: Any, group: int,
) -> tuple[Codes, Array, Sums]:  # fmt: skip
    problem = _problem(piece, scale, quadratic, terms, settings, group)
    codes = jnp.maximum(now + beta * (now - before), 0)
    return codes_pass(problem, codes, dictionary, now, improve=True)


@partial(jax.jit, static_argnames=("settings", "group"))
def _values(
    piece: Piece, scale: Scale, quadratic: SquaredError, terms: Any, codes: Codes, dictionary: Dictionary,
    settings: Any, group: int,
) -> Array:  # fmt: skip
    return _problem(piece, scale, quadratic, terms, settings, group).all_values(codes, dictionary)


@partial(jax.jit, static_argnames="group")
def _way(
    known: Known, scale: Scale, rows: Any, codes: Any, terms: Any, dictionary: Dictionary, sums: Sums, times: Any,
    group: int,
) -> Way:  # fmt: skip
    piece = Piece(rows, None, None, 0, len(rows), Division(len(rows), len(rows), 1))
    problem = _problem(piece, scale, known.quadratic, terms, known.settings, group)
    return dictionary_way(known.problem, (problem.parts, codes, jnp.asarray(times, codes.dtype)), dictionary, sums)


@jax.jit
def _ahead(known: Known, state: State) -> tuple[Dictionary, Number]:
    return ahead(known.problem, state)


@jax.jit
def _first(known: Known, dictionary: Dictionary, sums: Sums, penalty: Number, values: Array) -> tuple[Number, Number]:
    problem = known.problem
    _, slope, gram = problem.dictionary_slope(sums, dictionary)
    residual = share(sums.moves + problem.dictionary_moves(slope, gram, dictionary), problem.size)
    return problem.objective_from(penalty, dictionary, sums, values), residual


@jax.jit
def _judge(
    known: Known, state: State, way: Way, t: Number, dictionary: Dictionary, sums: Sums, moved: Number, values: Array
) -> tuple[Dictionary, Any, Array]:
    change = moved + sums.change + way.squared_change(t) + jnp.sum(values - state.values)
    residual = share(sums.moves + way.moves, known.size)
    history = judged(known.problem, state.history, change, residual)
    return way.end(dictionary, t), history, change <= 0

"""The solvers' loop for rows that come piece by piece: the same steps as in memory, with the same sums.

What crosses from one piece to the next, and from one pass to the next beside the codes, is `concept × channel` numbers.
Codes wait in `CodeSlots`; or they are made again from the dictionary in each pass, and none are kept.
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

from ...blocks.scratch import Scratch
from ..nnls.least_squares import codes_of
from ..objective import SquaredError
from ..shapes import CodesT, Dictionary, Number
from ..solution import Solution, normalized
from .code_slots import CodeSlots
from .loop import State, first_state, judged, move_ahead
from .passes import Sums, pass_over, squared_error
from .problem import Problem, guarded
from .rule import Iterate, UpdateRule
from .stream import Piece, Scale, Stream

MakeCodes = Callable[[Piece, Scale], CodesT]
Told = Callable[[State], None]
Out = Any


def solve(
    stream: Stream,
    objective: SquaredError,
    solver: Any,
    make: MakeCodes | None,
    dictionary: Dictionary | None,
    *,
    rank: int,
    out: Callable[[int, int, np.ndarray], None] | None,
    scratch: Scratch,
    remade: bool = False,
    unit: Number | float = 1.0,
    told: Told = lambda state: None,
    keeper: Any = None,
) -> Solution:
    """Run the loop.

    **Arguments:**

    - `stream`, `objective`, `solver`: the problem, in the units of the pass, and the rule.
    - `make`: first codes of a piece, concepts first; None for a run that goes on.
    - `dictionary`: the first one; likewise.
    - `rank`: how many concepts.
    - `out`: takes the final codes of rows from one number to another, `row × concept`; they go nowhere if None.
    - `scratch`: makes room for the codes meanwhile.
    - `remade`: keep none: they are least squares for the dictionary in each pass.
    - `unit`: what objectives are multiplied by.
    - `told`: called with the state behind each step.
    - `keeper`: keeps the state now and then; one that has a last state is gone on from.

    **Returns:** the solution, without codes.
    """
    solver = dataclasses.replace(solver, rtol=jnp.asarray(solver.rtol, stream.dtype))
    slots = None if remade else CodeSlots(stream.shape[0], rank, stream.dtype, solver, scratch)
    if keeper is not None and keeper.last is not None:
        like = partial(_like, stream, objective, solver, rank)
        (state, size), said = keeper.load(like, [] if slots is None else slots.current)
        state = dataclasses.replace(state, history=state.history.of_length(solver.max_steps))
        if slots is not None:
            slots.back = bool(said["back"])
    else:
        assert make is not None
        assert dictionary is not None
        state, size = _begin(stream, objective, solver, make, dictionary, slots)
    told(state)
    while int(state.history.code) < 0 and int(state.history.step) < solver.max_steps:
        state = _step(stream, objective, solver, size, state, slots)
        told(state)
        if keeper is not None and keeper.wanted(int(state.history.step)):
            arrays, back = ([], True) if slots is None else (slots.current, slots.back)
            keeper.save(int(state.history.step), (state, size), arrays, {"back": back})
    return _finish(stream, objective, solver, size, state, slots, out, unit)


def _begin(
    stream: Stream,
    objective: SquaredError,
    solver: UpdateRule,
    make: MakeCodes,
    dictionary: Dictionary,
    slots: CodeSlots | None,
) -> tuple[State, Number]:
    """First codes, what they sum up to, and `‖A‖²`."""
    if not solver.signed_dictionary:
        dictionary = solver.begin(dictionary)
    mean = None
    if type(solver).begin is not UpdateRule.begin and slots is not None:
        total = jnp.zeros((), stream.dtype)
        for piece in stream.there():
            total = total + jnp.sum(make(piece, stream.scale))
        mean = total / (stream.shape[0] * dictionary.shape[0])
    total = _nothing(dictionary), jnp.zeros((), stream.dtype)
    for piece in stream.there():
        here = piece.anywhere
        codes = _remade(here, stream.scale, objective, dictionary) if slots is None else make(piece, stream.scale)
        if mean is not None:
            codes = solver.begin(codes, mean)
        codes, total = _first_sums(here, stream.scale, objective, solver, dictionary, codes, total)
        if slots is not None:
            slots.write(piece.start, piece.stop, codes)
        jax.block_until_ready(total)
    if slots is not None:
        slots.keep()
        slots.take_back()
    sums, size = total
    return _first_state(objective, solver, size, dictionary, sums), size


def _step(
    stream: Stream, objective: SquaredError, solver: UpdateRule, size: Number, state: State, slots: CodeSlots | None
) -> State:
    ahead, first = _move_ahead(objective, solver, size, state)
    beta, cautious = state.history.extrapolation, state.history.rejected > 1
    sums = _nothing(ahead)
    for piece in stream.there():
        here = piece.anywhere
        if slots is None:
            codes = _remade(here, stream.scale, objective, ahead)
            sums = _add(sums, _sums(here, stream.scale, objective, ahead, codes))
        else:
            codes = slots.read(piece.start, piece.stop)
            codes, sums = _improve(here, stream.scale, objective, solver, ahead, codes, beta, cautious, sums)
            slots.write(piece.start, piece.stop, codes)
        # One piece is worked on and one is read, no more.
        jax.block_until_ready(sums)
    state = _judged(objective, solver, size, state, ahead, first, sums, slots is None)
    if slots is not None:
        slots.take_back() if int(state.history.rejected) else slots.keep()
    return state


def _finish(
    stream: Stream,
    objective: SquaredError,
    solver: UpdateRule,
    size: Number,
    state: State,
    slots: CodeSlots | None,
    out: Callable[[int, int, np.ndarray], None] | None,
    unit: Number | float,
) -> Solution:
    """What is told of the factors, measured in one more pass, which gives their codes away."""
    dictionary = state.dictionary.x
    length = normalized(jnp.zeros((dictionary.shape[0], 0), stream.dtype), dictionary)[2]
    error, alive = jnp.zeros((), stream.dtype), jnp.zeros(dictionary.shape[0], bool)
    total = _nothing(dictionary), error, alive
    for piece in stream.there():
        here = piece.anywhere
        if slots is None:
            codes = _remade(here, stream.scale, objective, dictionary)
        else:
            codes = slots.read(piece.start, piece.stop).x
        found, total = _measured(here, stream.scale, objective, dictionary, codes, length, total)
        if out is not None:
            out(piece.start, piece.stop, np.asarray(found))
        jax.block_until_ready(total)
    sums, error, alive = total
    value, residual = _value(objective, solver, size, dictionary, sums, error)
    nobody = jnp.zeros((dictionary.shape[0], 0), stream.dtype)
    solution = state.history.solution(nobody, dictionary, value, residual, unit)
    dead = jnp.sum(~alive, dtype=jnp.int32)
    return dataclasses.replace(solution, stats=dataclasses.replace(solution.stats, dead=dead))


def _like(stream: Stream, objective: SquaredError, solver: Any, rank: int, max_steps: int) -> Any:
    """A state and `‖A‖²` of the right shapes."""
    solver = dataclasses.replace(solver, max_steps=max_steps)
    number, dictionary = jnp.zeros((), stream.dtype), jnp.zeros((rank, stream.shape[1]), stream.dtype)
    return _first_state(objective, solver, number, dictionary, _nothing(dictionary)), number


def _problem(objective: SquaredError, solver: UpdateRule, size: Number, dictionary: Dictionary) -> Problem:
    """What of a problem is known without its rows."""
    none = jnp.zeros((0, dictionary.shape[1]), dictionary.dtype)
    # Whether entries have weights is all that counts of them.
    return Problem(none, objective, solver, None, size)


def _nothing(dictionary: Dictionary) -> Sums:
    zero = jnp.zeros((), dictionary.dtype)
    gram = jnp.zeros((dictionary.shape[0],) * 2, dictionary.dtype)
    return Sums(jnp.zeros_like(dictionary), gram, zero, zero, jnp.zeros_like(gram[0]))


@jax.jit
def _add(first: Any, second: Any) -> Any:
    return jax.tree.map(jnp.add, first, second)


@jax.jit
def _first_sums(
    piece: Piece, scale: Scale, objective: SquaredError, solver: Any, dictionary: Dictionary, codes: CodesT, total: Any
) -> tuple[Iterate, Any]:
    activations, mine = scale.activations(piece), scale.objective(piece, objective)
    begun = Iterate(codes, codes, solver.remember(codes))
    sums = pass_over(activations, mine, None, dictionary, begun, block_rows=piece.division)[1]
    return begun, _add(total, (sums, mine.size(activations)))


@jax.jit
def _improve(
    piece: Piece, scale: Scale, objective: SquaredError, solver: Any, ahead: Dictionary, codes: Iterate,
    beta: Number, cautious: Array, sums: Sums,
) -> tuple[Iterate, Sums]:  # fmt: skip
    update = guarded(solver, cautious)
    codes, more = pass_over(
        scale.activations(piece), scale.objective(piece, objective), update, ahead, codes, beta,
        block_rows=piece.division,
    )  # fmt: skip
    return codes, _add(sums, more)


@jax.jit
def _sums(piece: Piece, scale: Scale, objective: SquaredError, dictionary: Dictionary, codes: CodesT) -> Sums:
    mine, still = scale.objective(piece, objective), Iterate(codes, codes)
    return pass_over(scale.activations(piece), mine, None, dictionary, still, block_rows=piece.division)[1]


@jax.jit
def _remade(piece: Piece, scale: Scale, objective: SquaredError, dictionary: Dictionary) -> CodesT:
    """Least squares for the dictionary; what it can't hold in a row is 0."""
    codes = codes_of(scale.activations(piece), dictionary, scale.objective(piece, objective))[0].T
    return jnp.where(jnp.isfinite(codes), codes, 0)


@jax.jit
def _measured(
    piece: Piece,
    scale: Scale,
    objective: SquaredError,
    dictionary: Dictionary,
    codes: CodesT,
    length: Array,
    total: Any,
) -> tuple[Array, Any]:
    activations, mine = scale.activations(piece), scale.objective(piece, objective)
    still = Iterate(codes, codes)
    sums = pass_over(activations, mine, None, dictionary, still, block_rows=piece.division)[1]
    error = squared_error(activations, mine, (codes, dictionary), block_rows=piece.division)
    before, so_far, alive = total
    total = (*_add((before, so_far), (sums, error)), alive | jnp.any(codes > 0, axis=1))
    found = (codes * length[:, None]).T
    return found if scale.unit is None else found * scale.unit, total


@jax.jit
def _first_state(objective: SquaredError, solver: Any, size: Number, dictionary: Dictionary, sums: Sums) -> State:
    problem = _problem(objective, solver, size, dictionary)
    state = first_state(problem, jnp.zeros((dictionary.shape[0], 0), dictionary.dtype), dictionary, sums)
    return dataclasses.replace(state, codes=Iterate(state.codes.x, state.codes.x))


@jax.jit
def _move_ahead(objective: SquaredError, solver: Any, size: Number, state: State) -> tuple[Dictionary, Number]:
    return move_ahead(_problem(objective, solver, size, state.dictionary.x), state)


@partial(jax.jit, static_argnums=7)
def _judged(
    objective: SquaredError, solver: Any, size: Number, state: State, ahead: Dictionary, first: Number, sums: Sums,
    remade: bool,
) -> State:  # fmt: skip
    problem = _problem(objective, solver, size, ahead)
    return judged(problem, state, ahead, first, state.codes, sums, remade=remade)


@jax.jit
def _value(
    objective: SquaredError, solver: Any, size: Number, dictionary: Dictionary, sums: Sums, error: Number
) -> tuple[Number, Number]:
    problem = _problem(objective, solver, size, dictionary)
    value = problem.value(dictionary, sums)
    if objective.weights is None:
        value = jnp.where(problem.cancels(dictionary, sums), problem.penalty(dictionary, sums) + error, value)
    return value, problem.residual(dictionary, sums)

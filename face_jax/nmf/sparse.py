"""Factorization and encoding of sparse rows, which are never made dense: room and time go with their entries."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.core import Tracer
from jaxtyping import Array, Float, Key

from ..linalg.sparse_rows import SparseRows, squared_error
from ..support.arguments import shown
from . import magnitude, stored_derivative, validate
from .objective import SquaredError
from .shapes import Codes, CodesT, Dictionary, Number
from .solution import Solution
from .solvers.loop import State, first_state, judged, move_ahead, scaled
from .solvers.passes import Sums, improved
from .solvers.problem import Problem, guarded
from .solvers.rule import Iterate
from .solvers.update_rules import Solver
from .sparse_starts import begin
from .steps import ridged


def sparse_rows(name: str, value: Any) -> SparseRows | None:
    """A sparse matrix of SciPy (CSR, CSC, COO, …) or of JAX (BCOO, BCSR) with real numbers; None for anything else.

    Raises `ValueError` for those that are traced, have other axes than two, or no numbers that can be factorized.
    """
    package = type(value).__module__.partition(".")[0]
    if package == "jax" and hasattr(value, "todense"):
        value = matrix_of_jax(name, value)
    elif not scipy.sparse.issparse(value):
        return None
    if len(value.shape) != 2 or 0 in value.shape:
        raise ValueError(f"{name} has shape {value.shape}; give a matrix, row × channel, of at least one entry an axis")
    kind = value.dtype
    if kind.kind not in "fiub" or (kind.kind == "f" and kind.itemsize < 4):
        raise ValueError(f"{name} has dtype {kind}; give real numbers of 32 bits or more, such as .astype('float32')")
    usual = kind if kind.kind == "f" else np.float64
    dtype = jnp.zeros(0, np.float64 if np.dtype(usual).itemsize > 4 and jax.config.read("jax_enable_x64") else
                      np.float32).dtype  # fmt: skip
    return SparseRows(value, dtype)


def matrix_of_jax(name: str, value: Any) -> Any:
    """A sparse matrix of JAX as SciPy's; what fills it up lies beyond its last row and is left out."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        raise ValueError(
            f"{name} is sparse and traced, and sparse rows are factorized by steps that can't be; call it outside of "
            "jit and vmap (grad alone will do), or give all entries, value.todense()"
        )
    if len(value.shape) != 2 or getattr(value, "n_batch", 0) or getattr(value, "n_dense", 0):
        raise ValueError(f"{name} is {shown(value)} with axes of batches or dense ones; give a plain matrix")
    value = value.to_bcoo() if hasattr(value, "to_bcoo") else value
    pair = (value.row, value.col) if hasattr(value, "row") else np.asarray(value.indices).T
    rows, columns = (np.asarray(part) for part in pair)
    inside = (rows < value.shape[0]) & (columns < value.shape[1])
    return scipy.sparse.coo_array((np.asarray(value.data)[inside], (rows[inside], columns[inside])), shape=value.shape)


def check(name: str, rows: SparseRows, objective: Any, *, signed: bool) -> SquaredError:
    """The squared error, its row weights checked; raises `ValueError` for what can't be fitted to sparse rows."""
    objective = validate.misfit(objective)
    if not isinstance(objective, SquaredError) or objective.weights is not None:
        what = " with weights of entries" if isinstance(objective, SquaredError) else ""
        raise ValueError(
            f"objective={type(objective).__name__}{what} needs all entries, and "
            f"{name} is sparse; give SquaredError() with penalties and row_weights, or all entries, {name}.toarray()"
        )
    data = rows.matrix.data
    if not np.isfinite(data).all():
        raise ValueError(
            f"{name} has {int((~np.isfinite(data)).sum())} entries that are NaN or infinite; leave their rows out"
        )
    if data.size and 0 < float(np.abs(data).max()) < float(np.finfo(rows.dtype).tiny):
        raise ValueError(
            f"all of {name} is below the smallest normal number of {rows.dtype}; multiply it, or give float64"
        )
    if not signed and data.size and data.min() < 0:
        raise ValueError(
            f"{name} has {int((data < 0).sum())} of {data.size} stored entries below zero, the lowest "
            f"{data.min():.4g}; {validate.SIGNED}"
        )
    return validate.weights_of(objective, jnp.zeros((rows.shape[0], 1), rows.dtype))


def factorize_sparse(
    activations: Any, rows: SparseRows, rank: int, *, objective: Any, solver: Any, start: Any, key: Key[Array, ""],
    adjoint: Any,
) -> Solution:  # fmt: skip
    """The factorization of sparse activations, rank and settings already checked; as `factorize`.

    `rows` are the activations' numbers.
    """
    if not isinstance(solver, Solver):
        raise ValueError(
            f"solver={type(solver).__name__}() takes gradients of all entries, and activations are sparse; use "
            "solver=ADMM() or HALS()"
        )
    signed, moving = solver.signed_dictionary, stored_derivative.moves(activations, objective)
    quadratic = check("activations", rows, stored_derivative.without_derivative(objective), signed=signed)
    validate.penalties(quadratic, both=True, signed=signed)
    if start.given is not None:
        validate.given(
            start.given, jnp.zeros((rows.shape[0], 0), rows.dtype), rank, signed=signed, channels=rows.shape[1]
        )
    data, given_rows = rows.matrix.data, rows
    unit = magnitude.unit_at(float(np.abs(data).max()) if data.size else 0.0, rows.dtype)
    start = start.rescaled(partial(unit.factors, penalized=quadratic.penalized))
    if not magnitude.is_one(unit):
        rows, given = rows.divided(float(unit.whole)), quadratic
        quadratic = unit.into(jnp.zeros((1, 1), rows.dtype), quadratic)[1]
        magnitude.check_penalties(given, quadratic)
    codes, dictionary = begin(start, rows, rank, signed=signed, key=key, solve=solve)
    solution = solve(rows, quadratic, solver, codes, dictionary)
    if moving:
        whole = validate.weights_of(validate.misfit(objective), jnp.zeros((rows.shape[0], 1), rows.dtype))
        matrix = stored_derivative.matrix_of(activations, given_rows)
        solution = stored_derivative.attached(solution, matrix, whole, unit, solver, adjoint)
    return solution if magnitude.is_one(unit) else unit.back(solution)


def solve(rows: SparseRows, objective: SquaredError, solver: Any, codes: CodesT, dictionary: Dictionary) -> Solution:
    """The solvers' loop, from these factors: the same steps as for dense rows, products with the rows between them."""
    solver = dataclasses.replace(solver, rtol=jnp.asarray(solver.rtol, rows.dtype))
    objective = scaled(objective, rows.dtype)[0]
    counts = None if objective.row_weights is None else np.asarray(objective.row_weights)
    squares = rows.squares()
    size = jnp.asarray(squares.sum() if counts is None else squares @ counts, rows.dtype)
    codes = solver.begin(codes)
    if not solver.signed_dictionary:
        dictionary = solver.begin(dictionary)
    problem = objective, solver, size
    still = Iterate(codes, codes, solver.remember(codes))
    state = _first(problem, still, dictionary, _sums(rows, objective, still, dictionary))
    while int(state.history.code) < 0 and int(state.history.step) < solver.max_steps:
        ahead, by_channel, first = _move_ahead(problem, state)
        cross = jnp.asarray(rows.times(by_channel))
        new, by_row, sums = _improve(problem, state, ahead, cross)
        state = _judged(problem, state, ahead, first, new, sums, jnp.asarray(rows.transposed_times(by_row)))
    codes, dictionary = state.codes.x, state.dictionary.x
    sums = _sums(rows, objective, Iterate(codes, codes), dictionary)
    error = squared_error(rows, np.asarray(codes).T, np.asarray(dictionary), counts)
    return _solution(problem, state, sums, jnp.asarray(error, rows.dtype))


def encode_sparse(
    name: str, activations: Any, rows: SparseRows, dictionary: Dictionary, objective: Any, encode: Any
) -> Codes:
    """Codes of sparse rows: those of their shadows in the dictionary's span, which are dense and have few channels."""
    fixed, numbers = check(name, rows, stored_derivative.without_derivative(objective), signed=True), dictionary
    if moving := stored_derivative.moves(activations, dictionary, objective):
        numbers = stored_derivative.constant(dictionary)
    basis = np.linalg.qr(np.asarray(numbers).T)[0]
    # Of each concept by itself, so that equal ones stay equal.
    within = jnp.asarray(np.stack([concept @ basis for concept in np.asarray(numbers)]))
    codes = encode(jnp.asarray(rows.times(basis)), within, objective=fixed)
    if not moving:
        return codes
    matrix = stored_derivative.matrix_of(activations, rows)
    return stored_derivative.attached_codes(codes, matrix, dictionary, validate.misfit(objective))


def _sums(rows: SparseRows, objective: SquaredError, codes: Iterate, dictionary: Dictionary) -> Sums:
    """What a pass adds up that leaves the codes as they are."""
    cross = jnp.asarray(rows.times(np.asarray(dictionary).T))
    by_row, sums = _still(objective, codes, dictionary, cross)
    return dataclasses.replace(sums, cross=jnp.asarray(rows.transposed_times(by_row)).T)


def _problem(problem: Any, channels: int) -> Problem:
    """What of a problem is known without its rows."""
    objective, solver, size = problem
    return Problem(jnp.zeros((0, channels), size.dtype), objective, solver, None, size)


@jax.jit
def _first(problem: Any, codes: Iterate, dictionary: Dictionary, sums: Sums) -> State:
    return first_state(_problem(problem, dictionary.shape[1]), codes.x, dictionary, sums)


@jax.jit
def _move_ahead(problem: Any, state: State) -> tuple[Dictionary, Array, Number]:
    """The dictionary ahead, also channel by channel as products want it, and how the objective changes."""
    ahead, first = move_ahead(_problem(problem, state.dictionary.x.shape[1]), state)
    return ahead, ahead.T, first


@jax.jit
def _improve(problem: Any, state: State, ahead: Dictionary, cross: Codes) -> tuple[Iterate, Array, Sums]:
    objective, solver, _ = problem
    history = state.history
    update = guarded(solver, history.rejected > 1)
    gram = ridged(ahead @ ahead.T, objective.l2_codes)
    new, weighed, sums = improved(
        objective, update, gram, cross.T, history.extrapolation, state.codes, objective.row_weights
    )
    return new, weighed.T, sums


@jax.jit
def _judged(
    problem: Any, state: State, ahead: Dictionary, first: Number, codes: Iterate, sums: Sums,
    cross: Float[Array, "channel concept"],
) -> State:  # fmt: skip
    sums = dataclasses.replace(sums, cross=cross.T)
    return judged(_problem(problem, ahead.shape[1]), state, ahead, first, codes, sums)


@jax.jit
def _still(objective: SquaredError, codes: Iterate, dictionary: Dictionary, cross: Codes) -> tuple[Array, Sums]:
    gram = ridged(dictionary @ dictionary.T, objective.l2_codes)
    _, weighed, sums = improved(objective, None, gram, cross.T, 0.0, codes, objective.row_weights)
    return weighed.T, sums


@jax.jit
def _solution(problem: Any, state: State, sums: Sums, error: Number) -> Solution:
    codes, dictionary = state.codes.x, state.dictionary.x
    known = _problem(problem, dictionary.shape[1])
    value, residual = known.penalty(dictionary, sums) + error, known.residual(dictionary, sums)
    return state.history.solution(codes, dictionary, value, residual)

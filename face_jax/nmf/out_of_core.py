"""Factorization and encoding of rows in blocks: nothing of their number is held in memory."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Key

from ..blocks.row_blocks import RowBlocks, in_blocks
from ..blocks.scratch import Scratch
from . import magnitude, validate
from .code_stores import CodeStore, RemadeCodes
from .nnls.least_squares import codes_of
from .objective import PENALTIES, Objective, SquaredError
from .results import RESULTS, Result
from .shapes import Dictionary
from .solution import Solution
from .solvers import streamed_loop
from .solvers.loop import scaled
from .solvers.stream import Stream
from .solvers.streamed_facts import look
from .solvers.streamed_starts import Begin, begin, samples_for
from .solvers.update_rules import Solver


def factorize_blocks(
    rows: RowBlocks,
    rank: int,
    *,
    objective: Objective,
    solver: Any,
    start: Any,
    key: Key[Array, ""],
    codes: Any,
) -> Solution:
    """The factorization of rows in blocks, its settings already checked.

    **Arguments:** as for `factorize`; `codes` from `check_codes`.

    **Returns:** the solution. Its codes are an array on disk, or made again where they are read.
    """
    if not isinstance(solver, Solver):
        raise ValueError(
            f"solver={type(solver).__name__}() moves the codes of all rows at once, and rows in blocks aren't there at "
            "once; use solver=ADMM(), or activations in memory"
        )
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((objective, solver, start, key))):
        raise ValueError(
            "rows in blocks are read from outside of JAX, which can't be traced; call factorize outside of jit, grad "
            "and vmap, or give activations in memory"
        )
    signed = solver.signed_dictionary
    weights, row_weights = weights_in_blocks(objective, rows)
    stream = Stream.of(rows, weights, row_weights)
    dtype, scratch = stream.dtype, Scratch(rows.scratch)
    samples = samples_for(start, stream, rank, scratch)
    facts = look(stream, samples, signed=signed)
    unit = magnitude.unit_at(facts.counted, dtype)
    quadratic = SquaredError(**{name: getattr(objective, name) for name in PENALTIES})
    start = start.rescaled(partial(unit.factors, penalized=quadratic.penalized))
    scale = stream.scale
    if not magnitude.is_one(unit):
        inside = unit.into(jnp.zeros((1, 1), dtype), quadratic)[1]
        magnitude.check_penalties(quadratic, inside)
        quadratic, scale = inside, dataclasses.replace(scale, unit=unit.whole)
    weight_unit: Any = 1.0
    if weights is not None:
        marked = dataclasses.replace(quadratic, weights=jnp.zeros((0, rows.shape[1]), dtype))
        quadratic, weight_unit = scaled(marked, dtype, jnp.asarray(facts.most_weight, dtype))
        mean = jnp.asarray(facts.mean, dtype)
        scale = dataclasses.replace(
            scale, weight_unit=weight_unit, mean=mean if scale.unit is None else mean / scale.unit
        )
    else:
        quadratic = scaled(quadratic, dtype)[0]
    stream = dataclasses.replace(stream, scale=scale)
    dictionary, make = begin(start, stream, samples, Begin(rank, signed, key, facts, scratch))
    del samples
    store = None if codes is False else CodeStore(codes, (rows.shape[0], rank), dtype, scratch, rows.rows)
    solution = streamed_loop.solve(
        stream, quadratic, solver, make, dictionary,
        out=None if store is None else store.put, scratch=scratch, remade=codes is False, unit=weight_unit,
    )  # fmt: skip
    if not magnitude.is_one(unit):
        solution = unit.back(solution)
    if store is not None:
        found = store.finish()
    else:
        penalties = {name: getattr(objective, name) for name in PENALTIES}
        found = RemadeCodes(rows, solution.dictionary, SquaredError(weights, **penalties), solution.scale)
    return dataclasses.replace(solution, codes=found)


def weights_in_blocks(objective: Objective, rows: RowBlocks) -> tuple[RowBlocks | None, np.ndarray | None]:
    """Weights of entries in blocks like the rows', and of rows; raises `ValueError` for others."""
    weights, row_weights = objective.weights, objective.row_weights
    if weights is not None:
        weights = in_blocks("weights", weights) or RowBlocks(np.asarray(weights))
        if weights.shape != rows.shape:
            raise ValueError(
                f"weights has shape {weights.shape} and activations {rows.shape}; give one weight an entry"
            )
    if row_weights is not None:
        of_rows = dataclasses.replace(SquaredError(), row_weights=row_weights)
        row_weights = np.asarray(validate.weights_of(of_rows, jnp.zeros((rows.shape[0], 1))).row_weights)
    return weights, row_weights


def encode_blocks(rows: RowBlocks, dictionary: Dictionary, objective: Objective, store: Any) -> Any:
    """Codes of rows in blocks, its settings already checked: an array on disk."""
    weights, row_weights = weights_in_blocks(objective, rows)
    stream = Stream.of(rows, weights, row_weights)
    dictionary = jnp.asarray(dictionary, stream.dtype)
    shape = (rows.shape[0], dictionary.shape[0])
    out = CodeStore(store, shape, stream.dtype, Scratch(rows.scratch), rows.rows)
    quadratic = SquaredError(**{name: getattr(objective, name) for name in PENALTIES})
    for piece in stream:
        validate.finite("activations", jnp.asarray(piece.values).astype(stream.dtype))
        codes, lost = _codes_of(piece.anywhere, stream.scale, quadratic, dictionary)
        if np.any(lost):
            first = piece.start + int(np.flatnonzero(lost)[0])
            raise ValueError(
                f"codes leave the range of {stream.dtype}, first in row {first}, so different are the units of "
                "activations and dictionary; multiply one of them with a number that brings them closer"
            )
        out.put(piece.start, piece.stop, np.asarray(codes))
    return out.finish()


@jax.jit
def _codes_of(piece: Any, scale: Any, objective: SquaredError, dictionary: Dictionary) -> tuple[Array, Array]:
    return codes_of(scale.activations(piece), dictionary, scale.objective(piece, objective))


def nonfinite(solution: Solution) -> Solution:
    """The same, told to have ended in numbers that aren't finite."""
    return dataclasses.replace(solution, result=Result(jnp.asarray(RESULTS.nonfinite.value, jnp.int32)))

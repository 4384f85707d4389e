"""Codes of rows in blocks."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..blocks.row_blocks import RowBlocks, in_blocks
from ..blocks.scratch import Scratch
from ..support.progress import Advance, Progress, silent
from . import validate
from .code_stores import CodeStore
from .nnls.least_squares import codes_of, finished_if_needed
from .objective import PENALTIES, Objective, SquaredError
from .shapes import Dictionary
from .solvers import streamed_terms
from .solvers.stream import Pieces, Stream
from .terms import codes_with_terms
from .terms.problem import BLOCK_ROWS


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


def encode_blocks(
    rows: RowBlocks, dictionary: Dictionary, objective: Objective, store: Any, progress: Progress = silent
) -> Any:
    """Codes of rows in blocks, its settings already checked: an array on disk."""
    with progress("Encoding, blocks of rows", rows.shape[0]) as advance:
        return _encoded(rows, dictionary, objective, store, advance)


def _encoded(rows: RowBlocks, dictionary: Dictionary, objective: Objective, store: Any, advance: Advance) -> Any:
    weights, row_weights = weights_in_blocks(objective, rows)
    stream = Stream.of(rows, weights, row_weights)
    dictionary = jnp.asarray(dictionary, stream.dtype)
    shape = (rows.shape[0], dictionary.shape[0])
    out = CodeStore(store, shape, stream.dtype, Scratch(rows.scratch), rows.rows)
    quadratic = SquaredError(**{name: getattr(objective, name) for name in PENALTIES})
    if objective.terms:
        _encode_with_terms(stream, dictionary, objective, out, advance)
        return out.finish()
    for piece in stream.there():
        validate.finite("activations", jnp.asarray(piece.values).astype(stream.dtype))
        codes, lost = finished_if_needed(_codes_of, piece.anywhere, stream.scale, quadratic, dictionary)
        if np.any(lost):
            first = piece.start + int(np.flatnonzero(lost)[0])
            raise ValueError(
                f"codes leave the range of {stream.dtype}, first in row {first}, so different are the units of "
                "activations and dictionary; multiply one of them with a number that brings them closer"
            )
        out.put(piece.start, piece.stop, np.asarray(codes))
        advance(piece.stop - piece.start)
    return out.finish()


def _encode_with_terms(
    stream: Stream, dictionary: Dictionary, objective: Objective, out: CodeStore, advance: Advance
) -> None:
    group = streamed_terms.together(objective, stream.shape[0])
    pieces = Pieces.of(stream.shape[0], BLOCK_ROWS, stream.source.rows, together=group)
    walk = streamed_terms.Terms(dataclasses.replace(stream, pieces=pieces), objective)
    for piece, terms in walk.pieces():
        activations = jnp.asarray(piece.values).astype(stream.dtype)
        validate.finite("activations", activations)
        quadratic = stream.scale.objective(piece, walk.quadratic)
        out.put(
            piece.start,
            piece.stop,
            np.asarray(codes_with_terms.encode(activations, dictionary, quadratic.with_terms(terms))),
        )
        advance(piece.stop - piece.start)


@partial(jax.jit, static_argnames="finished")
def _codes_of(
    piece: Any, scale: Any, objective: SquaredError, dictionary: Dictionary, *, finished: bool
) -> tuple[Array, Array]:
    return codes_of(scale.activations(piece), dictionary, scale.objective(piece, objective), finished=finished)

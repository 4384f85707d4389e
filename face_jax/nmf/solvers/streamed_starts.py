"""Where a factorization of rows that come piece by piece starts: the starts of one in memory, a piece at a time."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ...blocks.row_blocks import RowBlocks
from ...blocks.scratch import Scratch
from ...support.drawn_parts import normal_part, uniform_part
from ...support.scaling import positive
from ..objective import SquaredError
from ..shapes import CodesT, Dictionary, FactorsT
from . import loop, streamed_loop
from .minibatch import MiniBatch
from .starts import NNDSVD, Given, NNDSVDa, NNDSVDar, Random, Start, fill, halves, signs_kept
from .stream import Piece, Scale, Stream
from .streamed_facts import Facts, Sample
from .streamed_loop import MakeCodes
from .warmup import Warmup, exactly, roughly, spread

_IN_MEMORY = 64 * 2**20  # bytes of a sample that's factorized in memory


@dataclasses.dataclass(frozen=True)
class Begin:
    """What a start needs besides the rows.

    **Arguments:**

    - `rank`, `signed`, `key`: as for starts in memory.
    - `facts`: what the first pass saw.
    - `scratch`: makes room.
    """

    rank: int
    signed: bool
    key: Key[Array, ""]
    facts: Facts
    scratch: Scratch


def samples_for(start: Start, stream: Stream, rank: int, scratch: Scratch) -> list[Sample]:
    """The rows that a start wants to have seen in the first pass."""
    if isinstance(start, Warmup):
        return [
            Sample.of(stream, np.asarray(spread(stream.shape[0], count)), scratch)
            for count, _ in start.counts(stream.shape[0], rank)
        ]
    if isinstance(start, MiniBatch):
        return [Sample.of(stream, start.chosen(stream.shape[0]), scratch)]
    return []


def begin(start: Start, stream: Stream, samples: list[Sample], given: Begin) -> tuple[Dictionary, MakeCodes]:
    """The first dictionary, and what makes first codes of a piece."""
    if isinstance(start, (Warmup, MiniBatch)):
        if not samples:
            return begin(start.start, stream, [], given)
        dictionary = _of_samples(start, stream, samples, given)
        codes_for = _exactly if given.signed else _roughly
        return dictionary, lambda piece, scale: codes_for(piece.anywhere, scale, dictionary)
    if isinstance(start, Given):
        return _given(start, stream)
    if isinstance(start, Random):
        return _random(stream, given)
    if isinstance(start, NNDSVD):
        return _nndsvd(start, stream, given)
    raise ValueError(
        f"start={type(start).__name__}() can't begin with rows in blocks; give Warmup(), MiniBatch(), NNDSVD(), "
        "Random() or Given(codes, dictionary)"
    )


def _of_samples(start: Any, stream: Stream, samples: list[Sample], given: Begin) -> Dictionary:
    """The dictionary that ever larger samples lead to, as `Warmup` says."""
    dictionary: Any = None
    for number, (sample, (count, steps)) in enumerate(
        zip(samples, start.counts(stream.shape[0], given.rank), strict=True)
    ):
        first = start.start
        if isinstance(first, Given):
            first = Given(np.asarray(first.codes)[sample.chosen], first.dictionary)
        solver = dataclasses.replace(start.rule(signed=given.signed), max_steps=steps)
        small = sample.into.nbytes * stream.dtype.itemsize // sample.into.dtype.itemsize <= _IN_MEMORY
        fit = _sample_in_memory if small else _sample_in_pieces
        squares, dictionary = fit(first if number == 0 else dictionary, sample, stream, solver, given)
        lengths = jnp.sqrt(jnp.sqrt(squares * (stream.shape[0] / count)))
        dictionary = dictionary * positive(lengths)[:, None]
    return dictionary


def _sample_in_memory(
    start: Start | Dictionary, sample: Sample, stream: Stream, solver: Any, given: Begin
) -> tuple[Array, Dictionary]:
    piece = Piece(sample.into, None, None, 0, len(sample.into), stream.pieces.division(0, len(sample.into)))
    return _factorized(
        piece, dataclasses.replace(stream.scale, mean=None), start, solver, given.key, given.rank, given.signed
    )


@partial(jax.jit, static_argnums=(5, 6))
def _factorized(
    piece: Piece, scale: Scale, start: Any, solver: Any, key: Array, rank: int, signed: bool
) -> tuple[Array, Dictionary]:
    rows = scale.activations(piece)
    if isinstance(start, Start):
        codes, dictionary = start(rows, rank, signed=signed, key=key)
    else:
        dictionary = start
        codes = (exactly if signed else roughly)(rows, dictionary)
    found = loop.solve(rows, SquaredError(), solver, codes, dictionary)
    return jnp.sum(found.codes**2, axis=0), found.dictionary


def _sample_in_pieces(
    start: Start | Dictionary, sample: Sample, stream: Stream, solver: Any, given: Begin
) -> tuple[Array, Dictionary]:
    rows = Stream.of(RowBlocks(sample.into, rows=stream.source.rows, scratch=given.scratch.folder))
    rows = dataclasses.replace(rows, scale=dataclasses.replace(stream.scale, mean=None), advance=stream.advance)
    if isinstance(start, Start):
        dictionary, make = begin(start, rows, [], given)
    else:
        dictionary, codes_for = start, _exactly if given.signed else _roughly
        make = lambda piece, scale: codes_for(piece.anywhere, scale, dictionary)  # noqa: E731
    squares = np.zeros(given.rank)

    def out(first: int, last: int, codes: np.ndarray) -> None:
        nonlocal squares
        del first, last
        squares += np.einsum("nk,nk->k", codes, codes)

    # In the units of the pass, as the dictionary's are.
    found = streamed_loop.solve(
        rows, SquaredError(), solver, make, dictionary, rank=given.rank, out=out, scratch=given.scratch
    )
    if rows.scale.unit is not None:
        squares = squares / float(rows.scale.unit) ** 2
    return jnp.asarray(squares, stream.dtype), found.dictionary


@jax.jit
def _roughly(piece: Piece, scale: Scale, dictionary: Dictionary) -> CodesT:
    return roughly(scale.visible(piece), dictionary)


@jax.jit
def _exactly(piece: Piece, scale: Scale, dictionary: Dictionary) -> CodesT:
    return exactly(scale.visible(piece), dictionary)


def _given(start: Given, stream: Stream) -> tuple[Dictionary, MakeCodes]:
    codes: Any = start.codes

    def make(piece: Piece, scale: Scale) -> CodesT:
        return jnp.asarray(codes[piece.start : piece.stop], scale.dtype).T

    return jnp.asarray(start.dictionary, stream.dtype), make


def _random(stream: Stream, given: Begin) -> tuple[Dictionary, MakeCodes]:
    first, second = jax.random.split(given.key)
    dtype, (rows, channels) = stream.dtype, stream.shape
    scale = jnp.sqrt(jnp.asarray(given.facts.magnitudes / (rows * channels) / given.rank, dtype))
    if stream.scale.unit is not None:
        scale = scale / jnp.sqrt(stream.scale.unit)
    dictionary = jax.random.normal(second, (given.rank, channels), dtype)

    def make(piece: Piece, _: Scale) -> CodesT:
        drawn = normal_part(first, (given.rank, rows), slice(None), slice(piece.start, piece.stop), dtype)
        return scale * jnp.abs(drawn)

    return scale * (dictionary if given.signed else jnp.abs(dictionary)), make


def _nndsvd(start: NNDSVD, stream: Stream, given: Begin) -> tuple[Dictionary, MakeCodes]:
    key, of_codes, of_dictionary = given.key, given.key, given.key
    if isinstance(start, NNDSVDar):
        key, of_codes, of_dictionary = jax.random.split(given.key, 3)
    (rows, channels), rank, dtype = stream.shape, given.rank, stream.dtype
    sketch, more_key = jax.random.split(key)
    count = min(rank + start.oversample, rows, channels)
    found = min(rank, count)
    if rows < channels:
        # No more numbers than a square of channels: the other side is the small one then.
        whole = Piece(np.asarray(stream.source), None, None, 0, rows, stream.pieces.division(0, rows))
        codes, dictionary = _plain(whole, stream.scale, NNDSVD(start.passes, start.oversample), key, rank, given.signed)

        def make(piece: Piece, scale: Scale) -> CodesT:
            del scale
            return codes[:, piece.start : piece.stop]

    else:
        basis = jax.random.normal(sketch, (channels, count), dtype)
        for _ in range(start.passes):
            power = jnp.zeros((count, channels), dtype)
            for piece in stream.there():
                power = jax.block_until_ready(_power(piece.anywhere, stream.scale, basis, power))
            basis = jnp.linalg.qr(power.T, mode="reduced")[0]
        square = jnp.zeros((count, count), dtype)
        for piece in stream.there():
            square = jax.block_until_ready(_square(piece.anywhere, stream.scale, basis, square))
        values, vectors = jnp.linalg.eigh(square)
        values, vectors = jnp.sqrt(jnp.maximum(values[::-1], 0))[:found], vectors[:, ::-1][:, :found]
        right = vectors.T @ basis.T
        project = basis @ vectors / positive(values)[None]
        squares = jnp.zeros((2, found), dtype)
        for piece in stream.there():
            squares = jax.block_until_ready(_halves(piece.anywhere, stream.scale, project, squares))
        choice = signs_kept(values, right, jnp.sqrt(squares), signed=given.signed)
        dictionary = choice.dictionary
        lone = None
        if found < rank:
            fewer = dataclasses.replace(given, rank=rank - found, key=more_key)
            extra, lone = _random(stream, fewer)
            dictionary = jnp.concatenate([dictionary, extra])

        def make(piece: Piece, scale: Scale) -> CodesT:
            codes = _codes(piece.anywhere, scale, project, choice.positive, choice.codes)
            return codes if lone is None else jnp.concatenate([codes, lone(piece, scale)])

    if not isinstance(start, (NNDSVDa, NNDSVDar)):
        return dictionary, make
    mean = jnp.asarray(abs(given.facts.total / (rows * channels)), dtype)
    if stream.scale.unit is not None:
        mean = mean / stream.scale.unit
    inner = make
    if isinstance(start, NNDSVDa):

        def filled(piece: Piece, scale: Scale) -> CodesT:
            codes = inner(piece, scale)
            return jnp.where(codes > 0, codes, mean)

        return fill(dictionary, mean, given.signed), filled
    small = mean / 100

    def drawn(piece: Piece, scale: Scale) -> CodesT:
        codes, columns = inner(piece, scale), slice(piece.start, piece.stop)
        return jnp.where(codes > 0, codes, small * uniform_part(of_codes, (rank, rows), slice(None), columns, dtype))

    other = small * jax.random.uniform(of_dictionary, dictionary.shape, dtype)
    return fill(dictionary, other, given.signed), drawn


@partial(jax.jit, static_argnums=(4, 5))
def _plain(piece: Piece, scale: Scale, start: NNDSVD, key: Array, rank: int, signed: bool) -> FactorsT:
    return start(scale.visible(piece), rank, signed=signed, key=key)


@jax.jit
def _power(piece: Piece, scale: Scale, basis: Array, power: Array) -> Array:
    rows = scale.visible(piece)
    return power + (basis.T @ rows.T) @ rows


@jax.jit
def _square(piece: Piece, scale: Scale, basis: Array, square: Array) -> Array:
    image = basis.T @ scale.visible(piece).T
    return square + image @ image.T


@jax.jit
def _halves(piece: Piece, scale: Scale, project: Array, squares: Array) -> Array:
    plus, minus = halves(project.T @ scale.visible(piece).T)
    return squares + jnp.stack([jnp.sum(plus**2, axis=1), jnp.sum(minus**2, axis=1)])


@jax.jit
def _codes(piece: Piece, scale: Scale, project: Array, positive_half: Array, factor: Array) -> CodesT:
    plus, minus = halves(project.T @ scale.visible(piece).T)
    return jnp.where(positive_half[:, None], plus, minus) * factor[:, None]

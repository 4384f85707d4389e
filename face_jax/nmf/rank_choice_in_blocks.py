"""What a comparison of ranks needs of rows in blocks: masks and random codes that are drawn where they're read."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ..blocks.row_blocks import RowBlocks
from ..support.drawn_parts import normal_part, uniform_part
from .objective import SquaredError
from .shapes import Dictionary


class _Drawn:
    """Rows that are made where they're read."""

    shape: tuple[int, int]
    dtype: np.dtype

    def __getitem__(self, index: slice) -> np.ndarray:
        start, stop, _ = index.indices(self.shape[0])
        return self._rows(start, max(start, stop))

    def _rows(self, start: int, stop: int) -> np.ndarray:
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Mask(_Drawn):
    """Which entries of rows are seen: 1, and 0 for those left out, as they'd be drawn in memory."""

    key: Key[Array, ""]
    shape: tuple[int, int]
    left_out: float
    dtype: Any

    def _rows(self, start: int, stop: int) -> np.ndarray:
        drawn = uniform_part(self.key, self.shape, slice(start, stop), slice(None), jnp.result_type(float))
        return np.asarray(drawn >= self.left_out).astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class Visible:
    """Rows with what a mask leaves out being 0."""

    rows: RowBlocks
    mask: Mask

    @property
    def shape(self) -> tuple[int, int]:
        """Of all rows."""
        return self.rows.shape

    @property
    def dtype(self) -> np.dtype:
        """What they are computed in."""
        return self.rows.computed

    def blocks(self) -> Iterator[np.ndarray]:
        """Consecutive rows."""
        start = 0
        for block in self.rows.blocks():
            yield block.astype(self.dtype) * self.mask[start : start + len(block)]
            start += len(block)


@dataclasses.dataclass(frozen=True)
class GrownCodes(_Drawn):
    """The codes of fewer concepts, and random ones for the further concepts, a tenth as large if there were any."""

    last: Any
    key: Key[Array, ""]
    shape: tuple[int, int]
    scale: Any
    dtype: Any

    def _rows(self, start: int, stop: int) -> np.ndarray:
        rows, rank = self.shape
        drawn = normal_part(self.key, (rank, rows), slice(None), slice(start, stop), self.dtype)
        new = np.asarray(self.scale * jnp.abs(drawn)).T
        if self.last is None:
            return new
        kept = self.last.shape[1]
        return np.concatenate([np.asarray(self.last[start:stop]), new[:, kept:] / 10], axis=1)


def random_factors(
    visible: RowBlocks, magnitudes: float, rank: int, last: Any, key: Key[Array, ""], *, signed: bool
) -> tuple[GrownCodes, Dictionary]:
    """The factors of `Random` for these rows, those of the last, smaller rank in their place."""
    of_codes, of_dictionary = jax.random.split(key)
    dtype, (rows, channels) = visible.computed, visible.shape
    scale = jnp.sqrt(jnp.asarray(magnitudes / (rows * channels) / rank, dtype))
    dictionary = jax.random.normal(of_dictionary, (rank, channels), dtype)
    dictionary = scale * (dictionary if signed else jnp.abs(dictionary))
    codes = GrownCodes(None if last is None else last.codes, of_codes, (rows, rank), scale, dtype)
    if last is not None:
        dictionary = jnp.concatenate([last.dictionary, dictionary[last.dictionary.shape[0] :]])
    return codes, dictionary


def magnitudes_of(rows: RowBlocks) -> float:
    """The sum of all entries' magnitudes."""
    return sum(float(np.abs(block.astype(rows.computed)).sum(dtype=np.float64)) for block in rows.blocks())


def errors_of(rows: RowBlocks, found: Any, mask: Mask) -> tuple[float, float]:
    """Squared errors on entries that a mask shows, and on those that it doesn't, relative to their squares."""
    total, start = np.zeros(4), 0
    for block in rows.blocks():
        stop = start + len(block)
        total += np.asarray(
            _parts(jnp.asarray(block), jnp.asarray(found.codes[start:stop]), found.dictionary, mask[start:stop])
        )
        start = stop
    return float(total[0] / total[1]), float(total[2] / total[3])


@jax.jit
def _parts(rows: Any, codes: Array, dictionary: Dictionary, mask: Any) -> Array:
    rows = rows.astype(dictionary.dtype)
    squares, errors = rows**2, (rows - codes @ dictionary) ** 2
    shown = [jnp.sum(mask * errors), jnp.sum(mask * squares)]
    return jnp.stack([*shown, jnp.sum((1 - mask) * errors), jnp.sum((1 - mask) * squares)])


def drawn(rows: RowBlocks, rank: int, keys: Any) -> list[np.ndarray]:
    """As `drawn_rows`, of rows that are read in one pass."""
    chosen = [np.asarray(jax.random.randint(key, (rank,), 0, rows.shape[0])) for key in keys]
    wanted = np.unique(chosen)
    taken, start = np.empty((len(wanted), rows.shape[1]), rows.computed), 0
    for block in rows.blocks():
        first, last = np.searchsorted(wanted, [start, start + len(block)])
        taken[first:last] = block[wanted[first:last] - start]
        start += len(block)
    # Every row of so few is wanted, in their order.
    largest = np.abs(taken).max(axis=1, keepdims=True)
    taken = taken / np.where(largest > 0, largest, 1)
    taken = taken / np.maximum(np.linalg.norm(taken, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return [taken[np.searchsorted(wanted, some)] for some in chosen]


def seen_by(mask: Mask, rows: RowBlocks) -> tuple[RowBlocks, SquaredError]:
    """The rows as a mask shows them, and the objective that leaves the others out."""
    weights: Any = RowBlocks(mask, rows=rows.rows)
    return RowBlocks(Visible(rows, mask), rows=rows.rows, scratch=rows.scratch), SquaredError(weights=weights)

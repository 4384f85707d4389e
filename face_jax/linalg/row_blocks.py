"""Loops over blocks of rows: what is held at a time is one block's, however many rows there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .control_flow import fori_loop

Put = Callable[[Any, Any, Int[Array, ""]], Any]


@dataclasses.dataclass(frozen=True)
class RowBlocks:
    """Rows in blocks of one size; the last one overlaps the one before if they don't come out even.

    **Arguments:**

    - `rows`: how many there are.
    - `size`: rows of a block.
    - `count`: how many blocks there are.
    """

    rows: int
    size: int
    count: int

    @staticmethod
    def of(rows: int, most: int, *, together: int = 1) -> RowBlocks:
        """Blocks of nearly `most` rows, which hold whole groups of `together` rows."""
        groups = rows // together
        count = -(-groups // max(1, min(most, rows) // together))
        size = -(-groups // count)
        return RowBlocks(rows, size * together, -(-groups // size))

    def start(self, number: Int[Array, ""]) -> Int[Array, ""]:
        """A block's first row: the last block is moved back, so that all are equally long."""
        return jnp.minimum(number * self.size, self.rows - self.size)

    def take(self, x: Any, start: Int[Array, ""], *, axis: int = 0) -> Any:
        """A block of all arrays in a pytree; their rows are along `axis`."""
        return jax.tree.map(lambda part: jax.lax.dynamic_slice_in_dim(part, start, self.size, axis=axis), x)


def put_rows(out: Any, piece: Any, start: Int[Array, ""]) -> Any:
    """A block's rows in their place, through all of a pytree."""
    return jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=0), out, piece)


def put_columns(out: Any, piece: Any, start: Int[Array, ""]) -> Any:
    """The same for arrays that have rows along their last axis."""
    return jax.tree.map(
        lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=old.ndim - 1), out, piece
    )


def map_blocks(blocks: RowBlocks, one: Callable[[Int[Array, ""]], Any], out: Any, *, put: Put = put_rows) -> Any:
    """What `one` gives for each block, in its place.

    **Arguments:**

    - `blocks`: which there are.
    - `one`: from a block's first row to its results.
    - `out`: arrays of all rows, to be written over.
    - `put`: puts a block's results where they belong.
    """
    return fori_loop(0, blocks.count, lambda i, out: put(out, one(start := blocks.start(i)), start), out)


def fold_blocks(
    blocks: RowBlocks,
    one: Callable[[Int[Array, ""], Float[Array, " row"]], tuple[Any, Any]],
    out: Any,
    sums: Any,
    *,
    dtype: Any,
    put: Put = put_rows,
) -> tuple[Any, Any]:
    """As `map_blocks`, and what is added up over the rows.

    **Arguments:**

    - `one`: from a block's first row, and 1 for each row that counts (0 for one that the block before had), to its
        results and its sums.
    - `sums`: the sums of no rows.
    - `dtype`: of what counts.
    """

    def body(i: Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
        start = blocks.start(i)
        fresh = (start + jnp.arange(blocks.size) >= i * blocks.size).astype(dtype)
        piece, more = one(start, fresh)
        out, sums = carry
        return put(out, piece, start), jax.tree.map(jnp.add, sums, more)

    return fori_loop(0, blocks.count, body, (out, sums))

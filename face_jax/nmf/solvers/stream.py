"""Activations that come piece by piece: what a pass over them has instead of one array."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...blocks.reading import ahead
from ...blocks.row_blocks import RowBlocks
from ...linalg.row_blocks import RowBlocks as Division
from ..objective import SquaredError
from ..shapes import Activations, Number
from .passes import usual_rows

Advance = Callable[[], None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scale:
    """What a piece's numbers become before they are worked on.

    **Arguments:**

    - `dtype`: what they are computed in.
    - `unit`, `weight_unit`: what activations and weights are divided by, if by anything.
    - `mean`: of each channel where entries have weights, for those that are left out.
    """

    dtype: Any = dataclasses.field(metadata={"static": True})
    unit: Number | None = None
    weight_unit: Number | None = None
    mean: Float[Array, " channel"] | None = None

    def activations(self, piece: Piece) -> Activations:
        """The piece's."""
        values = piece.values.astype(self.dtype)
        return values if self.unit is None else values / self.unit

    def visible(self, piece: Piece) -> Activations:
        """The same, entries that are left out being what the others of their channel are."""
        values = self.activations(piece)
        if piece.weights is None or self.mean is None:
            return values
        return jnp.where(piece.weights > 0, values, self.mean[None].astype(self.dtype))

    def objective(self, piece: Piece, objective: SquaredError) -> SquaredError:
        """The objective with the piece's weights."""
        weights = None
        if piece.weights is not None:
            weights = piece.weights.astype(self.dtype)
            weights = weights if self.weight_unit is None else weights / self.weight_unit
        row_weights = None if piece.row_weights is None else piece.row_weights.astype(self.dtype)
        return dataclasses.replace(objective, weights=weights, row_weights=row_weights)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("values", "weights", "row_weights"),
    meta_fields=("start", "stop", "division"),
)
@dataclasses.dataclass(frozen=True)
class Piece:
    """Some consecutive rows, as they are stored.

    **Arguments:**

    - `values`, `weights`, `row_weights`: of these rows.
    - `start`, `stop`: which they are; 0 and their number for programs, which are the same for all pieces.
    - `division`: the blocks that a pass takes them in.
    """

    values: Any
    weights: Any
    row_weights: Any
    start: int
    stop: int
    division: Division

    @property
    def anywhere(self) -> Piece:
        """The same without its place, so that programs are compiled once."""
        return dataclasses.replace(self, start=0, stop=self.stop - self.start)


def _sent(device: Any, part: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arrays on their way to an accelerator, which nobody waits for here; a processor has them already.

    Called on the thread that reads, where settings of the calling thread aren't known: whether numbers of 64 bits stay
    so is left to it.
    """
    kind = jax.default_backend() if device is None else getattr(device, "platform", device)
    if kind == "cpu":
        return part
    with jax.default_device(device):
        return tuple(jax.device_put(each) if each.dtype.itemsize <= 4 else each for each in part)


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Where pieces end: behind whole blocks of a pass in memory, of which the last overlaps the one before.

    **Arguments:**

    - `blocks`: those of a pass over all rows.
    - `ends`: the rows that pieces end before.
    """

    blocks: Division
    ends: tuple[int, ...]

    @staticmethod
    def of(rows: int, block: int, piece: int, *, together: int = 1) -> Pieces:
        """Pieces of about so many rows, made of blocks of about so many, which hold whole groups."""
        blocks = Division.of(rows, min(block, piece), together=together)
        many = max(1, piece // blocks.size)
        ends = [number * blocks.size for number in range(many, blocks.count, many)]
        # A last block that's alone in its piece couldn't overlap the one before.
        if ends and blocks.count - ends[-1] // blocks.size == 1:
            ends.pop()
        return Pieces(blocks, (*ends, rows))

    def division(self, start: int, stop: int) -> Division:
        """The blocks of one piece."""
        size = self.blocks.size
        return Division(stop - start, size, -(-(stop - start) // size))


@dataclasses.dataclass(frozen=True)
class Stream:
    """Rows with all that belongs to them, to be gone through again and again.

    **Arguments:**

    - `source`: the activations.
    - `weights`: of entries, if they have any: in blocks as well.
    - `row_weights`: of rows, if they have any.
    - `pieces`: how rows come.
    - `scale`: what becomes of their numbers.
    - `advance`: called behind each piece.
    """

    source: RowBlocks
    weights: RowBlocks | None
    row_weights: np.ndarray | None
    pieces: Pieces
    scale: Scale
    advance: Advance = lambda: None

    @staticmethod
    def of(
        source: RowBlocks, weights: Any = None, row_weights: Any = None, *, together: int = 1, block: int | None = None
    ) -> Stream:
        """All rows of a source, in pieces of as many as its blocks have."""
        rows, channels = source.shape
        block = usual_rows(source.rows, channels, source.computed) if block is None else block
        pieces = Pieces.of(rows, block, source.rows, together=together)
        return Stream(source, weights, row_weights, pieces, Scale(jnp.dtype(source.computed)))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and channels."""
        return self.source.shape

    @property
    def dtype(self) -> Any:
        """What is computed in."""
        return self.scale.dtype

    def __iter__(self) -> Iterator[Piece]:
        """Piece by piece, as they are read."""
        return self._through(lambda part: part)

    def there(self) -> Iterator[Piece]:
        """Piece by piece where they are worked on: an accelerator gets the next while it's at work on this one."""
        return self._through(partial(_sent, jax.config.jax_default_device))  # pyright: ignore[reportAttributeAccessIssue]

    def _through(self, made: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> Iterator[Piece]:
        ends = self.pieces.ends
        parts: Any = (self.source.parts(ends),)
        if self.weights is not None:
            parts = (*parts, self.weights.parts(ends))
        start = 0
        # All sources may end early, never one before the other.
        for part in ahead(map(made, zip(*parts, strict=False))):
            values, stop = part[0], start + len(part[0])
            row_weights = None if self.row_weights is None else self.row_weights[start:stop]
            division = self.pieces.division(start, stop)
            yield Piece(values, part[1] if len(part) > 1 else None, row_weights, start, stop, division)
            self.advance()
            start = stop

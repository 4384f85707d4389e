"""Rows in blocks: a matrix of activations that may be larger than memory."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from ..linalg.row_shards import untyped
from ..support.arguments import check_count, index_or_none, path_of, shown
from ..support.memory import check_memory
from .sources import Kept, Shards, Source, Yielded, sliceable
from .store_formats import SUFFIXES, opened

BLOCK_BYTES = 32 * 2**20  # of a block, unless somebody says otherwise
_SMALL = 64 * 2**20  # what is smaller is read into memory unless somebody says RowBlocks

_REMEDY = (
    "give an array with shape, dtype and slices (a memory map, a Zarr array), paths that end in .npy, .zarr or "
    ".safetensors, or an object with shape, dtype and blocks(), which yields arrays of consecutive rows"
)


class RowBlocks:
    """A matrix of activations, `row × channel`, that is read a block of rows at a time.

    `factorize`, `encode` and `rank_scan` take one where they take a matrix. What is held of it at a time is two
    blocks, one that is worked on and one that is read meanwhile. Its numbers may have 16 bits (`float16`, `bfloat16`),
    which become `float32` block by block: stored in half the room, summed with all digits. The factorization is exactly
    that of the numbers as they are stored; beside one of `float32`, dictionary and objective are off by no more than a
    single entry is by its rounding, 2⁻⁹ for `bfloat16` and 2⁻¹² for `float16`, where concepts are well determined.

    The protocol is `shape`, `dtype`, and either slices (`source[start:stop]` gives rows) or `blocks()`, which yields
    arrays of consecutive rows, from the first one each time it's called. More than two axes are maps, such as those of
    `bridges.pull`: every place is a row, image by image, then line by line.

    **Arguments:**

    - `source`: a memory map, an array of Zarr or HDF5, or any object with that protocol; the path of a `.npy`, `.zarr`
        or `.safetensors` file (of one tensor, or of one that's called `activations`); or a list of these, shards whose
        rows follow one another.
    - `rows`: rows of a block; by default as many as make 32 MiB.
    - `scratch`: a folder for what a run has to keep meanwhile, such as the codes of all rows, if it's more than 64 MiB;
        by default the system's folder for temporary files, or `/var/tmp` where that is in memory itself. What is
        written there goes with the run.

    Raises `ValueError` for what has no such protocol, shards that don't fit together, and numbers that aren't real.

    **Example:**

    >>> rows = fj.RowBlocks(np.asarray(A), rows=16)
    >>> rows.shape, [len(block) for block in rows.blocks()]
    ((60, 12), [16, 16, 16, 12])
    >>> fj.factorize(rows, 3).dictionary.shape
    (3, 12)
    """

    def __init__(self, source: Any, *, rows: int | None = None, scratch: str | os.PathLike[str] | None = None) -> None:
        self._source = _source_of("source", source)
        self.shape, self.dtype = self._source.shape, self._source.dtype
        if 0 in self.shape:
            raise ValueError(f"source is empty, its shape is {self.shape}; give at least one row and one channel")
        if self.dtype.kind == "V" and self.dtype.fields is None and not jnp.issubdtype(self.dtype, jnp.floating):
            raise ValueError(
                f"source has dtype {self.dtype}, as bfloat16 has that was saved in a .npy file, which can't say so; "
                "give array.view(ml_dtypes.bfloat16) if it's that, or save it as .safetensors"
            )
        if not (self.dtype.kind in "fiub" or jnp.issubdtype(self.dtype, jnp.floating)):
            raise ValueError(f"source has dtype {self.dtype}, which isn't a real number; give real numbers")
        self.scratch = None if scratch is None else path_of("scratch", scratch, "a folder")
        self.rows = _usual_rows(self._source, self.dtype) if rows is None else check_count("rows", rows, "rows")

    @property
    def computed(self) -> np.dtype:
        """What its numbers are computed in: at least 32 bits."""
        if not jnp.issubdtype(self.dtype, jnp.floating):
            return np.dtype(jnp.result_type(float))
        if jnp.finfo(self.dtype).bits < 32:
            return np.dtype(np.float32)
        return np.dtype(np.float64 if jnp.finfo(self.dtype).bits > 32 and jnp.result_type(float) != np.float32
                        else np.float32)  # fmt: skip

    def blocks(self) -> Iterator[np.ndarray]:
        """Consecutive rows, `rows` at a time; the last block may be shorter."""
        return self.parts([*range(self.rows, self.shape[0], self.rows), self.shape[0]])

    def parts(self, ends: Sequence[int]) -> Iterator[np.ndarray]:
        """Consecutive rows in parts that end before these; raises `ValueError` where rows are missing or too many."""
        return self._source.parts(ends)

    def __getitem__(self, index: slice | SupportsIndex) -> np.ndarray:
        """Some consecutive rows, or one."""
        number = index_or_none(index)
        if number is not None:
            if not -len(self) <= number < len(self):
                raise IndexError(
                    f"row {number} isn't there, the rows are {len(self)}; give one of 0 to {len(self) - 1}"
                )
            start = number % len(self)
            return self._source.read(start, start + 1)[0]
        if not isinstance(index, slice) or index.step not in (None, 1):
            raise ValueError(
                f"rows are taken by slices of consecutive ones, such as [0:100], or by a number, and not by {index!r}"
            )
        start, stop, _ = index.indices(self.shape[0])
        return self._source.read(start, max(start, stop))

    def __matmul__(self, other: Any) -> np.ndarray:
        """The product with a matrix or a vector, block by block."""
        other = np.asarray(other)
        return np.concatenate([block.astype(np.result_type(block, other)) @ other for block in self.blocks()])

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"RowBlocks({self.shape[0]} × {self.shape[1]}, {self.dtype}, rows={self.rows})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows: for what can't go block by block; raises `NotEnoughMemoryError` where memory can't hold them."""
        del copy
        kind = self.dtype if dtype is None else np.dtype(dtype)
        check_memory(
            self.shape[0] * self.shape[1] * kind.itemsize,
            f"all {self.shape[0]:,} × {self.shape[1]:,} numbers of {type(self).__name__} at once",
            "take some rows at a time, by slices or blocks()",
        )
        found, start = np.empty(self.shape, kind), 0
        for block in self.blocks():
            found[start : start + len(block)] = block
            start += len(block)
        return found


def in_blocks(name: str, value: Any) -> RowBlocks | None:
    """The rows that a value stands for if it's to be read in blocks; None if it's for memory.

    In blocks are `RowBlocks`, paths, lists of paths or of memory maps, objects that yield blocks; memory maps and
    stored arrays (Zarr, HDF5) of more than 64 MiB, or of maps, whose places are rows; and matrices of 16 bits a number
    in memory that are so large, which stay as they are then.
    """
    if isinstance(value, RowBlocks):
        return value
    if isinstance(value, (str, pathlib.PurePath)):
        return _refused_by_name(name, value)
    if isinstance(value, (list, tuple)):
        if value and all(isinstance(each, (str, pathlib.PurePath, np.memmap, RowBlocks)) or _stored(each)
                         for each in value):  # fmt: skip
            return _refused_by_name(name, value)
        return None
    if isinstance(value, np.memmap) or _stored(value):
        size = int(np.prod(value.shape)) * np.dtype(value.dtype).itemsize
        return _refused_by_name(name, value) if size > _SMALL or len(value.shape) != 2 else None
    if callable(getattr(value, "blocks", None)) and hasattr(value, "shape") and not hasattr(value, "__array__"):
        return _refused_by_name(name, value)
    return _refused_by_name(name, value) if is_halved(value) else None


def is_halved(value: Any) -> bool:
    """Whether it's a large matrix of 16 bits a number in this process's own memory.

    What lies on an accelerator would be copied back and forth in each pass, and what lies on several devices stays so.
    """
    if isinstance(value, jax.Array) and not isinstance(value, Tracer):
        if value.is_deleted() or len(value.devices()) > 1 or next(iter(value.devices())).platform != "cpu":
            return False
    elif type(value) is not np.ndarray:
        return False
    halved = jnp.issubdtype(value.dtype, jnp.floating) and jnp.finfo(value.dtype).bits == 16
    return halved and value.ndim == 2 and value.nbytes > _SMALL


def _stored(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] in ("zarr", "h5py", "tensorstore") and sliceable(value)


def _refused_by_name(name: str, value: Any) -> RowBlocks:
    try:
        return RowBlocks(value)
    except ValueError as error:
        raise ValueError(str(error).replace("source", name, 1)) from error


def _source_of(name: str, value: Any) -> Source:
    if isinstance(value, RowBlocks):
        return value._source
    if isinstance(value, (str, pathlib.PurePath)):
        if not str(value):
            raise ValueError(f"{name}={value!r} is the path of nothing; {_REMEDY}")
        return Kept(f"{name}={str(value)!r}", opened(name, pathlib.Path(value)))
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError(f"{name} is an empty list; {_REMEDY}")
        return Shards(name, [_source_of(f"{name}[{number}]", each) for number, each in enumerate(value)])
    if isinstance(value, Source):
        return value
    if isinstance(value, jax.Array) and not isinstance(value, Tracer):
        if not value.is_fully_addressable:
            raise ValueError(
                f"{name} has rows on devices of other processes, which this one can't read; give factorize and encode "
                "the array itself, or this process's rows alone"
            )
        value = untyped(value)
    if sliceable(value):
        return Kept(name, value)
    if callable(getattr(value, "blocks", None)) and hasattr(value, "shape") and hasattr(value, "dtype"):
        return Yielded(name, value)
    raise ValueError(f"{name}={shown(value)} isn't rows in blocks ({', '.join(SUFFIXES)} files count); {_REMEDY}")


def _usual_rows(source: Source, dtype: np.dtype) -> int:
    each = source.shape[1] * max(4, dtype.itemsize)
    rows = max(1, BLOCK_BYTES // each)
    if source.chunk and source.chunk <= 8 * rows:
        # Chunks are read as a whole, and would be read twice otherwise.
        rows = max(1, rows // source.chunk) * source.chunk
    return min(rows, source.shape[0])

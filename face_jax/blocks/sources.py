"""What rows are read from: arrays with slices, shards one after another, objects that yield blocks."""

from __future__ import annotations

import abc
import bisect
import itertools
import math
import mmap
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..support.arguments import native


def sliceable(value: Any) -> bool:
    """Whether something is an array as far as reading goes."""
    shape = getattr(value, "shape", None)
    return isinstance(shape, tuple) and hasattr(value, "dtype") and hasattr(value, "__getitem__")


class Source(abc.ABC):
    """Rows of one matrix, consecutive ones at a time.

    `shape` and `dtype` are the matrix's, `chunk` is how many rows are best read together, or None.
    """

    shape: tuple[int, int]
    dtype: np.dtype
    chunk: int | None = None

    @abc.abstractmethod
    def read(self, start: int, stop: int) -> np.ndarray:
        """Some consecutive rows."""

    def parts(self, ends: Sequence[int]) -> Iterator[np.ndarray]:
        """Rows in consecutive parts that end before these."""
        for start, stop in itertools.pairwise([0, *ends]):
            yield self.read(start, stop)


def _numbers(name: str, array: Any) -> np.dtype[Any]:
    """The type of an array's numbers; torch's are told by NumPy of none of them."""
    try:
        return np.dtype(array.dtype)
    except TypeError:
        return np.dtype(native(name, array[:0]).dtype)


class Kept(Source):
    """An array with slices; of more axes than two the last one is the channels, and all others make rows."""

    def __init__(self, name: str, array: Any) -> None:
        self.name, self.array = name, array
        shape = tuple(int(side) for side in array.shape)
        if len(shape) < 2:
            raise ValueError(f"{name} has shape {shape}; give rows with channels, row × channel")
        self.each = math.prod(shape[1:-1])
        self.shape = (shape[0] * self.each, shape[-1])
        self.dtype = _usual(_numbers(name, array))
        chunks = getattr(array, "chunks", None)
        self.chunk = int(chunks[0]) * self.each if isinstance(chunks, tuple) and len(chunks) == len(shape) else None

    def read(self, start: int, stop: int) -> np.ndarray:
        """Some consecutive rows."""
        if stop <= start:
            return np.empty((0, self.shape[1]), self.dtype)
        first, last = start // self.each, -(-stop // self.each)
        try:
            found = np.asarray(native(self.name, self.array[first:last]))
        except OSError as error:
            raise OSError(f"{self.name}: rows {start} to {stop - 1} can't be read ({error})") from error
        if found.shape[0] != last - first:
            raise ValueError(
                f"{self.name} gave {found.shape[0]} entries for the slice [{first}:{last}] of its shape "
                f"{tuple(self.array.shape)}; give an array whose slices have as many as they ask for"
            )
        found = found.reshape(-1, self.shape[1])[start - first * self.each : stop - first * self.each]
        if isinstance(self.array, np.memmap) and found.flags.c_contiguous:
            # A map's pages are read where they're touched: here, on the thread that reads, and not where they're used.
            found.reshape(-1).view(np.uint8)[:: mmap.PAGESIZE].max()
        return found if found.dtype == self.dtype else found.astype(self.dtype)


class Shards(Source):
    """Sources whose rows follow one another."""

    def __init__(self, name: str, sources: list[Source]) -> None:
        channels = sorted({source.shape[1] for source in sources})
        if len(channels) > 1:
            raise ValueError(f"{name} has shards of {' and '.join(map(str, channels))} channels; give one layer's")
        dtypes = sorted({str(source.dtype) for source in sources})
        if len(dtypes) > 1:
            raise ValueError(f"{name} has shards of {' and '.join(dtypes)}; give shards of one dtype")
        self.sources = sources
        self.ends = list(itertools.accumulate(source.shape[0] for source in sources))
        self.shape, self.dtype = (self.ends[-1], channels[0]), sources[0].dtype

    def read(self, start: int, stop: int) -> np.ndarray:
        """Some consecutive rows."""
        found, number = [], bisect.bisect_right(self.ends, start)
        while start < stop:
            before = self.ends[number - 1] if number else 0
            until = min(stop, self.ends[number])
            if until > start:
                found.append(self.sources[number].read(start - before, until - before))
            start, number = max(start, until), number + 1
        if not found:
            return np.empty((0, self.shape[1]), self.dtype)
        return found[0] if len(found) == 1 else np.concatenate(found)

    def parts(self, ends: Sequence[int]) -> Iterator[np.ndarray]:
        """Rows in consecutive parts that end before these, each shard gone through once."""
        if any(isinstance(source, Yielded) for source in self.sources):
            each = itertools.chain.from_iterable(source.parts([source.shape[0]]) for source in self.sources)
            return regrouped(each, ends)
        return super().parts(ends)


class Yielded(Source):
    """An object whose `blocks()` yields arrays of consecutive rows, from the first one each time it's called."""

    def __init__(self, name: str, source: Any) -> None:
        self.name, self.source = name, source
        shape = tuple(int(side) for side in source.shape)
        if len(shape) < 2:
            raise ValueError(f"{name} has shape {shape}; give rows with channels, row × channel")
        self.shape, self.dtype = (math.prod(shape[:-1]), shape[-1]), _usual(np.dtype(source.dtype))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Some consecutive rows: all before them are gone through."""
        return next(itertools.islice(self.parts([start, stop] if start else [stop]), 1 if start else 0, None))

    def parts(self, ends: Sequence[int]) -> Iterator[np.ndarray]:
        """Rows in consecutive parts that end before these."""
        return regrouped(self._blocks(complete=ends[-1] == self.shape[0]), ends)

    def _blocks(self, *, complete: bool) -> Iterator[np.ndarray]:
        count = 0
        for number, block in enumerate(self.source.blocks()):
            found = np.asarray(block)
            if found.ndim < 2 or found.shape[-1] != self.shape[1]:
                raise ValueError(
                    f"block {number} of {self.name} has shape {found.shape}; give rows of {self.shape[1]} channels"
                )
            found = found.reshape(-1, self.shape[1])
            count += len(found)
            if count > self.shape[0]:
                break
            yield found if found.dtype == self.dtype else found.astype(self.dtype)
        if complete and count != self.shape[0]:
            raise ValueError(
                f"the blocks of {self.name} have {'more than' if count > self.shape[0] else count} {self.shape[0]} rows"
                if count > self.shape[0]
                else f"the blocks of {self.name} have {count} rows and its shape says {self.shape[0]}; let blocks() "
                "begin at the first row each time it's called, and yield all of them"
            )


def regrouped(blocks: Iterator[np.ndarray], ends: Sequence[int]) -> Iterator[np.ndarray]:
    """Blocks of any lengths, as parts that end before these rows."""
    start, waiting = 0, list[np.ndarray]()
    have = 0
    for stop in ends:
        while have < stop - start:
            block = next(blocks, None)
            if block is None:
                return
            waiting.append(block)
            have += len(block)
        joined = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
        yield joined[: stop - start]
        waiting = [joined[stop - start :]]
        have, start = have - (stop - start), stop
    # What checks that there are no more rows than promised comes behind the last one.
    next(blocks, None)


def _usual(dtype: np.dtype) -> np.dtype:
    """As this machine and JAX have it."""
    if dtype.kind == "f" and dtype.itemsize > 8:
        return np.dtype(np.float64)
    return dtype if dtype.isnative else dtype.newbyteorder("=")

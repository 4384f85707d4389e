"""Room for activations: memory while they are few, else files without names, which go with whoever holds them."""

from __future__ import annotations

import mmap
import pathlib
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

import numpy as np
from jaxtyping import Float

from ..support.memory import NotEnoughMemoryError, free_memory, in_bytes
from .scratch import free_in, mapped, unnamed_file, usual_folder

# Of the memory that's free, activations take so much by themselves; what is made of them takes the rest.
_SHARE = 0.5
_PART = 32 * 2**20  # bytes that are looked at together of what lies in files
_SMALL = 64 * 2**20  # what is chosen of rows in files is in memory up to here
# Where each file's map came from, so that what is chosen of its rows goes there, too.
_FOLDERS: weakref.WeakKeyDictionary[mmap.mmap, pathlib.Path] = weakref.WeakKeyDictionary()


class Room:
    """Where activations go: into memory until a limit, then into files.

    **Arguments:**

    - `memory`: bytes that they may take in memory; by default half of what is free.
    - `folder`: where files are; by default the system's for temporary files, unless that is in memory itself.
    """

    def __init__(self, memory: float | int | None = None, folder: pathlib.Path | None = None) -> None:
        free = free_memory() if memory is None else None
        self.memory = memory if memory is not None else None if free is None else _SHARE * free
        self.folder = usual_folder() if folder is None else folder
        self.taken = self.filed = 0

    def fits(self, size: float | int) -> bool:
        """Whether so many bytes more may be in memory."""
        return self.memory is None or self.taken + size <= self.memory

    def placed(self, array: np.ndarray, copies: int = 1) -> np.ndarray:
        """An array where its size belongs, wherever it was kept so far; its room is taken.

        **Arguments:**

        - `array`: in memory or in a file.
        - `copies`: how many times as much memory is taken by what is done with it.
        """
        if self.fits(copies * array.nbytes):
            self.taken += array.nbytes
            return np.array(array) if filed(array) else array
        self.filed += array.nbytes
        if filed(array):
            return array
        found = _in_a_file(self.folder, array.shape, array.dtype)
        found[:] = array
        return found

    def together(self, arrays: Sequence[np.ndarray], copies: int = 1) -> np.ndarray:
        """Arrays one behind the other along the first axis, where their size belongs; their room is taken.

        **Arguments:**

        - `arrays`: alike but for their lengths.
        - `copies`: how many times as much memory is taken by what is done with them.
        """
        size = sum(array.nbytes for array in arrays)
        if self.fits(copies * size):
            self.taken += size
            return np.concatenate(arrays)
        self.filed += size
        found = _in_a_file(self.folder, (sum(map(len, arrays)), *arrays[0].shape[1:]), np.result_type(*arrays))
        np.concatenate(arrays, out=found)
        return found

    def check(self, size: float | int, what: str) -> None:
        """Raises `NotEnoughMemoryError` where so many bytes fit neither into memory nor into the folder."""
        if self.fits(size):
            return
        free = free_in(self.folder)
        if size > free:
            allowed = 0.0 if self.memory is None else max(0.0, self.memory - self.taken)
            raise NotEnoughMemoryError(
                f"{what} would need about {in_bytes(size)}; {in_bytes(allowed)} of memory are left for activations, "
                f"and {in_bytes(free)} are free in store={str(self.folder)!r}; name a folder with more room as store"
            )


class Growing:
    """An array whose first axis grows: in memory until the room's limit, then in a file.

    **Arguments:**

    - `room`: says where.
    - `shape`, `dtype`: of an entry.
    """

    def __init__(self, room: Room, shape: tuple[int, ...], dtype: Any) -> None:
        self.room = room
        self.array: np.ndarray = np.empty((0, *shape), dtype)
        self._file: IO[bytes] | None = None

    @property
    def filed(self) -> bool:
        """Whether it's in a file."""
        return self._file is not None

    def grow(self, count: int, expected: int) -> None:
        """Room for so many entries in all, where so many bytes are expected in the end; those before stay."""
        old, shape = self.array, (count, *self.array.shape[1:])
        if not self.filed and self.room.fits(expected):
            # Memory that isn't written to isn't taken.
            self.array = np.empty(shape, old.dtype)
        else:
            begun = self._file is None
            if self._file is None:
                self._file = unnamed_file(self.room.folder, "store")
            self.array = _mapped(self._file, self.room.folder, shape, old.dtype)
            if not begun:
                return
        self.array[: len(old)] = old

    def done(self, count: int) -> np.ndarray:
        """The first entries."""
        if self._file is not None:
            self._file.close()
        return self.array[:count]


def filed(array: Any) -> bool:
    """Whether an array's numbers lie in a file."""
    return _map_of(array) is not None


def filed_beside(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array of the same type, to be filled: in a file beside another one's if that has one and this isn't small."""
    size = int(np.prod(shape, dtype=np.int64)) * array.itemsize
    inside = _map_of(array)
    if inside is None or size <= _SMALL:
        return np.empty(shape, array.dtype)
    folder = _FOLDERS.get(inside, usual_folder())
    return _in_a_file(folder, shape, array.dtype)


def folder_of(array: np.ndarray) -> pathlib.Path | None:
    """The folder of an array's file, if it's in one that a room made."""
    inside = _map_of(array)
    return None if inside is None else _FOLDERS.get(inside)


def chosen(array: np.ndarray, index: Any) -> np.ndarray:
    """Some entries along the first axis: `array[index]`, which is in a file if the array is and they are many."""
    if isinstance(index, slice) or not filed(array):
        return array[index]
    numbers = np.flatnonzero(index) if np.asarray(index).dtype == bool else np.asarray(index)
    if len(numbers) == len(array) and np.array_equal(numbers, np.arange(len(array))):
        return array
    found = filed_beside(array, (len(numbers), *array.shape[1:]))
    for part in parts_of(found):
        found[part] = array[numbers[part]]
    return found


def parts_of(array: np.ndarray) -> Iterator[slice]:
    """Slices along the first axis that cover an array: all of it at once unless it lies in a file."""
    if not filed(array):
        yield slice(0, len(array))
        return
    each = max(1, _PART // max(1, array[:1].nbytes))
    for start in range(0, len(array), each):
        yield slice(start, min(len(array), start + each))


def by_parts(array: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A function of entries, each by itself, whose results are small: a part at a time where they lie in a file."""
    found = [function(np.asarray(array[part])) for part in parts_of(array)]
    return found[0] if len(found) == 1 else np.concatenate(found)


def mapped_by_parts(array: np.ndarray, last: int, function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """The same where results are as large: into a file where the array is in one; `last` is their last axis."""
    if not filed(array):
        return function(array)
    found = filed_beside(array, (*array.shape[:-1], last))
    for part in parts_of(array):
        found[part] = function(np.asarray(array[part]))
    return found


def share_of(array: np.ndarray, function: Callable[[np.ndarray], np.ndarray]) -> float:
    """The share of numbers of which something is true."""
    return sum(int(np.count_nonzero(function(np.asarray(array[part])))) for part in parts_of(array)) / max(
        1, array.size
    )


def squares(array: np.ndarray) -> float:
    """The sum of the squares of all numbers."""
    return sum(float(np.sum(np.square(array[part], dtype=np.float64))) for part in parts_of(array))


def averaged(maps: Float[np.ndarray, "image y x channel"], dtype: Any = None) -> Float[np.ndarray, "image channel"]:
    """Averages over places."""
    return by_parts(maps, lambda some: (some if dtype is None else some.astype(dtype)).mean(axis=(1, 2)))


def _map_of(array: Any) -> mmap.mmap | None:
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None


def _in_a_file(folder: pathlib.Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    with unnamed_file(folder, "store") as file:
        return _mapped(file, folder, shape, dtype)


def _mapped(file: IO[bytes], folder: pathlib.Path, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    found = mapped(file, folder, shape, dtype, "store", "activations")
    inside = _map_of(found)
    assert inside is not None
    _FOLDERS[inside] = folder
    return found

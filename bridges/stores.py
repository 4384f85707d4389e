"""Where pulled activations are kept: memory, a `.npy` file or a Zarr array."""

from __future__ import annotations

import abc
import hashlib
import json
import os
import pathlib
from typing import Any

import numpy as np


class Store(abc.ABC):
    """Rows of activations that grow batch by batch."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.names: list[str] = []
        self.skipped: list[tuple[str, str]] = []
        self.picture_shape: tuple[int, ...] | None = None
        self.rows: Any = None

    @property
    def done(self) -> int:
        """How many pictures were seen, kept or skipped."""
        return len(self.names) + len(self.skipped)

    def append(
        self,
        values: np.ndarray | None,
        names: list[str],
        failed: list[tuple[str, str]],
        picture_shape: tuple[int, ...] | None,
    ) -> None:
        """Keep a batch's activations; None if the whole batch failed."""
        if values is not None:
            if self.rows is None:
                self.rows = self._room((self.total, *values.shape[1:]), values.dtype)
            self.rows[len(self.names) : len(self.names) + len(values)] = values
        self.names += names
        self.skipped += failed
        self.picture_shape = picture_shape or self.picture_shape

    @abc.abstractmethod
    def finish(self) -> Any:
        """The array of all rows that were filled."""

    @abc.abstractmethod
    def _room(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """Where all rows will be."""


class MemoryStore(Store):
    """Rows in memory, allocated once."""

    def finish(self) -> np.ndarray:
        """The rows that were filled."""
        assert self.rows is not None  # finish is called only if a name was kept
        return self.rows[: len(self.names)]

    def _room(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.empty(shape, dtype)


class DiskStore(Store):
    """Rows on disk, with a note beside them of what they are and how far the work is.

    The first note tells of no rows and is written before there is room for them; each other one is written after the
    rows that it tells of, in one step. So a run that's killed at any moment leaves a store to go on with.
    """

    def __init__(self, path: pathlib.Path, identity: dict[str, Any], total: int) -> None:
        super().__init__(total)
        self.path, self.note = path, path.with_name(path.name + ".json")
        self.identity = identity
        if self.note.exists():
            self._resume()
        elif path.exists():
            raise ValueError(
                f"store={str(path)!r} exists and no note says what it holds; delete it, or give another path"
            )

    def append(
        self,
        values: np.ndarray | None,
        names: list[str],
        failed: list[tuple[str, str]],
        picture_shape: tuple[int, ...] | None,
    ) -> None:
        """Keep a batch, then note it."""
        super().append(values, names, failed, picture_shape)
        if isinstance(self.rows, np.memmap):
            self.rows.flush()
        self._write_note()

    def finish(self) -> Any:
        """The array on disk, cut to the rows that were filled, read-only if it is a memory map."""
        count = len(self.names)
        if self.path.suffix == ".zarr":
            if self.rows.shape[0] != count:
                self.rows.resize((count, *self.rows.shape[1:]))
            return self.rows
        if self.rows.shape[0] != count:
            shape, dtype = (count, *self.rows.shape[1:]), self.rows.dtype
            del self.rows
            _shorten(self.path, shape, dtype)
        self.rows = np.load(self.path, mmap_mode="r")
        return self.rows

    def _room(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        # Without a note, the file of a run that was killed before its first rows would be taken for somebody else's.
        self._write_note()
        if self.path.suffix == ".zarr":
            # A chunk holds a batch's worth of rows, at most some 8 MB: what one block of a later reading takes.
            rows = max(1, min(shape[0], 2**23 // max(1, int(np.prod(shape[1:])) * dtype.itemsize)))
            return _zarr().create_array(
                str(self.path), shape=shape, chunks=(rows, *shape[1:]), dtype=dtype, overwrite=True
            )
        return np.lib.format.open_memmap(self.path, mode="w+", dtype=dtype, shape=shape)

    def _resume(self) -> None:
        try:
            noted = json.loads(self.note.read_text())
            found = noted["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"store={str(self.path)!r} has a damaged note, {self.note.name}; delete both") from error
        different = [key for key, value in self.identity.items() if found.get(key) != value]
        if different:
            raise ValueError(
                f"store={str(self.path)!r} holds other work: its {' and '.join(different)} "
                f"{'is' if len(different) == 1 else 'are'} not this one's; delete it, or give another path"
            )
        if not noted["names"]:
            # Nothing to go on with, and pictures that could none be read may be there again.
            return
        self.names = list(noted["names"])
        self.skipped = [(name, reason) for name, reason in noted["skipped"]]
        self.picture_shape = tuple(noted["picture_shape"]) if noted["picture_shape"] else None
        if not self.path.exists():
            raise ValueError(f"store={str(self.path)!r} is gone and its note is left; delete {self.note.name}")
        if self.path.suffix == ".zarr":
            self.rows = _zarr().open_array(str(self.path), mode="r+")
        else:
            self.rows = np.load(self.path, mmap_mode="r" if self.done == self.total else "r+")

    def _write_note(self) -> None:
        noted = {
            "identity": self.identity,
            "names": self.names,
            "skipped": self.skipped,
            "picture_shape": self.picture_shape,
        }
        self.note.parent.mkdir(parents=True, exist_ok=True)
        partial = self.note.with_name(self.note.name + ".part")
        partial.write_text(json.dumps(noted))
        os.replace(partial, self.note)


def open_store(path: pathlib.Path, fingerprint: str, names: tuple[str, ...], pooled: bool) -> DiskStore:
    """A store on disk, new or with the beginning of the same work in it."""
    if path.suffix not in (".npy", ".zarr"):
        raise ValueError(f"store={str(path)!r} ends in {path.suffix!r}; give a path that ends in .npy or .zarr")
    if path.suffix == ".zarr":
        _zarr()
    pictures = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return DiskStore(path, {"model": fingerprint, "pictures": pictures, "pooled": pooled}, len(names))


def _zarr() -> Any:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise ImportError("a store that ends in .zarr needs zarr, which is not installed; pip install zarr") from error
    return zarr


def _shorten(path: pathlib.Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Cut a `.npy` file to fewer rows, in place."""
    with path.open("r+b") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        read(file)
        start = file.tell()
        file.seek(0)
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        # The header leaves room for the first axis to change, so its length stays as it is.
        np.lib.format.write_array_header_1_0(file, header)
        if file.tell() != start:
            raise RuntimeError(f"{path}: the header's length changed from {start} to {file.tell()} bytes")
        file.truncate(start + int(np.prod(shape)) * dtype.itemsize)

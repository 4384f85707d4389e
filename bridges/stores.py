"""Where pulled activations are kept: memory, a `.npy` file or a Zarr array."""

from __future__ import annotations

import abc
import contextlib
import hashlib
import json
import logging
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from face_jax.pictures.image_arrays import npy_header
from face_jax.support.regular_files import opened
from face_jax.support.to_disk import put_at

from .store_files import digest_of, reserve, resize, row_of, whole_blocks

# What was found damaged, and is done again, is told here.
_LOG = logging.getLogger(__name__)


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

    The note has a digest of every block of rows. When a store is opened they are computed anew: from the first block
    on that isn't what was written (a file cut short, flipped bits, a chunk that's gone), the work is done again.
    """

    def __init__(self, path: pathlib.Path, identity: dict[str, Any], total: int) -> None:
        super().__init__(total)
        self.path, self.note = path, path.with_name(path.name + ".json")
        self.identity = identity
        # After each batch: how many names, how many skipped, and a digest of its rows.
        self.blocks: list[tuple[int, int, str]] = []
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
        with self._room_in_words():
            super().append(values, names, failed, picture_shape)
            if isinstance(self.rows, np.memmap):
                self.rows.flush()
            written = digest_of(None if values is None else values.astype(self.rows.dtype, copy=False))
            self.blocks.append((len(self.names), len(self.skipped), written))
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
            resize(self.path, shape, dtype)
        self.rows = np.load(self.path, mmap_mode="r")
        return self.rows

    @contextlib.contextmanager
    def _room_in_words(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(
                f"store={str(self.path)!r} can't be written to ({error.strerror or error}); what it has is kept: make "
                "room there and run again, or give another path"
            ) from error

    def _room(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        # Without a note, the file of a run that was killed before its first rows would be taken for somebody else's.
        self._write_note()
        if self.path.suffix == ".zarr":
            # A chunk holds a batch's worth of rows, at most some 8 MB: what one block of a later reading takes.
            rows = max(1, min(shape[0], 2**23 // max(1, int(np.prod(shape[1:])) * dtype.itemsize)))
            return _zarr().create_array(
                str(self.path), shape=shape, chunks=(rows, *shape[1:]), dtype=dtype, overwrite=True
            )
        rows = np.lib.format.open_memmap(self.path, mode="w+", dtype=dtype, shape=shape)
        reserve(self.path)
        return rows

    def _resume(self) -> None:
        try:
            with opened(self.note) as file:
                noted = json.load(file)
            found = noted["identity"]
            different = [key for key, value in self.identity.items() if found.get(key) != value]
            names = [str(name) for name in noted["names"]]
            skipped = [(str(name), str(reason)) for name, reason in noted["skipped"]]
            shape = noted["picture_shape"]
            picture_shape = tuple(int(side) for side in shape) if shape else None
            blocks = [(int(named), int(left_out), str(digest)) for named, left_out, digest in noted.get("blocks", ())]
            if (blocks and blocks[-1][:2] != (len(names), len(skipped))) or _sealed(noted) != noted:
                raise ValueError("its numbers don't fit")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"store={str(self.path)!r} has a damaged note, {self.note.name}; delete both") from error
        if different:
            raise ValueError(
                f"store={str(self.path)!r} holds other work: its {' and '.join(different)} "
                f"{'is' if len(different) == 1 else 'are'} not this one's; delete it, or give another path"
            )
        if not names or len(names) + len(skipped) > self.total:
            # Nothing to go on with, and pictures that could none be read may be there again.
            return
        if not self.path.exists():
            raise ValueError(f"store={str(self.path)!r} is gone and its note is left; delete {self.note.name}")
        rows = self._opened(len(names), noted.get("row"))
        # A store of an older version has no digests: they are of what is found now.
        blocks = blocks or ([] if rows is None else [(len(names), len(skipped), digest_of(rows[: len(names)]))])
        whole = 0 if rows is None else whole_blocks(rows, blocks)
        if whole < len(blocks):
            kept = blocks[whole - 1][0] if whole else 0
            _LOG.warning(
                "store=%r is damaged from row %d on, of %d that were written; they are computed again",
                str(self.path), kept, len(names),
            )  # fmt: skip
        self.names, self.skipped, self.picture_shape, self.rows = names, skipped, picture_shape, rows
        self._keep(blocks[:whole])

    def _keep(self, blocks: list[tuple[int, int, str]]) -> None:
        """Go on behind these blocks, the first of those that there are."""
        kept, left_out = blocks[-1][:2] if blocks else (0, 0)
        self.names, self.skipped = self.names[:kept], self.skipped[:left_out]
        if not kept:
            self.blocks, self.names, self.skipped, self.picture_shape, self.rows = [], [], [], None, None
            return
        self.blocks = blocks
        if self.done < self.total:
            with self._room_in_words():
                self._write_note()
                self._make_room_again(kept)

    def _opened(self, count: int, row: Any) -> Any:
        """The rows as they are on disk; None if they aren't at all what can have been written."""

        def possible(shape: tuple[int, ...], dtype: np.dtype) -> bool:
            # Older versions didn't note what a row is.
            return len(shape) > 1 and shape[0] in (count, self.total) and row in (None, row_of(shape, dtype))

        try:
            if self.path.suffix == ".zarr":
                rows = _zarr().open_array(str(self.path), mode="r+")
                return rows if possible(rows.shape, rows.dtype) else None
            with opened(self.path) as file:
                shape, dtype = npy_header(file)
                length = file.tell() + int(np.prod(shape)) * dtype.itemsize
            if not possible(shape, dtype):
                return None
            if self.path.stat().st_size < length:
                # It was cut; a map of it can be opened once it's as long as its header says.
                os.truncate(self.path, length)
            return np.load(self.path, mmap_mode="r", allow_pickle=False)
        # Whatever is wrong with the files, and readers raise nearly anything then, the work can be done again.
        except Exception:
            return None

    def _make_room_again(self, kept: int) -> None:
        """Room for all rows, behind those kept; what was there is gone, as a damaged chunk can't be written to."""
        shape = (self.total, *self.rows.shape[1:])
        if self.path.suffix == ".zarr":
            self.rows.resize((kept, *shape[1:]))
            self.rows.resize(shape)
            return
        dtype = self.rows.dtype
        if self.rows.shape != shape:
            self.rows = None
            resize(self.path, shape, dtype)
        self.rows = None
        reserve(self.path)
        self.rows = np.load(self.path, mmap_mode="r+")

    def _write_note(self) -> None:
        noted = {
            "identity": self.identity,
            "names": self.names,
            "skipped": self.skipped,
            "picture_shape": self.picture_shape,
            "row": None if self.rows is None else row_of(self.rows.shape, self.rows.dtype),
            "blocks": self.blocks,
        }
        self.note.parent.mkdir(parents=True, exist_ok=True)
        partial = self.note.with_name(self.note.name + ".part")
        try:
            partial.write_text(json.dumps(_sealed(noted)))
            put_at(partial, self.note)
        finally:
            partial.unlink(missing_ok=True)


def _sealed(note: dict[str, Any]) -> dict[str, Any]:
    """A note with the digest of what it says; one of an older version, which had none, as it is."""
    if "blocks" not in note:
        return note
    said = {name: value for name, value in note.items() if name != "digest"}
    return said | {"digest": hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()}


def in_step(*stores: DiskStore) -> None:
    """Lets stores of the same pictures go on behind the batches that all of them have."""
    common = 0
    for each in zip(*(store.blocks for store in stores), strict=False):
        if len({block[:2] for block in each}) > 1:
            break
        common += 1
    for store in stores:
        if len(store.blocks) > common:
            store._keep(store.blocks[:common])


def tokens_path(path: pathlib.Path) -> pathlib.Path:
    """Where a store's tokens lie, beside its maps."""
    return path.with_name(f"{path.stem}-tokens{path.suffix}")


def open_store(
    path: pathlib.Path, fingerprint: str, names: tuple[str, ...], pooled: bool, *, tokens: bool = False
) -> DiskStore:
    """A store on disk, new or with the beginning of the same work in it; of maps, or of the tokens beside them."""
    if path.suffix not in (".npy", ".zarr"):
        raise ValueError(f"store={str(path)!r} ends in {path.suffix!r}; give a path that ends in .npy or .zarr")
    if path.suffix == ".zarr":
        _zarr()
    pictures = hashlib.sha256("\n".join(names).encode(errors="surrogateescape")).hexdigest()
    identity = {"model": fingerprint, "pictures": pictures, "pooled": pooled}
    return DiskStore(path, identity | ({"part": "tokens"} if tokens else {}), len(names))


def _zarr() -> Any:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise ImportError("a store that ends in .zarr needs zarr, which is not installed; pip install zarr") from error
    return zarr

"""Room for what a run keeps meanwhile: memory while it's little, else files that go with the process."""

from __future__ import annotations

import errno
import math
import os
import pathlib
import shutil
import tempfile
from typing import IO, Any

import numpy as np

from ..support.memory import NotEnoughMemoryError, in_bytes

_IN_MEMORY = 64 * 2**20  # bytes that all arrays of a run together may take there


def free_in(folder: pathlib.Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


class Scratch:
    """Makes arrays to be written to.

    **Arguments:**

    - `folder`: where larger ones are; if None the system's for temporary files, unless that is in memory itself.
    """

    def __init__(self, folder: pathlib.Path | None = None) -> None:
        self.folder, self._left = folder, _IN_MEMORY

    def expect(self, size: int) -> None:
        """Raises `NotEnoughMemoryError` before any work if so many bytes can't be had in the folder."""
        if size <= self._left:
            return
        free = free_in(self._folder)
        if size > free:
            raise NotEnoughMemoryError(
                f"codes and samples of all rows would need about {size / 2**30:,.1f} GiB, and {free / 2**30:,.1f} GiB "
                f"are free in scratch={str(self._folder)!r}; name a folder with more room, RowBlocks(…, scratch=…), or "
                "keep no codes: codes=False, start=MiniBatch()"
            )

    @property
    def _folder(self) -> pathlib.Path:
        return usual_folder() if self.folder is None else self.folder

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of zeros; raises `OSError` in a sentence where there is no room for it."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size <= self._left:
            self._left -= size
            return np.zeros(shape, dtype)
        with unnamed_file(self._folder, "scratch") as file:
            return mapped(file, self._folder, shape, dtype, "scratch", "codes and samples")


def usual_folder() -> pathlib.Path:
    """The system's folder for temporary files, or the one that outlives a start where that is kept in memory."""
    usual, lasting = pathlib.Path(tempfile.gettempdir()), pathlib.Path("/var/tmp")
    return lasting if _in_memory(usual) and lasting.is_dir() and not _in_memory(lasting) else usual


def _in_memory(folder: pathlib.Path) -> bool:
    try:
        mounts = [line.split()[1:3] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return False
    within = [(place, kind) for place, kind in mounts if folder.resolve().is_relative_to(place)]
    return bool(within) and max(within, key=lambda each: len(each[0]))[1] in ("tmpfs", "ramfs")


def unnamed_file(folder: pathlib.Path, argument: str) -> IO[bytes]:
    """A file without a name, so that nothing is left of it however the process ends.

    **Arguments:**

    - `folder`: where it is; made if need be.
    - `argument`: what users call the folder. Raises `OSError` in a sentence where it can't be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder, prefix="face-jax-")
    except OSError as error:
        raise OSError(
            f"{argument}={str(folder)!r} can't be written to ({error.strerror or error}); name another folder"
        ) from error


def mapped(
    file: IO[bytes], folder: pathlib.Path, shape: tuple[int, ...], dtype: Any, argument: str, what: str
) -> np.memmap:
    """An array in such a file, whose room is there; raises `OSError` in a sentence where it isn't.

    **Arguments:**

    - `file`, `folder`, `argument`: as `unnamed_file` has them.
    - `shape`, `dtype`: of the array.
    - `what`: it's for.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        reserve(file.fileno(), max(1, size))
        return np.memmap(file, dtype, mode="r+", shape=shape)
    except OSError as error:
        raise OSError(
            f"{in_bytes(size)} for {what} can't be had in {argument}={str(folder)!r} ({error.strerror or error}); make "
            "room there, or name another folder"
        ) from error


def reserve(file: int, size: int) -> None:
    """Room on the disk for a file: writing to a map of one with holes kills the process once the disk is full."""
    os.ftruncate(file, size)
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as failed:
        # Not every file system can.
        if failed.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise

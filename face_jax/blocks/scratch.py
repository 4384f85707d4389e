"""Room for what a run keeps meanwhile: memory while it's little, else files that go with the process."""

from __future__ import annotations

import errno
import math
import os
import pathlib
import shutil
import tempfile
from typing import Any

import numpy as np

from ..support.memory import NotEnoughMemoryError

_IN_MEMORY = 64 * 2**20  # bytes that all arrays of a run together may take there


def free_in(folder: pathlib.Path) -> int:
    """Bytes that are free where a folder is, or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


class Scratch:
    """Makes arrays to be written to.

    **Arguments:**

    - `folder`: where larger ones are; the system's for temporary files if None.
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
        return pathlib.Path(tempfile.gettempdir() if self.folder is None else self.folder)

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of zeros; raises `OSError` in a sentence where there is no room for it."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size <= self._left:
            self._left -= size
            return np.zeros(shape, dtype)
        folder = self._folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder, prefix="face-jax-") as file:
                reserve(file.fileno(), size)
                # The file has no name, so that nothing is left of it however the process ends.
                return np.memmap(file, dtype, mode="r+", shape=shape)
        except OSError as error:
            raise OSError(
                f"{size / 2**30:,.1f} GiB for codes and samples can't be had in scratch={str(folder)!r} "
                f"({error.strerror or error}); make room there, or name another folder: RowBlocks(…, scratch=…)"
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

"""Files of stores: room on the disk, other numbers of rows, digests of blocks of rows."""

from __future__ import annotations

import errno
import hashlib
import os
import pathlib
from typing import Any

import numpy as np

from face_jax.pictures.image_arrays import npy_header


def digest_of(rows: np.ndarray | None) -> str:
    """A digest of some rows; empty of none."""
    if rows is None:
        return ""
    return hashlib.sha256(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data).hexdigest()[:32]


def whole_blocks(rows: Any, blocks: list[tuple[int, int, str]]) -> int:
    """How many blocks, from the first on, are what was written."""
    begin = 0
    for number, (end, _, digest) in enumerate(blocks):
        try:
            found = digest_of(np.asarray(rows[begin:end]) if end > begin else None)
        # A damaged chunk is whatever its decompression says.
        except Exception:
            return number
        if found != digest:
            return number
        begin = end
    return len(blocks)


def reserve(path: pathlib.Path) -> None:
    """Takes the room on the disk that a file's length promises.

    Where a file has holes, writing to a memory map of it kills the process when the disk is full.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
        except OSError as error:
            # Not every file system can.
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise


def row_of(shape: tuple[int, ...], dtype: np.dtype) -> list[Any]:
    """What a row is, as a note says it."""
    return [list(shape[1:]), dtype.str]


def resize(path: pathlib.Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Give a `.npy` file another number of rows, in place."""
    with path.open("r+b") as file:
        npy_header(file)
        start = file.tell()
        file.seek(0)
        new = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        # The header leaves room for the first axis to change, so its length stays as it is.
        np.lib.format.write_array_header_1_0(file, new)
        if file.tell() != start:
            raise RuntimeError(f"{path}: the header's length changed from {start} to {file.tell()} bytes")
        file.truncate(start + int(np.prod(shape)) * dtype.itemsize)

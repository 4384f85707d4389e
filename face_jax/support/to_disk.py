"""Files that take another's place: on the disk before they do, so that a power cut leaves the old ones or the new ones.

A renaming can reach the disk before what was written into the file, which would then be there, and empty.
"""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Iterable

# What file systems say that can't do it, and Windows of folders. Anything else is a write that failed.
_UNABLE = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM)


def synced(place: pathlib.Path) -> None:
    """Brings a file to the disk, or which files there are in a folder; raises `OSError` where writing them failed."""
    try:
        opened = os.open(place, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
    except OSError as error:
        if error.errno not in _UNABLE:
            raise


def moved(files: Iterable[tuple[pathlib.Path, pathlib.Path]]) -> None:
    """Moves files or folders that are on the disk to other names, in place of what is there."""
    folders = {}
    for file, place in files:
        os.replace(file, place)
        folders[place.parent] = None
    for folder in folders:
        synced(folder)


def put_at(new: pathlib.Path, place: pathlib.Path) -> None:
    """Moves a new file, or a folder with all that is in it, to its name, in place of the file that is there."""
    for each in [*(new.rglob("*") if new.is_dir() else ()), new]:
        synced(each)
    moved([(new, place)])

"""Files put into a folder together: an interrupt at any moment leaves all old ones or all new ones."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import shutil
from collections.abc import Iterator

from .arguments import path_of
from .to_disk import moved, put_at

# New files are written into the first; renamed, it is the second, whose files count in place of those beside it.
_NEW, _PLACED = ".face-jax-new", ".face-jax-placed"
_LOCK = ".face-jax-lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class FolderInUseError(ValueError):
    """A folder that another run is writing to."""


def folder_of(given: str | os.PathLike[str]) -> pathlib.Path:
    """A path that a folder is at, or can be made at; raises `ValueError` for no name and for a file's."""
    if isinstance(given, str) and not given:
        raise ValueError("folder='' names nothing; give a folder ('.' is this one)")
    path = path_of("folder", given, "a folder")
    if path.exists() and not path.is_dir():
        raise ValueError(f"folder={str(path)!r} is a file; give a folder, such as {str(path.parent)!r}")
    return path


@contextlib.contextmanager
def put_together(folder: pathlib.Path, *, claim: bool = True) -> Iterator[pathlib.Path]:
    """A new, empty folder; what is written into it comes into `folder` as a whole when the block ends.

    The moment is one renaming. Files are moved to their places behind it; until all are there, whether or not the
    process still lives, `placed` says where each is.

    **Arguments:**

    - `folder`: where the files go; made if need be. Files of other names stay.
    - `claim`: claim the folder meanwhile; False within `claimed`.

    Nothing changes where the block raises. Raises `FolderInUseError` if another run writes there, and `OSError` in a
    sentence where there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with claimed(folder) if claim else contextlib.nullcontext():
        _settle(folder)
        new = folder / _NEW
        shutil.rmtree(new, ignore_errors=True)
        try:
            new.mkdir()
            yield new
            put_at(new, folder / _PLACED)
        except BaseException as error:
            shutil.rmtree(new, ignore_errors=True)
            if not (isinstance(error, OSError) and error.errno in _FULL):
                raise
            told = OSError(
                f"folder={str(folder)!r} can't be written to ({os.strerror(error.errno)}), and is as it was; make room "
                "there, or name another folder"
            )
            told.errno = error.errno
            raise told from error
        _settle(folder)


def placed(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Where a file of `folder` is: at its place, or still on the way there from a run that was killed."""
    waiting = folder / _PLACED / name
    return waiting if waiting.exists() else folder / name


@contextlib.contextmanager
def claimed(folder: pathlib.Path, file: str | None = None) -> Iterator[None]:
    """Keeps other runs from writing to a folder; what it takes is gone with the process, however that ends.

    **Arguments:**

    - `folder`: made if need be, and removed if it's empty in the end.
    - `file`: claim only this file in it.

    Raises `FolderInUseError` if another run has it.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (_LOCK if file is None else f".{file}{_LOCK}")
    held = _lock(path)
    if held is None:
        claim = f"folder={str(folder)!r}" if file is None else f"store={str(folder / file)!r}"
        raise FolderInUseError(
            f"{claim}: another run is writing to it; wait until it's done, or name another "
            + ("folder" if file is None else "path")
        )
    try:
        yield
    finally:
        try:
            path.unlink(missing_ok=True)
        finally:
            os.close(held)
        with contextlib.suppress(OSError):
            for each in missing:
                each.rmdir()


def _lock(path: pathlib.Path) -> int | None:
    """A locked file, which the system unlocks when the process ends; None if somebody has it."""
    try:
        import fcntl
    except ImportError:  # on Windows, a file that's open can't be removed
        return _opened_alone(path)
    while True:
        opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(opened)
            return None
        except OSError:
            # A file system without locks: better unlocked than not at all.
            return opened
        # Whoever had it before may have removed the file in between.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(opened), os.stat(path)):
                return opened
        os.close(opened)


def _opened_alone(path: pathlib.Path) -> int | None:
    with contextlib.suppress(FileNotFoundError, PermissionError):
        os.unlink(path)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return None


def _settle(folder: pathlib.Path) -> None:
    """Moves what has been put into a folder to its place."""
    waiting = folder / _PLACED
    if not waiting.is_dir():
        return
    files = sorted(each for each in waiting.rglob("*") if not each.is_dir())
    places = [folder / file.relative_to(waiting) for file in files]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
    moved(zip(files, places, strict=True))
    shutil.rmtree(waiting)

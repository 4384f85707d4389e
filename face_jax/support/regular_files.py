"""Files that somebody names: read if they are regular ones of a size that makes sense, else refused in words.

A named pipe would be waited for without end, and a device may have no end.
"""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import stat
from collections.abc import Iterator

# Bytes of the longest text that is read: tables and lists of a million lines are shorter.
MOST_TEXT = 2**26


class UnfitFileError(ValueError):
    """What is no regular file, or too large a one."""


def kind_of(mode: int) -> str:
    """What stands in a folder where no file does."""
    kinds = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")


def check_regular(mode: int) -> None:
    """Raises `UnfitFileError` for the mode of anything but a file."""
    if not stat.S_ISREG(mode):
        raise UnfitFileError(f"{kind_of(mode)}, not a file")


@contextlib.contextmanager
def opened(file: pathlib.Path) -> Iterator[io.BufferedReader]:
    """A regular file, or a link to one, open for reading; nothing else is opened.

    Raises `UnfitFileError`, and what the system says.
    """
    check_regular(os.stat(file).st_mode)
    # If somebody put a named pipe there since, this doesn't wait for its other end.
    number = os.open(file, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(number, "rb") as stream:
        check_regular(os.fstat(stream.fileno()).st_mode)
        yield stream


def bytes_of(file: pathlib.Path, most: int) -> bytes:
    """A regular file's bytes, if there aren't more than `most`; raises `UnfitFileError`, `OSError`."""
    with opened(file) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise UnfitFileError(f"a file of more than {most:,} bytes, the most that is read")
    return content


def text_of(
    named: str,
    file: pathlib.Path,
    remedy: str,
    *,
    most: int = MOST_TEXT,
    refused: type[ValueError] = ValueError,
) -> str:
    """The text of a file that a user named, with its ends of lines as they are.

    **Arguments:**

    - `named`: how errors name it: the argument or option, and the path.
    - `file`: where it is.
    - `remedy`: what to give in its place.
    - `most`: bytes that it may have.
    - `refused`: what is raised.

    **Returns:** its text, without a mark of the encoding, which spreadsheets put before it.
    """
    try:
        return bytes_of(file, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise refused(f"{named} isn't text in UTF-8 (byte {error.start}: {error.reason}); save it so") from error
    # Paths that the system doesn't take (with a zero in them) are ValueErrors.
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise refused(f"{named} can't be read ({said}); {remedy}") from error

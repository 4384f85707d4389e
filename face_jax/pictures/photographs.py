"""Photographs: where they come from, and their pixels when somebody asks."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import pathlib
import stat
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..support.arguments import Whole, check_count
from ..support.regular_files import UnfitFileError, kind_of, opened
from .crop_and_resize import network_input as network_input
from .crop_and_resize import resized as resized
from .crop_and_resize import within as within
from .decoding import (
    Decoded,
    content_of,
    decoded,
    grey,
    is_pillow,
    of_pillow,
    other_channels,
    reason_of,
)
from .decoding import UnreadablePhotographError as UnreadablePhotographError
from .image_arrays import array_of_file, as_array, images_in, is_array
from .items import items_of, picture_of

# A folder of such a name is named among what was skipped.
_PICTURES = (".avif", ".bmp", ".gif", ".heic", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class NoPhotographsError(ValueError):
    """A source with no photographs in it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Photograph:
    """One picture, read when asked for.

    **Arguments:**

    - `name`: what reports call it. It can be written anywhere, whatever the file's name is made of.
    - `source`: a file, or the pixels themselves (`y x channel`, 0…255). None in an explanation that was loaded, for
        pixels that were in no file.
    - `expected`: in an explanation that was loaded, the digest that it had when it was saved; a file with another
        one isn't read.
    - `unread`: why it can't be read, where that is known without trying.
    - `faint`: of pixels, whether they were of 16 bits and used less than a tenth of them.
    """

    name: str
    source: pathlib.Path | UInt8[np.ndarray, "y x channel"] | None
    expected: bytes | None = None
    unread: str | None = None
    faint: bool = False

    def pixels(self, channels: int | None = None) -> UInt8[np.ndarray, "y x channel"]:
        """The picture, upright as its camera meant it; 16 bits a value become 8.

        **Arguments:**

        - `channels`: as many as `model.preprocess.reads`: 3 for red, green and blue, 1 for grey, 4 for these and
            opacity, others for what has them. By default those of pixels that were given, and a file's colours.

        **Returns:** the pixels. Raises `UnreadablePhotographError`, which names the file and the reason: that it has
        other channels, too.
        """
        return self.decoded(channels).pixels

    def decoded(self, channels: int | None = None) -> Decoded:
        """The pixels, with what is known of them besides; raises `UnreadablePhotographError`."""
        if self.unread is not None:
            raise UnreadablePhotographError(f"{self.name}: {self.unread}")
        if isinstance(self.source, np.ndarray):
            if not self.source.size:
                height, width = self.source.shape[:2]
                raise UnreadablePhotographError(f"{self.name}: {width} × {height} pixels, which show nothing")
            return Decoded(self._with(self.source, channels), self.faint)
        file = self._file()
        try:
            content = content_of(file)
            if self.expected in (None, hashlib.sha256(content).digest()):
                return decoded(content, file.name, channels or 3)
        except FileNotFoundError as error:
            raise self._gone(file) from error
        except (OSError, UnreadablePhotographError, MemoryError) as error:
            raise UnreadablePhotographError(f"{self.name}: {reason_of(error)}") from error
        raise UnreadablePhotographError(
            f"{self.name}: {str(file)!r} is another picture now than the one that was explained; put that one back, or "
            "give the photographs to face_jax.load as images="
        )

    def _with(self, pixels: UInt8[np.ndarray, "y x there"], channels: int | None) -> UInt8[np.ndarray, "y x channel"]:
        there = pixels.shape[-1]
        if channels in (None, there):
            return pixels
        if there == 3 and channels == 1:
            return grey(pixels)
        raise UnreadablePhotographError(f"{self.name}: {other_channels(there, channels)}")

    def digest(self) -> bytes:
        """A digest of the content: of the file's bytes, or of the pixels. Raises `UnreadablePhotographError`."""
        if self.unread is not None:
            raise UnreadablePhotographError(f"{self.name}: {self.unread}")
        if isinstance(self.source, np.ndarray):
            return hashlib.sha256(repr(self.source.shape).encode() + self.source.tobytes()).digest()
        file = self._file()
        try:
            with opened(file) as stream:
                return hashlib.file_digest(stream, "sha256").digest()
        except FileNotFoundError as error:
            raise self._gone(file) from error
        except (OSError, UnfitFileError) as error:
            raise UnreadablePhotographError(f"{self.name}: {reason_of(error)}") from error

    def _file(self) -> pathlib.Path:
        if isinstance(self.source, pathlib.Path):
            return self.source
        raise UnreadablePhotographError(
            f"{self.name}: its pixels were in no file, or in one that was gone when the explanation was saved, which "
            "therefore doesn't have them; give the photographs to face_jax.load as images="
        )

    def _gone(self, file: pathlib.Path) -> UnreadablePhotographError:
        if file.is_symlink():
            return UnreadablePhotographError(f"{self.name}: a link to {os.readlink(file)!r}, where there is no file")
        return UnreadablePhotographError(
            f"{self.name}: there is no file {str(file)!r} any more; put it back, or give the photographs to "
            "face_jax.load as images="
        )


def photographs(source: Any, *, channels: Whole = 3) -> tuple[Photograph, ...]:
    """Photographs from a folder, a file, an `.npz` of images, arrays, a data set, or several of any of these.

    Files aren't decoded yet: a damaged one shows itself when its pixels are asked for. Where a picture has
    transparent places, the colours that its file keeps there are taken, which a viewer wouldn't show.

    **Arguments:**

    - `source`: a path to a folder (every file below it, in the order of the names), to a picture, or to an
        `.npz`/`.npy` with an array of images; an array `image y x 3` or `y x 3` (integers 0…255, or real numbers
        0…1; torch's images in a data set may have the colours first); a `Photograph`; a Pillow image, in the frame
        where it stands; or anything that gives such one after another: a list, a generator, a data set or a loader
        whose items are pictures, pictures with labels, or mappings with a picture. What has no order is refused.
    - `channels`: how many channels arrays have, which is what the network takes (`model.preprocess.reads`). For one,
        arrays may be `image y x` and `y x`, as MNIST's are, and those of three colours become grey. For others than
        one and three, `image y x channel`.

    **Returns:** the photographs, at least one. Files are called as below the folder that was given; those of several
    folders that would be called the same have their folders before their names. Links to files are followed, links
    to folders aren't; these, and what else isn't a file, are among the photographs, and can't be read. Pictures of more
    than `face_jax.pictures.decoding.MOST_PIXELS` pixels (2²⁷) can't either. Raises `NoPhotographsError` or `ValueError`
    if there are none.

    **Example:**

    >>> found = fj.photographs(images)
    >>> len(found), found[0].pixels().shape
    (14, (32, 40, 3))
    """
    channels = check_count("channels", channels, "channels")
    found = tuple(_told_apart(list(_walk(source, "image", channels))))
    if not found:
        given = repr(source)
        raise NoPhotographsError(
            f"images={given if len(given) < 200 else type(source).__name__} holds no pictures; give a folder with "
            "photographs, a picture, or an .npz"
        )
    return found


def _told_apart(found: list[tuple[Photograph, pathlib.Path | None]]) -> Iterator[Photograph]:
    """Photographs with as much of the folder that they were found in before their names as sets equal ones apart."""
    folders: dict[str, set[tuple[str, ...]]] = collections.defaultdict(set)
    for photograph, folder in found:
        folders[photograph.name].add(() if folder is None else folder.absolute().parts)
    for photograph, folder in found:
        alike = folders[photograph.name]
        if folder is None or len(alike) == 1:
            yield photograph
            continue
        parts = folder.absolute().parts
        shortest = (parts[-count:] for count in range(1, len(parts)))
        prefix = next((p for p in shortest if sum(other[-len(p) :] == p for other in alike) == 1), parts)
        yield dataclasses.replace(photograph, name=f"{_shown(pathlib.Path(*prefix))}/{photograph.name}")


def _shown(path: pathlib.Path) -> str:
    """A path as text; what isn't UTF-8 in it becomes `\\xe9` and the like."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk(
    source: Any, name: str, channels: int, *, alone: bool = True
) -> Iterable[tuple[Photograph, pathlib.Path | None]]:
    """Photographs, and the folder that was given or that the file given lies in."""
    if isinstance(source, Photograph):
        yield source, None
    elif isinstance(source, str | os.PathLike):
        yield from _files(source, channels)
    elif is_pillow(source):
        yield _of_pillow(source, name, channels), None
    elif is_array(source) and not _holds_objects(array := as_array(source, name, alone=alone, channels=channels)):
        for each, pixels in images_in(array, name, channels):
            yield Photograph(each, pixels), None
    else:
        for number, item in enumerate(items_of(source, name)):
            each = f"{name} {number}"
            yield from _walk(picture_of(item, each), each, channels, alone=False)


def _holds_objects(array: np.ndarray) -> bool:
    """Whether an array is a list of paths or pictures."""
    return array.ndim == 1 and array.dtype.kind in "OU"


def _of_pillow(picture: Any, name: str, channels: int) -> Photograph:
    try:
        found = of_pillow(picture, channels)
    except UnreadablePhotographError as error:
        return Photograph(name, None, unread=str(error))
    return Photograph(name, found.pixels, faint=found.faint)


def _files(source: str | os.PathLike[str], channels: int) -> Iterable[tuple[Photograph, pathlib.Path | None]]:
    given = os.fsdecode(source)
    if not given:
        raise ValueError("images='' names nothing; give a folder with photographs ('.' is this one), or a picture")
    path = pathlib.Path(given)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise NoPhotographsError(
            f"images={given!r} does not exist; give a folder with photographs, a picture, or an .npz"
        ) from None
    except (OSError, ValueError) as error:
        raise NoPhotographsError(
            f"images={given[:100]!r} can't be looked at ({reason_of(error)}); give a folder with photographs, a "
            "picture, or an .npz"
        ) from error
    if stat.S_ISDIR(mode):
        for photograph, _ in sorted(_below(path), key=lambda pair: pair[1].parts):
            yield photograph, path
    elif not stat.S_ISREG(mode):
        raise NoPhotographsError(
            f"images={str(path)!r} is {kind_of(mode)}; give a folder with photographs, a picture, or an .npz"
        )
    elif path.suffix.lower() in (".npz", ".npy"):
        for each, pixels in images_in(array_of_file(path), _shown(pathlib.Path(path.stem)), channels):
            yield Photograph(each, pixels), path.parent
    else:
        yield Photograph(_shown(pathlib.Path(path.name)), path), path.parent


def _below(top: pathlib.Path) -> Iterator[tuple[Photograph, pathlib.Path]]:
    """Everything below a folder but folders, and the folders that aren't looked into; not what is hidden."""
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as error:
            if folder == top:
                raise NoPhotographsError(
                    f"images={str(top)!r} can't be listed ({reason_of(error)}); give a folder that can be read"
                ) from error
            said = f"a folder that can't be listed ({reason_of(error)})"
            yield Photograph(_shown(folder.relative_to(top)), None, unread=said), folder
            continue
        for entry in entries:
            path = folder / entry.name
            name = _shown(path.relative_to(top))
            if entry.name.startswith("."):
                continue
            if not _leads_to_folder(path):
                yield Photograph(name, path), path
            elif entry.is_symlink():
                yield Photograph(name, None, unread="a link to a folder, which isn't followed; give that folder"), path
            elif path.suffix.lower() in _PICTURES:
                yield Photograph(name, None, unread="a folder under the name of a picture; give it by itself"), path
            else:
                folders.append(path)


def _leads_to_folder(path: pathlib.Path) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except OSError:
        # A broken link, one in a circle, one into a locked folder: reading it will say.
        return False

"""Photographs: where they come from, and their pixels when somebody asks."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from .model import Preprocess


class UnreadablePhotographError(ValueError):
    """A file that is no picture, or a picture that's damaged."""


class NoPhotographsError(ValueError):
    """A source with no photographs in it."""


@dataclasses.dataclass(frozen=True, eq=False)
class Photograph:
    """One picture, read when asked for.

    **Arguments:**

    - `name`: what reports call it. It can be written anywhere, whatever the file's name is made of.
    - `source`: a file, or the pixels themselves (`y x 3`, 0…255). None in an explanation that was loaded, for
        pixels that were in no file.
    - `expected`: in an explanation that was loaded, the digest that it had when it was saved; a file with another
        one isn't read.
    """

    name: str
    source: pathlib.Path | UInt8[np.ndarray, "y x 3"] | None
    expected: bytes | None = None

    def pixels(self) -> UInt8[np.ndarray, "y x 3"]:
        """The picture in red, green and blue, upright as its camera meant it; 16 bits a value become 8.

        Raises `UnreadablePhotographError`, which names the file and the reason.
        """
        if isinstance(self.source, np.ndarray):
            return self.source
        file = self._file()
        image_module, ops = _pillow()
        try:
            content = file.read_bytes()
            if self.expected not in (None, hashlib.sha256(content).digest()):
                raise UnreadablePhotographError(
                    f"{self.name}: {str(file)!r} is another picture now than the one that was explained; put that one "
                    "back, or give the photographs to face_jax.load as images="
                )
            with image_module.open(io.BytesIO(content)) as picture:
                return _rgb(ops.exif_transpose(picture))
        except FileNotFoundError as error:
            raise UnreadablePhotographError(
                f"{self.name}: there is no file {str(file)!r} any more; put it back, or give the photographs to "
                "face_jax.load as images="
            ) from error
        except UnreadablePhotographError:
            raise
        except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
            reason = "not a picture" if isinstance(error, image_module.UnidentifiedImageError) else str(error)
            raise UnreadablePhotographError(f"{self.name}: {reason}") from error

    def digest(self) -> bytes:
        """A digest of the content: of the file's bytes, or of the pixels."""
        if isinstance(self.source, np.ndarray):
            return hashlib.sha256(repr(self.source.shape).encode() + self.source.tobytes()).digest()
        return hashlib.sha256(self._file().read_bytes()).digest()

    def _file(self) -> pathlib.Path:
        if isinstance(self.source, pathlib.Path):
            return self.source
        raise UnreadablePhotographError(
            f"{self.name}: its pixels were in no file, or in one that was gone when the explanation was saved, which "
            "therefore doesn't have them; give the photographs to face_jax.load as images="
        )


def photographs(source: Any) -> tuple[Photograph, ...]:
    """Photographs from a folder, a file, an `.npz` of images, arrays, or a sequence of any of these.

    Nothing is decoded yet but arrays: a damaged file shows itself when its pixels are asked for.

    **Arguments:**

    - `source`: a path to a folder (every file below it, in the order of the names), to a picture, or to an
        `.npz`/`.npy` with an array of images; an array `image y x 3` or `y x 3` (integers 0…255, or real numbers
        0…1); a `Photograph`; a Pillow image; or a sequence of these.

    **Returns:** the photographs, at least one. Files are called as below the folder that was given; those of several
    folders that would be called the same have their folders before their names. Raises `NoPhotographsError` or
    `ValueError` if there are none.
    """
    found = tuple(_told_apart(list(_walk(source, "image"))))
    if not found:
        raise NoPhotographsError(
            f"images={source!r} holds no files; give a folder with photographs, a picture, or an .npz"
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


def _walk(source: Any, name: str) -> Iterable[tuple[Photograph, pathlib.Path | None]]:
    """Photographs, and the folder that was given or that the file given lies in."""
    if isinstance(source, Photograph):
        yield source, None
    elif isinstance(source, str | pathlib.Path):
        yield from _files(pathlib.Path(source))
    elif isinstance(source, Sequence):
        for number, item in enumerate(source):
            yield from _walk(item, f"{name} {number}")
    else:
        array = np.asarray(source)
        if array.ndim not in (3, 4) or array.shape[-1] != 3:
            raise ValueError(
                f"{name} has shape {array.shape}; give images as y x 3 or image y x 3 (colours last, red green blue)"
            )
        if array.ndim == 3:
            yield Photograph(name, _to_uint8(array, name)), None
        else:
            for number, pixels in enumerate(_to_uint8(array, name)):
                yield Photograph(f"{name} {number}", pixels), None


def _files(path: pathlib.Path) -> Iterable[tuple[Photograph, pathlib.Path | None]]:
    if not path.exists():
        raise NoPhotographsError(
            f"images={str(path)!r} does not exist; give a folder with photographs, a picture, or an .npz"
        )
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
            if file.is_file() and not hidden:
                yield Photograph(_shown(file.relative_to(path)), file), path
    elif path.suffix in (".npz", ".npy"):
        loaded, name = np.load(path, allow_pickle=False), _shown(pathlib.Path(path.stem))
        if isinstance(loaded, np.ndarray):
            yield from ((photograph, path.parent) for photograph, _ in _walk(loaded, name))
            return
        names = [name for name in loaded.files if loaded[name].ndim in (3, 4)]
        if len(names) != 1:
            raise ValueError(
                f"images={str(path)!r} holds the arrays {loaded.files}, of which {names} look like images; "
                "keep exactly one array image y x 3 in it"
            )
        yield from ((photograph, path.parent) for photograph, _ in _walk(loaded[names[0]], name))
    else:
        yield Photograph(_shown(pathlib.Path(path.name)), path), path.parent


def _to_uint8(array: np.ndarray, name: str) -> UInt8[np.ndarray, "..."]:
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"{name} has dtype {array.dtype}; give integers 0…255 or real numbers 0…1")
    lowest, highest = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    real = np.issubdtype(array.dtype, np.floating)
    if not (lowest >= 0 and highest <= (1 if real else 255)):
        raise ValueError(
            f"{name} has values from {lowest:g} to {highest:g}; give integers 0…255 or real numbers 0…1 "
            "(pictures as they are, before any normalization)"
        )
    return np.round(array * 255).astype(np.uint8) if real else array.astype(np.uint8)


def _rgb(picture: Any) -> UInt8[np.ndarray, "y x 3"]:
    if picture.mode.startswith("I;16"):
        # Pillow's own conversion takes everything above 255 for white.
        grey = np.round(np.asarray(picture) / 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)
    if picture.mode in ("I", "F"):
        raise ValueError(
            f"its values (Pillow's mode {picture.mode}) may mean anything; save it with 8 or 16 bits a value"
        )
    return np.asarray(picture.convert("RGB"))


def network_input(
    pixels: UInt8[np.ndarray, "y x 3"], preprocess: Preprocess, box: tuple[int, int, int, int] | None = None
) -> Float[np.ndarray, "size size 3"]:
    """A photograph, or a box of it, as the network takes it.

    **Arguments:**

    - `pixels`: the photograph.
    - `preprocess`: the network's own resizing and normalization.
    - `box`: `(top, left, bottom, right)` in pixels: that part, resized to the input's size (CRAFT's crops). Without
        it, the whole photograph: its short side resized, its centre kept.

    **Returns:** float32, normalized.
    """
    small = visible(pixels, preprocess) if box is None else resized(pixels, box, preprocess.size, preprocess)
    # In place and by whole lines: new arrays, and a last axis of three, took four times as long as the resizing.
    scaled = small.reshape(len(small), -1).astype(np.float32)
    scaled /= np.float32(255)
    scaled -= np.tile(np.asarray(preprocess.mean, np.float32), small.shape[1])
    scaled /= np.tile(np.asarray(preprocess.std, np.float32), small.shape[1])
    return scaled.reshape(small.shape)


def visible(pixels: UInt8[np.ndarray, "y x 3"], preprocess: Preprocess) -> UInt8[np.ndarray, "size size 3"]:
    """The part of a photograph that the network sees, at the size at which it sees it."""
    image_module, _ = _pillow()
    height, width = pixels.shape[:2]
    # Pixel for pixel what torchvision's Resize and CenterCrop do, whose integer arithmetic this follows: the
    # long side is cut off, not rounded.
    short = preprocess.resize
    shape = (short, short * width // height) if height <= width else (short * height // width, short)
    picture = image_module.fromarray(pixels).resize((shape[1], shape[0]), _filter(preprocess))
    top, left = (round((side - preprocess.size) / 2) for side in shape)
    return np.asarray(picture.crop((left, top, left + preprocess.size, top + preprocess.size)))


def visible_box(shape: tuple[int, int], preprocess: Preprocess) -> tuple[int, int, int, int]:
    """Which box of a photograph with this height and width `visible` shows: `(top, left, bottom, right)`."""
    side = round(min(shape) * preprocess.size / preprocess.resize)
    top, left = ((length - side) // 2 for length in shape)
    return top, left, top + side, left + side


def resized(
    pixels: UInt8[np.ndarray, "y x 3"], box: tuple[int, int, int, int], size: int, preprocess: Preprocess
) -> UInt8[np.ndarray, "size size 3"]:
    """One box of a photograph at `size` × `size` pixels."""
    image_module, _ = _pillow()
    top, left, bottom, right = (int(edge) for edge in box)
    picture = image_module.fromarray(pixels).crop((left, top, right, bottom))
    return np.asarray(picture.resize((size, size), _filter(preprocess)))


def _filter(preprocess: Preprocess) -> Any:
    image_module, _ = _pillow()
    return {"bilinear": image_module.Resampling.BILINEAR, "bicubic": image_module.Resampling.BICUBIC}[
        preprocess.interpolation
    ]


def _pillow() -> tuple[Any, Any]:
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("reading photographs needs Pillow: pip install face-jax[report]") from error
    return Image, ImageOps

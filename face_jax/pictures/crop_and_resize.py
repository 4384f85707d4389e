"""Resizing: the part of a photograph that the network sees, or a box of it, at the input's size."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from .decoding import pillow

# Of a photograph that is this many times as long as it's wide, or more, only what is kept is resized, if all of it
# would have more than so many pixels: where a pixel lies is rounded otherwise.
_THIN, _LARGE = 4, 2**22
# Pixels that a resampling filter looks at on either side, in units of the coarser of both grids.
_SUPPORT = {"nearest": 1, "box": 1, "bilinear": 1, "hamming": 1, "bicubic": 2, "lanczos": 3}
INTERPOLATIONS = tuple(_SUPPORT)


@runtime_checkable
class Preprocessing(Protocol):
    """What resizing asks of a `Preprocess`, which says more."""

    @property
    def size(self) -> int | tuple[int, int]:
        """Height and width of the network's input, or both in one number."""
        ...

    @property
    def resize(self) -> int | tuple[int, int]:
        """The short side before the centre is cut out, or what height and width are resized to."""
        ...

    @property
    def interpolation(self) -> str:
        """The resampling filter."""
        ...

    @property
    def mean(self) -> Sequence[float]:
        """What is subtracted from each channel."""
        ...

    @property
    def std(self) -> Sequence[float]:
        """What each channel is divided by."""
        ...

    @property
    def fit(self) -> str:
        """How a photograph is brought to a pair of `resize`."""
        ...

    @property
    def fill(self) -> Sequence[int] | None:
        """What lies outside of the photograph, a value a channel."""
        ...


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the network's input lies in a photograph: the photograph is resized, and the input is cut out of it.

    **Arguments:**

    - `resized`: the photograph's height and width then.
    - `corner`: the input's top and left there; below zero where the input reaches out of the photograph.
    """

    resized: tuple[int, int]
    corner: tuple[int, int]


def pair_of(size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width, where both may be one number."""
    return (size, size) if isinstance(size, int) else size


def place_of(shape: tuple[int, int], preprocess: Preprocessing, finer: int = 1) -> Place:
    """Where the network's input lies in a photograph of a height and width.

    **Arguments:**

    - `shape`: the photograph's height and width.
    - `preprocess`: the network's own resizing.
    - `finer`: how many times as large everything is, for pictures that are looked at.
    """
    if (own := getattr(preprocess, "own_place", None)) is not None:
        place = own(shape)
        return Place(*(tuple(finer * length for length in pair) for pair in (place.resized, place.corner)))  # pyright: ignore[reportArgumentType]
    height, width = shape
    size, resize = [finer * length for length in pair_of(preprocess.size)], preprocess.resize
    if isinstance(resize, int):
        # Pixel for pixel what torchvision's Resize and CenterCrop do, whose integer arithmetic this follows: the
        # long side is cut off, not rounded.
        short = finer * resize
        resized = (short, short * width // height) if height <= width else (short * height // width, short)
    elif preprocess.fit == "squash":
        resized = (finer * resize[0], finer * resize[1])
    else:
        ratios = (height / (finer * resize[0]), width / (finer * resize[1]))
        ratio = max(ratios) if preprocess.fit == "contain" else min(ratios)
        # A photograph as thin as a line still has a pixel.
        resized = (max(1, round(height / ratio)), max(1, round(width / ratio)))
    top, left = (
        -((kept - length) // 2) if kept > length else round((length - kept) / 2)
        for length, kept in zip(resized, size, strict=True)
    )
    return Place(resized, (top, left))


def scale_and_margin(
    shape: tuple[int, int], preprocess: Preprocessing
) -> tuple[tuple[float, float], tuple[float, float]]:
    """A photograph's pixels in one of the input's, and the input's pixels before its top and left; not rounded."""
    height, width = pair_of(preprocess.size)
    if isinstance(preprocess.resize, int) and not hasattr(preprocess, "own_place"):
        scale = min(shape) / preprocess.resize
        return (scale, scale), ((shape[0] / scale - height) / 2, (shape[1] / scale - width) / 2)
    place = place_of(shape, preprocess)
    return (shape[0] / place.resized[0], shape[1] / place.resized[1]), (float(place.corner[0]), float(place.corner[1]))


def network_input(
    pixels: UInt8[np.ndarray, "y x channel"], preprocess: Preprocessing, box: tuple[int, int, int, int] | None = None
) -> Float[np.ndarray, "height width colour"]:
    """A photograph, or a box of it, as the network takes it.

    **Arguments:**

    - `pixels`: the photograph.
    - `preprocess`: the network's own resizing and normalization.
    - `box`: `(top, left, bottom, right)` in pixels: that part, resized to the input's size (CRAFT's crops). Without
        it, the whole photograph: its short side resized, its centre kept.

    **Returns:** float32, normalized.
    """
    if (own := getattr(preprocess, "prepared", None)) is not None:
        if box is not None:
            top, left, bottom, right = (int(edge) for edge in box)
            pixels = pixels[top:bottom, left:right]
        return own(pixels)
    if pixels.shape[-1] != len(preprocess.mean):
        raise ValueError(
            f"pixels has shape {pixels.shape}, and mean and std of preprocess are of {len(preprocess.mean)} channels; "
            f"give pixels of these, as photograph.pixels({len(preprocess.mean)}) reads them"
        )
    small = visible(pixels, preprocess) if box is None else resized(pixels, box, preprocess.size, preprocess)
    # In place and by whole lines: new arrays, and a last axis of three, took four times as long as the resizing.
    scaled = small.reshape(len(small), -1).astype(np.float32)
    scaled /= np.float32(255)
    scaled -= np.tile(np.asarray(preprocess.mean, np.float32), small.shape[1])
    scaled /= np.tile(np.asarray(preprocess.std, np.float32), small.shape[1])
    return scaled.reshape(small.shape)


def visible(
    pixels: UInt8[np.ndarray, "y x channel"], preprocess: Preprocessing, finer: int = 1
) -> UInt8[np.ndarray, "height width channel"]:
    """The part of a photograph that the network sees, at the size at which it sees it (or `finer` times as large)."""
    place, (height, width) = place_of(pixels.shape[:2], preprocess, finer), pair_of(preprocess.size)
    size = (finer * height, finer * width)
    cut = isinstance(preprocess.resize, int) or preprocess.fit != "squash"
    if cut and max(place.resized) >= _THIN * min(place.resized) and math.prod(place.resized) > _LARGE:
        # All but the centre is thrown away, and would take seconds and gigabytes to be made.
        small, corner = _thin(pixels, place, size, preprocess)
    else:
        small, corner = _resampled(pixels, place.resized, preprocess), place.corner
    return _cut(small, corner, size, preprocess.fill)


def _thin(
    pixels: UInt8[np.ndarray, "y x channel"], place: Place, size: tuple[int, int], preprocess: Preprocessing
) -> tuple[UInt8[np.ndarray, "height width channel"], tuple[int, int]]:
    """What `visible` keeps of a photograph resized, from the pixels that it's made of, and the corner in that."""
    windows, box, kept, corner = [], [], [], []
    for length, whole, start, wanted in zip(pixels.shape[:2], place.resized, place.corner, size, strict=True):
        scale = length / whole
        # The short side is resized whole, by the same arithmetic as all of it would be.
        first, last = (0, whole) if whole == min(place.resized) else (max(start, 0), min(start + wanted, whole))
        margin = math.ceil(_SUPPORT[preprocess.interpolation] * max(scale, 1)) + 1
        begin, end = max(0, math.floor(first * scale) - margin), min(length, math.ceil(last * scale) + margin)
        windows.append(slice(begin, end))
        # Rounding may lead beyond the edge by a digit.
        box.append((max(0.0, first * scale - begin), min(float(end - begin), last * scale - begin)))
        kept.append(last - first)
        corner.append(start - first)
    (upper, lower), (near, far) = box
    part = np.ascontiguousarray(pixels[windows[0], windows[1]])
    return _resampled(part, (kept[0], kept[1]), preprocess, (near, upper, far, lower)), (corner[0], corner[1])


def visible_box(shape: tuple[int, int], preprocess: Preprocessing) -> tuple[int, int, int, int]:
    """Which box of a photograph with this height and width `visible` shows: `(top, left, bottom, right)`."""
    if isinstance(preprocess.resize, int) and not hasattr(preprocess, "own_place"):
        sides = [max(1, round(min(shape) * kept / preprocess.resize)) for kept in pair_of(preprocess.size)]
        top, left = ((length - side) // 2 for length, side in zip(shape, sides, strict=True))
        return top, left, top + sides[0], left + sides[1]
    scale, margin = scale_and_margin(shape, preprocess)
    size = pair_of(preprocess.size)
    top, left = (round(begin * each) for begin, each in zip(margin, scale, strict=True))
    bottom, right = (round((b + kept) * each) for b, kept, each in zip(margin, size, scale, strict=True))
    return top, left, bottom, right


def resized(
    pixels: UInt8[np.ndarray, "y x channel"],
    box: tuple[int, int, int, int],
    size: int | tuple[int, int],
    preprocess: Preprocessing,
) -> UInt8[np.ndarray, "height width channel"]:
    """One box of a photograph at a size in pixels: height and width, or both in one number."""
    top, left, bottom, right = (int(edge) for edge in box)
    part = _cut(pixels, (top, left), (bottom - top, right - left), None)
    return _resampled(part, pair_of(size), preprocess)


def within(box: tuple[int, int, int, int], longest: int) -> tuple[int, int]:
    """Height and width of a box's picture whose longer side has so many pixels."""
    height, width = (max(1, int(box[at + 2]) - int(box[at])) for at in (0, 1))
    scale = longest / max(height, width)
    return max(1, round(scale * height)), max(1, round(scale * width))


def _cut(
    pixels: UInt8[np.ndarray, "y x channel"], corner: tuple[int, int], size: tuple[int, int], fill: Any
) -> UInt8[np.ndarray, "height width channel"]:
    """A box of some pixels; what it has outside of them is `fill`, or black."""
    (top, left), (height, width) = corner, size
    if min(corner) >= 0 and top + height <= pixels.shape[0] and left + width <= pixels.shape[1]:
        return pixels[top : top + height, left : left + width]
    found = np.zeros((height, width, pixels.shape[-1]), np.uint8)
    if fill is not None:
        found[...] = np.asarray(fill, np.uint8)
    rows, columns = (
        (max(start, 0), min(start + kept, length))
        for start, kept, length in zip(corner, size, pixels.shape[:2], strict=True)
    )
    if rows[0] < rows[1] and columns[0] < columns[1]:
        inside = pixels[slice(*rows), slice(*columns)]
        found[rows[0] - top : rows[1] - top, columns[0] - left : columns[1] - left] = inside
    return found


def _resampled(
    pixels: UInt8[np.ndarray, "y x channel"],
    size: tuple[int, int],
    preprocess: Preprocessing,
    box: tuple[float, float, float, float] | None = None,
) -> UInt8[np.ndarray, "height width channel"]:
    """Pixels at another height and width, as Pillow resizes them: in red, green and blue, or channel by channel."""
    if box is None and pixels.shape[:2] == tuple(size):
        # Pillow would copy them, too; so it needn't be installed.
        return pixels.copy()
    image_module, _ = pillow("resizing pictures")
    resampling = image_module.Resampling[preprocess.interpolation.upper()]
    if pixels.shape[-1] == 3:
        return np.asarray(image_module.fromarray(pixels).resize(size[::-1], resampling, box=box))
    # Four channels at once would be weighted by the last, as if it were opacity.
    channels = [
        np.asarray(image_module.fromarray(np.ascontiguousarray(channel)).resize(size[::-1], resampling, box=box))
        for channel in np.moveaxis(pixels, -1, 0)
    ]
    return np.stack(channels, axis=-1)

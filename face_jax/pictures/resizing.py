"""Resizing: the part of a photograph that the network sees, or a box of it, at the input's size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, UInt8

from .decoding import pillow

# Of a photograph that is this many times as long as it's wide, or more, only what is kept is resized.
_THIN = 4
# Pixels that a resampling filter looks at on either side, in units of the coarser of both grids.
_SUPPORT = {"nearest": 1, "bilinear": 1, "bicubic": 2, "lanczos": 3}
INTERPOLATIONS = tuple(_SUPPORT)


@runtime_checkable
class Preprocessing(Protocol):
    """What resizing asks of a `Preprocess`, which says more."""

    @property
    def size(self) -> int:
        """Height and width of the network's input."""
        ...

    @property
    def resize(self) -> int:
        """The short side before the centre is cut out."""
        ...

    @property
    def interpolation(self) -> str:
        """The resampling filter."""
        ...

    @property
    def mean(self) -> Sequence[float]:
        """What is subtracted from each colour."""
        ...

    @property
    def std(self) -> Sequence[float]:
        """What each colour is divided by."""
        ...

    @property
    def squash(self) -> bool:
        """Whether both sides are resized to `resize`."""
        ...


def network_input(
    pixels: UInt8[np.ndarray, "y x 3"], preprocess: Preprocessing, box: tuple[int, int, int, int] | None = None
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


def visible(pixels: UInt8[np.ndarray, "y x 3"], preprocess: Preprocessing) -> UInt8[np.ndarray, "size size 3"]:
    """The part of a photograph that the network sees, at the size at which it sees it."""
    image_module, _ = pillow()
    height, width = pixels.shape[:2]
    short, shape = preprocess.resize, resized_shape((height, width), preprocess)
    top, left = (round((side - preprocess.size) / 2) for side in shape)
    if max(shape) >= _THIN * short:
        # All but the centre is thrown away, and would take seconds and gigabytes to be made.
        return _thin(pixels, shape, (top, left), preprocess)
    picture = image_module.fromarray(pixels).resize((shape[1], shape[0]), _filter(preprocess))
    return np.asarray(picture.crop((left, top, left + preprocess.size, top + preprocess.size)))


def resized_shape(shape: tuple[int, int], preprocess: Preprocessing) -> tuple[int, int]:
    """Height and width of a whole photograph at the scale at which the network sees it."""
    height, width = shape
    short = preprocess.resize
    if preprocess.squash:
        return short, short
    # Pixel for pixel what torchvision's Resize does, whose integer arithmetic this follows: the long side is cut off,
    # not rounded.
    return (short, short * width // height) if height <= width else (short * height // width, short)


def _thin(
    pixels: UInt8[np.ndarray, "y x 3"], shape: tuple[int, int], corner: tuple[int, int], preprocess: Preprocessing
) -> UInt8[np.ndarray, "size size 3"]:
    """What `visible` keeps of a photograph resized to `shape`, from the pixels that it's made of."""
    image_module, _ = pillow()
    windows, box, kept = [], [], []
    for length, resized_length, start in zip(pixels.shape[:2], shape, corner, strict=True):
        scale = length / resized_length
        # The short side is resized whole, by the same arithmetic as all of it would be.
        whole = resized_length == preprocess.resize
        first, last = (0, resized_length) if whole else (max(start, 0), min(start + preprocess.size, resized_length))
        margin = math.ceil(_SUPPORT[preprocess.interpolation] * max(scale, 1)) + 1
        begin, end = max(0, math.floor(first * scale) - margin), min(length, math.ceil(last * scale) + margin)
        windows.append(slice(begin, end))
        # Rounding may lead beyond the edge by a digit.
        box.append((max(0.0, first * scale - begin), min(float(end - begin), last * scale - begin)))
        kept.append((last - first, start - first))
    (height, top), (width, left) = kept
    (upper, lower), (near, far) = box
    part = np.ascontiguousarray(pixels[windows[0], windows[1]])
    picture = image_module.fromarray(part).resize((width, height), _filter(preprocess), box=(near, upper, far, lower))
    return np.asarray(picture.crop((left, top, left + preprocess.size, top + preprocess.size)))


def visible_box(shape: tuple[int, int], preprocess: Preprocessing) -> tuple[int, int, int, int]:
    """Which box of a photograph with this height and width `visible` shows: `(top, left, bottom, right)`."""
    seen = shape if preprocess.squash else (min(shape),) * 2
    height, width = (max(1, round(length * preprocess.size / preprocess.resize)) for length in seen)
    top, left = (shape[0] - height) // 2, (shape[1] - width) // 2
    return top, left, top + height, left + width


def resized(
    pixels: UInt8[np.ndarray, "y x 3"], box: tuple[int, int, int, int], size: int, preprocess: Preprocessing
) -> UInt8[np.ndarray, "size size 3"]:
    """One box of a photograph at `size` × `size` pixels."""
    image_module, _ = pillow()
    top, left, bottom, right = (int(edge) for edge in box)
    picture = image_module.fromarray(pixels).crop((left, top, right, bottom))
    return np.asarray(picture.resize((size, size), _filter(preprocess)))


def _filter(preprocess: Preprocessing) -> Any:
    image_module, _ = pillow()
    return image_module.Resampling[preprocess.interpolation.upper()]

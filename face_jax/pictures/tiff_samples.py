"""TIFF files of more channels than Pillow has modes for, read by the package tifffile where that's installed."""

from __future__ import annotations

import io
import math

import numpy as np
from jaxtyping import UInt8

_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def tiff_samples(content: bytes, channels: int, most: int) -> UInt8[np.ndarray, "y x channel"] | None:
    """The channels of a TIFF file's first picture; None for other files, other numbers of channels, and damaged ones.

    **Arguments:**

    - `content`: the file's.
    - `channels`: how many are wanted.
    - `most`: pixels that a picture may have.
    """
    if not content.startswith(_BEGINNINGS):
        return None
    try:
        import tifffile  # pyright: ignore[reportMissingImports]
    except ImportError:
        return None
    try:
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            series = file.series[0]
            others = [at for at, axis in enumerate(series.axes) if axis not in "YX"]
            if len(series.shape) != 3 or len(others) != 1 or series.shape[others[0]] != channels:
                return None
            if math.prod(series.shape) > most * channels or series.dtype not in (np.uint8, np.uint16):
                return None
            values = np.moveaxis(series.asarray(), others[0], -1)
    except Exception:
        # Readers may raise anything at a damaged file; what Pillow said of it stands.
        return None
    if values.dtype == np.uint16:
        values = np.round(values / 257)
    return np.ascontiguousarray(values, np.uint8)

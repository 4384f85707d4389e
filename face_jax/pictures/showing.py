"""What people are shown of photographs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from .crop_and_resize import visible
from .photographs import Photograph


def view_of(photograph: Photograph, preprocess: Any, finer: int = 1) -> UInt8[np.ndarray, "height width 3"]:
    """What people are shown of the part of a photograph that the network sees, `finer` times as large as it sees it.

    **Arguments:**

    - `photograph`: the photograph.
    - `preprocess`: how photographs become the network's input, a `Preprocess`.
    - `finer`: how many times as large.
    """
    return in_colours(visible(photograph.pixels(preprocess.reads), preprocess, finer), preprocess.shown)


def in_colours(
    pixels: UInt8[np.ndarray, "y x channel"], shown: Sequence[int] | None = None
) -> UInt8[np.ndarray, "y x 3"]:
    """Any channels as red, green and blue for people: those chosen, else grey (of one or two), or the first three."""
    chosen = tuple(shown) if shown is not None else ((0, 1, 2) if pixels.shape[-1] >= 3 else (0,))
    return pixels if chosen == (0, 1, 2) and pixels.shape[-1] == 3 else pixels[..., list(chosen * (3 // len(chosen)))]

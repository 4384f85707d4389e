"""How photographs become a network's input, as a setting that can be compared and saved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from ..support.arguments import Count, check_count, flag, one_of, real, shown
from .photographs import network_input, photographs
from .resizing import INTERPOLATIONS

if TYPE_CHECKING:
    Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
    Colours = Sequence[float]
else:
    # Whoever gives something else is told so by the checks below.
    Interpolation = Colours = Any


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """How photographs become the network's input.

    The short side is resized to `resize` pixels, the centre `size` × `size` pixels are kept, values are taken
    from 0…1 to `(value - mean) / std` for each colour. Crops skip the first two steps: they are resized to
    `size` × `size` directly. With `squash`, the whole photograph is squeezed into a square of `resize` pixels in place
    of the first step, as many of transformers' image processors do.

    **Arguments:**

    - `size`: height and width of the network's input, in pixels.
    - `resize`: short side before the centre crop, in pixels.
    - `interpolation`: the resampling filter of both resizings: `"nearest"`, `"bilinear"`, `"bicubic"` or `"lanczos"`.
    - `mean`, `std`: per colour, for values in 0…1; kept as tuples.
    - `squash`: whether both sides are resized to `resize` pixels, whatever the photograph's proportions.
    """

    size: Count = 224
    resize: Count = 256
    interpolation: Interpolation = "bilinear"
    mean: Colours = (0.485, 0.456, 0.406)
    std: Colours = (0.229, 0.224, 0.225)
    squash: bool = False

    def __post_init__(self) -> None:
        for name in ("size", "resize"):
            check_count(name, getattr(self, name), "pixels")
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        object.__setattr__(self, "squash", flag("squash", self.squash))
        for name in ("mean", "std"):
            # Tuples of plain numbers, whatever was given: compiled functions look equal ones up.
            given = getattr(self, name)
            if (
                isinstance(given, (str, bytes))
                or not isinstance(given, Iterable)
                or getattr(given, "shape", None) == ()
            ):
                raise ValueError(f"{name}={shown(given)} isn't valid; give one number for each of red, green and blue")
            values = tuple(real(name, value, "number for each colour") for value in given)
            if len(values) != 3 or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
                raise ValueError(
                    f"{name}={values} isn't valid; give one number for each of red, green and blue, for values in 0…1"
                    + (", above 0" if name == "std" else "")
                )
            object.__setattr__(self, name, values)

    def __call__(self, images: Any) -> Float[np.ndarray, "image size size 3"]:
        """The network's input of photographs: what `face_jax.explain` gives the network, for Captum and others.

        In torch the colours come first: `torch.from_numpy(np.moveaxis(model.preprocess("cat.jpg"), -1, 1))`.

        **Arguments:**

        - `images`: anything that `face_jax.photographs` takes.

        **Returns:** float32, normalized, one a photograph, in their order. Raises `UnreadablePhotographError` for one
        that can't be read.
        """
        return np.stack([network_input(photograph.pixels(), self) for photograph in photographs(images)])

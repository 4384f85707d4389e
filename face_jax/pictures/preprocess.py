"""How photographs become a network's input, as a setting that can be compared and saved."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from ..support.arguments import check_count, index_or_none, one_of, real, shown
from .crop_and_resize import INTERPOLATIONS, pair_of
from .photographs import network_input, photographs

if TYPE_CHECKING:
    Interpolation = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]
    Colours = Sequence[float]
    Pixels = int | tuple[int, int]
    Fit = Literal["squash", "cover", "contain"]
    Values = Sequence[int] | None
else:
    # Whoever gives something else is told so by the checks below.
    Interpolation = Colours = Pixels = Fit = Values = Any

# What explanations that were saved before there were these settings had.
LATER_SETTINGS: dict[str, Any] = {"fit": "squash", "fill": None, "shown": None}


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """How photographs become the network's input.

    The short side is resized to `resize` pixels, the centre `size` × `size` pixels are kept, values are taken
    from 0…1 to `(value - mean) / std` for each channel. Crops skip the first two steps: they are resized to
    `size` directly.

    Photographs are read with as many channels as `mean` and `std` have numbers. Three are red, green and blue. One is
    grey, as Pillow's mode L weighs the colours. Four are these and the opacity of files that have one; of four, two and
    more than four, arrays `y x channel` are read, and TIFF files with as many grey pages (with the package tifffile,
    also those with as many samples a pixel). Values have eight bits.

    **Arguments:**

    - `size`: the network's input in pixels: height and width in one number, or the pair of them.
    - `resize`: short side before the centre crop, in pixels; or a pair, height and width, which `fit` explains.
    - `interpolation`: the resampling filter of both resizings, one of Pillow's, which look at all pixels that are
        made smaller (torchvision's `antialias=True`).
    - `mean`, `std`: per channel, for values in 0…1; kept as tuples.
    - `fit`: how photographs are brought to a pair of `resize`: `"squash"` gives them that height and width, whatever
        theirs; `"cover"` keeps their proportions, so that they are as large or larger; `"contain"` likewise, so that
        all of them is inside. (timm's `crop_mode` squash, center and border.)
    - `fill`: where the input reaches out of the photograph: a value of 0…255 a channel; black if None.
    - `shown`: which three channels (or which one), counted from 0, pictures in reports show. By default red, green
        and blue, grey, or the first three.
    """

    size: Pixels = 224
    resize: Pixels = 256
    interpolation: Interpolation = "bilinear"
    mean: Colours = (0.485, 0.456, 0.406)
    std: Colours = (0.229, 0.224, 0.225)
    fit: Fit = "squash"
    fill: Values = None
    shown: Values = None

    def __post_init__(self) -> None:
        for name in ("size", "resize"):
            object.__setattr__(self, name, _pixels(name, getattr(self, name)))
        # A pair of two equal lengths squashes photographs; of the input it is nothing but a square.
        if not isinstance(self.size, int) and self.size[0] == self.size[1]:
            object.__setattr__(self, "size", self.size[0])
        one_of("interpolation", self.interpolation, INTERPOLATIONS)
        one_of("fit", self.fit, ("squash", "cover", "contain"))
        if self.fit != "squash" and isinstance(self.resize, int):
            raise ValueError(
                f"fit={self.fit!r} with resize={self.resize}, which is a short side; give resize=({self.resize}, "
                f"{self.resize}), a height and a width, or leave out fit"
            )
        for name in ("mean", "std"):
            # Tuples of plain numbers, whatever was given: compiled functions look equal ones up.
            values = tuple(real(name, value, "number for each channel") for value in _listed(name, getattr(self, name)))
            if not values or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
                raise ValueError(
                    f"{name}={values} isn't valid; give one number for each channel, such as red, green and blue, for "
                    "values in 0…1" + (", above 0" if name == "std" else "")
                )
            object.__setattr__(self, name, values)
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean={self.mean} is of {len(self.mean)} channels and std={self.std} of {len(self.std)}; give "
                "both one number for each of red, green and blue, or for each other channel that the network takes"
            )
        count = len(self.mean)
        if self.fill is not None:
            values = _numbers("fill", self.fill, 255)
            if len(values) != count:
                raise ValueError(
                    f"fill={values} has {len(values)} values and mean is of {count} channels; give as many"
                )
            object.__setattr__(self, "fill", values)
        if self.shown is not None:
            object.__setattr__(self, "shown", shown_channels(self.shown, self.reads))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The network's input of one photograph, `y x channel`."""
        return (*pair_of(self.size), len(self.mean))

    @property
    def reads(self) -> int:
        """How many channels photographs are read with."""
        return len(self.mean)

    @property
    def notes(self) -> tuple[str, ...]:
        """What explanations should say of it."""
        return notes_on_shown(self.reads, self.shown)

    def settings(self) -> dict[str, Any]:
        """What an explanation keeps of it, and compares when it's loaded."""
        return dataclasses.asdict(self)

    def __call__(self, images: Any) -> Float[np.ndarray, "image height width channel"]:
        """The network's input of photographs: what `face_jax.explain` gives the network, for Captum and others.

        In torch the colours come first: `torch.from_numpy(np.moveaxis(model.preprocess("cat.jpg"), -1, 1))`.

        **Arguments:**

        - `images`: anything that `face_jax.photographs` takes.

        **Returns:** float32, normalized, one a photograph, in their order. Raises `UnreadablePhotographError` for one
        that can't be read.
        """
        found = photographs(images, channels=self.reads)
        return np.stack([network_input(photograph.pixels(self.reads), self) for photograph in found])


def notes_on_shown(channels: int, chosen: Sequence[int] | None) -> tuple[str, ...]:
    """What to say of pictures whose channels can't all be shown."""
    if channels in (1, 3):
        return ()
    taken = chosen or ((0, 1, 2) if channels > 3 else (0,))
    numbers = ", ".join(str(number + 1) for number in taken)
    which = f"channel {numbers} in grey" if len(taken) == 1 else f"channels {numbers} as red, green and blue"
    return (
        f"Photographs have {channels} channels, of which pictures show {which}; "
        "Preprocess(shown=…) chooses others. The network sees all of them.",
    )


def shown_channels(given: Any, channels: int) -> tuple[int, ...]:
    """Which channels are shown, checked; raises `ValueError`."""
    found = _numbers("shown", given, channels - 1)
    if len(found) not in (1, 3):
        raise ValueError(
            f"shown={found} can't be shown; give three channels, for red, green and blue, or one, for grey"
        )
    return found


def _numbers(name: str, given: Any, most: int) -> tuple[int, ...]:
    found = [index_or_none(value) for value in _listed(name, given)]
    wrong = [value for value in found if value is None or not 0 <= value <= most]
    if wrong or not found:
        raise ValueError(f"{name}={shown(given)} isn't valid; give whole numbers of 0…{most}")
    return tuple(value for value in found if value is not None)


def _listed(name: str, given: Any) -> Iterable[Any]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable) or getattr(given, "shape", None) == ():
        raise ValueError(
            f"{name}={shown(given)} isn't valid; give one number for each channel, such as red, green and blue"
        )
    return given


def _pixels(name: str, given: Any) -> int | tuple[int, int]:
    """A number of pixels, or a pair; raises `ValueError`."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable) or getattr(given, "shape", None) == ():
        return int(check_count(name, given, "pixels"))
    sides = [index_or_none(side) for side in given]
    if len(sides) != 2 or any(side is None or side < 1 for side in sides):
        raise ValueError(
            f"{name}={shown(given)} is no height and width; give one number, or two whole numbers from 1 on, (height, "
            "width)"
        )
    return (int(sides[0] or 0), int(sides[1] or 0))

"""A user's own function from pictures to a network's input, in place of the settings of a `Preprocess`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from ..support.arguments import check_count
from ..support.randomness import generator_states, put_back
from .crop_and_resize import Place
from .decoding import pillow
from .function_probes import Probe
from .preprocess import Preprocess, notes_on_shown, shown_channels

# Heights and widths of the pictures that a function is tried on: a wide one and a tall one.
_PROBES = ((97, 131), (150, 113))
# A function that draws from a generator of its own shows itself when it's called so often.
_CALLS = 8
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class Transform(Preprocess):
    """A function of your own that makes a network's input of pictures, such as `timm.data.create_transform(…)`.

    It's given a Pillow picture (of mode RGB; L for one channel, RGBA for four; for other numbers of channels an array
    `y x channel`, 0…255) and gives real numbers `channel y x`, a torch tensor or an array, always of one shape. Crops
    are cut out of the photograph first, and then given to it. It mustn't draw anything at random.

    What it does is tried on pictures when this is made: which part of a photograph it keeps, so that maps and
    photographs lie on each other in reports, and how it normalizes. Where neither is found out it works all the same,
    and explanations say so.

    **Arguments:**

    - `function`: what to do.
    - `channels`: how many channels photographs are read with; 3 for colours.
    - `shown`: which channels pictures in reports show, as for `Preprocess`.

    **Attributes:** `function`; `digest`, of what it gives for pictures that never change; `name`; and what a
    `Preprocess` has, as far as it's found out: `size`, `mean` and `std` (0 and 1 where `normalized` is False).

    Raises `ValueError` for a function that fails, gives something else, or gives two things for one picture.

    **Example:**

    >>> half = fj.Transform(lambda picture: np.asarray(picture.resize((24, 16)), np.float32).transpose(2, 0, 1) / 255)
    >>> half.shape
    (16, 24, 3)
    """

    function: Callable[[Any], Any]
    digest: str
    name: str
    normalized: bool
    placed: bool
    _reads: int
    _shape: Any
    _places: dict[tuple[int, int], Place | None]

    def __init__(self, function: Any, *, channels: Any = 3, shown: Any = None) -> None:
        """Tries the function; see the class."""
        if not callable(function) or isinstance(function, type):
            raise ValueError(
                f"function is a {type(function).__name__}, which can't be called; give a function of a Pillow picture"
            )
        channels = check_count("channels", channels, "channels")
        own: dict[str, Any] = {
            "function": function, "name": _name_of(function), "_reads": channels, "_shape": None, "_places": {},
            "shown": None if shown is None else shown_channels(shown, channels),
        }  # fmt: skip
        for name, value in own.items():
            object.__setattr__(self, name, value)
        probes = [_noise((*shape, channels)) for shape in _PROBES]
        given = self._tried(probes)
        height, width, colours = given[0].shape
        digest = hashlib.sha256()
        for one in given:
            digest.update(f"{one.shape};".encode() + one.tobytes())
        probe = Probe(self.prepared, channels, (height, width))
        mean, std, normalized = probe.normalization(_PROBES[0], colours)
        found = {
            "_shape": (height, width, colours), "digest": digest.hexdigest(), "interpolation": "bilinear",
            "size": height if height == width else (height, width), "resize": (height, width), "fit": "squash",
            "fill": None, "mean": mean, "std": std, "normalized": normalized,
        }  # fmt: skip
        for name, value in found.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "placed", all(self._place(shape) is not None for shape in _PROBES))

    @property
    def shape(self) -> tuple[int, int, int]:
        """The network's input of one photograph, `y x channel`."""
        return self._shape

    @property
    def reads(self) -> int:
        """How many channels photographs are read with."""
        return self._reads

    @property
    def notes(self) -> tuple[str, ...]:
        """What explanations should say of it."""
        unknown = (
            f"Photographs are prepared by {self.name}, and which part of them it keeps can't be found out: pictures "
            "show whole photographs at the input's size, and maps may lie elsewhere on them."
        )
        return (*notes_on_shown(self.reads, self.shown), *(() if self.placed else (unknown,)))

    def settings(self) -> dict[str, Any]:
        """What an explanation keeps of it, and compares when it's loaded."""
        base = {name: getattr(self, name) for name in Preprocess.__dataclass_fields__}
        return {**base, "channels": self.reads, "transform": self.name, "digest": self.digest}

    def __repr__(self) -> str:
        """What it's known by."""
        return f"Transform({self.name}, channels={self.reads}, shape={self.shape}, digest={self.digest!r})"

    def __eq__(self, other: object) -> bool:
        """Whether both do the same, and are called the same."""
        return isinstance(other, Transform) and self.settings() == other.settings()

    def __hash__(self) -> int:
        """Of what it does."""
        return hash((self.name, self.digest))

    def prepared(self, pixels: UInt8[np.ndarray, "y x channel"]) -> Float[np.ndarray, "height width colour"]:
        """The network's input of a picture; raises `ValueError` where the function doesn't give one."""
        if pixels.shape[-1] != self.reads:
            raise ValueError(
                f"pixels has shape {pixels.shape}, and preprocess is given {self.reads} channels; give pixels of "
                f"these, as photograph.pixels({self.reads}) reads them"
            )
        height, width = pixels.shape[:2]
        where = f"preprocess={self.name} of a picture of {width} × {height} pixels"
        try:
            given = self.function(_as_picture(pixels))
            # Torch's, also where they want gradients.
            given = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
        except Exception as error:
            first = (str(error).strip().splitlines() or ["no message"])[0]
            raise ValueError(
                f"{where} fails ({type(error).__name__}: {first[:200]}); give a function of a Pillow picture"
            ) from error
        if given.dtype.kind != "f" or given.ndim != 3 or 0 in given.shape:
            raise ValueError(
                f"{where} gives shape {given.shape} of {given.dtype}; let it give real numbers channel y x, as "
                "torchvision's ToTensor does"
            )
        if self._shape is None and given.shape[2] <= 4 < given.shape[0]:
            raise ValueError(
                f"{where} gives shape {given.shape}, in which channels seem to be last; let it give channel y x"
            )
        if not np.isfinite(given).all():
            raise ValueError(f"{where} gives NaN or infinity; let it give finite numbers")
        prepared = np.ascontiguousarray(np.moveaxis(given, 0, -1), np.float32)
        if self._shape not in (None, prepared.shape):
            raise ValueError(
                f"{where} gives {_said(prepared.shape)}, and gave {_said(self.shape)} of others; let it give the same "
                "height and width for pictures of any, as Resize and CenterCrop in a row do"
            )
        return prepared

    def own_place(self, shape: tuple[int, int]) -> Place:
        """Where the input lies in a photograph of a height and width; all of it, resized, where that's unknown."""
        return self._place(shape) or Place(self.shape[:2], (0, 0))

    def _place(self, shape: tuple[int, int]) -> Place | None:
        """Where the input lies in photographs of a shape; None where that can't be found out."""
        if shape not in self._places:
            self._places[shape] = Probe(self.prepared, self.reads, self.shape[:2]).place(shape)
        return self._places[shape]

    def _tried(self, probes: list[np.ndarray]) -> list[np.ndarray]:
        """What it gives for some pictures; raises `ValueError` where it gives several things, or of several shapes."""
        given = [self.prepared(probe) for probe in probes]
        if len({one.shape for one in given}) > 1:
            sizes = " and ".join(
                f"{_said(one.shape)} for a picture of {probe.shape[1]} × {probe.shape[0]} pixels"
                for one, probe in zip(given, probes, strict=True)
            )
            raise ValueError(
                f"preprocess={self.name} gives {sizes}; let it give the same height and width for pictures of any, as "
                "Resize and CenterCrop in a row do"
            )
        before = generator_states()
        again = [self.prepared(probes[0]) for _ in range(_CALLS)]
        if before != generator_states() or any(not np.array_equal(one, given[0]) for one in again):
            put_back(before)
            raise ValueError(
                f"preprocess={self.name} draws at random, so that one picture gives several inputs; give the "
                "transforms of evaluation, without those that vary pictures in training"
            )
        return given


def _as_picture(pixels: UInt8[np.ndarray, "y x channel"]) -> Any:
    mode = _MODES.get(pixels.shape[-1])
    if mode is None:
        return pixels
    image_module, _ = pillow()
    return image_module.fromarray(np.ascontiguousarray(pixels[..., 0] if mode == "L" else pixels))


def _noise(shape: tuple[int, ...]) -> UInt8[np.ndarray, "y x channel"]:
    """A picture that's the same everywhere and always."""
    return np.random.Generator(np.random.PCG64(0)).integers(0, 256, shape, np.uint8)


def _name_of(function: Any) -> str:
    """What a function or an object is called, without the address where it happens to lie."""
    qualified = getattr(function, "__qualname__", None)
    text = f"{function.__module__}.{qualified}" if qualified else repr(function)
    return re.sub(r" at 0x[0-9a-f]+", "", " ".join(text.split()))


def _said(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} × {shape[0]} pixels of {shape[2]} {'channel' if shape[2] == 1 else 'channels'}"

"""Where crops are taken: at random, on a grid, or out of the input itself; `resizing.network_input` cuts them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from ..support.arguments import Count, Number, check_count, instance, real
from ..support.fields import within
from ..support.reprs import short_repr
from .crop_and_resize import pair_of, scale_and_margin
from .preprocess import Preprocess

# Crops of one photograph that a grid may have.
MOST_CROPS = 10_000
# A photograph's height and width, and how far from a square a crop of it may be to count as one.
_TRIED, _SQUARE = (300, 400), 0.02


@dataclasses.dataclass(frozen=True)
class Crops:
    """Where crops lie: crop i is `box[i]` of photograph `image[i]`.

    **Arguments:**

    - `image`: each crop's photograph.
    - `box`: each crop's `(top, left, bottom, right)`, in the photograph's own pixels.
    - `window`: for crops that are taken out of the network's input and not resized to it, where they lie there; `box`
        is then the nearest one in the photograph.
    """

    image: Int[np.ndarray, " crop"] = dataclasses.field(metadata=within(0, "image"))
    box: Int[np.ndarray, "crop 4"] = dataclasses.field(metadata=within(0, 10**7))
    window: Int[np.ndarray, "crop 4"] | None = dataclasses.field(default=None, metadata=within(0, 10**7))

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: Int[np.ndarray, " some"]) -> Crops:
        return Crops(self.image[index], self.box[index], None if self.window is None else self.window[index])


@runtime_checkable
class Cropping(Protocol):
    """A rule that says which crops are taken from photographs of given sizes."""

    def __call__(self, shapes: list[tuple[int, int]], *, key: Key[Array, ""]) -> Crops:
        """Crops for photographs with these heights and widths."""
        ...


def largest_crop(shape: tuple[int, int], preprocess: Preprocess | None) -> tuple[float, float]:
    """Height and width of the largest crop of a photograph: a square, or of the proportions of a network's input."""
    if preprocess is None:
        return float(min(shape)), float(min(shape))
    scale, _ = scale_and_margin(shape, preprocess)
    height, width = (side * each for side, each in zip(pair_of(preprocess.size), scale, strict=True))
    fits = min(shape[0] / height, shape[1] / width)
    return min(fits * height, shape[0]), min(fits * width, shape[1])


def proportioned(cropping: Any, preprocess: Preprocess) -> Any:
    """A rule for crops that heeds the proportions of a network's input, where these aren't a square's."""
    if not isinstance(cropping, RandomCrops | GridCrops) or cropping.preprocess is not None:
        return cropping
    # A photograph that isn't square tells squashing from cutting.
    height, width = largest_crop(_TRIED, preprocess)
    square = abs(height - width) <= _SQUARE * max(height, width)
    return cropping if square else dataclasses.replace(cropping, preprocess=preprocess)


def _short(self: Any) -> str:
    """As a dataclass is shown, with no more of `preprocess` than that it's there."""
    names = [field.name for field in dataclasses.fields(self) if field.name != "preprocess"]
    shown = [f"{name}={getattr(self, name)!r}" for name in names]
    if self.preprocess is not None:
        shown.append("preprocess=model.preprocess")
    return f"{type(self).__name__}({', '.join(shown)})"


@dataclasses.dataclass(frozen=True)
class RandomCrops:
    """Square crops at random places and of random sizes (CRAFT, section 3.1).

    **Arguments:**

    - `per_image`: crops from each photograph.
    - `smallest`, `largest`: a crop's side as a share of the photograph's short side.
    - `preprocess`: the model's; crops then have the proportions of its input on the photograph, which needn't be
        square, and the shares are of the largest such crop. `explain` sees to that by itself.
    """

    per_image: Count = 10
    smallest: Number = 0.25
    largest: Number = 0.6
    preprocess: Preprocess | None = None

    def __post_init__(self) -> None:
        check_count("per_image", self.per_image, "crops from each photograph")
        for name in ("smallest", "largest"):
            real(name, getattr(self, name), "side of a crop")
        if not 0 < self.smallest <= self.largest <= 1:
            raise ValueError(
                f"smallest={self.smallest}, largest={self.largest} are no sides of crops; give shares of the "
                "photograph's short side, above 0 and at most 1, the smallest first"
            )
        if self.preprocess is not None:
            instance("preprocess", self.preprocess, Preprocess, "model.preprocess")

    __repr__ = _short

    def count(self, shapes: list[tuple[int, int]]) -> int:
        """How many crops there are of photographs with these heights and widths."""
        return self.per_image * len(shapes)

    def __call__(self, shapes: list[tuple[int, int]], *, key: Key[Array, ""]) -> Crops:
        """Draw sizes uniformly, then places uniformly where the crop fits."""
        draws = np.asarray(jax.random.uniform(key, (len(shapes), self.per_image, 3), dtype=jnp.float32))
        edges = np.asarray(shapes)[:, None, :]
        largest = np.asarray([largest_crop(shape, self.preprocess) for shape in shapes])[:, None, :]
        sides = np.round(largest * (self.smallest + (self.largest - self.smallest) * draws[..., :1]))
        sides = np.maximum(sides, 1)
        corner = np.floor(draws[..., 1:] * (edges - sides + 1))
        box = np.concatenate([corner, corner + sides], axis=-1).astype(np.int64)
        return Crops(image=np.repeat(np.arange(len(shapes)), self.per_image), box=box.reshape(-1, 4))


@dataclasses.dataclass(frozen=True)
class GridCrops:
    """Square crops on a regular grid, which covers the whole photograph; at most `MOST_CROPS` of each.

    **Arguments:**

    - `size`: a crop's side as a share of the photograph's short side.
    - `overlap`: the share of a crop's side that the next one covers again, below 1.
    - `preprocess`: as for `RandomCrops`.
    """

    size: Number = 0.5
    overlap: Number = 0.5
    preprocess: Preprocess | None = None

    def __post_init__(self) -> None:
        if not 0 < real("size", self.size, "side of a crop") <= 1:
            raise ValueError(
                f"size={self.size} isn't a side of a crop; give a share of the photograph's short side, above 0 and at "
                "most 1, such as 0.5"
            )
        _check_overlap(self.overlap)
        if self.preprocess is not None:
            instance("preprocess", self.preprocess, Preprocess, "model.preprocess")

    __repr__ = _short

    def count(self, shapes: list[tuple[int, int]]) -> int:
        """How many crops there are of photographs with these heights and widths; refuses too many of one."""
        return sum(self._count(shape) for shape in shapes)

    def __call__(self, shapes: list[tuple[int, int]], *, key: Key[Array, ""]) -> Crops:
        """Lay the grid; nothing is random."""
        del key
        self.count(shapes)
        image, box = [], []
        for number, (height, width) in enumerate(shapes):
            sides, steps = self._steps((height, width))
            corners = [
                np.unique(np.append(np.arange(0, edge - side + 1, step), edge - side))
                for edge, side, step in zip((height, width), sides, steps, strict=True)
            ]
            for top in corners[0]:
                for left in corners[1]:
                    image.append(number)
                    box.append((top, left, top + sides[0], left + sides[1]))
        return Crops(image=np.asarray(image, np.int64), box=np.asarray(box, np.int64))

    def _steps(self, shape: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        sides = tuple(max(1, round(self.size * side)) for side in largest_crop(shape, self.preprocess))
        return sides, tuple(max(1, round(side * (1 - self.overlap))) for side in sides)

    def _count(self, shape: tuple[int, int]) -> int:
        sides, steps = self._steps(shape)
        count = math.prod(-(-(edge - side) // step) + 1 for edge, side, step in zip(shape, sides, steps, strict=True))
        if count > MOST_CROPS:
            raise ValueError(
                f"size={self.size}, overlap={self.overlap} make {count:,} crops of a photograph of {shape[1]} × "
                f"{shape[0]} pixels, more than {MOST_CROPS:,}; give a larger size or a smaller overlap, or leave out "
                "that photograph"
            )
        return count


@dataclasses.dataclass(frozen=True)
class NativeCrops:
    """Square crops of the network's input at their own size, on a regular grid (FACE, section 4.1).

    The network sees small pictures instead of enlarged ones, so that things have the size that they have in whole
    photographs. FACE's are 64 pixels wide and start every 51: 16 crops of an input of 224 pixels, whose last 7 rows
    and columns are in none. Only a layer with an affine head takes the smaller maps that they give.

    **Arguments:**

    - `preprocess`: how photographs become the network's input: the model's `preprocess`.
    - `size`: a crop's side in pixels of the network's input.
    - `overlap`: the share of a crop's side that the next one covers again, below 1.
    """

    preprocess: Preprocess
    size: Count = 64
    overlap: Number = 0.2

    def __post_init__(self) -> None:
        instance("preprocess", self.preprocess, Preprocess, "model.preprocess")
        check_count("size", self.size, "pixels")
        whole = min(pair_of(self.preprocess.size))
        if self.size > whole:
            raise ValueError(f"size={self.size} isn't a part of a network's input of {whole} pixels; give 1 to {whole}")
        _check_overlap(self.overlap)
        each = self._each()
        if each > MOST_CROPS:
            raise ValueError(
                f"size={self.size}, overlap={self.overlap} make {each:,} crops of each photograph, more than "
                f"{MOST_CROPS:,}; give a larger size or a smaller overlap"
            )

    def count(self, shapes: list[tuple[int, int]]) -> int:
        """How many crops there are of so many photographs."""
        return self._each() * len(shapes)

    def _each(self) -> int:
        return math.prod(map(len, self._corners()))

    def _corners(self) -> list[Int[np.ndarray, " corner"]]:
        step = max(1, int(self.size * (1 - self.overlap)))
        return [np.arange(0, whole - self.size + 1, step) for whole in pair_of(self.preprocess.size)]

    def __call__(self, shapes: list[tuple[int, int]], *, key: Key[Array, ""]) -> Crops:
        """Lay the grid; nothing is random."""
        del key
        top, left = (each.ravel() for each in np.meshgrid(*self._corners(), indexing="ij"))
        window = np.stack([top, left, top + self.size, left + self.size], axis=1)
        return Crops(
            image=np.repeat(np.arange(len(shapes)), len(window)),
            box=np.concatenate([_in_photograph(window, shape, self.preprocess) for shape in shapes]),
            window=np.tile(window, (len(shapes), 1)),
        )


@dataclasses.dataclass(frozen=True)
class WholePictures:
    """What the network sees of each photograph, as one crop of it (ICE).

    **Arguments:**

    - `preprocess`: how photographs become the network's input: the model's `preprocess`.
    """

    preprocess: Preprocess

    def __post_init__(self) -> None:
        instance("preprocess", self.preprocess, Preprocess, "model.preprocess")

    def __repr__(self) -> str:
        """Without the settings of `preprocess`, which are the model's."""
        return "WholePictures(preprocess=model.preprocess)"

    def count(self, shapes: list[tuple[int, int]]) -> int:
        """One for each photograph."""
        return len(shapes)

    def __call__(self, shapes: list[tuple[int, int]], *, key: Key[Array, ""]) -> Crops:
        """Nothing is random."""
        del key
        window = np.asarray([(0, 0, *pair_of(self.preprocess.size))])
        return Crops(
            image=np.arange(len(shapes)),
            box=np.concatenate([_in_photograph(window, shape, self.preprocess) for shape in shapes]),
        )


def _in_photograph(
    window: Int[np.ndarray, "crop 4"], shape: tuple[int, int], preprocess: Preprocess
) -> Int[np.ndarray, "crop 4"]:
    """The nearest boxes in a photograph to windows of a network's input."""
    scale, beside = (np.asarray(pair * 2) for pair in scale_and_margin(shape, preprocess))
    return np.clip(np.round((window + beside) * scale), 0, [*shape, *shape]).astype(np.int64)


def _check_overlap(overlap: Any) -> None:
    if not 0 <= real("overlap", overlap, "share of a crop") < 1:
        raise ValueError(
            f"overlap={overlap} isn't a share of a crop that the next one covers again; give 0 or more and less than "
            "1, such as 0.5"
        )

"""Where crops are taken: at random places, on a grid, or out of the network's own input."""

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
from .preprocess import Preprocess

# Crops of one photograph that a grid may have.
MOST_CROPS = 10_000


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


@dataclasses.dataclass(frozen=True)
class RandomCrops:
    """Square crops at random places and of random sizes (CRAFT, section 3.1).

    **Arguments:**

    - `per_image`: crops from each photograph.
    - `smallest`, `largest`: a crop's side as a share of the photograph's short side.
    """

    per_image: Count = 10
    smallest: Number = 0.25
    largest: Number = 0.6

    def __post_init__(self) -> None:
        check_count("per_image", self.per_image, "crops from each photograph")
        for name in ("smallest", "largest"):
            real(name, getattr(self, name), "side of a crop")
        if not 0 < self.smallest <= self.largest <= 1:
            raise ValueError(
                f"smallest={self.smallest}, largest={self.largest} are no sides of crops; give shares of the "
                "photograph's short side, above 0 and at most 1, the smallest first"
            )

    def count(self, shapes: list[tuple[int, int]]) -> int:
        """How many crops there are of photographs with these heights and widths."""
        return self.per_image * len(shapes)

    def __call__(self, shapes: list[tuple[int, int]], *, key: Key[Array, ""]) -> Crops:
        """Draw sizes uniformly, then places uniformly where the crop fits."""
        draws = np.asarray(jax.random.uniform(key, (len(shapes), self.per_image, 3), dtype=jnp.float32))
        edges = np.asarray(shapes)[:, None, :]
        side = np.round(edges.min(-1) * (self.smallest + (self.largest - self.smallest) * draws[..., 0]))
        side = np.maximum(side, 1)
        corner = np.floor(draws[..., 1:] * (edges - side[..., None] + 1))
        box = np.concatenate([corner, corner + side[..., None]], axis=-1).astype(np.int64)
        return Crops(image=np.repeat(np.arange(len(shapes)), self.per_image), box=box.reshape(-1, 4))


@dataclasses.dataclass(frozen=True)
class GridCrops:
    """Square crops on a regular grid, which covers the whole photograph; at most `MOST_CROPS` of each.

    **Arguments:**

    - `size`: a crop's side as a share of the photograph's short side.
    - `overlap`: the share of a crop's side that the next one covers again, below 1.
    """

    size: Number = 0.5
    overlap: Number = 0.5

    def __post_init__(self) -> None:
        if not 0 < real("size", self.size, "side of a crop") <= 1:
            raise ValueError(
                f"size={self.size} is no side of a crop; give a share of the photograph's short side, above 0 and at "
                "most 1, such as 0.5"
            )
        _check_overlap(self.overlap)

    def count(self, shapes: list[tuple[int, int]]) -> int:
        """How many crops there are of photographs with these heights and widths; refuses too many of one."""
        return sum(self._count(shape) for shape in shapes)

    def __call__(self, shapes: list[tuple[int, int]], *, key: Key[Array, ""]) -> Crops:
        """Lay the grid; nothing is random."""
        del key
        self.count(shapes)
        image, box = [], []
        for number, (height, width) in enumerate(shapes):
            side, step = self._steps((height, width))
            corners = [
                np.unique(np.append(np.arange(0, edge - side + 1, step), edge - side)) for edge in (height, width)
            ]
            for top in corners[0]:
                for left in corners[1]:
                    image.append(number)
                    box.append((top, left, top + side, left + side))
        return Crops(image=np.asarray(image, np.int64), box=np.asarray(box, np.int64))

    def _steps(self, shape: tuple[int, int]) -> tuple[int, int]:
        side = max(1, round(self.size * min(shape)))
        return side, max(1, round(side * (1 - self.overlap)))

    def _count(self, shape: tuple[int, int]) -> int:
        side, step = self._steps(shape)
        count = math.prod(-(-(edge - side) // step) + 1 for edge in shape)
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
        whole = self.preprocess.size
        if self.size > whole:
            raise ValueError(f"size={self.size} is no part of a network's input of {whole} pixels; give 1 to {whole}")
        _check_overlap(self.overlap)
        each = len(self._corners()) ** 2
        if each > MOST_CROPS:
            raise ValueError(
                f"size={self.size}, overlap={self.overlap} make {each:,} crops of each photograph, more than "
                f"{MOST_CROPS:,}; give a larger size or a smaller overlap"
            )

    def count(self, shapes: list[tuple[int, int]]) -> int:
        """How many crops there are of so many photographs."""
        return len(self._corners()) ** 2 * len(shapes)

    def _corners(self) -> Int[np.ndarray, " corner"]:
        step = max(1, int(self.size * (1 - self.overlap)))
        return np.arange(0, self.preprocess.size - self.size + 1, step)

    def __call__(self, shapes: list[tuple[int, int]], *, key: Key[Array, ""]) -> Crops:
        """Lay the grid; nothing is random."""
        del key
        whole, short = self.preprocess.size, self.preprocess.resize
        corners = self._corners()
        top, left = (each.ravel() for each in np.meshgrid(corners, corners, indexing="ij"))
        window = np.stack([top, left, top + self.size, left + self.size], axis=1)
        box = []
        for height, width in shapes:
            # The input is cut out of the middle of the photograph, whose short side is resized first.
            sides = (height, width) if self.preprocess.squash else (min(height, width),) * 2
            scale = np.asarray(sides * 2) / short
            beside = (np.asarray([height, width] * 2) / scale - whole) / 2
            box.append(np.clip(np.round((window + beside) * scale), 0, [height, width] * 2))
        return Crops(
            image=np.repeat(np.arange(len(shapes)), len(window)),
            box=np.concatenate(box).astype(np.int64),
            window=np.tile(window, (len(shapes), 1)),
        )


def _check_overlap(overlap: Any) -> None:
    if not 0 <= real("overlap", overlap, "share of a crop") < 1:
        raise ValueError(
            f"overlap={overlap} is no share of a crop that the next one covers again; give 0 or more and less than 1, "
            "such as 0.5"
        )

"""Random pictures through random windows: which pixels were in sight when the concept was there."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..support.arguments import Count, Number, flag, real
from .baseline import Baseline
from .method import Asked, CheckedMethod, at_least
from .perturbed import perturbed_codes


@dataclasses.dataclass(frozen=True)
class RISE(CheckedMethod):
    """`Σ_i (U_k(X seen through M_i) − Ū) M_i / (N p)`: how much more of a concept is seen when a pixel is.

    Petsiuk et al. 2018, eq. 6, less the mean code Ū, which all pixels share in their map, and which carries most of the
    estimate's noise; `centred=False` leaves it in, as they do. Masks are coarse grids of zeros and ones, enlarged
    bilinearly and shifted at random by less than a cell.

    **Arguments:**

    - `masks`: N; the error falls with its root. The paper takes 4,000 to 8,000.
    - `cells`: cells of a mask's grid along each side.
    - `probability`: p, with which a cell is shown.
    - `centred`: whether Ū is subtracted.
    - `baseline`: network input that hides: a number, a colour, pictures, or a function of the pictures such as
        `Blurred`. 0 is the mean colour in the usual preprocessing.
    - `batch`: pictures that go through the network together; the masks don't depend on it.
    """

    masks: Count = 2000
    cells: Count = 7
    probability: Number = 0.5
    centred: bool = True
    baseline: Baseline = 0.0
    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("masks", self.masks, 1)
        at_least("cells", self.cells, 1)
        at_least("batch", self.batch, 1)
        flag("centred", self.centred)
        if not 0 < real("probability", self.probability, "share") < 1:
            raise ValueError(f"probability={self.probability!r} hides nothing or all; give a number between 0 and 1")

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps in codes, of either sign if centred. `key` is for the masks."""
        pictures = asked.pictures
        chosen = asked.concepts
        height, width = pictures.shape[1:3]
        if self.cells > min(height, width):
            raise ValueError(
                f"cells={self.cells} is finer than images of {height} × {width}; give at most {min(height, width)}"
            )
        together: Any = 0
        all_codes, all_seen = np.zeros((len(chosen), len(pictures))), np.zeros((height, width))
        for _, masks, codes in perturbed_codes(
            asked,
            self.baseline,
            count=self.masks,
            masks=lambda part: self.draw(
                np.arange(part.start, part.stop), height, width, pictures.dtype, key=asked.key
            ),
            batch=self.batch,
        ):
            seen = np.asarray(masks, codes.dtype)
            together = together + np.einsum("nmk,myx->knyx", codes[..., chosen], seen, optimize=True)
            all_codes += codes[..., chosen].sum(axis=1, dtype=np.float64).T
            all_seen += seen.sum(axis=0, dtype=np.float64)
        if self.centred:
            together = together - all_codes[..., None, None] * all_seen / self.masks
        return (together / (self.masks * self.probability)).astype(pictures.dtype)

    def draw(
        self, numbers: Int[np.ndarray, " mask"], height: int, width: int, dtype: Any, *, key: Key[Array, ""]
    ) -> Float[Array, "mask height width"]:
        """The masks with these numbers."""
        cell = (-(-height // int(self.cells)), -(-width // int(self.cells)))
        return _draw(numbers, key, self.probability, int(self.cells), cell, (height, width), dtype)


@functools.partial(jax.jit, static_argnames=("cells", "cell", "shape", "dtype"))
def _draw(
    numbers: Any,
    key: Key[Array, ""],
    probability: Any,
    cells: int,
    cell: tuple[int, int],
    shape: tuple[int, int],
    dtype: Any,
) -> Float[Array, "mask height width"]:
    def one(number: Array) -> Float[Array, "height width"]:
        grid_key, shift_key = jax.random.split(jax.random.fold_in(key, number))
        grid = jax.random.bernoulli(grid_key, probability, (cells + 1, cells + 1)).astype(dtype)
        large = jax.image.resize(grid, ((cells + 1) * cell[0], (cells + 1) * cell[1]), "bilinear")
        shift = jax.random.randint(shift_key, (2,), 0, jnp.asarray(cell))
        return jax.lax.dynamic_slice(large, (shift[0], shift[1]), shape)

    return jax.vmap(one)(numbers)

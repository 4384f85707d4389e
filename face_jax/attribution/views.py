"""Random views of a picture: what must look the same from all of them is no pattern made for single pixels."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ..support.arguments import Number, flag, real


@dataclasses.dataclass(frozen=True)
class Views:
    """How far a view of a picture is moved, turned and scaled; what lies outside the picture is grey.

    Everything is done in one resampling, between neighbouring pixels: each adds a blur of its own.

    **Arguments:**

    - `shift`: largest move along each axis, as a share of the picture's side.
    - `degrees`: largest turn to either side.
    - `smallest`, `largest`: scale; the picture appears that many times larger.
    - `flip`: whether half of the views are mirrored, left to right.
    """

    shift: Number = 0.08
    degrees: Number = 10.0
    smallest: Number = 0.9
    largest: Number = 1.15
    flip: bool = False

    def __post_init__(self) -> None:
        for name in ("shift", "degrees", "smallest", "largest"):
            real(name, getattr(self, name), "size of a move")
        flag("flip", self.flip)
        if not (0 <= self.shift < 1 and 0 <= self.degrees <= 180 and 0 < self.smallest <= self.largest):
            raise ValueError(
                f"{self}: give a shift from 0 to below 1, degrees from 0 to 180, and scales above 0, the smallest first"
            )

    def __call__(self, picture: Float[Array, "y x colour"], *, key: Key[Array, ""]) -> Float[Array, "y x colour"]:
        """One view."""
        dtype = picture.dtype
        draws = jax.random.uniform(key, (5,), dtype, minval=-1.0, maxval=1.0)
        height, width = picture.shape[:2]
        angle = draws[0] * jnp.asarray(jnp.pi * self.degrees / 180, dtype)
        middle, half = (self.largest + self.smallest) / 2, (self.largest - self.smallest) / 2
        scale = jnp.asarray(middle, dtype) + draws[1] * jnp.asarray(half, dtype)
        down, right = draws[2] * self.shift * height, draws[3] * self.shift * width
        mirror = jnp.where(draws[4] < 0, -1.0, 1.0).astype(dtype) if self.flip else jnp.ones((), dtype)
        y = (jnp.arange(height, dtype=dtype) - (height - 1) / 2)[:, None] - down
        x = ((jnp.arange(width, dtype=dtype) - (width - 1) / 2)[None, :] - right) * mirror
        rows = (jnp.cos(angle) * y - jnp.sin(angle) * x) / scale + (height - 1) / 2
        columns = (jnp.sin(angle) * y + jnp.cos(angle) * x) / scale + (width - 1) / 2
        return _between(picture, rows, columns)


def _between(
    picture: Float[Array, "y x colour"], rows: Float[Array, "y x"], columns: Float[Array, "y x"]
) -> Float[Array, "y x colour"]:
    """The picture at places between its pixels, bilinearly; grey outside."""
    # One grey pixel on every side stands for all that lies outside.
    padded = jnp.pad(picture, ((1, 1), (1, 1), (0, 0)), constant_values=0.5)
    height, width = padded.shape[:2]
    rows, columns = jnp.clip(rows + 1, 0, height - 1), jnp.clip(columns + 1, 0, width - 1)
    top, left = (jnp.minimum(jnp.floor(value), limit - 2) for value, limit in ((rows, height), (columns, width)))
    below, beside = (rows - top)[..., None], (columns - left)[..., None]
    flat = padded.reshape(height * width, -1)
    corner = top.astype(jnp.int32) * width + left.astype(jnp.int32)
    upper = flat[corner] * (1 - beside) + flat[corner + 1] * beside
    lower = flat[corner + width] * (1 - beside) + flat[corner + width + 1] * beside
    return upper * (1 - below) + lower * below

"""Baselines: what stands in a picture's place where it is hidden, and where a path to it begins."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..support.arguments import Number, real, shown

# A number; a colour, a picture or pictures of network input; or a function that makes such of the pictures.
Baseline = float | Any | Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Blurred:
    """A baseline that keeps a picture's colours and takes its details: the picture, blurred by a Gaussian.

    A grey baseline makes holes with sharp edges, which a network sees as things of their own.

    **Arguments:**

    - `sigma`: the Gaussian's width, in pixels.
    """

    sigma: Number = 12.0

    def __post_init__(self) -> None:
        real("sigma", self.sigma, "width in pixels", above=0)

    def __call__(self, images: Float[Array, "image height width colour"]) -> Float[Array, "image height width colour"]:
        """The pictures, blurred; beyond the edge the nearest pixel goes on."""
        rows, columns = (_weights(images.shape[axis], self.sigma, images.dtype) for axis in (1, 2))
        return jnp.einsum("yi,xj,nijc->nyxc", rows, columns, images, optimize="optimal")


def baseline_like(
    baseline: Baseline, images: Float[Array, "image height width colour"]
) -> Float[Array, "image height width colour"]:
    """The baseline of each picture; raises `ValueError` for a shape that isn't theirs."""
    if isinstance(baseline, type):
        raise ValueError(f"baseline=the class {baseline.__name__} isn't valid; give an object such as Blurred()")
    made = baseline(images) if callable(baseline) else baseline
    values = _numbers(made)
    if not np.isfinite(values).all():
        raise ValueError(f"baseline={shown(made)} has NaN or infinity; give finite network input, such as 0.0")
    values = jnp.asarray(values, images.dtype)
    try:
        return jnp.broadcast_to(values, images.shape)
    except ValueError:
        raise ValueError(
            f"baseline has shape {values.shape} and images {images.shape}; give a number, a colour, a picture, or one "
            "picture for each image"
        ) from None


def _numbers(baseline: Any) -> np.ndarray:
    try:
        values = np.asarray(baseline)
    except (TypeError, ValueError, RuntimeError):
        values = np.asarray(None)
    if values.dtype.kind not in "fiu" and not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(
            f"baseline={shown(baseline)} isn't network input; give a number, a colour, a picture, one picture for each "
            "image, or a function of the images such as Blurred()"
        )
    return values


def _weights(length: int, sigma: float, dtype: Any) -> Float[Array, "pixel source"]:
    """A Gaussian blur along one axis as a matrix."""
    offsets = np.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1)
    weight = np.exp(-np.square(offsets / sigma) / 2)
    source = np.clip(np.arange(length)[:, None] + offsets, 0, length - 1)
    matrix = np.zeros((length, length))
    np.add.at(matrix, (np.arange(length)[:, None], source), weight / weight.sum())
    return jnp.asarray(matrix, dtype)

"""A picture cut into a regular grid of regions, which are hidden and shown as wholes."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int, Key


def grid_regions(height: int, width: int, grid: int) -> Int[np.ndarray, "height width"]:
    """Each pixel's region in a grid of `grid` × `grid`, numbered line by line; the regions differ by a pixel at most.

    Raises `ValueError` where a region would have no pixel.
    """
    if grid > min(height, width):
        raise ValueError(
            f"grid={grid} is finer than the pixels of {height} × {width}; give at most {min(height, width)}"
        )
    rows, columns = (np.arange(length) * grid // length for length in (height, width))
    return rows[:, None] * grid + columns[None, :]


def spread(
    values: Float[np.ndarray, "image concept region"],
    chosen: list[int],
    regions: Int[np.ndarray, "height width"],
    dtype: Any,
) -> Float[np.ndarray, "wanted image height width"]:
    """Maps with each region's value at each of its pixels."""
    return np.moveaxis(values[:, chosen][..., regions], 1, 0).astype(dtype)


def generator(key: Key[Array, ""]) -> np.random.Generator:
    """NumPy's randomness from a JAX key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def sobol_points(dimensions: int, count: int, key: Key[Array, ""]) -> Float[np.ndarray, "point dimension"]:
    """Scrambled Sobol' points in the unit cube; `count` is a power of two."""
    return scipy.stats.qmc.Sobol(dimensions, scramble=True, rng=generator(key)).random(count)


def power_of_two(name: str, value: int) -> None:
    """Raises `ValueError` for a number of points that Sobol' points don't come in."""
    if value < 2 or value & (value - 1):
        raise ValueError(f"{name}={value!r} is no power of two, which Sobol' points need; try 32")

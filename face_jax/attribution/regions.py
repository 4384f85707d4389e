"""A picture cut into a regular grid of regions, which are hidden and shown as wholes."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Int

from ..support.arguments import index_or_none, shown


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


def power_of_two(name: str, value: Any) -> None:
    """Raises `ValueError` for a number of points that Sobol' points don't come in."""
    number = index_or_none(value)
    if number is None or number < 2 or number & (number - 1):
        raise ValueError(f"{name}={shown(value)} isn't a power of two, which Sobol' points need; try 32")

"""Which regions a concept's variation comes from, alone and together with others."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from ..importance.sampled import jansen, jansen_points
from ..support.arguments import Count
from ..support.randomness import generator
from ..support.scaling import of_order_one
from .baseline import Baseline
from .method import Asked, CheckedMethod, at_least
from .perturbed import region_maps
from .regions import grid_regions, power_of_two


@dataclasses.dataclass(frozen=True)
class SobolRegions(CheckedMethod):
    """Total Sobol indices of the regions of a picture for a concept's code (Fel et al. 2021).

    Region i is faded towards the baseline by `mᵢ`, independent and uniform in 0…1; its index is the share of the
    code's variance that is gone when only `mᵢ` is not known. Jansen's estimator on scrambled Sobol' points.

    **Arguments:**

    - `grid`: regions along each side.
    - `designs`: points, a power of two; `designs × (grid² + 2)` forward passes an image serve all concepts.
    - `baseline`: network input that hides: a number, a colour, pictures, or a function of the pictures such as
        `Blurred`. 0 is the mean colour in the usual preprocessing.
    - `batch`: pictures that go through the network together.
    """

    grid: Count = 7
    designs: Count = 32
    baseline: Baseline = 0.0
    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("grid", self.grid, 1)
        at_least("batch", self.batch, 1)
        power_of_two("designs", self.designs)

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps of indices, each region's at each of its pixels, never negative. `key` scrambles."""
        regions = grid_regions(asked.pictures.shape[1], asked.pictures.shape[2], self.grid)
        number = self.grid**2
        design = jansen_points(number, self.designs, generator(asked.key))
        return region_maps(
            asked, self.baseline, regions, design, lambda codes: _indices(codes, number), batch=self.batch
        )


def _indices(codes: Float[np.ndarray, "mask output"], number: int) -> Float[np.ndarray, "output region"]:
    """Jansen's indices, in any unit; 0 where nothing varies."""
    halves, variance = jansen(of_order_one(codes, 0), number)
    return np.divide(halves, variance[:, None], out=np.zeros_like(halves), where=variance[:, None] > 0)

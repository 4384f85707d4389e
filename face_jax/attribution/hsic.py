"""How strongly a concept depends on a region's being there, by any kind of dependence."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from ..importance.sampled import sobol_points
from ..support.arguments import Count
from ..support.randomness import generator
from .baseline import Baseline
from .method import Asked, CheckedMethod, at_least
from .perturbed import region_maps
from .regions import grid_regions, power_of_two


@dataclasses.dataclass(frozen=True)
class HSIC(CheckedMethod):
    """The Hilbert–Schmidt independence criterion between a region's being shown and a concept's code.

    Novello et al. 2022: every region is shown or hidden with probability ½, and `HSIC = tr(K H L H) / n²` over the n
    masks, with H the centring matrix, the kernel of masks `K = 1[m = m′] − ½`, and the kernel of codes
    `L = exp(−(u − u′)² / 2σ²)`, σ the median of the distances `|u − u′|` that aren't zero (Gretton et al.'s rule; the
    paper's own code takes the median code, which isn't invariant under shifts). Masks are scrambled Sobol' points,
    rounded: each region is shown in exactly half of them.

    **Arguments:**

    - `grid`: regions along each side.
    - `designs`: masks, a power of two.
    - `baseline`: network input that hides: a number, a colour, pictures, or a function of the pictures such as
        `Blurred`. 0 is the mean colour in the usual preprocessing.
    - `batch`: pictures that go through the network together.
    """

    grid: Count = 7
    designs: Count = 512
    baseline: Baseline = 0.0
    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("grid", self.grid, 1)
        at_least("batch", self.batch, 1)
        power_of_two("designs", self.designs)

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps of the criterion, each region's at each of its pixels, never negative. `key` scrambles."""
        regions = grid_regions(asked.pictures.shape[1], asked.pictures.shape[2], self.grid)
        shown = sobol_points(self.grid**2, self.designs, generator(asked.key)) >= 0.5
        return region_maps(
            asked,
            self.baseline,
            regions,
            shown.astype(np.float64),
            lambda codes: np.stack([hsic(shown, output) for output in codes.T]),
            batch=self.batch,
        )


def hsic(shown: Bool[np.ndarray, "mask region"], codes: Float[np.ndarray, " mask"]) -> Float[np.ndarray, " region"]:
    """The criterion of each region; zero if the code never changes.

    The kernel of masks has rank one, `K = ½ s sᵀ` with s = ±1, so that `tr(K H L H) = ½ (Hs)ᵀ L (Hs)`.
    """
    distance = np.abs(codes[:, None] - codes[None, :])
    positive = distance[distance > 0]
    if not len(positive):
        return np.zeros(shown.shape[1])
    kernel = np.exp(-np.square(distance / np.median(positive)) / 2)
    signs = np.where(shown, 1.0, -1.0)
    signs -= signs.mean(axis=0)
    # Rounding may leave -1e-17 where there's no dependence.
    return np.maximum(np.einsum("mi,mn,ni->i", signs, kernel, signs, optimize=True) / (2 * len(codes) ** 2), 0)

"""How strongly a concept depends on a region's being there, by any kind of dependence."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Bool, Float, Key

from ..model import SplitModel
from .baseline import Baseline, baseline_like
from .method import at_least, checked_images, chosen_concepts, key_or_zero
from .perturbed import all_perturbed_codes
from .regions import grid_regions, power_of_two, sobol_points, spread


@dataclasses.dataclass(frozen=True)
class HSIC:
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

    grid: int = 7
    designs: int = 512
    baseline: Baseline = 0.0
    batch: int = 32

    def __post_init__(self) -> None:
        at_least("grid", self.grid, 1)
        at_least("batch", self.batch, 1)
        power_of_two("designs", self.designs)

    def __call__(
        self,
        model: SplitModel,
        dictionary: Any,
        images: Any,
        *,
        concepts: Sequence[int] | None = None,
        pooled: bool = True,
        key: Key[Array, ""] | None = None,
    ) -> Float[np.ndarray, "wanted image height width"]:
        """Maps of the criterion, each region's at each of its pixels, never negative; see `Method`. `key` scrambles."""
        pictures = checked_images(images)
        chosen = chosen_concepts(concepts, len(dictionary))
        regions = grid_regions(pictures.shape[1], pictures.shape[2], self.grid)
        shown = sobol_points(self.grid**2, self.designs, key_or_zero(key)) >= 0.5
        codes = all_perturbed_codes(
            model,
            dictionary,
            pictures,
            baseline_like(self.baseline, pictures),
            regions,
            shown.astype(np.float64),
            pooled=pooled,
            batch=self.batch,
        )
        values = np.zeros((*codes.shape[::2], self.grid**2))
        for image in range(len(codes)):
            for concept in chosen:
                values[image, concept] = hsic(shown, codes[image, :, concept])
        return spread(values, chosen, regions, pictures.dtype)


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

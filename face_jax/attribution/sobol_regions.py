"""Which regions a concept's variation comes from, alone and together with others."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Key

from ..model import SplitModel
from .baseline import Baseline, baseline_like
from .method import at_least, checked_images, chosen_concepts, key_or_zero
from .perturbed import all_perturbed_codes
from .regions import grid_regions, power_of_two, sobol_points, spread


@dataclasses.dataclass(frozen=True)
class SobolRegions:
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

    grid: int = 7
    designs: int = 32
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
        """Maps of indices, each region's at each of its pixels, never negative; see `Method`. `key` scrambles."""
        pictures = checked_images(images)
        chosen = chosen_concepts(concepts, len(dictionary))
        regions = grid_regions(pictures.shape[1], pictures.shape[2], self.grid)
        number = self.grid**2
        points = sobol_points(2 * number, self.designs, key_or_zero(key))
        first, second = points[:, :number], points[:, number:]
        swapped = np.repeat(first[None], number, axis=0)
        swapped[np.arange(number), :, np.arange(number)] = second.T
        codes = all_perturbed_codes(
            model,
            dictionary,
            pictures,
            baseline_like(self.baseline, pictures),
            regions,
            np.concatenate([first, second, swapped.reshape(-1, number)]),
            pooled=pooled,
            batch=self.batch,
        )
        return spread(jansen(codes, self.designs), chosen, regions, pictures.dtype)


def jansen(values: Float[np.ndarray, "image mask concept"], designs: int) -> Float[np.ndarray, "image concept region"]:
    """Jansen's estimator of total indices, `Sᵢ = E[(f(A) − f(A with Bᵢ))²] / 2 Var f`; 0 where nothing varies.

    **Arguments:**

    - `values`: at the points A, then B, then for each region A with that region's column from B.
    - `designs`: how many points A has.
    """
    plain, swapped = values[:, :designs], values[:, 2 * designs :]
    swapped = swapped.reshape(len(values), -1, designs, values.shape[-1])
    variance = values[:, : 2 * designs].var(axis=1)
    halves = np.square(plain[:, None] - swapped).mean(axis=2) / 2
    shares = np.divide(halves, variance[:, None], out=np.zeros_like(halves), where=variance[:, None] > 0)
    return np.moveaxis(shares, 1, 2)

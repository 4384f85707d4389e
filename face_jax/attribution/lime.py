"""A linear model of a concept's code around the picture, in which regions are shown or hidden."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from ..support.arguments import Count, Number, real
from ..support.randomness import generator
from .baseline import Baseline
from .method import Asked, CheckedMethod, at_least
from .perturbed import region_maps
from .regions import grid_regions


@dataclasses.dataclass(frozen=True)
class LIME(CheckedMethod):
    """The coefficients of the linear model that fits the code best near the whole picture (Ribeiro et al. 2016).

    Regions of a regular grid are shown with probability ½; a mask m counts by `exp(−d² / 2 width²)`, with d the cosine
    distance of m from the mask that shows all, `1 − √(share shown)`. Exact for codes that are affine in the masks.

    **Arguments:**

    - `grid`: regions along each side.
    - `samples`: masks; more than `grid²`. The first one shows all.
    - `width`: of the weight; the authors' ¼ for pictures.
    - `ridge`: penalty on the squared coefficients, in units of the weights' sum. 0 is least squares.
    - `baseline`: network input that hides: a number, a colour, pictures, or a function of the pictures such as
        `Blurred`. 0 is the mean colour in the usual preprocessing.
    - `batch`: pictures that go through the network together.
    """

    grid: Count = 7
    samples: Count = 512
    width: Number = 0.25
    ridge: Number = 0.0
    baseline: Baseline = 0.0
    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("grid", self.grid, 1)
        at_least("ridge", self.ridge, 0.0)
        at_least("batch", self.batch, 1)
        at_least("samples", self.samples, 1)
        if not real("width", self.width, "width of the weight") > 0:
            raise ValueError(f"width={self.width!r} gives masks no weight; give a number above 0, such as 0.25")
        if self.samples <= self.grid**2:
            raise ValueError(
                f"samples={self.samples} can't tell {self.grid**2} regions apart; give at least {self.grid**2 + 1}, "
                "better several times as many"
            )

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps in codes, each region's coefficient at each of its pixels. `key` draws the masks."""
        regions = grid_regions(asked.pictures.shape[1], asked.pictures.shape[2], self.grid)
        shown = generator(asked.key).integers(0, 2, (self.samples, self.grid**2)).astype(np.float64)
        shown[0] = 1
        distance = 1 - np.sqrt(shown.mean(axis=1))
        weight = np.exp(-np.square(distance / self.width) / 2)
        return region_maps(
            asked,
            self.baseline,
            regions,
            shown,
            lambda codes: weighted_ridge(shown, codes, weight, self.ridge).T,
            batch=self.batch,
        )


def weighted_ridge(
    design: Float[np.ndarray, "sample region"],
    values: Float[np.ndarray, "sample target"],
    weight: Float[np.ndarray, " sample"],
    ridge: float,
) -> Float[np.ndarray, "region target"]:
    """`argmin_b Σ w (y − b₀ − x b)² / Σ w + ridge ‖b‖²`; of several, the shortest. The constant isn't penalized."""
    share = (weight / weight.sum())[:, None]
    root = np.sqrt(share)
    inputs, outputs = (root * (part - (share * part).sum(axis=0)) for part in (design, values))
    if ridge == 0:
        return np.linalg.lstsq(inputs, outputs)[0]
    return np.linalg.solve(inputs.T @ inputs + ridge * np.eye(design.shape[1]), inputs.T @ outputs)

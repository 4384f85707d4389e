"""Shapley values of regions: each one's mean share in a concept, over all orders of showing them."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
from jaxtyping import Float

from ..support.arguments import Count
from ..support.randomness import generator
from .baseline import Baseline
from .method import Asked, CheckedMethod, at_least
from .perturbed import region_maps
from .regions import grid_regions


@dataclasses.dataclass(frozen=True)
class KernelSHAP(CheckedMethod):
    """Shapley values of the regions of a regular grid, by the regression of Lundberg & Lee 2017.

    The values add up to `U_k(X) − U_k(baseline)` exactly. Where `samples` suffices for every mask, they are the exact
    Shapley values; else masks are drawn by Shapley's kernel, each with its complement (Covert & Lee 2021), and the
    values are exact for codes that are affine in the masks and an estimate for others.

    **Arguments:**

    - `grid`: regions along each side.
    - `samples`: masks; at least twice `grid²`, or all `2^(grid²) − 2`.
    - `baseline`: network input that hides: a number, a colour, pictures, or a function of the pictures such as
        `Blurred`. 0 is the mean colour in the usual preprocessing.
    - `batch`: pictures that go through the network together.
    """

    grid: Count = 7
    samples: Count = 1024
    baseline: Baseline = 0.0
    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("grid", self.grid, 1)
        at_least("batch", self.batch, 1)
        at_least("samples", self.samples, 1)
        number = self.grid**2
        if self.samples < min(2 * number, 2**number - 2):
            raise ValueError(
                f"samples={self.samples} can't tell {number} regions apart; give at least "
                f"{min(2 * number, 2**number - 2)}, better many times as many"
            )

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps in codes, each region's value at each of its pixels. `key` draws the masks."""
        number = self.grid**2
        regions = grid_regions(asked.pictures.shape[1], asked.pictures.shape[2], self.grid)
        if 2**number - 2 <= self.samples:
            shown, weight = every_mask(number)
        else:
            shown = drawn_masks(number, self.samples, generator(asked.key))
            weight = np.ones(len(shown))

        def shapley(codes: Float[np.ndarray, "mask output"]) -> Float[np.ndarray, "output region"]:
            rise = codes[1:] - codes[:1]
            return shapley_regression(shown, rise[1:], weight, rise[0]).T

        design = np.concatenate([np.zeros((1, number)), np.ones((1, number)), shown])
        return region_maps(asked, self.baseline, regions, design, shapley, batch=self.batch)


def every_mask(number: int) -> tuple[Float[np.ndarray, "mask region"], Float[np.ndarray, " mask"]]:
    """All masks but the two that show nothing and all, with the weights of Shapley's kernel."""
    shown = np.asarray(list(itertools.product((0.0, 1.0), repeat=number)))[1:-1].reshape(-1, number)
    sizes = shown.sum(axis=1).astype(int).tolist()
    return shown, np.asarray([1 / (math.comb(number, size) * size * (number - size)) for size in sizes])


def drawn_masks(number: int, count: int, random: np.random.Generator) -> Float[np.ndarray, "mask region"]:
    """Masks by Shapley's kernel, each with its complement: sizes by `1 / (s (d − s))`, then any set of that size."""
    sizes = np.arange(1, number)
    chance = 1 / (sizes * (number - sizes))
    size = random.choice(sizes, (count + 1) // 2, p=chance / chance.sum())
    rank = random.random((len(size), number)).argsort(axis=1).argsort(axis=1)
    shown = (rank < size[:, None]).astype(np.float64)
    return np.stack([shown, 1 - shown], axis=1).reshape(-1, number)[:count]


def shapley_regression(
    shown: Float[np.ndarray, "mask region"],
    rise: Float[np.ndarray, "mask target"],
    weight: Float[np.ndarray, " mask"],
    whole: Float[np.ndarray, " target"],
) -> Float[np.ndarray, "region target"]:
    """`argmin_φ Σ w (rise − m φ)²` over the φ that add up to `whole`.

    The last region's value is `whole` less the others', which leaves least squares without a constraint.
    """
    root = np.sqrt(weight)[:, None]
    inputs = root * (shown[:, :-1] - shown[:, -1:])
    outputs = root * (rise - shown[:, -1:] * whole[None])
    others = np.linalg.lstsq(inputs, outputs)[0]
    return np.concatenate([others, whole[None] - others.sum(axis=0, keepdims=True)])

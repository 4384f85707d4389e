"""Gradients along the way from nothing to the picture: attributions that add up to the code."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..support.arguments import Count
from .averaged import averaged_gradients
from .baseline import Baseline, baseline_like
from .method import Asked, CheckedMethod, at_least


@dataclasses.dataclass(frozen=True)
class IntegratedGradients(CheckedMethod):
    """`(X − X₀) ∫₀¹ ∂U_k/∂X (X₀ + t (X − X₀)) dt`, summed over colours (Sundararajan et al. 2017, eq. 1).

    Complete: a map adds up to `U_k(X) − U_k(X₀)`, up to the error of the sum that stands for the integral
    (midpoints of `steps` equal pieces), which shrinks with `steps`. Each step costs as much as `Saliency`.

    **Arguments:**

    - `steps`: points on the way.
    - `baseline`: where it begins; network input that stands for nothing: a number, a colour, pictures, or a function
        of the pictures such as `Blurred`. 0 is the mean colour in the usual preprocessing.
    - `batch`: pictures that go through the network together.
    """

    steps: Count = 32
    baseline: Baseline = 0.0
    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("steps", self.steps, 1)
        at_least("batch", self.batch, 1)

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps in codes, of either sign. Nothing is random."""
        pictures = asked.pictures
        start = baseline_like(self.baseline, pictures)
        away = pictures - start

        def on_the_way(part: slice, some: slice) -> Float[Array, "image variant height width colour"]:
            share = (np.arange(some.start, some.stop) + 0.5) / self.steps
            return _between(start[part], away[part], jnp.asarray(share, pictures.dtype))

        return averaged_gradients(
            asked,
            variants=self.steps,
            vary=on_the_way,
            reduce=lambda part, gradient: (away[part].astype(gradient.dtype) * gradient).sum(-1),
            batch=self.batch,
        )


@jax.jit
def _between(
    start: Float[Array, "image height width colour"],
    away: Float[Array, "image height width colour"],
    share: Float[Array, " variant"],
) -> Float[Array, "image variant height width colour"]:
    return start[:, None] + share[None, :, None, None, None] * away[:, None]

"""The gradient of a concept's code, averaged over noisy copies of the picture."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..support.arguments import Count, Number
from .averaged import averaged_gradients
from .method import Asked, CheckedMethod, at_least


@dataclasses.dataclass(frozen=True)
class SmoothGrad(CheckedMethod):
    """`|E ∂U_k/∂X (X + σε)|` with Gaussian ε, summed over colours (Smilkov et al. 2017).

    What flickers between neighbouring pictures cancels. Each sample costs as much as `Saliency`.

    **Arguments:**

    - `noise`: σ as a share of each picture's range, from its smallest to its largest value; the paper's 10–20 %.
    - `samples`: noisy copies of each picture.
    - `batch`: pictures that go through the network together.
    """

    noise: Number = 0.15
    samples: Count = 32
    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("noise", self.noise, 0.0)
        at_least("samples", self.samples, 1)
        at_least("batch", self.batch, 1)

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps in codes per unit of network input, never negative.

        `key` is for the noise, which is the same for every picture but for its scale: a picture's map doesn't depend
        on the pictures beside it.
        """
        pictures = asked.pictures
        spread = self.noise * (pictures.max(axis=(1, 2, 3)) - pictures.min(axis=(1, 2, 3)))

        def noisy(part: slice, some: slice) -> Float[Array, "image variant height width colour"]:
            return _noisy(pictures[part], spread[part], np.arange(some.start, some.stop), asked.key)

        return averaged_gradients(
            asked,
            variants=self.samples,
            vary=noisy,
            reduce=lambda _, gradient: jnp.abs(gradient).sum(-1),
            batch=self.batch,
        )


@jax.jit
def _noisy(
    pictures: Float[Array, "image height width colour"],
    spread: Float[Array, " image"],
    samples: Any,
    key: Key[Array, ""],
) -> Float[Array, "image variant height width colour"]:
    def noise(sample: Array) -> Float[Array, "height width colour"]:
        return jax.random.normal(jax.random.fold_in(key, sample), pictures.shape[1:], pictures.dtype)

    return pictures[:, None] + spread[:, None, None, None, None] * jax.vmap(noise)(samples)[None]

"""The layer's maps, weighted by what each channel does for a concept's code."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..support.arguments import Count
from .gradient import cotangents_of
from .method import Asked, CheckedMethod, at_least, parts
from .upsampled import enlarged


@dataclasses.dataclass(frozen=True)
class GradCAM(CheckedMethod):
    """`ReLU(Σ_c α_c A_c)` at the split layer, enlarged bilinearly; α_c is the mean over places of `∂U_k/∂A_c`.

    Grad-CAM (Selvaraju et al. 2017, eqs. 1 and 2) with a concept's code in the place of a class's score, which is
    what CRAFT's figures show. It says at which places of the layer a concept is, no finer than they are; no backward
    pass of the network is needed.

    Codes are homogeneous in the activations, so `Σ_c A_c ∂U_k/∂A_c` without the mean over places is the code itself
    (Euler's theorem): the difference from `Codes` is that mean, which leaves out on which places a concept competes
    with which others.

    **Arguments:**

    - `batch`: pictures that go through the network together.
    """

    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("batch", self.batch, 1)

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps in codes, never negative. Nothing is random."""
        pictures = asked.pictures
        found = []
        for part in parts(len(pictures), self.batch):
            maps = jnp.asarray(asked.model.features(pictures[part]))
            cams = [_cam(maps, some) for some in cotangents_of(maps, asked.dictionary, asked.concepts, asked.pooled)]
            found.append(enlarged(jnp.concatenate(cams), pictures.shape[1], pictures.shape[2]))
        return np.concatenate(found, axis=1).astype(pictures.dtype, copy=False)


@jax.jit
def _cam(
    maps: Float[Array, "image y x channel"], cotangents: Float[Array, "wanted image y x channel"]
) -> Float[Array, "wanted image y x"]:
    weights = jnp.mean(cotangents, axis=(2, 3))
    return jax.nn.relu(jnp.einsum("nyxc,knc->knyx", maps, weights, optimize="optimal"))

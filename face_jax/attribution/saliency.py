"""The plain gradient of a concept's code: which pixels would change it most."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..support.arguments import Count
from .averaged import averaged_gradients
from .method import Asked, CheckedMethod, at_least


@dataclasses.dataclass(frozen=True)
class Saliency(CheckedMethod):
    """`|∂U_k/∂X|`, summed over colours (Simonyan et al. 2014, who take the largest colour).

    The cheapest exact map: one backward pass a concept. It's local, and so a pixel that a concept depends on can
    have no gradient where the code is saturated.

    **Arguments:**

    - `batch`: pictures that go through the network together.
    """

    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("batch", self.batch, 1)

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps in codes per unit of network input, never negative. Nothing is random."""
        pictures = asked.pictures
        return averaged_gradients(
            asked,
            variants=1,
            vary=lambda part, _: pictures[part][:, None],
            reduce=lambda _, gradient: jnp.abs(gradient).sum(-1),
            batch=self.batch,
        )

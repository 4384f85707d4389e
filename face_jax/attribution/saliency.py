"""The plain gradient of a concept's code: which pixels would change it most."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..model import SplitModel
from .averaged import averaged_gradients
from .method import at_least, checked_images


@dataclasses.dataclass(frozen=True)
class Saliency:
    """`|∂U_k/∂X|`, summed over colours (Simonyan et al. 2014, who take the largest colour).

    The cheapest exact map: one backward pass a concept. It's local, and so a pixel that a concept depends on can
    have no gradient where the code is saturated.

    **Arguments:**

    - `batch`: pictures that go through the network together.
    """

    batch: int = 32

    def __post_init__(self) -> None:
        at_least("batch", self.batch, 1)

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
        """Maps in codes per unit of network input, never negative; see `Method`. Nothing is random."""
        del key
        pictures = checked_images(images)
        return averaged_gradients(
            model,
            dictionary,
            len(pictures),
            variants=1,
            vary=lambda part, _: pictures[part][:, None],
            reduce=lambda _, gradient: jnp.abs(gradient).sum(-1),
            concepts=concepts,
            pooled=pooled,
            batch=self.batch,
        )

"""What FACE's term remembers of the original activations."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Logits = Float[Array, "image class"]
Kept = Float[Array, "image token channel"] | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prepared:
    """What the term remembers of the original activations.

    **Arguments:**

    - `target`: of their logits, as the loss wants it.
    - `weights`: each image's factor, the unit included.
    - `kept`: each image's tokens beside its maps, where the head is `Beside` such.
    """

    target: Logits
    weights: Float[Array, " image"]
    kept: Kept = None

    @property
    def finite(self) -> Bool[Array, " image"]:
        """Whether each image's logits are."""
        return jnp.isfinite(self.target).all(axis=1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unkept:
    """What it remembers if the logits are to be computed again wherever they're needed.

    **Arguments:**

    - `finite`: whether each image's logits are.
    - `weights`: each image's factor, the unit included.
    - `kept`: each image's tokens beside its maps, where the head is `Beside` such.
    """

    finite: Bool[Array, " image"]
    weights: Float[Array, " image"]
    kept: Kept = None

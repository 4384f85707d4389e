"""How a class's logit changes with the activations that concepts rebuild."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@jax.jit
def logit_gradient(
    head: Any,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Int[Array, ""],
) -> Float[Array, "image y x channel"]:
    """Gradients of the logit with respect to the rebuilt activations `U Wᵀ`, image by image.

    Images don't mix in a head, so the gradient of the sum over images is every image's own.
    """

    def total(maps: Float[Array, "image y x channel"]) -> Float[Array, ""]:
        return jnp.sum(head(maps)[:, target])

    return jax.grad(total)(codes @ dictionary)

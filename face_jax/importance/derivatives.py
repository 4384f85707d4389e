"""How a class's logit changes with the activations that concepts rebuild."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..support.arguments import Whole, native
from .checks import check_asked


def logit_gradient(
    head: Any, codes: Float[Array, "image y x concept"], dictionary: Float[Array, "concept channel"], target: Whole
) -> Float[Array, "image y x channel"]:
    """Gradients `∂y/∂A` of the logit y at the rebuilt activations `A = U Wᵀ`, image by image.

    Raises `ValueError` for what `check_asked` refuses, and where the head has no derivative.
    """
    codes, dictionary = native("codes", codes), native("dictionary", dictionary)
    target = check_asked(head, codes, dictionary, target)
    gradient = _gradient(head, jnp.asarray(codes), jnp.asarray(dictionary), jnp.asarray(target))
    bad = int((~np.isfinite(np.asarray(gradient)).all((1, 2, 3))).sum())
    if bad:
        raise ValueError(
            f"head: the derivative of class {target}'s logit is NaN or infinite in {bad} of {len(codes)} images; write "
            "it so that it has one there (roots, norms and divisions have none at zero)"
        )
    return gradient


@jax.jit
def _gradient(
    head: Any,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Int[Array, ""],
) -> Float[Array, "image y x channel"]:
    # Images don't mix in a head, so the gradient of the sum over images is every image's own.
    def total(maps: Float[Array, "image y x channel"]) -> Float[Array, ""]:
        return jnp.sum(head(maps)[:, target])

    return jax.grad(total)(codes @ dictionary)

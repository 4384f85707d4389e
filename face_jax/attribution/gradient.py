"""Which pixels a concept depends on: its code's gradient, through the factorization and the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..factorize import encode
from ..model import SplitModel


def concept_gradients(
    model: SplitModel,
    dictionary: Float[Array, "concept channel"],
    images: Float[Array, "image height width colour"],
    concepts: Sequence[int] | None = None,
) -> Float[np.ndarray, "wanted image height width colour"]:
    """`∂U_k/∂X`, concept by concept: CRAFT's two-stage backpropagation.

    `U_k` is the concept's code summed over the places of the layer's grid. Its derivative with respect to the
    activations is exact (it comes from the KKT conditions of non-negative least squares), and is pulled back
    through the network. All concepts share one forward pass. A concept that is at no place has no gradient.

    **Arguments:**

    - `model`: the split classifier.
    - `dictionary`: the concepts.
    - `images`: network input.
    - `concepts`: which concepts; all by default.

    **Returns:** each concept's gradient with respect to the input.
    """
    maps, pullback = forward_with_pullback(model, images)
    dictionary = jnp.asarray(dictionary, maps.dtype)
    wanted = range(dictionary.shape[0]) if concepts is None else concepts
    cotangents = _code_gradients(maps, dictionary, jnp.asarray(list(wanted)))
    return np.stack([np.asarray(pullback(cotangent)) for cotangent in cotangents])


def forward_with_pullback(
    model: SplitModel, images: Float[Array, "image height width colour"]
) -> tuple[Float[Array, "image y x channel"], Callable[[Any], Any]]:
    """A layer's activations, and the function that takes cotangents of them to cotangents of the images.

    Features from another framework bring a method `vjp` of their own; any other function is differentiated by JAX.
    """
    own = getattr(model.features, "vjp", None)
    if own is not None:
        return own(images)
    maps, pullback = jax.vjp(model.features, images)
    return maps, lambda cotangent: pullback(cotangent)[0]


@jax.jit
def _code_gradients(
    maps: Float[Array, "image y x channel"], dictionary: Float[Array, "concept channel"], concepts: Any
) -> Float[Array, "wanted image y x channel"]:
    channels = maps.shape[-1]

    def codes(maps: Float[Array, "image y x channel"]) -> Float[Array, "row concept"]:
        return encode(maps.reshape(-1, channels), dictionary)

    values, pullback = jax.vjp(codes, maps)
    one_hot = jax.nn.one_hot(concepts, dictionary.shape[0], dtype=values.dtype)
    return jax.vmap(lambda row: pullback(jnp.broadcast_to(row[None, :], values.shape))[0])(one_hot)

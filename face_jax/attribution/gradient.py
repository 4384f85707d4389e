"""Which pixels a concept depends on: its code's gradient, through the factorization and the network."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..model import SplitModel, check_model
from ..nmf import encode
from ..support.arguments import Concepts, flag, native, shown
from ..support.concepts import concepts_of
from ..support.freed_memory import freed_memory_kept
from ..support.precision import full_precision
from .method import checked_bank, checked_images, taken_by

# Cotangents of so many bytes are held at a time.
_MOST_BYTES = 2**28


@full_precision
def concept_gradients(
    model: SplitModel, dictionary: Any, images: Any, *, concepts: Concepts = None, pooled: bool = True
) -> Float[Array, "wanted image height width colour"]:
    """The gradients `∂U_k/∂X` of concepts' codes with respect to images' pixels: CRAFT's two-stage backpropagation.

    The code's derivative with respect to the activations is exact (it comes from the KKT conditions of non-negative
    least squares), and is pulled back through the network. The network runs forward once and the least squares are
    solved once; each concept costs one backward pass of the network up to the layer. A concept that an image doesn't
    have has no gradient there.

    **Arguments:**

    - `model`: the split classifier; its features are a JAX function, or bring a method `vjp` of their own.
    - `dictionary`: the concepts, `concept channel`, JAX or NumPy.
    - `images`: network input, `image height width colour`, JAX or NumPy.
    - `concepts`: which concepts, counted from 0; all by default.
    - `pooled`: differentiate the code of the image's average activations; else the sum of its places' codes.

    **Returns:** gradients in codes per unit of the network's input, in the network's precision (at least float32).

    **Example:**

    >>> inputs = model.preprocess(images[:2])
    >>> fj.attribution.concept_gradients(model, explanation.dictionary, inputs, concepts=[0, 1]).shape
    (2, 2, 16, 16, 3)
    """
    check_model(model)
    images, dictionary = checked_images(images), checked_bank(dictionary)
    chosen = list(concepts_of(concepts, len(dictionary)))
    flag("pooled", pooled)
    with freed_memory_kept(), taken_by(model, images):
        return jnp.stack(list(each_gradient(model, dictionary, images, concepts=chosen, pooled=pooled)))


def each_gradient(
    model: SplitModel, dictionary: Any, images: Any, *, concepts: Sequence[int], pooled: bool
) -> Iterator[Float[Array, "image height width colour"]]:
    """`concept_gradients`, one concept after the other, for those who reduce each at once."""
    maps, pullback = forward_with_pullback(model, images)
    for cotangents in cotangents_of(maps, dictionary, concepts, pooled):
        for cotangent in cotangents:
            yield jnp.asarray(pullback(cotangent))


def cotangents_of(
    maps: Float[Array, "image y x channel"], dictionary: Any, concepts: Sequence[int], pooled: bool
) -> Iterator[Float[Array, "some image y x channel"]]:
    """The gradients `∂U_k/∂A` of concepts' codes with respect to the maps, some concepts at a time."""
    linear = _linearize(maps, jnp.asarray(dictionary, maps.dtype), pooled)
    size = max(1, _MOST_BYTES // max(1, maps.nbytes))
    for start in range(0, len(concepts), size):
        yield _pull_back(linear, jnp.asarray(concepts[start : start + size]))


@full_precision
def forward_with_pullback(
    model: SplitModel, images: Any
) -> tuple[Float[Array, "image y x channel"], Callable[[Any], Any]]:
    """A layer's activations, and the function that takes cotangents of them to cotangents of the images.

    Features from another framework bring a method `vjp` of their own; any other function is differentiated by JAX.

    **Example:**

    >>> maps, pull_back = fj.attribution.forward_with_pullback(model, model.preprocess(images[:2]))
    >>> pull_back(jnp.ones_like(maps)).shape
    (2, 16, 16, 3)
    """
    check_model(model)
    images = native("images", images)
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images={shown(images)} isn't network input; give real numbers, image × y × x × colour")
    own = getattr(model.features, "vjp", None)
    if own is not None:
        return own(images)
    maps, pullback = jax.vjp(model.features, jnp.asarray(images))
    return maps, lambda cotangent: pullback(cotangent)[0]


@functools.partial(jax.jit, static_argnames="pooled")
def _linearize(
    maps: Float[Array, "image y x channel"], dictionary: Float[Array, "concept channel"], pooled: bool
) -> Any:
    """The derivative of the codes at these maps, as a pytree that passes between compiled functions."""

    def codes(maps: Float[Array, "image y x channel"]) -> Float[Array, "row concept"]:
        return encode(jnp.mean(maps, axis=(1, 2)) if pooled else maps.reshape(-1, maps.shape[-1]), dictionary)

    return jax.vjp(codes, maps)


@jax.jit
def _pull_back(linear: Any, concepts: Any) -> Array:
    """The gradients of each chosen concept's codes, summed over rows, with respect to the maps."""
    codes, pull = linear
    one_hot = jax.nn.one_hot(concepts, codes.shape[1], dtype=codes.dtype)
    return jax.vmap(lambda row: pull(jnp.broadcast_to(row[None, :], codes.shape))[0])(one_hot)

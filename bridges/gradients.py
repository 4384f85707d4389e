"""Where each concept is: the gradients of all concepts' codes with one forward pass."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import torch
from jaxtyping import Array, Float

from face_jax.factorize import encode
from face_jax.model import SplitModel

from .arrays import to_jax, to_torch
from .torch_features import TorchFeatures
from .tracing import evaluating


def concept_gradients(
    split: SplitModel, dictionary: Any, images: Any, *, concepts: Sequence[int] | None = None, pooled: bool = True
) -> Float[Array, "concept image y x colour"]:
    """The gradients `∂U_k/∂X` of concepts' codes with respect to images' pixels.

    Use it for gradient maps of many concepts: the network runs forward once, the least squares are solved and
    factorized once, and each concept costs one backward pass of the network up to the layer.

    **Arguments:**

    - `split`: from `face_jax.bridges.split`.
    - `dictionary`: the concepts, `concept channel`, JAX or NumPy.
    - `images`: preprocessed, `image y x colour`, JAX or NumPy.
    - `concepts`: which concepts; all by default.
    - `pooled`: differentiate the code of the image's average activations; else the sum of its places' codes.

    **Returns:** gradients in codes per unit of the network's input, in the network's precision (at least float32).
    """
    features = split.features
    if not isinstance(features, TorchFeatures):
        raise TypeError(f"split.features is a {type(features).__name__}; give a model from face_jax.bridges.split")
    number = len(dictionary)
    chosen = list(range(number)) if concepts is None else [int(k) for k in concepts]
    wrong = [k for k in chosen if not 0 <= k < number]
    if wrong or not chosen:
        raise ValueError(
            f"concepts={wrong or chosen} of a dictionary with {number}; give numbers from 0 to {number - 1}"
        )
    pixels = to_torch(images, device=features.device, dtype=features.dtype).movedim(-1, 1)
    with torch.enable_grad(), evaluating(features.module):
        pixels = pixels.detach().requires_grad_()
        activations = features.module(pixels)
        maps = features.layout.to_maps(activations)
        rows = to_jax(maps.mean(dim=(1, 2)) if pooled else maps.reshape(-1, maps.shape[-1]))
        pull = _linearize(rows, jnp.asarray(dictionary, rows.dtype))
        gradients = []
        for part in _parts(chosen, rows.size * rows.dtype.itemsize):
            for gradient in _pull_back(pull, jnp.asarray(part), rows, number):
                given = to_torch(gradient, device=maps.device, dtype=maps.dtype)
                if pooled:
                    given = (given / (maps.shape[1] * maps.shape[2]))[:, None, None, :].expand(maps.shape)
                (back,) = torch.autograd.grad(maps, pixels, given.reshape(maps.shape), retain_graph=True)
                gradients.append(to_jax(back.movedim(1, -1)))
    return jnp.stack(gradients)


@jax.jit
def _linearize(rows: Array, dictionary: Array) -> Any:
    return jax.vjp(lambda given: encode(given, dictionary), rows)[1]


@functools.partial(jax.jit, static_argnums=3)
def _pull_back(pull: Any, concepts: Array, rows: Array, number: int) -> Array:
    """The gradients of each chosen concept's codes, summed over the rows, with respect to the rows."""
    one = jax.nn.one_hot(concepts, number, dtype=rows.dtype)
    cotangents = jnp.broadcast_to(one[:, None, :], (len(concepts), len(rows), number))
    return jax.vmap(lambda cotangent: pull(cotangent)[0])(cotangents)


def _parts(chosen: list[int], bytes_each: int, most: int = 2**28) -> list[list[int]]:
    """Concepts in groups whose gradients take at most a quarter of a gigabyte together."""
    size = max(1, most // max(1, bytes_each))
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]

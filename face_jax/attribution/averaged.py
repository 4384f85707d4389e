"""Gradients averaged over variants of a picture, which is what white-box methods are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from .gradient import each_gradient
from .method import Asked, parts


def averaged_gradients(
    asked: Asked,
    *,
    variants: int,
    vary: Callable[[slice, slice], Float[Array, "image variant height width colour"]],
    reduce: Callable[[slice, Float[Array, "image height width colour"]], Float[Array, "image height width"]],
    batch: int,
) -> Float[np.ndarray, "wanted image height width"]:
    """Maps from the gradients `∂U_k/∂X`, averaged over variants of each picture, in batches.

    **Arguments:**

    - `asked`: which pictures and concepts of which model.
    - `variants`: how many variants of each picture.
    - `vary`: network input, from the pictures' numbers and the variants' numbers.
    - `reduce`: maps, from the pictures' numbers and their mean gradients of one concept.
    - `batch`: pictures that go through the network together.

    **Returns:** one map a concept and image. A variant's forward pass serves all concepts; each concept costs a
    backward pass for it.
    """
    found = []
    with asked.progress("Variants of pictures", variants * len(asked.pictures)) as advance:
        for images in parts(len(asked.pictures), max(1, batch // variants)):
            number = images.stop - images.start
            total: list[Any] = [None] * len(asked.concepts)
            dtype: Any = None
            for some in parts(variants, max(1, batch // number)):
                varied = vary(images, some)
                dtype = varied.dtype
                flat = varied.reshape(-1, *varied.shape[2:])
                gradients = each_gradient(
                    asked.model, asked.dictionary, flat, concepts=asked.concepts, pooled=asked.pooled
                )
                for place, gradient in enumerate(gradients):
                    total[place] = _add(total[place], gradient, number)
                advance(len(flat))
            maps = [np.asarray(reduce(images, one / variants), dtype) for one in total]
            found.append(np.stack(maps))
    return np.concatenate(found, axis=1)


@functools.partial(jax.jit, static_argnames="number")
def _add(
    total: Float[Array, "image height width colour"] | None,
    gradient: Float[Array, "varied height width colour"],
    number: int,
) -> Float[Array, "image height width colour"]:
    """Adds the gradients of each picture's variants."""
    more = gradient.reshape(number, -1, *gradient.shape[1:]).sum(axis=1)
    return more if total is None else total + more

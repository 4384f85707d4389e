"""Gradients averaged over variants of a picture, which is what white-box methods are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from ..model import SplitModel
from .gradient import each_gradient
from .method import chosen_concepts, parts


def averaged_gradients(
    model: SplitModel,
    dictionary: Any,
    count: int,
    *,
    variants: int,
    vary: Callable[[slice, slice], Float[Array, "image variant height width colour"]],
    reduce: Callable[[slice, Float[Array, "image height width colour"]], Float[Array, "image height width"]],
    concepts: Sequence[int] | None,
    pooled: bool,
    batch: int,
) -> Float[np.ndarray, "wanted image height width"]:
    """Maps from the gradients `∂U_k/∂X`, averaged over variants of each picture, in batches.

    **Arguments:**

    - `count`: how many pictures there are.
    - `variants`: how many variants of each.
    - `vary`: network input, from the pictures' numbers and the variants' numbers.
    - `reduce`: maps, from the pictures' numbers and their mean gradients of one concept.
    - `batch`: pictures that go through the network together.
    - the others: as for `Method`.

    **Returns:** one map a concept and image. A variant's forward pass serves all concepts; each concept costs a
    backward pass for it.
    """
    chosen = chosen_concepts(concepts, len(dictionary))
    found = []
    for images in parts(count, max(1, batch // variants)):
        number = images.stop - images.start
        total: list[Any] = [None] * len(chosen)
        dtype: Any = None
        for some in parts(variants, max(1, batch // number)):
            varied = vary(images, some)
            dtype = varied.dtype
            flat = varied.reshape(-1, *varied.shape[2:])
            for place, gradient in enumerate(each_gradient(model, dictionary, flat, concepts=chosen, pooled=pooled)):
                total[place] = _add(total[place], gradient, number)
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

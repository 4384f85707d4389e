"""Heads of activations from which a constant was taken, such as a mean: what concepts add to it is all they see."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..support.arguments import real_array
from ..support.precision import full_precision
from .affine import Affine
from .one_logit import Around


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Shifted(Around):
    """A head that adds a constant to each place of the maps first; `shifted` makes it.

    **Arguments:**

    - `head`: from maps, and tokens beside them where it takes such, to logits.
    - `offset`: what is added at each place.
    """

    offset: Float[Array, " channel"]

    @full_precision
    def __call__(self, maps: Float[Array, "..."], *tokens: Array) -> Float[Array, "image class"]:
        """Logits of the maps with the offset added."""
        if maps.shape[-1:] != self.offset.shape:
            raise ValueError(f"maps has {maps.shape[-1]} channels and offset has {self.offset.shape[0]} numbers")
        return self.head(maps + jnp.broadcast_to(self.offset.astype(maps.dtype), maps.shape), *tokens)


def shifted(head: Any, offset: Float[np.ndarray, " channel"] | Array | None) -> Any:
    """The head of activations without their offset: `shifted(head, offset)(A − offset) = head(A)`.

    Where a method takes a mean out before it looks for concepts (PCA, ICA, most autoencoders), the classifier sees
    `offset + U Wᵀ`. Behind the shifted head everything holds that holds for `U Wᵀ` alone: importance, insertion and
    deletion, which then begin with the offset and not with nothing.

    **Arguments:**

    - `head`: from activations to logits.
    - `offset`: one number a channel; None for none.

    **Returns:** the head, affine where the given one is. Raises `ValueError` for an offset that isn't one number a
    channel, or isn't finite.

    **Example:**

    >>> mean = explanation.pictures.crop_activations.mean(0)
    >>> maps = explanation.pictures.collected.maps
    >>> logits = fj.heads.shifted(model.head, mean)(jnp.asarray(maps - mean))
    >>> bool(np.allclose(logits, model.head(jnp.asarray(maps)), atol=1e-5))
    True
    """
    if offset is None:
        return head
    found = jnp.asarray(real_array("offset", offset, "channel"))
    if not isinstance(head, Affine):
        return Shifted(head, found)
    kernel = jnp.asarray(head.kernel)
    if found.shape != kernel.shape[:1]:
        raise ValueError(f"offset has {found.shape[0]} numbers and the head takes {kernel.shape[0]} channels")
    return dataclasses.replace(head, bias=jnp.asarray(head.bias) + found.astype(kernel.dtype) @ kernel)

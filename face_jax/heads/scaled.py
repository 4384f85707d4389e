"""Heads of activations in another unit."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..support.precision import full_precision
from .affine import Affine
from .one_logit import Around


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scaled(Around):
    """A head that multiplies the maps first; `scaled` makes it.

    **Arguments:**

    - `head`: from maps, and tokens beside them where it takes such, to logits.
    - `factor`: the number.
    """

    factor: Float[Array, ""]

    @full_precision
    def __call__(self, maps: Float[Array, "..."], *tokens: Array) -> Float[Array, "image class"]:
        """Logits of the maps times the factor."""
        return self.head(maps * self.factor.astype(maps.dtype), *tokens)


def scaled(head: Any, factor: float) -> Any:
    """The head of activations that were divided by a factor: `scaled(head, c)(A / c) = head(A)`.

    **Arguments:**

    - `head`: from activations to logits.
    - `factor`: the number.

    **Returns:** the head, affine where the given one is.
    """
    if isinstance(head, Affine):
        return dataclasses.replace(head, kernel=jnp.asarray(head.kernel) * factor)
    return Scaled(head, jnp.asarray(factor))

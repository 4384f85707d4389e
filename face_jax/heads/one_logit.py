"""One logit as two: the heads of binary classifiers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..support.precision import full_precision
from .affine import Affine


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Around:
    """A head that changes what another one says."""

    head: Any

    @property
    def affine(self) -> bool:
        """As the head inside."""
        return bool(self.head.affine)

    @property
    def pools_first(self) -> bool:
        """As the head inside."""
        return bool(getattr(self.head, "pools_first", False))

    @property
    def places(self) -> int:
        """As the head inside."""
        return int(getattr(self.head, "places", 1))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OneLogit(Around):
    """The logits `[0, z]` of a head that gives one logit z, `image` or `image × 1`; `binary` makes it."""

    @full_precision
    def __call__(self, maps: Float[Array, "..."], *tokens: Array) -> Float[Array, "image class"]:
        """Two logits an image. Raises `ValueError` for a head that gives several."""
        logit = self.head(maps, *tokens)
        if logit.ndim != 1 and logit.shape[1:] != (1,):
            raise ValueError(
                f"head gives logits of shape {tuple(logit.shape)}, and a binary classifier's gives one logit an image; "
                "name each of its classes, or give MultiLabel() as outputs where they are labels"
            )
        logit = logit.reshape(-1, 1)
        return jnp.concatenate([jnp.zeros_like(logit), logit], axis=1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _BesideSecond(Around):
    """Logits less the second class's."""

    @full_precision
    def __call__(self, maps: Float[Array, "..."], *tokens: Array) -> Float[Array, "image class"]:
        """As many logits as the head's, with the same softmax."""
        logits = self.head(maps, *tokens)
        return logits - logits[:, 1:2]


def binary(head: Any) -> Any:
    """A head with one logit z as one with two, `[0, z]`, whose softmax is z's sigmoid: no, and yes.

    **Arguments:**

    - `head`: from activations to one logit an image, `image` or `image × 1`.

    **Returns:** the head with two logits, affine where the given one is. Raises `ValueError` for a head with several
    logits: at once if it's `Affine`, else when it's called.

    **Example:**

    >>> fj.heads.binary(fj.heads.Affine(jnp.ones((12, 1)), jnp.ones(1)))(jnp.ones((2, 1, 1, 12))).tolist()
    [[0.0, 13.0], [0.0, 13.0]]
    """
    if not isinstance(head, Affine):
        return OneLogit(head)
    if jnp.ndim(head.kernel) != 2 or jnp.shape(head.kernel)[1] != 1:
        raise ValueError(
            f"head's kernel has shape {jnp.shape(head.kernel)}, and a binary classifier's has one column, for its one "
            "logit; name each of its classes, or give MultiLabel() as outputs where they are labels"
        )
    kernel, bias = jnp.asarray(head.kernel), jnp.asarray(head.bias)
    return Affine(
        jnp.concatenate([jnp.zeros_like(kernel), kernel], axis=1),
        jnp.concatenate([jnp.zeros_like(bias), bias]),
        head.places,
    )


def beside_second(head: Any) -> Any:
    """The same predictions with the second class's logit at zero, so that the first one's says what decides for it."""
    if not isinstance(head, Affine):
        return _BesideSecond(head)
    return Affine(head.kernel - head.kernel[:, 1:2], head.bias - head.bias[1:2], head.places)

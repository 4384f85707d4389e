"""The plainest head: average pooling, then an affine map."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..support.precision import full_precision
from .from_torch import tensor


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Affine:
    """Logits that are affine in the averaged activations: `mean(A) @ kernel + bias`.

    The head of ResNet, EfficientNet, DenseNet or MobileNetV2 behind its last feature map.

    **Arguments:**

    - `kernel`: one column a class; a torch `Linear`'s `weight.T`, whose numbers are copied.
    - `bias`: one number a class; a torch `Linear`'s `bias` likewise.
    - `places`: how many consecutive rows belong to one image when the head is given rows; 1 for pooled rows,
        49 for the rows of a 7 × 7 map. Maps with four axes are averaged over their places whatever it is.

    Raises `ValueError` for places that count nothing.
    """

    # Arrays of NumPy, JAX or torch.
    kernel: Float[Any, "channel class"]
    bias: Float[Any, " class"]
    places: int = dataclasses.field(default=1, metadata={"static": True})

    def __post_init__(self) -> None:
        if not isinstance(self.places, int | np.integer) or self.places < 1:
            raise ValueError(
                f"places={self.places!r} isn't a number of rows; give 1 for pooled rows, or how many rows an image has"
            )
        for name in ("kernel", "bias"):
            value = getattr(self, name)
            if hasattr(value, "detach"):
                object.__setattr__(self, name, tensor(value))

    @property
    def affine(self) -> bool:
        """Always: this head is affine after pooling."""
        return True

    @full_precision
    def __call__(
        self, maps: Float[Array, "image y x channel"] | Float[Array, "row channel"]
    ) -> Float[Array, "image class"]:
        """Logits of feature maps, or of rows whose `places` at a time belong to one image."""
        return self.pool(maps) @ self.kernel + self.bias[None, :]

    def pool(
        self, maps: Float[Array, "image y x channel"] | Float[Array, "row channel"]
    ) -> Float[Array, "image channel"]:
        """The averages over places that the affine map is applied to."""
        channels = self.kernel.shape[0]
        if maps.shape[-1] != channels:
            raise ValueError(
                f"maps has {maps.shape[-1]} channels and the head takes {channels}; "
                "give it the activations of the layer that it was cut behind"
            )
        if maps.ndim == 4:
            return jnp.mean(maps, axis=(1, 2))
        if maps.shape[0] % self.places:
            raise ValueError(
                f"maps has {maps.shape[0]} rows, which isn't a multiple of places={self.places}; "
                "give all places of each image, one image after the other"
            )
        return jnp.mean(maps.reshape(-1, self.places, channels), axis=1)


def affine_map(head: Any, channels: int, dtype: Any) -> tuple[Float[Array, "channel class"], Float[Array, " class"]]:
    """Kernel and bias of a head that is affine after pooling, read off unless it says them."""
    if isinstance(head, Affine):
        return jnp.asarray(head.kernel).astype(dtype), jnp.asarray(head.bias).astype(dtype)
    # Maps of one place, which any pooling leaves as they are.
    maps = jnp.concatenate([jnp.zeros((1, channels), dtype), jnp.eye(channels, dtype=dtype)])[:, None, None]
    logits = head(maps).astype(dtype)
    return logits[1:] - logits[:1], logits[0]

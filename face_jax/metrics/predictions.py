"""What a head says of activations, as one program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def logits_of(head: Any, maps: Float[np.ndarray, "image y x channel"]) -> Float[np.ndarray, "image class"]:
    """Logits of maps."""
    return np.asarray(_apply(head, jnp.asarray(maps)))


@jax.jit
def _apply(head: Any, maps: Float[Array, "image y x channel"]) -> Float[Array, "image class"]:
    return head(maps)

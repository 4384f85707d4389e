"""NumPy's randomness from a JAX key, for what isn't compiled."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, Key


def generator(key: Key[Array, ""]) -> np.random.Generator:
    """A NumPy generator; the same key gives the same numbers."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())

"""The cheap concept map: codes on the grid, enlarged."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def upsampled_codes(
    codes: Float[Array, "image y x concept"], size: int
) -> Float[np.ndarray, "image size size concept"]:
    """Codes at the places of a feature map, enlarged bilinearly to `size` × `size` pixels.

    It says at which place of the map a concept is, no finer; what a place sees of the picture can be far larger
    than its share of the grid. `concept_gradients` says which pixels the code depends on.

    **Arguments:**

    - `codes`: how much of each concept is at each place.
    - `size`: pixels of the map's height and width.

    **Returns:** one map a concept and image.
    """
    images, _, _, concepts = codes.shape
    return np.asarray(jax.image.resize(jnp.asarray(codes), (images, size, size, concepts), "bilinear"))

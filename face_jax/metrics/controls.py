"""Control dictionaries that were not learned: mean direction, and directions drawn at random."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..support.arguments import Seed, Whole, check_count, flag, key_of, real_array
from ..support.scaling import of_order_one


def mean_direction(
    rows: Float[np.ndarray, "row channel"], rank: Whole, *, key: Seed = None, signed: bool = False
) -> Float[np.ndarray, "concept channel"]:
    """The mean activation as the only real concept; the others are noise.

    One direction that stands for the whole class already predicts the class, so scores that reward early insertion
    and deletion come close to their ceilings without a concept having been found.

    **Arguments:**

    - `rows`: the activations.
    - `rank`: how many concepts.
    - `key`, `signed`: as for `random_dictionary`.

    **Example:**

    >>> fj.metrics.mean_direction(np.asarray(A), 3).shape
    (3, 12)
    """
    rows = real_array("rows", rows, "row × channel")
    noise = random_dictionary(rows.shape[1], rank, key=key, signed=signed).astype(rows.dtype)
    noise[0] = unit_length(rows.mean(axis=0, keepdims=True))[0]
    return noise


def random_dictionary(
    channels: Whole, rank: Whole, *, key: Seed = None, signed: bool = False
) -> Float[np.ndarray, "concept channel"]:
    """Directions drawn at random: absolute values of normal numbers, at unit length.

    **Arguments:**

    - `channels`, `rank`: how long, and how many.
    - `key`: for the draw, or a seed.
    - `signed`: normal numbers as they are, beside concepts that may have entries below zero.

    **Example:**

    >>> np.linalg.norm(fj.metrics.random_dictionary(12, 3), axis=1).round(3).tolist()
    [1.0, 1.0, 1.0]
    """
    channels, rank = check_count("channels", channels, "channels"), check_count("rank", rank, "concepts")
    key, signed = key_of(key), flag("signed", signed)
    drawn = np.asarray(jax.random.normal(key, (rank, channels), dtype=jnp.float32))
    return unit_length(drawn if signed else np.abs(drawn))


def unit_length(vectors: Float[np.ndarray, "concept channel"]) -> Float[np.ndarray, "concept channel"]:
    """Vectors at length 1; those of length 0 stay.

    **Example:**

    >>> fj.metrics.unit_length(np.asarray([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    vectors = of_order_one(real_array("vectors", vectors, "concept × channel"), -1)
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1).astype(vectors.dtype)

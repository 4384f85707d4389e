"""Networks small enough for maps in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from face_jax.heads import Affine
from face_jax.model import Preprocess, SplitModel

SIZE, PATCH, CHANNELS = 8, 4, 4
# Each place is a patch of 4 × 4 pixels; the last channel never gets above zero.
FILTERS = np.random.default_rng(0).normal(size=(PATCH, PATCH, 3, CHANNELS))
BIAS = np.array([60.0, 60.0, 60.0, -60.0])
# Orthogonal: a concept's code is its direction's product with the activations, where that's positive.
DICTIONARY = np.array([[1.0, 0, 0, 0], [0, 0.6, 0.8, 0], [0, 0, 0, 1]])
IMAGES = np.random.default_rng(1).normal(size=(2, SIZE, SIZE, 3))


def split_model(features, channels: int = CHANNELS) -> SplitModel:
    head = Affine(jnp.ones((channels, 2)), jnp.zeros(2))
    preprocess = Preprocess(size=SIZE, resize=SIZE)
    return SplitModel(features, head, "layer", preprocess, ("a", "b"), "tiny", "tiny-1")


def affine_features(images):
    count = len(images)
    patches = jnp.asarray(images).reshape(count, 2, PATCH, 2, PATCH, 3)
    filters, bias = (jnp.asarray(values, patches.dtype) for values in (FILTERS, BIAS))
    return jnp.einsum("nyixjc,ijck->nyxk", patches, filters) + bias[None, None, None]


AFFINE = split_model(jax.jit(affine_features))
# ∂(sum of the places' codes)/∂X of each concept; nothing for the one that isn't there.
GRADIENT = np.stack([np.tile(FILTERS @ direction, (2, 2, 1)) for direction in DICTIONARY[:2]] + [np.zeros((8, 8, 3))])


def of_pixels(function) -> SplitModel:
    """A picture of one colour to one activation at one place, `function` of the pixels `image pixel`."""
    return split_model(jax.jit(lambda images: function(images.reshape(len(images), -1))[:, None, None, None]), 1)


def pixels(*values: float) -> np.ndarray:
    side = round(len(values) ** 0.5)
    return np.asarray(values, np.float64).reshape(1, side, side, 1)


ONE = np.ones((1, 1))

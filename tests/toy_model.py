"""A small classifier in pure JAX that really classifies: by the colour of squares."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any, overload

import jax
import jax.numpy as jnp
import numpy as np

from face_jax.heads import Affine
from face_jax.model import Head, Preprocess, SplitModel

CLASSES = ("reddish", "greenish", "bluish")
# A model, not data: other seeds for the tests leave it as it is.
_FEATURES = 0.15 * np.random.Generator(np.random.PCG64(7)).normal(size=(48, 14)).astype(np.float32)
_FEATURES[:, :3] = np.repeat(np.eye(3), 16, axis=1).T / 8


def colour_features(images: jax.Array) -> jax.Array:
    """Patches of 4 × 4 pixels (colours apart) times fixed directions, the first three the colours; ReLU."""
    count, height, width, _ = images.shape
    patches = images.reshape(count, height // 4, 4, width // 4, 4, 3).transpose(0, 1, 3, 5, 2, 4)
    patches = patches.reshape(count, height // 4, width // 4, 48)
    return jax.nn.relu(patches @ jnp.asarray(_FEATURES, images.dtype))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Squared:
    """A head that isn't affine."""

    kernel: jax.Array
    affine = False

    def __call__(self, maps):
        return jnp.mean(maps**2, axis=(1, 2)) @ self.kernel


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Disguised:
    """An affine head that doesn't say so."""

    inside: Head
    affine = False

    def __call__(self, maps):
        return self.inside(maps)


if TYPE_CHECKING:

    class _ColourModel(SplitModel):
        """As it is unless something is changed: with a head that has its kernel and bias."""

        head: Affine


@overload
def colour_model() -> _ColourModel: ...
@overload
def colour_model(**changes: Any) -> SplitModel: ...
def colour_model(**changes: Any) -> SplitModel:
    """Red, green or blue, by the mean of the colour's channel."""
    kernel = np.zeros((14, 3), np.float32)
    kernel[:3] = 8 * np.eye(3)
    settings: dict[str, Any] = {
        "features": colour_features,
        "head": Affine(jnp.asarray(kernel), jnp.asarray([0.0, 0.1, 0.0], jnp.float32)),
        "layer": "patches",
        "preprocess": Preprocess(size=16, resize=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        "classes": CLASSES,
        "name": "colours",
        "fingerprint": "colours-1",
    }
    return SplitModel(**(settings | changes))


def pictures(count: int, colour: int, seed: int = 0, generator_of=np.random.default_rng) -> np.ndarray:
    """Noisy pictures of 32 × 40 pixels with a square of one colour in them."""
    generator = generator_of(seed + 100 * colour)
    found = generator.integers(0, 70, (count, 32, 40, 3), dtype=np.uint8)
    for number, (top, left) in enumerate(generator.integers(2, 12, (count, 2))):
        found[number, top : top + 16, left : left + 16, colour] = 240
    return found


def recorded_progress():
    """A list that fills with `[stage, total, steps told]`, and the progress that fills it."""
    told = []

    @contextlib.contextmanager
    def progress(stage, total):
        told.append([stage, total, 0])

        def advance(steps):
            told[-1][2] += steps

        yield advance

    return told, progress

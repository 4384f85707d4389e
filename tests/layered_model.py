"""A small classifier of three layers in pure JAX, whose last layer mixes two colours into one channel."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from toy_model import pictures

from face_jax.heads import Affine
from face_jax.model import Preprocess, SplitModel

CLASSES = ("warm", "cold")
# A model, not data: other seeds for the tests leave it as it is.
_RANDOM = np.random.Generator(np.random.PCG64(3))
_MIDDLE = np.concatenate([np.eye(3), 0.1 * _RANDOM.random((3, 5))], axis=1).astype(np.float32)
# Red and green come out of one channel, blue out of another.
_LAST = np.concatenate([np.eye(3)[:, [0, 2]], 0.1 * _RANDOM.random((3, 4))], axis=1)
_LAST = np.concatenate([_LAST, 0.05 * _RANDOM.random((5, 6))]).astype(np.float32)
_LAST[1, 0] = 1


def halved(maps: jax.Array) -> jax.Array:
    """Means of 2 × 2 places."""
    count, height, width, channels = maps.shape
    return maps.reshape(count, height // 2, 2, width // 2, 2, channels).mean((2, 4))


LAYERS = ("pixels", "middle", "last")
STEPS = {
    "pixels": halved,
    "middle": lambda maps: jax.nn.relu(halved(maps) @ jnp.asarray(_MIDDLE, maps.dtype)),
    "last": lambda maps: jax.nn.relu(halved(maps) @ jnp.asarray(_LAST, maps.dtype)),
}


def _through(names, maps):
    for name in names:
        maps = STEPS[name](maps)
    return maps


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tail:
    """The layers behind one, then the head."""

    last: Affine
    names: tuple[str, ...] = dataclasses.field(metadata={"static": True})
    affine = False

    def __call__(self, maps):
        return self.last(_through(self.names, maps))


def layered_model(layer: str, scale: float = 1.0) -> SplitModel:
    """The classifier, cut behind one of `LAYERS`."""
    kernel = np.zeros((6, 2), np.float32)
    kernel[:2] = 8 * scale * np.eye(2)
    head = Affine(jnp.asarray(kernel), jnp.asarray([0.1, 0.0], jnp.float32))
    before, behind = LAYERS[: LAYERS.index(layer) + 1], LAYERS[LAYERS.index(layer) + 1 :]
    return SplitModel(
        features=lambda images: _through(before, images),
        head=Tail(head, behind) if behind else head,
        layer=layer,
        preprocess=Preprocess(size=16, resize=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        classes=CLASSES,
        name="layered",
        fingerprint=f"layered-{scale}-{layer}",
    )


def warm_pictures(generator_of=np.random.default_rng) -> np.ndarray:
    """Seven pictures with red squares, then seven with green ones."""
    return np.concatenate([pictures(7, colour, generator_of=generator_of) for colour in (0, 1)])


def sampled_pictures() -> np.ndarray:
    """Those that the saved samples were made of, whatever seed the tests have."""
    return warm_pictures(lambda seed: np.random.Generator(np.random.PCG64(seed)))

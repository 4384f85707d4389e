"""FACE's crops, which keep their size: smaller than the network's input, through a real torch network."""

import jax
import numpy as np
import pytest
import torch
import torchvision

from face_jax import bridges
from face_jax.activations import collect_crops, pooled, survey
from face_jax.model import Preprocess
from face_jax.pictures.crop_rules import NativeCrops
from face_jax.pictures.photographs import Photograph, network_input

PREPROCESS = Preprocess(size=128, resize=128)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None).eval()
    # Running statistics of an untrained network: without them its activations vanish or explode.
    with torch.no_grad():
        model.train()
        for _ in range(3):
            model(torch.randn(4, 3, 64, 64))
    return model.eval()


@pytest.fixture(scope="module")
def photograph():
    return Photograph("noise", np.random.default_rng(0).integers(0, 256, (128, 160, 3), dtype=np.uint8))


def of_torch(network, crop):
    """Torch's own activations behind `layer4` and logits, of one crop."""
    body = torch.nn.Sequential(*list(network.children())[:-2])
    tensor = torch.from_numpy(np.ascontiguousarray(crop))[None].movedim(-1, 1)
    with torch.no_grad():
        return body(tensor), network(tensor)


@pytest.mark.parametrize("size", [64, 96])
def test_features_of_crops_are_torchs_own(network, photograph, size):
    model = bridges.split(network, "layer4", preprocess=PREPROCESS)
    shape = photograph.pixels().shape[:2]
    crops = NativeCrops(PREPROCESS, size=size, overlap=0.5)([shape], key=jax.random.key(0))
    found = collect_crops(model, [photograph], crops, keep=pooled, batch=4)
    whole = network_input(photograph.pixels(), PREPROCESS)
    assert len(found) == len(crops) == {64: 9, 96: 1}[size]
    assert crops.window is not None
    for number, (top, left, bottom, right) in enumerate(crops.window):
        maps, logits = of_torch(network, whole[top:bottom, left:right])
        # Smaller pictures give smaller maps: none was enlarged to the network's input.
        assert maps.shape[2:] == (size // 32, size // 32)
        np.testing.assert_allclose(found.maps[number, 0, 0], maps.mean((2, 3))[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.logits[number], logits[0], rtol=1e-4, atol=1e-5)


def test_a_crop_of_the_whole_input_is_the_whole_photograph(network, photograph):
    model = bridges.split(network, "layer4", preprocess=PREPROCESS)
    crops = NativeCrops(PREPROCESS, size=128)([photograph.pixels().shape[:2]], key=jax.random.key(0))
    found = collect_crops(model, [photograph], crops, keep=pooled, batch=1)
    seen = survey(model, [photograph], batch=1).kept
    np.testing.assert_allclose(found.maps, pooled(seen.maps), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logits, seen.logits, rtol=1e-5, atol=1e-6)


def test_crops_of_a_squashed_input_are_squeezed_as_the_photograph_is():
    preprocess = Preprocess(size=64, resize=(64, 64))
    crops = NativeCrops(preprocess, size=32, overlap=0)([(128, 256)], key=jax.random.key(0))
    np.testing.assert_array_equal(crops.box[[0, 3]], [[0, 0, 64, 128], [64, 128, 128, 256]])

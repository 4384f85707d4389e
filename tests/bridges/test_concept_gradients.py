"""Gradients of all concepts at once."""

import jax.numpy as jnp
import numpy as np
import pytest
import small_models as small
import torch
from face_jax.bridges.torch_features import features_of

from face_jax import bridges
from face_jax.model import Preprocess

IMAGES = np.random.default_rng(4).standard_normal((2, 8, 8, 3))


def dictionary():
    values = 0.3 * np.random.default_rng(0).uniform(size=(3, 6))
    values[np.arange(6) % 3, np.arange(6)] += 1
    return jnp.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def split(layer="body", build: type = small.Plain):
    return bridges.split(small.randomized(build(), seed=3).double(), layer, preprocess=Preprocess(size=8, resize=8))


@pytest.mark.parametrize("pooled", [True, False])
def test_are_those_of_the_concept_module_one_by_one(pooled):
    model = split()
    module = bridges.ConceptModule(model, dictionary(), pooled=pooled)
    given = bridges.concept_gradients(model, dictionary(), IMAGES, pooled=pooled)
    assert given.shape == (3, 2, 8, 8, 3)
    for k in range(3):
        images = torch.from_numpy(IMAGES).movedim(-1, 1).requires_grad_()
        (expected,) = torch.autograd.grad(module(images)[..., k].sum(), images)
        np.testing.assert_allclose(given[k], expected.movedim(1, -1), rtol=1e-9, atol=1e-12)
        assert float(expected.abs().max()) > 1e-4


def test_chosen_concepts_in_the_order_asked_for():
    model = split()
    every = bridges.concept_gradients(model, dictionary(), IMAGES)
    given = bridges.concept_gradients(model, dictionary(), jnp.asarray(IMAGES), concepts=[2, 0])
    np.testing.assert_allclose(given, every[jnp.asarray([2, 0])], rtol=1e-12)


def test_one_forward_pass_of_the_network():
    model = split()
    runs = []
    conv = dict(features_of(model).module.named_modules())["body.3"]
    handle = conv.register_forward_hook(lambda *_: runs.append(1))
    bridges.concept_gradients(model, dictionary(), IMAGES)
    handle.remove()
    assert len(runs) == 1


def test_images_do_not_mix():
    model = split()
    both = bridges.concept_gradients(model, dictionary(), IMAGES)
    alone = bridges.concept_gradients(model, dictionary(), IMAGES[1:])
    np.testing.assert_allclose(both[:, 1:], alone, rtol=1e-9, atol=1e-14)


def test_layer_of_tokens():
    model = split("norm", small.ChannelsLast)
    assert bridges.concept_gradients(model, jnp.abs(jnp.ones((2, 8))) / 8**0.5, IMAGES).shape == (2, 2, 8, 8, 3)


def test_under_torchs_inference_mode():
    model = split()
    with torch.inference_mode():
        given = bridges.concept_gradients(model, dictionary(), IMAGES)
    np.testing.assert_allclose(given, bridges.concept_gradients(model, dictionary(), IMAGES), rtol=1e-12)


def test_parameters_get_no_gradients():
    model = split()
    bridges.concept_gradients(model, dictionary(), IMAGES)
    assert all(parameter.grad is None for parameter in features_of(model).module.parameters())


def test_unknown_concepts_are_refused():
    with pytest.raises(ValueError, match=r"concepts=\[3, -1\] of a dictionary with 3; give numbers from 0 to 2"):
        bridges.concept_gradients(split(), dictionary(), IMAGES, concepts=[1, 3, -1])
    with pytest.raises(ValueError, match="of a dictionary with 3"):
        bridges.concept_gradients(split(), dictionary(), IMAGES, concepts=[])

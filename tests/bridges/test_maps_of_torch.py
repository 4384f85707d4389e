"""Maps of concepts of a torch network against Captum's, on the module from images to codes."""

import captum.attr
import jax.numpy as jnp
import numpy as np
import pytest
import small_models as small
import torch

from face_jax import bridges
from face_jax.attribution import GradCAM, GradientTimesInput, IntegratedGradients, Occlusion, Saliency
from face_jax.model import Preprocess

IMAGES = np.random.default_rng(4).standard_normal((2, 8, 8, 3))
pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients:UserWarning")


def dictionary():
    values = 0.3 * np.random.default_rng(0).uniform(size=(3, 6))
    values[np.arange(6) % 3, np.arange(6)] += 1
    return jnp.asarray(values / np.linalg.norm(values, axis=1, keepdims=True))


def test_maps_are_captums():
    model = small.randomized(small.Plain(), seed=3).double()
    split = bridges.split(model, "body", preprocess=Preprocess(size=8, resize=8))
    module = bridges.ConceptModule(split, dictionary(), pooled=True)
    images = torch.from_numpy(IMAGES).movedim(-1, 1)
    integrated = captum.attr.IntegratedGradients(module)
    cam = captum.attr.LayerGradCam(module, module.activations)
    occlusion = captum.attr.Occlusion(module)
    pairs = [
        (Saliency(), lambda k: captum.attr.Saliency(module).attribute(images, target=k)),
        (GradientTimesInput(), lambda k: captum.attr.InputXGradient(module).attribute(images, target=k)),
        (
            IntegratedGradients(steps=6),
            lambda k: integrated.attribute(images, target=k, n_steps=6, method="riemann_middle"),
        ),
        (
            GradCAM(),
            lambda k: torch.nn.functional.interpolate(
                cam.attribute(images, target=k, relu_attributions=True), (8, 8), mode="bilinear"
            ),
        ),
        # Captum answers in single precision here.
        (
            Occlusion(patch=4, stride=2),
            lambda k: occlusion.attribute(images, (3, 4, 4), strides=(3, 2, 2), target=k).double()[:, :1],
        ),
    ]
    for method, captums in pairs:
        maps = method(split, dictionary(), IMAGES)
        for k in range(3):
            expected = captums(k).sum(1).numpy(force=True)
            np.testing.assert_allclose(maps[k], expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
        assert np.abs(maps).max() > 1e-4

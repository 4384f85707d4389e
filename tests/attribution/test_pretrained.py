"""Concepts' maps on a photograph, through a network that was trained on photographs."""

import numpy as np
import pytest
from pretrained_cat import cat

from face_jax import metrics
from face_jax.attribution import RISE, Codes, GradCAM, Occlusion, Saliency
from face_jax.explanation.concepts import strongest_crops


@pytest.fixture(scope="module")
def pretrained():
    return cat()


@pytest.fixture(scope="module")
def cases(pretrained):
    """The concepts whose strongest crop the network sees in the whole photograph, and where it lies there."""
    strongest = [strongest_crops(column, pretrained.crops, 1) for column in pretrained.crop_codes.T]
    return metrics.pointing_cases(strongest, pretrained.crops, [pretrained.shape], pretrained.model.preprocess)


def test_the_network_knows_the_cat(pretrained):
    assert pretrained.model.classes[pretrained.target] in ("tabby", "tiger cat", "Egyptian cat")


@pytest.mark.parametrize(
    "method",
    [Codes(), GradCAM(), Saliency(), Occlusion(patch=56, stride=56), RISE(masks=32)],
    ids=lambda method: type(method).__name__,
)
def test_maps_are_finite_and_of_the_pictures_size(pretrained, cases, method):
    wanted = cases.concept.tolist()
    maps = method(pretrained.model, pretrained.dictionary, pretrained.picture, concepts=wanted, pooled=False)
    assert maps.shape == (len(wanted), 1, 224, 224)
    assert maps.dtype == np.float32
    assert np.isfinite(maps).all()
    # Each concept is in the photograph, and not everywhere alike.
    assert (np.ptp(maps, axis=(1, 2, 3)) > 0).all()


@pytest.mark.parametrize("method", [Codes(), GradCAM()], ids=lambda method: type(method).__name__)
def test_maps_point_into_the_strongest_crop(pretrained, cases, method):
    wanted = cases.concept.tolist()
    maps = method(pretrained.model, pretrained.dictionary, pretrained.picture, concepts=wanted, pooled=False)[:, 0]
    own = metrics.pointing_game(maps, cases.box)
    assert len(cases) >= 2
    # A crop is less than a quarter of the picture, so that a random pixel would hardly be in all of them.
    assert own.chances.max() < 0.25
    np.testing.assert_array_equal(own.hits, 1)
    # Nor would the maps of the other concepts.
    assert metrics.pointing_game(np.roll(maps, 1, axis=0), cases.box).rate < 1

"""An explanation's maps, by word and by object."""

import jax
import numpy as np
import pytest
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax.attribution import METHODS, IntegratedGradients, Occlusion
from face_jax.attribution.table import UnknownMethodError
from face_jax.pictures.photographs import network_input

RED, GREEN = pictures(14, 0), pictures(4, 1)


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(
        colour_model(),
        np.concatenate([RED, GREEN]),
        "reddish",
        rank=4,
        batch=8,
        faithfulness=None,
        key=jax.random.key(0),
    )


def test_words_and_objects_are_the_same(explanation):
    by_word = explanation.maps(RED[:2], method="integrated-gradients", concepts=(2, 0))
    by_object = explanation.maps(RED[:2], method=IntegratedGradients(), concepts=(2, 0))
    assert by_word.shape == (2, 2, 16, 16)
    np.testing.assert_array_equal(by_word, by_object)
    inputs = np.stack([network_input(pixels, explanation.model.preprocess) for pixels in RED[:2]])
    given = METHODS["integrated_gradients"](
        explanation.model, explanation.dictionary, inputs, concepts=(2, 0), pooled=False
    )
    np.testing.assert_array_equal(by_word, given)


def test_integrated_gradients_add_up_to_the_codes_of_the_places(explanation):
    maps = explanation.maps(RED[:3], method=IntegratedGradients(steps=64))
    codes = explanation.encode(RED[:3]).sum(axis=(1, 2)).T
    # Black is zero here and has no codes.
    np.testing.assert_allclose(maps.sum(axis=(2, 3)), codes, rtol=0.02, atol=0.02 * codes.max())


def test_hiding_the_square_hides_the_red(explanation):
    maps = explanation.maps(RED[:4], method=Occlusion(patch=4, stride=2), concepts=(0,))[0]
    red = np.stack([one[:, 4:36] for one in RED[:4]])[:, ::2, ::2, 0] > 200
    assert maps[red].mean() > 3 * maps[~red].mean()


def test_wrong_words_are_refused(explanation):
    with pytest.raises(UnknownMethodError, match="method='saliancy' is unknown; nearest: saliency"):
        explanation.maps(RED[:1], method="saliancy")

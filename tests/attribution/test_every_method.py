"""What all attribution methods promise."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import AFFINE, DICTIONARY, IMAGES, affine_features, split_model

from face_jax import attribution
from face_jax.attribution import (
    HSIC,
    LIME,
    METHODS,
    RISE,
    Blurred,
    Codes,
    GradCAM,
    GradientTimesInput,
    IntegratedGradients,
    KernelSHAP,
    Occlusion,
    Saliency,
    SmoothGrad,
    SobolRegions,
    attribution_method,
)
from face_jax.attribution.method import at_least
from face_jax.attribution.table import UnknownMethodError

SMALL = [
    Codes(),
    Saliency(),
    GradientTimesInput(),
    IntegratedGradients(steps=3),
    SmoothGrad(samples=3),
    GradCAM(),
    Occlusion(patch=4, stride=4),
    RISE(masks=6, cells=2),
    SobolRegions(grid=3, designs=4),
    HSIC(grid=3, designs=8),
    LIME(grid=3, samples=22),
    KernelSHAP(grid=3, samples=20),
]
RANDOM = [SMALL[4], *SMALL[7:]]
every_method = pytest.mark.parametrize("method", SMALL, ids=lambda method: type(method).__name__)


def test_the_table_has_every_method():
    assert {type(method) for method in METHODS.values()} == {type(method) for method in SMALL}
    assert all(isinstance(method, attribution.Method) for method in SMALL)


@every_method
def test_single_precision_stays(method):
    images, dictionary = IMAGES.astype(np.float32), DICTIONARY.astype(np.float32)
    maps = method(AFFINE, dictionary, images)
    assert maps.dtype == np.float32
    assert maps.shape == (3, 2, 8, 8)
    double = method(AFFINE, DICTIONARY, IMAGES)
    assert double.dtype == np.float64
    # Sobol and HSIC divide differences of codes near 80 by each other: 1e-7 · 80 against a spread of about 1.
    np.testing.assert_allclose(maps[:2], double[:2], rtol=1e-2, atol=1e-3 * np.abs(double[:2]).max())


@every_method
def test_batches_and_images_do_not_mix(method):
    together = method(AFFINE, DICTIONARY, IMAGES)
    few = dataclasses.replace(method, batch=3)(AFFINE, DICTIONARY, IMAGES)
    np.testing.assert_allclose(few, together, rtol=1e-8, atol=1e-11)
    first = method(AFFINE, DICTIONARY, IMAGES[:1])
    np.testing.assert_allclose(first[:, 0], together[:, 0], rtol=1e-8, atol=1e-11)


@every_method
def test_concepts_asked_for(method):
    every = method(AFFINE, DICTIONARY, jnp.asarray(IMAGES))
    np.testing.assert_allclose(
        method(AFFINE, DICTIONARY, IMAGES, concepts=(2, 0)), every[[2, 0]], rtol=1e-9, atol=1e-12
    )
    with pytest.raises(ValueError, match=r"concepts=\[3\] of a dictionary with 3; give numbers from 0 to 2"):
        method(AFFINE, DICTIONARY, IMAGES, concepts=(1, 3))


@pytest.mark.parametrize("method", RANDOM, ids=lambda method: type(method).__name__)
def test_the_same_key_gives_the_same_maps(method):
    # Noise changes no gradient of an affine network, masks no coefficient, and masks with their complements no Shapley
    # value of a quadratic one: so the cube of the whole picture's activations.
    model = split_model(jax.jit(lambda images: jnp.mean(affine_features(images), axis=(1, 2), keepdims=True) ** 3))
    first, again, other = (method(model, DICTIONARY, IMAGES, key=jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, rtol=1e-3)


@pytest.mark.parametrize("method", SMALL[6:], ids=lambda method: type(method).__name__)
def test_concepts_share_the_forward_passes(method):
    seen = []
    model = split_model(lambda images: (seen.append(len(images)), affine_features(images))[1])
    method(model, DICTIONARY, IMAGES)
    every, seen[:] = sum(seen), []
    method(model, DICTIONARY, IMAGES, concepts=[0])
    assert sum(seen) == every


@every_method
def test_images_that_are_none_are_refused(method):
    with pytest.raises(ValueError, match=r"images has shape \(8, 8, 3\); give network input, image × height"):
        method(AFFINE, DICTIONARY, IMAGES[0])
    with pytest.raises(ValueError, match="images has NaN or infinity in 1 of 2 pictures"):
        method(AFFINE, DICTIONARY, np.where(np.arange(2)[:, None, None, None] == 1, np.nan, IMAGES))
    with pytest.raises(ValueError, match="dictionary has entries that are NaN or infinite"):
        method(AFFINE, DICTIONARY * np.nan, IMAGES)
    with pytest.raises(ValueError, match="images has dtype uint8; give network input"):
        method(AFFINE, DICTIONARY, np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Saliency(batch=0), "batch=0 is too small; give at least 1"),
        (lambda: IntegratedGradients(steps=0), "steps=0 is too small"),
        (lambda: SmoothGrad(noise=-0.1), r"noise=-0\.1 is too small"),
        (lambda: SmoothGrad(noise=float("nan")), "noise=nan is too small"),
        (lambda: SmoothGrad(samples=0), "samples=0 is too small"),
        (lambda: at_least("batch", 2.5, 1), r"batch=2\.5 isn't a whole number"),
        (lambda: Occlusion(patch=4, stride=5), "stride=5 leaves pixels between patches of 4; give at most 4"),
        (lambda: RISE(probability=1.0), r"probability=1\.0 hides nothing or all"),
        (lambda: RISE(masks=0), "masks=0 is too small"),
        (lambda: SobolRegions(designs=33), "designs=33 isn't a power of two"),
        (lambda: HSIC(designs=1), "designs=1 isn't a power of two"),
        (lambda: LIME(grid=4, samples=16), "samples=16 can't tell 16 regions apart; give at least 17"),
        (lambda: LIME(width=0.0), r"width=0\.0 gives masks no weight"),
        (lambda: LIME(ridge=-1.0), r"ridge=-1\.0 is too small"),
        (lambda: KernelSHAP(grid=4, samples=16), "samples=16 can't tell 16 regions apart; give at least 32"),
        (lambda: Blurred(sigma=0.0), r"sigma=0\.0 isn't a width in pixels"),
    ],
)
def test_bad_settings_are_refused_at_once(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_settings_that_do_not_fit_the_images_are_refused():
    with pytest.raises(ValueError, match="patch=9 is larger than images of 8 × 8; give at most 8"):
        Occlusion(patch=9, stride=9)(AFFINE, DICTIONARY, IMAGES)
    with pytest.raises(ValueError, match="cells=9 is finer than images of 8 × 8"):
        RISE(cells=9)(AFFINE, DICTIONARY, IMAGES)
    with pytest.raises(
        ValueError, match=r"baseline has shape \(5,\) and images \(2, 8, 8, 3\); give a number, a colour"
    ):
        IntegratedGradients(baseline=np.zeros(5))(AFFINE, DICTIONARY, IMAGES)


@pytest.mark.parametrize(
    ("word", "kind"),
    [("integrated_gradients", IntegratedGradients), ("Grad-CAM", GradCAM), ("smoothgrad", SmoothGrad), ("RISE", RISE)],
)
def test_words_stand_for_methods(word, kind):
    assert attribution_method(word) == kind()


def test_an_object_stands_for_itself():
    method = RISE(masks=10)
    assert attribution_method(method) is method


def test_wrong_words_are_answered_with_the_nearest():
    with pytest.raises(UnknownMethodError, match=r"method='integrated_gradient' is unknown; nearest: integrated_grad"):
        attribution_method("integrated_gradient")
    with pytest.raises(UnknownMethodError, match=r"method='zzz' is unknown; give one of these: codes, saliency, "):
        attribution_method("zzz")
    with pytest.raises(UnknownMethodError, match=r"isn't a method; give an object such as Saliency\(\)"):
        attribution_method(Saliency)  # pyright: ignore[reportArgumentType]

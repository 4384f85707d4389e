"""White-box maps: closed forms of an affine network, and a network with a kink done by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import AFFINE, DICTIONARY, GRADIENT, IMAGES, ONE, affine_features, of_pixels, pixels, split_model

from face_jax import attribution
from face_jax.attribution import Blurred, Codes, GradCAM, GradientTimesInput, IntegratedGradients, Saliency, SmoothGrad

SLOPE = np.abs(GRADIENT).sum(-1)


@pytest.mark.parametrize("method", [Saliency(), SmoothGrad(samples=3), SmoothGrad(samples=3, noise=0.0)])
@pytest.mark.parametrize(("pooled", "places"), [(False, 1), (True, 4)])
def test_gradient_of_an_affine_code(method, pooled, places):
    maps = method(AFFINE, DICTIONARY, IMAGES, pooled=pooled)
    expected = np.broadcast_to(SLOPE[:, None] / places, (3, 2, 8, 8))
    np.testing.assert_allclose(maps, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("baseline", [0.0, np.array([0.1, -0.2, 0.3]), IMAGES[0], IMAGES[::-1]])
@pytest.mark.parametrize("method", [GradientTimesInput, IntegratedGradients])
def test_contributions_of_an_affine_code(method, baseline):
    maps = method(baseline=baseline)(AFFINE, DICTIONARY, IMAGES, pooled=False)
    expected = (GRADIENT[:, None] * (IMAGES - baseline)[None]).sum(-1)
    np.testing.assert_allclose(maps, expected, rtol=1e-9, atol=1e-11)


def test_chosen_concepts_in_the_order_asked_for():
    maps = Saliency()(AFFINE, DICTIONARY, IMAGES, concepts=[1, 0], pooled=False)
    np.testing.assert_allclose(maps, np.broadcast_to(SLOPE[[1, 0], None], (2, 2, 8, 8)), rtol=1e-9)


# The code is relu(x₁ + x₂ + 2x₃ + 3x₄ − 3).
KINKED = of_pixels(lambda x: jax.nn.relu(x @ jnp.asarray([1.0, 1.0, 2.0, 3.0]) - 3))


def test_a_kink_by_hand():
    picture = pixels(1, 2, 0, 1)
    # From zero to the picture the sum goes from −3 to 3: the gradient is there on the second half of the way.
    np.testing.assert_allclose(Saliency()(KINKED, ONE, picture)[0, 0], [[1, 1], [2, 3]], rtol=1e-12)
    np.testing.assert_allclose(GradientTimesInput()(KINKED, ONE, picture)[0, 0], [[1, 2], [0, 3]], rtol=1e-12)
    maps = IntegratedGradients(steps=10)(KINKED, ONE, picture)
    np.testing.assert_allclose(maps[0, 0], [[0.5, 1], [0, 1.5]], rtol=1e-12)
    assert maps.sum() == pytest.approx(3)
    assert not Saliency()(KINKED, ONE, pixels(1, 1, 0, 0)).any()


@jax.jit
def _tangled(images):
    """Two layers whose codes switch on and off along the way."""
    return jax.nn.relu(affine_features(jnp.tanh(images)) - jnp.asarray([60.0, 60, 60, -60])[None, None, None])


MIXED = np.abs(np.random.default_rng(3).normal(size=(3, 4)))


@pytest.mark.parametrize("pooled", [False, True])
def test_integrated_gradients_are_complete(pooled):
    model = split_model(_tangled)
    whole, nothing = (
        _codes(model, images, pooled) for images in (IMAGES, np.broadcast_to(IMAGES[:1, :1, :1], IMAGES.shape))
    )
    assert np.abs(whole - nothing).max() > 0.1
    missed = {}
    for steps in (16, 256):
        method = IntegratedGradients(steps=steps, baseline=IMAGES[0, 0, 0], batch=16)
        maps = method(model, MIXED, IMAGES, pooled=pooled)
        missed[steps] = np.abs(maps.sum(axis=(2, 3)).T - (whole - nothing)).max()
    # Midpoints: the error falls at least as 1 / steps where codes switch.
    assert missed[256] < missed[16] / 8
    assert missed[256] < 0.01 * np.abs(whole - nothing).max()


def _codes(model, images, pooled):
    from face_jax.nmf import encode

    maps = model.features(jnp.asarray(images))
    if pooled:
        return np.asarray(encode(maps.mean((1, 2)), MIXED))
    return np.asarray(encode(maps.reshape(-1, 4), MIXED)).reshape(len(images), -1, 3).sum(1)


def test_smooth_grad_averages_the_gradient_over_noise():
    method = SmoothGrad(noise=0.3, samples=4)
    maps = method(split_model(_tangled), MIXED, IMAGES, key=jax.random.key(5))
    total = np.zeros((3, 2, 8, 8, 3))
    for image in range(2):
        for sample in range(4):
            key = jax.random.fold_in(jax.random.key(5), sample)
            noise = 0.3 * np.ptp(IMAGES[image]) * jax.random.normal(key, (8, 8, 3), jnp.float64)
            noisy = IMAGES[image : image + 1] + noise[None]
            total[:, image] += np.asarray(attribution.concept_gradients(split_model(_tangled), MIXED, noisy))[:, 0]
    np.testing.assert_allclose(maps, np.abs(total / 4).sum(-1), rtol=1e-9, atol=1e-14)
    alone = method(split_model(_tangled), MIXED, IMAGES[1:], key=jax.random.key(5))
    np.testing.assert_allclose(maps[:, 1:], alone, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("pooled", [False, True])
def test_grad_cam_by_its_definition(pooled):
    model = split_model(_tangled)
    maps = jnp.asarray(model.features(IMAGES))

    def code(maps, concept):
        from face_jax.nmf import encode

        return encode(maps.mean((1, 2)) if pooled else maps.reshape(-1, 4), MIXED)[:, concept].sum()

    expected = []
    for concept in range(3):
        weights = jax.grad(code)(maps, concept).mean((1, 2))
        cam = jax.nn.relu(jnp.einsum("nyxc,nc->nyx", maps, weights))
        expected.append(jax.image.resize(cam, (2, 8, 8), "bilinear"))
    given = GradCAM()(model, MIXED, IMAGES, pooled=pooled)
    np.testing.assert_allclose(given, np.stack(expected), rtol=1e-9, atol=1e-12)
    assert (given > 0).any()


def test_grad_cam_is_the_codes_where_no_concepts_compete():
    # Orthogonal concepts have the same derivative at all places, and a code is homogeneous in the activations.
    given, codes = (method(AFFINE, DICTIONARY, IMAGES, pooled=False) for method in (GradCAM(), Codes()))
    np.testing.assert_allclose(given, codes, rtol=1e-9, atol=1e-12)
    assert codes[:2].min() > 1
    assert not codes[2].any()


def test_codes_are_those_of_the_places():
    places = np.asarray(affine_features(IMAGES)) @ DICTIONARY[1]
    np.testing.assert_allclose(Codes()(AFFINE, DICTIONARY, IMAGES, concepts=[1])[0, :, 0, 0], places[:, 0, 0])


def test_blurred_baseline_keeps_constants_and_smooths_the_rest():
    blurred = Blurred(sigma=2.0)(jnp.asarray(IMAGES))
    assert blurred.std() < 0.3 * IMAGES.std()
    np.testing.assert_allclose(Blurred()(jnp.full((1, 8, 8, 3), 0.7)), 0.7, rtol=1e-9)
    point = jnp.zeros((1, 65, 65, 1)).at[0, 32, 32, 0].set(1.0)
    spread = np.asarray(Blurred(sigma=3.0)(point)[0, :, :, 0])
    expected = np.exp(-(np.arange(-32, 33) ** 2) / 18)
    np.testing.assert_allclose(spread.sum(0), expected / expected.sum(), atol=1e-4)
    # The way from the blurred picture to the picture is the part of it that the blur takes.
    maps = IntegratedGradients(baseline=Blurred(sigma=2.0))(AFFINE, DICTIONARY, IMAGES, pooled=False)
    np.testing.assert_allclose(maps, (GRADIENT[:, None] * (IMAGES - blurred)[None]).sum(-1), rtol=1e-9, atol=1e-11)

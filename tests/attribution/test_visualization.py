"""Pictures made for concepts."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import colour_model, pictures

from face_jax.attribution.fourier import Spectrum, mean_spectrum, to_picture, weak_noise
from face_jax.attribution.views import Views
from face_jax.attribution.visualization import visualize
from face_jax.model import Preprocess

# The toy's first three channels are the colours.
FLOAT = np.dtype(np.float32)
COLOURS = np.eye(14, dtype=np.float32)[:3]
STEPS = {"steps": 150, "rate": 0.3}


class OfAnotherFramework:
    """The toy's features as if JAX could not see through them."""

    def __init__(self):
        self.features, self.calls = colour_model().features, 0

    def __call__(self, images):
        return self.features(images)

    def vjp(self, images):
        self.calls += 1
        maps, pull = jax.vjp(self.features, images)
        return maps, lambda cotangent: pull(cotangent)[0]


@pytest.fixture(scope="module")
def made():
    return visualize(colour_model(), COLOURS, key=jax.random.key(0), **STEPS)


def test_a_colour_is_shown_by_its_colour(made):
    assert made.pictures.shape == (3, 16, 16, 3)
    assert made.pictures.dtype == np.float32
    assert made.pictures.min() >= 0
    assert made.pictures.max() <= 1
    inside = made.pictures[:, 4:12, 4:12].mean(axis=(1, 2))
    assert (inside.argmax(axis=1) == np.arange(3)).all()
    assert (np.sort(inside, axis=1)[:, 2] > np.sort(inside, axis=1)[:, 1] + 0.15).all()
    assert made.history.shape == (3, 150)
    assert (made.history[:, -10:].mean(axis=1) > 2 * made.history[:, :3].mean(axis=1)).all()


def test_a_key_fixes_the_picture(made):
    again = visualize(colour_model(), COLOURS, key=jax.random.key(0), **STEPS)
    other = visualize(colour_model(), COLOURS, key=jax.random.key(1), **STEPS)
    np.testing.assert_array_equal(again.pictures, made.pictures)
    assert np.abs(other.pictures - made.pictures).max() > 0.01


def test_a_concept_has_its_own_picture_whichever_others_are_made(made):
    alone = visualize(colour_model(), COLOURS, concepts=[1], key=jax.random.key(0), **STEPS)
    assert alone.concepts == (1,)
    np.testing.assert_allclose(alone.pictures[0], made.pictures[1], atol=1e-3)
    few = {"steps": 1, "photographs": pictures(2, 1), "key": jax.random.key(0)}
    several = visualize(colour_model(), COLOURS, concepts=[2, 0], **few)
    np.testing.assert_allclose(
        visualize(colour_model(), COLOURS, concepts=[0], **few).pictures[0], several.pictures[1], atol=1e-3
    )
    assert np.abs(several.pictures[0] - several.pictures[1]).max() > 0.01


@dataclasses.dataclass
class Unhashable:
    """Features that compare by value, as plain dataclasses do."""

    features: Any

    def __call__(self, images):
        return self.features(images)


def test_features_and_preprocessing_need_no_hash(made):
    model = colour_model(
        features=Unhashable(colour_model().features),
        preprocess=Preprocess(size=16, resize=16, mean=[0.0] * 3, std=[1.0] * 3),
    )
    found = visualize(model, COLOURS, key=jax.random.key(0), **STEPS)
    np.testing.assert_allclose(found.pictures, made.pictures, atol=1e-6)


def test_features_of_another_framework_give_the_same_picture():
    features = OfAnotherFramework()
    models = dataclasses.replace(colour_model(), features=features), colour_model()
    # So few steps that roundings don't grow: the sums are compiled in other pieces.
    found, made = (visualize(model, COLOURS, key=jax.random.key(0), steps=20, rate=0.3) for model in models)
    assert features.calls == 20
    np.testing.assert_allclose(found.pictures, made.pictures, atol=1e-3)
    np.testing.assert_allclose(found.history, made.history, rtol=1e-3)


def test_the_objective_is_the_papers():
    """Without a random view, the first step's objective is `⟨a, w⟩ cos(a, w)²` of the first picture."""
    still = Views(shift=0.0, degrees=0.0, smallest=1.0, largest=1.0)
    model = colour_model()
    direction = np.abs(np.random.default_rng(0).normal(size=(1, 14))).astype(np.float32)
    key = jax.random.key(5)
    found = visualize(model, direction, steps=1, rate=1e-6, views=still, key=key)
    own = jax.random.fold_in(jax.random.split(key)[0], 0)[None]
    start = to_picture(Spectrum(16, 0.8), weak_noise(Spectrum(16, 0.8), FLOAT, keys=own))
    a = np.asarray(model.features(start)).mean(axis=(1, 2))[0]
    dot, cosine = a @ direction[0], a @ direction[0] / np.linalg.norm(a) / np.linalg.norm(direction[0])
    assert cosine > 0.1
    np.testing.assert_allclose(found.history[0, 0], dot * cosine**2, rtol=1e-5)


def test_a_start_from_photographs_has_their_colour_and_spectrum():
    spectrum, count = Spectrum(16, 0.8), 40
    preprocess = Preprocess(size=16, resize=16)
    images = pictures(6, 1)
    keys = jax.random.split(jax.random.key(2), count)
    parameters = mean_spectrum(spectrum, images, preprocess, FLOAT, keys=keys)
    start = np.asarray(to_picture(spectrum, parameters))
    from face_jax.pictures.crop_and_resize import visible
    from face_jax.pictures.photographs import photographs

    real = np.stack([visible(photograph.pixels(), preprocess) for photograph in photographs(images)]) / 255
    logit = lambda values: np.log(np.clip(values, 0.02, 0.98) / (1 - np.clip(values, 0.02, 0.98)))  # noqa: E731
    # Before they are bounded to 0…1, the mean colour is exactly the photographs'.
    np.testing.assert_allclose(
        np.log(start / (1 - start)).mean(axis=(0, 1, 2)), logit(real).mean(axis=(0, 1, 2)), atol=1e-3
    )
    assert start.std(axis=0).min() > 0.01
    power = lambda values: (np.abs(np.fft.rfft2(logit(values), axes=(1, 2))) ** 2).mean(axis=(0, 3))  # noqa: E731
    assert np.corrcoef(np.log(power(real)).ravel(), np.log(power(start)).ravel())[0, 1] > 0.7
    np.testing.assert_array_equal(parameters, mean_spectrum(spectrum, images, preprocess, FLOAT, keys=keys))


def test_coefficients_are_damped_by_their_frequency():
    damping = Spectrum(16, 0.8).damping()
    assert damping.shape == (16, 9)
    np.testing.assert_allclose(damping[0, 2] / damping[0, 4], 2**0.8)
    np.testing.assert_allclose(damping[3, 4] / damping[0, 5], 1.0)
    assert damping[0, 0] == damping[0, 1] == damping.max()


PICTURE = np.random.default_rng(1).uniform(size=(9, 9, 3))


def view(**changes):
    settings: dict[str, Any] = {"shift": 0.0, "degrees": 0.0, "smallest": 1.0, "largest": 1.0} | changes
    return np.asarray(Views(**settings)(jnp.asarray(PICTURE), key=jax.random.key(3)))


def test_a_view_that_changes_nothing_is_the_picture():
    np.testing.assert_allclose(view(), PICTURE, atol=1e-12)


def test_views_are_scaled_about_the_middle_with_grey_around():
    # At half the size, every second pixel; five of nine, with grey from three pixels off the middle on.
    np.testing.assert_allclose(view(smallest=0.5, largest=0.5)[2:7, 2:7], PICTURE[::2, ::2], atol=1e-12)
    np.testing.assert_allclose(view(smallest=0.5, largest=0.5)[0], 0.5, atol=1e-12)
    # Twice as large, every second pixel of the middle is one of the picture's.
    np.testing.assert_allclose(view(smallest=2.0, largest=2.0)[::2, ::2], PICTURE[2:7, 2:7], atol=1e-12)


def test_views_are_moved_and_turned():
    moved = view(shift=0.5)
    assert np.abs(moved - PICTURE).max() > 0.1
    assert (np.abs(moved - 0.5).max(axis=-1) < 1e-9).any()
    turned = view(degrees=90.0)
    np.testing.assert_allclose(turned[4, 4], PICTURE[4, 4], atol=1e-9)
    assert np.abs(turned - PICTURE).max() > 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"rate": 0.0}, "rate=0.0"),
        ({"rate": float("nan")}, "rate=nan"),
        ({"power": -1.0}, "power=-1.0"),
        ({"concepts": [3]}, r"concepts=\[3\] of a dictionary with 3"),
        ({"concepts": []}, r"concepts=\[\]"),
    ],
)
def test_what_cannot_be_made_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        visualize(colour_model(), COLOURS, **change)


def test_a_dictionary_has_two_axes_and_views_have_a_range():
    with pytest.raises(ValueError, match="dictionary has shape"):
        visualize(colour_model(), COLOURS[0])
    with pytest.raises(ValueError, match="dictionary has entries that are NaN or infinite"):
        visualize(colour_model(), np.full_like(COLOURS, np.nan))
    for features in (colour_model().features, OfAnotherFramework()):
        with pytest.raises(ValueError, match="dictionary has 5 channels, and the model's layer 14"):
            visualize(colour_model(features=features), COLOURS[:, :5], steps=1)
    with pytest.raises(ValueError, match="give a shift"):
        Views(smallest=1.2, largest=1.1)

"""Structural similarity against values known and against scikit-image."""

import numpy as np
import pytest

from face_jax.metrics.ssim import structural_similarity

generator = np.random.default_rng(0)
FIRST, SECOND = generator.uniform(size=(2, 3, 20, 24))


def test_equal_maps_are_1_and_opposite_ones_negative():
    np.testing.assert_allclose(structural_similarity(FIRST, FIRST), np.ones(3))
    assert (structural_similarity(FIRST, 1 - FIRST) < -0.5).all()
    assert structural_similarity(np.zeros((20, 24)), np.zeros((20, 24))) == 1


def test_flat_maps_are_compared_by_lightness():
    one, two = np.full((20, 24), 0.2), np.full((20, 24), 0.6)
    expected = (2 * 0.2 * 0.6 + 1e-4) / (0.2**2 + 0.6**2 + 1e-4)
    np.testing.assert_allclose(structural_similarity(one, two), expected)


def test_it_is_scikit_images():
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    for first, second in zip(FIRST, SECOND, strict=True):
        expected = metrics.structural_similarity(
            first, second, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0
        )
        np.testing.assert_allclose(structural_similarity(first, second), expected, rtol=1e-10)


def test_small_or_unequal_maps_are_refused():
    with pytest.raises(ValueError, match="11 × 11 pixels or more"):
        structural_similarity(FIRST[..., :8], SECOND[..., :8])
    with pytest.raises(ValueError, match="give the same"):
        structural_similarity(FIRST, SECOND[:2])

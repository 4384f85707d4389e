"""Black-box maps: closed forms of affine codes, and others that can be counted out."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import AFFINE, DICTIONARY, GRADIENT, IMAGES, ONE, of_pixels, pixels

from face_jax.attribution import HSIC, LIME, RISE, KernelSHAP, Occlusion, SobolRegions, sobol_regions
from face_jax.attribution.hsic import hsic
from face_jax.attribution.kernel_shap import drawn_masks
from face_jax.attribution.lime import weighted_ridge
from face_jax.attribution.perturbed import perturbed_codes
from face_jax.attribution.regions import grid_regions

# What each pixel adds to the sum of the places' codes.
ADDS = (GRADIENT[:, None] * IMAGES[None]).sum(-1)
# Its sum over the four quarters, at each pixel of them.
QUARTERS = ADDS.reshape(3, 2, 2, 4, 2, 4).sum(axis=(3, 5), keepdims=True)
QUARTERS = np.broadcast_to(QUARTERS, (3, 2, 2, 4, 2, 4)).reshape(3, 2, 8, 8)


def test_regions_of_a_grid_that_does_not_divide_the_picture():
    np.testing.assert_array_equal(grid_regions(3, 5, 2)[:, 0], [0, 0, 2])
    np.testing.assert_array_equal(grid_regions(3, 5, 2)[0], [0, 0, 0, 1, 1])
    with pytest.raises(ValueError, match="grid=4 is finer than the pixels of 3 × 5; give at most 3"):
        grid_regions(3, 5, 4)


def test_occlusion_of_an_affine_code():
    maps = Occlusion(patch=4, stride=4)(AFFINE, DICTIONARY, IMAGES, pooled=False)
    np.testing.assert_allclose(maps, QUARTERS, rtol=1e-9, atol=1e-9)
    assert not maps[2].any()


@pytest.mark.parametrize("baseline", [0.0, 0.3])
def test_occlusion_with_patches_that_overlap(baseline):
    maps = Occlusion(patch=3, stride=2, baseline=baseline, batch=5)(AFFINE, DICTIONARY, IMAGES, pooled=False)
    adds = (GRADIENT[:, None] * (IMAGES - baseline)[None]).sum(-1)
    lost, cover = np.zeros_like(adds), np.zeros((8, 8))
    # The last patch doesn't fit the step of 2 and lies flush with the edge.
    for top, left in itertools.product((0, 2, 4, 5), repeat=2):
        place = (..., slice(top, top + 3), slice(left, left + 3))
        lost[place] += adds[place].sum(axis=(-2, -1), keepdims=True)
        cover[place] += 1
    np.testing.assert_allclose(maps, lost / cover, rtol=1e-8, atol=1e-9)


def test_occlusion_makes_the_masks_of_a_batch_and_no_others(monkeypatch):
    made = []

    def recorded(asked, baseline, *, masks, **rest):
        def keeps(part):
            made.append(masks(part))
            return made[-1]

        yield from perturbed_codes(asked, baseline, masks=keeps, **rest)

    monkeypatch.setattr("face_jax.attribution.occlusion.perturbed_codes", recorded)
    Occlusion(patch=3, stride=2, batch=5)(AFFINE, DICTIONARY, IMAGES)
    assert max(len(masks) for masks in made) <= 5
    corners = list(itertools.product((0, 2, 4, 5), repeat=2))
    for mask, (top, left) in zip(np.concatenate(made), corners, strict=True):
        assert not mask[top : top + 3, left : left + 3].any()
        assert mask.sum() == 64 - 9


@pytest.mark.parametrize("centred", [False, True])
def test_rise_is_the_mean_of_masks_weighted_by_codes(centred):
    method = RISE(masks=9, cells=3, probability=0.4, batch=4, centred=centred)
    key = jax.random.key(2)
    maps = method(AFFINE, DICTIONARY, IMAGES, pooled=False, key=key)
    masks = np.asarray(method.draw(np.arange(9), 8, 8, jnp.float64, key=key))
    assert masks.min() >= 0
    assert masks.max() <= 1
    hidden = np.stack([(GRADIENT[:, None] * (mask[:, :, None] * IMAGES)[None]).sum((-3, -2, -1)) for mask in masks])
    codes = hidden + 4 * np.array([60.0, 84.0, 0.0])[None, :, None]
    if centred:
        codes -= codes.mean(axis=0)
    np.testing.assert_allclose(maps, np.einsum("mkn,myx->knyx", codes, masks) / (9 * 0.4), rtol=1e-9)


def test_rise_masks_show_each_pixel_with_the_probability():
    method = RISE(cells=2, probability=0.3)
    masks = np.asarray(method.draw(np.arange(3000), 8, 8, jnp.float64, key=jax.random.key(0)))
    # Five standard errors of a mean of 3000 values, each between 0 and 1 with this mean.
    assert np.abs(masks.mean(0) - 0.3).max() < 5 * math.sqrt(0.3 * 0.7 / 3000)


def test_rise_of_an_affine_code_with_a_cell_for_each_pixel():
    # Without enlarging, pixels are independent: E[U M_λ] / p = w_λ x_λ + p Σ_{j≠λ} w_j x_j + constant.
    model = of_pixels(lambda x: x @ jnp.asarray([1.0, 2.0, 3.0, 4.0]) + 20)
    adds = np.array([2.0, -2.0, 3.0, 0.0])
    count = 20_000
    plain, centred = (
        RISE(masks=count, cells=2, batch=count, centred=centred)(model, ONE, pixels(2, -1, 1, 0), key=jax.random.key(1))
        for centred in (False, True)
    )
    expected = adds + 0.5 * (adds.sum() - adds) + 20
    # A term is below 2 · 25, so its standard deviation is below 25; centred, codes are at most 4 from their mean.
    assert np.abs(plain.reshape(4) - expected).max() < 5 * 25 / math.sqrt(count)
    assert np.abs(centred.reshape(4) - 0.5 * adds).max() < 5 * 2 * 4 / math.sqrt(count)


@pytest.mark.parametrize("pooled", [False, True])
def test_sobol_of_an_affine_code(pooled):
    maps = SobolRegions(grid=2, designs=1024, batch=8192)(AFFINE, DICTIONARY, IMAGES, pooled=pooled)
    expected = QUARTERS[:2] ** 2 / ((QUARTERS[:2] ** 2).sum(axis=(-2, -1), keepdims=True) / 16)
    np.testing.assert_allclose(maps[:2], expected, atol=0.02)
    assert not maps[2].any()


def test_sobol_counts_what_regions_do_together():
    # A product of two uniforms: variance 7/144, of which each explains 3/144 alone, so 1 − 3/7 is gone without it.
    model = of_pixels(lambda x: x[:, 0] * x[:, 1])
    maps = SobolRegions(grid=2, designs=2048, batch=16384)(model, ONE, pixels(1, 1, 1, 1))
    np.testing.assert_allclose(maps[0, 0], [[4 / 7, 4 / 7], [0, 0]], atol=0.02)


def test_hsic_of_every_mask_once():
    masks = np.asarray(list(itertools.product((False, True), repeat=3)))
    # Only the first region matters: distances are 0 or c, and the median of those that aren't zero is c.
    found = hsic(masks, 5.0 * masks[:, 0])
    np.testing.assert_allclose(found, [(1 - math.exp(-0.5)) / 4, 0, 0], atol=1e-15)
    assert not hsic(masks, np.full(8, 3.0)).any()


def test_hsic_is_the_trace_it_stands_for():
    random = np.random.default_rng(4)
    masks, codes = random.random((16, 3)) < 0.5, random.normal(size=16)
    centre = np.eye(16) - 1 / 16
    distance = np.abs(codes[:, None] - codes[None])
    kernel = np.exp(-(distance**2) / (2 * np.median(distance[distance > 0]) ** 2))
    for region in range(3):
        same = (masks[:, region, None] == masks[None, :, region]) - 0.5
        expected = np.trace(same @ centre @ kernel @ centre) / 16**2
        assert hsic(masks, codes)[region] == pytest.approx(expected, rel=1e-10)


def test_hsic_finds_the_one_region_that_matters():
    model = of_pixels(lambda x: 3 * x[:, 2] + 1)
    maps = HSIC(grid=2, designs=256, batch=256)(model, ONE, pixels(1, 1, 1, 1))
    assert maps[0, 0, 1, 0] == pytest.approx((1 - math.exp(-0.5)) / 4, rel=1e-9)
    assert np.delete(maps.reshape(4), 2).max() < 0.02 * maps.max()


@pytest.mark.parametrize("method", [LIME(grid=2, samples=12), KernelSHAP(grid=2, samples=14), KernelSHAP(2, 10)])
def test_linear_models_are_exact_for_affine_codes(method):
    maps = method(AFFINE, DICTIONARY, IMAGES, pooled=False)
    np.testing.assert_allclose(maps, QUARTERS, rtol=1e-8, atol=1e-8)


def test_kernel_shap_with_every_mask_is_the_mean_over_orders():
    weights, image = np.array([1.0, 1.0, 2.0, 3.0]), np.array([1.0, 2.0, 0.5, 1.0])
    model = of_pixels(lambda x: jax.nn.relu(x @ jnp.asarray(weights) - 3))

    def value(regions):
        return max(sum(weights[i] * image[i] for i in regions) - 3, 0)

    expected = np.zeros(4)
    for order in itertools.permutations(range(4)):
        for at, region in enumerate(order):
            expected[region] += (value(order[: at + 1]) - value(order[:at])) / 24
    maps = KernelSHAP(grid=2)(model, ONE, pixels(*image))
    np.testing.assert_allclose(maps.reshape(4), expected, rtol=1e-9)
    # Drawn masks estimate; the sum is exact whatever is drawn.
    drawn = KernelSHAP(grid=2, samples=10)(model, ONE, pixels(*image), key=jax.random.key(3))
    assert drawn.sum() == pytest.approx(value(range(4)), rel=1e-12)


def test_drawn_masks_follow_shapleys_kernel():
    masks = drawn_masks(5, 20_000, np.random.default_rng(0))
    sizes = np.bincount(masks.sum(1).astype(int), minlength=6) / 20_000
    chance = np.array([0, 1 / 4, 1 / 6, 1 / 6, 1 / 4, 0])
    np.testing.assert_allclose(sizes, chance / chance.sum(), atol=5 * math.sqrt(0.25 / 10_000))
    np.testing.assert_allclose(masks.mean(0), 0.5, rtol=1e-12)


def test_ridge_is_scikit_learns():
    from sklearn.linear_model import Ridge

    random = np.random.default_rng(0)
    design, values, weight = random.integers(0, 2, (30, 4)) * 1.0, random.normal(size=(30, 2)), random.random(30)
    expected = Ridge(alpha=0.1 * weight.sum()).fit(design, values, sample_weight=weight).coef_.T
    np.testing.assert_allclose(weighted_ridge(design, values, weight, 0.1), expected, rtol=1e-9)
    expected = Ridge(alpha=0).fit(design, values, sample_weight=weight).coef_.T
    np.testing.assert_allclose(weighted_ridge(design, values, weight, 0.0), expected, rtol=1e-9)


def test_lime_gives_masks_near_the_picture_more_weight():
    # The code is there only when nothing is hidden; the narrower the weight, the more a region takes the blame.
    model = of_pixels(lambda x: jnp.prod(x, axis=1))
    wide, narrow = (
        LIME(grid=2, samples=200, width=width)(model, ONE, pixels(1, 1, 1, 1)).mean() for width in (10.0, 0.1)
    )
    assert 0 < wide < 0.5 * narrow


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_indices_of_regions_do_not_depend_on_the_unit_of_codes(unit):
    codes = np.random.default_rng(0).random((4 * 8, 3)).astype(np.float32)
    found, expected = (sobol_regions._indices(x, 2) for x in (codes * np.float32(unit), codes))
    assert expected.min() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-5)

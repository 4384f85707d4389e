"""Which crops are taken of photographs of any shape, and how many at most."""

import jax
import numpy as np
import pytest

from face_jax.model import Preprocess
from face_jax.pictures.crop_rules import MOST_CROPS, GridCrops, NativeCrops, RandomCrops

KEY = jax.random.key(0)
SHAPES = [(30, 40), (1, 900), (900, 1), (1, 1), (7, 3)]


@pytest.mark.parametrize(
    "cropping",
    [
        RandomCrops(per_image=5),
        GridCrops(),
        GridCrops(size=0.3, overlap=0.2),
        NativeCrops(Preprocess(size=16, resize=20), size=8),
    ],
)
def test_crops_lie_inside_whatever_the_shape_and_are_as_many_as_said(cropping):
    found = cropping(SHAPES, key=KEY)
    edges = np.asarray(SHAPES)[found.image]
    assert len(found) == cropping.count(SHAPES)
    assert (found.box[:, :2] >= 0).all()
    assert (found.box[:, 2:] <= edges).all()
    if cropping.__class__ is not NativeCrops:
        assert (found.box[:, 2:] > found.box[:, :2]).all()


def test_a_grid_of_too_many_crops_is_refused_before_it_is_laid():
    # A grid of steps of a pixel has as many crops as the photograph is long.
    assert GridCrops().count([(1, MOST_CROPS)]) == MOST_CROPS
    with pytest.raises(
        ValueError, match=r"size=0.5, overlap=0.5 make 20,000 crops of a photograph of 20000 × 1 pixels"
    ):
        GridCrops()([(30, 40), (1, 20_000)], key=KEY)
    with pytest.raises(
        ValueError, match=r"size=0.01, overlap=0.9 make [\d,]+ crops .* larger size or a smaller overlap"
    ):
        GridCrops(size=0.01, overlap=0.9).count([(3000, 4000)])


def test_native_crops_are_limited_where_they_are_made():
    with pytest.raises(
        ValueError, match=r"size=64, overlap=0.999 make 25,921 crops of each photograph, more than 10,000"
    ):
        NativeCrops(Preprocess(), overlap=0.999)

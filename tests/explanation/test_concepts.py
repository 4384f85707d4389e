"""Crops, and the strongest of them."""

import jax
import numpy as np
import pytest

from face_jax.activations import Crops, GridCrops, RandomCrops
from face_jax.explanation.concepts import coverage, overlap, strongest_crops
from face_jax.model import Preprocess
from face_jax.pictures.crop_rules import NativeCrops

KEY = jax.random.key(5)


def test_random_crops_are_squares_inside_of_all_sizes():
    shapes = [(60, 90), (100, 50)]
    crops = RandomCrops(per_image=400, smallest=0.25, largest=0.6)(shapes, key=KEY)
    assert crops.image.tolist() == [0] * 400 + [1] * 400
    edges = np.asarray(shapes)[crops.image]
    side = crops.box[:, 2:] - crops.box[:, :2]
    assert (side[:, 0] == side[:, 1]).all()
    assert (crops.box[:, :2] >= 0).all()
    assert (crops.box[:, 2:] <= edges).all()
    share = side[:, 0] / edges.min(-1)
    assert share.min() == pytest.approx(0.25, abs=0.02)
    assert share.max() == pytest.approx(0.6, abs=0.02)
    # Every corner of the photograph is reached.
    assert crops.box[:400, 2].max() >= 59
    assert crops.box[:400, 3].max() >= 88


def test_grid_crops_cover_everything():
    (height, width) = (61, 94)
    crops = GridCrops(size=0.5, overlap=0.5)([(height, width)], key=KEY)
    seen = np.zeros((height, width), bool)
    for top, left, bottom, right in crops.box:
        assert bottom <= height
        assert right <= width
        seen[top:bottom, left:right] = True
    assert seen.all()


def test_one_strongest_crop_of_each_photograph():
    crops = Crops(image=np.array([0, 0, 1, 1, 2]), box=np.tile([0, 0, 9, 9], (5, 1)))
    assert strongest_crops(np.array([5.0, 4, 3, 6, 0]), crops, 8) == (3, 0)
    assert strongest_crops(np.array([5.0, 4, 3, 6, 0]), crops, 1) == (3,)


def test_several_crops_of_a_photograph_if_asked():
    box = np.array([[0, 0, 9, 9], [20, 20, 29, 29], [0, 0, 9, 9], [1, 0, 10, 9], [0, 0, 9, 9]])
    crops = Crops(image=np.array([0, 0, 1, 1, 2]), box=box)
    codes = np.array([5.0, 4, 3, 6, 0])
    assert strongest_crops(codes, crops, 8, one_each=False) == (3, 0, 1)
    assert strongest_crops(codes, crops, 8) == (3, 0)


def test_of_a_single_photograph_crops_of_different_places():
    box = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    crops = Crops(image=np.zeros(3, np.int64), box=box)
    assert strongest_crops(np.array([3.0, 2, 1]), crops, 8) == (0, 2)


def test_overlap_by_hand():
    assert overlap(np.array([0, 0, 10, 10]), np.array([0, 5, 10, 15])) == pytest.approx(1 / 3)
    assert overlap(np.array([0, 0, 10, 10]), np.array([10, 10, 20, 20])) == 0


def test_coverage_counts_photographs():
    crops = Crops(image=np.repeat(np.arange(4), 5), box=np.tile([0, 0, 9, 9], (20, 1)))
    codes = np.zeros((20, 2))
    codes[:, 0] = 1.0
    codes[3, 1] = 1.0
    np.testing.assert_allclose(coverage(codes, crops), [1.0, 0.25])


def test_native_crops_are_the_papers_sixteen_windows():
    preprocess = Preprocess(size=224, resize=256)
    shapes = [(256, 256), (512, 700)]
    crops = NativeCrops(preprocess)(shapes, key=KEY)
    assert crops.image.tolist() == [0] * 16 + [1] * 16
    assert sorted(set(crops.window[:, 0])) == [0, 51, 102, 153]
    assert (crops.window[:, 2:] - crops.window[:, :2] == 64).all()
    # At 256 pixels the input is the photograph without its border of 16; at 512 everything is twice as large.
    np.testing.assert_array_equal(crops.box[:16], crops.window[:16] + 16)
    np.testing.assert_array_equal(crops.box[16:, 0], 2 * (crops.window[16:, 0] + 16))
    np.testing.assert_array_equal(crops.box[16:, 1], 2 * crops.window[16:, 1] + 32 + (700 - 512) // 2)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: RandomCrops(per_image=0), "per_image=0"),
        (lambda: RandomCrops(largest=2.0), r"largest=2\.0"),
        (lambda: RandomCrops(smallest=0.9, largest=0.2), r"smallest=0\.9, largest=0\.2"),
        (lambda: RandomCrops(smallest=-1.0), r"smallest=-1\.0"),
        (lambda: GridCrops(size=2.0), r"size=2\.0"),
        (lambda: GridCrops(size=0.0), r"size=0\.0"),
        (lambda: GridCrops(size=float("nan")), "size=nan"),
        (lambda: GridCrops(overlap=1.0), r"overlap=1\.0"),
        (lambda: GridCrops(overlap=-0.1), r"overlap=-0\.1"),
        (lambda: NativeCrops(Preprocess(), size=0), "size=0"),
        (lambda: NativeCrops(Preprocess(), size=225), "size=225 isn't a part of a network's input of 224"),
        (lambda: NativeCrops(Preprocess(), overlap=1.0), r"overlap=1\.0"),
    ],
)
def test_crops_that_would_lie_outside_or_stand_still_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


def test_crops_may_be_as_large_as_the_short_side():
    crops = RandomCrops(per_image=5, smallest=1.0, largest=1.0)([(30, 40)], key=KEY)
    assert (crops.box[:, [0, 2]] == [0, 30]).all()
    assert len(GridCrops(size=1.0, overlap=0.0)([(30, 30)], key=KEY)) == 1

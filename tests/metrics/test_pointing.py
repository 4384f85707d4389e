"""The pointing game by hand, and its boxes against the cut that photographs really get."""

import numpy as np
import pytest

from face_jax import metrics
from face_jax.activations import Crops
from face_jax.model import Preprocess
from face_jax.pictures.crop_and_resize import visible


def test_hits_and_chances_by_hand():
    maps = np.zeros((4, 4, 6))
    maps[0, 1, 2] = 1  # inside
    maps[1, 3, 5] = 1  # outside
    maps[2, 1, 2] = maps[2, 3, 5] = 1  # as high inside as outside
    # The last map says nothing, which hits as a random pixel does.
    boxes = np.asarray([[1, 2, 2, 4], [1, 2, 2, 4], [1, 2, 2, 4], [0, 0, 4, 2]])
    found = metrics.pointing_game(maps, boxes)
    np.testing.assert_allclose(found.hits, [1, 0, 0.5, 1 / 3], rtol=1e-12)
    np.testing.assert_allclose(found.chances, [1 / 12, 1 / 12, 1 / 12, 1 / 3], rtol=1e-12)
    assert found.rate == pytest.approx(11 / 24)
    assert found.chance == pytest.approx(7 / 48)
    surplus = np.asarray([1 - 1 / 12, -1 / 12, 0.5 - 1 / 12, 0])
    assert found.standard_error == pytest.approx(np.sqrt(((surplus - surplus.mean()) ** 2).sum() / 3 / 4))


def test_pointing_to_the_middle_is_told_apart():
    boxes = np.asarray([[1, 2, 2, 4], [0, 0, 4, 2]])
    found = metrics.pointing_game(np.ones((2, 4, 6)), boxes)
    np.testing.assert_array_equal(found.middles, [1, 0])
    assert found.middle == 0.5
    assert found.off_middle().rate == pytest.approx(1 / 3)
    assert np.isnan(found.off_middle().standard_error)
    with pytest.raises(ValueError, match="all 1 boxes hold the picture's middle"):
        metrics.pointing_game(np.ones((1, 4, 6)), boxes[:1]).off_middle()


def test_random_maps_hit_by_chance():
    random = np.random.default_rng(0)
    corners = random.integers(0, 5, (4000, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 4, (4000, 2))], axis=1)
    found = metrics.pointing_game(random.random((4000, 8, 8)), boxes)
    assert abs(found.rate - found.chance) < 4 * found.standard_error
    assert 0 < found.standard_error < 0.01


def test_bad_boxes_and_maps_are_refused():
    maps = np.zeros((2, 4, 4))
    with pytest.raises(ValueError, match=r"boxes\[1\]=\[0, 0, 5, 1\] is empty or reaches out of maps of 4 × 4"):
        metrics.pointing_game(maps, np.asarray([[0, 0, 4, 1], [0, 0, 5, 1]]))
    with pytest.raises(ValueError, match=r"boxes\[0\]=\[2, 2, 2, 3\] is empty"):
        metrics.pointing_game(maps, np.asarray([[2, 2, 2, 3], [0, 0, 1, 1]]))
    with pytest.raises(ValueError, match="maps has 2 cases and boxes 1"):
        metrics.pointing_game(maps, np.asarray([[0, 0, 1, 1]]))
    maps[1, 2, 2] = np.nan
    with pytest.raises(ValueError, match=r"maps\[1\] has NaN"):
        metrics.pointing_game(maps, np.asarray([[0, 0, 1, 1], [0, 0, 1, 1]]))


@pytest.mark.parametrize("shape", [(60, 91), (91, 60), (48, 48)])
def test_boxes_lie_where_their_crops_are_seen(shape):
    preprocess = Preprocess(size=32, resize=40)
    middle = np.asarray(shape) // 2
    box = np.concatenate([middle - np.asarray([9, 12]), middle + np.asarray([6, 3])])
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels[box[0] : box[2], box[1] : box[3]] = 255
    rows, columns = np.nonzero(visible(pixels, preprocess)[..., 0] > 127)
    seen = [rows.min(), columns.min(), rows.max() + 1, columns.max() + 1]
    crops = Crops(image=np.asarray([0]), box=box[None])
    found = metrics.pointing_cases([(), (0,)], crops, [shape], preprocess)
    assert found.concept.tolist() == [1]
    np.testing.assert_allclose(found.box[0], seen, atol=1)


def test_crops_that_are_hardly_seen_are_left_out():
    preprocess = Preprocess(size=32, resize=32)
    crops = Crops(image=np.asarray([0, 1, 1]), box=np.asarray([[0, 0, 20, 20], [0, 10, 20, 30], [0, 14, 20, 34]]))
    # Of a picture of 32 × 64, the network sees columns 16 to 47.
    found = metrics.pointing_cases([(1, 0, 2)], crops, [(32, 32), (32, 64)], preprocess, visible=0.75)
    assert found.image.tolist() == [0, 1]
    np.testing.assert_array_equal(found.box, [[0, 0, 20, 20], [0, 0, 20, 18]])
    assert len(metrics.pointing_cases([(1, 0, 2)], crops, [(32, 32), (32, 64)], preprocess, most=1)) == 0


def test_boxes_on_a_squashed_input_are_squeezed_as_the_photograph_is():
    preprocess = Preprocess(size=32, resize=(40, 40))
    crops = Crops(image=np.asarray([0]), box=np.asarray([[20, 40, 60, 120]]))
    found = metrics.pointing_cases([(0,)], crops, [(80, 160)], preprocess)
    # Half and a quarter as large, less a border of 4 pixels.
    np.testing.assert_array_equal(found.box, [[6, 6, 26, 26]])

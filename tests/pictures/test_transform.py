"""Functions of a user's own as preprocessing: used as they are, tried for what they keep, refused where they vary."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

import face_jax as fj
from face_jax.metrics import pointing_cases
from face_jax.pictures.crop_and_resize import Place, place_of, visible
from face_jax.pictures.crop_rules import Crops, GridCrops, NativeCrops, proportioned
from face_jax.pictures.photographs import network_input, photographs
from face_jax.pictures.showing import view_of

KEY = jax.random.key(0)
BILINEAR = Image.Resampling.BILINEAR
GENERATOR = np.random.default_rng(3)
PIXELS = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)


def planes(picture) -> np.ndarray:
    values = np.asarray(picture, np.float32) / 255
    return values[None] if values.ndim == 2 else values.transpose(2, 0, 1)


def centre(picture, short=40, height=24, width=32):
    """What a `Preprocess` of these numbers does, written with Pillow."""
    across, down = picture.size
    size = (short * across // down, short) if across >= down else (short, short * down // across)
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    return picture.resize(size, BILINEAR).crop((left, top, left + width, top + height))


def cut(picture):
    return (planes(centre(picture)) - 0.5) / 0.25


def squash(picture):
    return planes(picture.resize((32, 24), BILINEAR))


def bordered(picture):
    return planes(ImageOps.pad(picture, (32, 24), BILINEAR, color=(99, 99, 99)))


def grey(picture):
    return planes(centre(picture).convert("L"))


SAME = {
    cut: fj.Preprocess(size=(24, 32), resize=40),
    squash: fj.Preprocess(size=(24, 32), resize=(24, 32)),
    bordered: fj.Preprocess(size=(24, 32), resize=(24, 32), fit="contain"),
    grey: fj.Preprocess(size=(24, 32), resize=40),
}


@pytest.mark.parametrize("shape", [(60, 90), (131, 97), (64, 64)])
@pytest.mark.parametrize("function", SAME, ids=lambda function: function.__name__)
def test_what_it_keeps_of_a_photograph_is_found_out(function, shape):
    own, known = place_of(shape, fj.Transform(function)), place_of(shape, SAME[function])
    np.testing.assert_allclose(own.resized, known.resized, atol=1)
    np.testing.assert_allclose(own.corner, known.corner, atol=1)


def test_pictures_in_reports_are_what_it_keeps():
    transform = fj.Transform(cut)
    expected = visible(PIXELS, SAME[cut])
    assert np.abs(visible(PIXELS, transform).astype(int) - expected).mean() < 12
    # The source's own colours, whatever the network gets: of a grey network too.
    (photograph,) = photographs([PIXELS])
    coloured = view_of(photograph, fj.Transform(grey))
    assert np.ptp(coloured.astype(int), axis=-1).mean() > 30
    assert view_of(photograph, transform, finer=3).shape == (72, 96, 3)


def test_maps_crops_and_boxes_lie_where_a_preprocess_of_the_same_has_them():
    transform, known = fj.Transform(cut), SAME[cut]
    native, other = (NativeCrops(each, size=16)([(60, 90)], key=KEY) for each in (transform, known))
    np.testing.assert_array_equal(native.window, other.window)
    np.testing.assert_allclose(native.box, other.box, atol=1)
    crops = Crops(np.zeros(1, np.int64), np.asarray([[20, 30, 40, 60]]))
    boxes = [pointing_cases([(0,)], crops, [(60, 90)], each).box for each in (transform, known)]
    np.testing.assert_allclose(boxes[0], boxes[1], atol=1)
    grids = [proportioned(GridCrops(), each)([(60, 90)], key=KEY).box for each in (transform, known)]
    np.testing.assert_allclose(*grids, atol=1)


def test_normalization_is_found_out_where_there_is_one():
    transform = fj.Transform(cut)
    assert transform.normalized
    np.testing.assert_allclose((transform.mean, transform.std), ([0.5] * 3, [0.25] * 3), atol=1e-5)
    assert not fj.Transform(lambda picture: planes(centre(picture)) ** 2).normalized


@pytest.mark.parametrize(
    "function",
    [
        lambda picture: planes(centre(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        lambda picture: planes(picture.resize((24, 24)).rotate(90)),
        lambda picture: planes(picture.resize((24, 24)).rotate(20)),
        lambda picture: np.abs(np.fft.fft2(planes(picture.resize((24, 24))))).astype(np.float32),
    ],
)
def test_what_is_no_upright_part_shows_the_whole_photograph_and_says_so(function):
    transform = fj.Transform(function)
    assert not transform.placed
    assert "maps may lie elsewhere" in transform.notes[0]
    height, width, _ = transform.shape
    assert place_of((60, 90), transform) == Place((height, width), (0, 0))
    assert not fj.Transform(cut).notes


def test_photographs_of_one_value_or_of_a_line_need_no_place():
    assert visible(np.full((1, 300, 3), 7, np.uint8), fj.Transform(cut)).shape == (24, 32, 3)


@pytest.mark.parametrize("channels", [1, 3, 4, 5])
def test_it_is_given_pictures_of_so_many_channels(channels):
    kinds = {1: "L", 3: "RGB", 4: "RGBA"}
    modes = []

    def function(picture):
        modes.append(getattr(picture, "mode", type(picture).__name__))
        values = np.asarray(picture, np.float32)[:8, :8] / 255
        return values.reshape(8, 8, -1).transpose(2, 0, 1)

    transform = fj.Transform(function, channels=channels)
    assert transform.shape == (8, 8, channels)
    assert transform.reads == channels
    assert set(modes) == {kinds.get(channels, "ndarray")}
    pixels = np.random.default_rng(1).integers(0, 256, (9, 9, channels), np.uint8)
    np.testing.assert_array_equal(network_input(pixels, transform), pixels[:8, :8].astype(np.float32) / 255)


def drawing(picture):
    return squash(picture) + np.float32(GENERATOR.random() < 0.5)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (drawing, r"test_transform\.drawing draws at random"),
        (planes, "gives 131 × 97 pixels of 3 channels for a picture of 131 × 97 pixels and 113 × 150 pixels"),
        (lambda picture: np.asarray(picture.resize((32, 24)), np.float32), "channels seem to be last"),
        (lambda picture: np.asarray(picture.resize((32, 24))), "of uint8; let it give real numbers channel y x"),
        (lambda picture: squash(picture)[None], r"gives shape \(1, 3, 24, 32\)"),
        (lambda picture: squash(picture) * np.nan, "gives NaN or infinity"),
        (lambda picture: picture.nothing, "fails .AttributeError: .*; give a function of a Pillow picture"),
        (None, "function is a NoneType, which can't be called"),
        (dict, "function is a type, which can't be called"),
    ],
)
def test_functions_that_give_no_network_input_are_refused(function, said):
    with pytest.raises(ValueError, match=said):
        fj.Transform(function)


def test_another_shape_or_nan_of_a_later_picture_is_refused():
    def sometimes(picture):
        return squash(picture)[:, : 20 if picture.size == (90, 60) else 24] / (picture.size != (50, 50))

    transform = fj.Transform(sometimes)
    with pytest.raises(ValueError, match="of 90 × 60 pixels gives 32 × 20 pixels of 3 channels, and gave 32 × 24"):
        network_input(PIXELS, transform)
    with np.errstate(all="ignore"), pytest.raises(ValueError, match="of 50 × 50 pixels gives NaN"):
        network_input(PIXELS[:50, :50], transform)
    with pytest.raises(ValueError, match=r"shape \(60, 90, 1\), and preprocess is given 3 channels"):
        network_input(PIXELS[..., :1], transform)


def test_it_is_known_by_its_name_and_by_what_it_does():
    first, again, other = fj.Transform(cut), fj.Transform(cut), fj.Transform(squash)
    assert first == again != other
    assert hash(first) == hash(again)
    assert repr(first) == repr(again) != repr(other)
    assert first != fj.Preprocess() != first
    assert first.digest in repr(first)
    assert "0x" not in repr(fj.Transform(_Object()))
    assert dataclasses.asdict(first).keys() == dataclasses.asdict(fj.Preprocess()).keys()


class _Object:
    def __call__(self, picture):
        return squash(picture)


def test_models_take_functions_of_pictures():
    from toy_model import colour_model

    model = colour_model(preprocess=squash)
    assert isinstance(model.preprocess, fj.Transform)
    expected = squash(Image.fromarray(PIXELS)).transpose(1, 2, 0)
    np.testing.assert_array_equal(model.preprocess([PIXELS])[0], expected)
    with pytest.raises(ValueError, match=r"preprocess=the class Preprocess isn't valid"):
        colour_model(preprocess=fj.Preprocess)

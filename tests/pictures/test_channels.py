"""Photographs of other channels than red, green and blue: from files and arrays, resized channel by channel, shown."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from face_jax.model import Preprocess
from face_jax.pictures.crop_and_resize import visible
from face_jax.pictures.photographs import UnreadablePhotographError, network_input, photographs, resized
from face_jax.pictures.showing import in_colours, view_of

GENERATOR = np.random.default_rng(0)
COLOURS = GENERATOR.integers(0, 256, (31, 43, 3), np.uint8)
FIVE = GENERATOR.integers(0, 256, (31, 43, 5), np.uint8)


def plain(channels: int, **settings) -> Preprocess:
    return Preprocess(mean=(0.0,) * channels, std=(1.0,) * channels, **settings)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "CMYK", "1"])
def test_one_channel_is_the_grey_that_pillow_makes_of_colours(tmp_path, mode):
    made = Image.fromarray(COLOURS).convert(mode)
    made.save(tmp_path / "a.tiff")
    with Image.open(tmp_path / "a.tiff") as opened:
        expected = np.asarray(opened.convert("RGB").convert("L"))[..., None]
    for source in (tmp_path / "a.tiff", made):
        (photograph,) = photographs(source, channels=1)
        np.testing.assert_array_equal(photograph.pixels(1), expected)


def test_colours_in_arrays_become_grey_like_those_in_files():
    expected = np.asarray(Image.fromarray(COLOURS).convert("L"))[..., None]
    for source in (COLOURS, COLOURS[None], [COLOURS], COLOURS / 255, [torch.from_numpy(COLOURS).movedim(-1, 0)]):
        np.testing.assert_array_equal(photographs(source, channels=1)[0].pixels(1), expected)
    np.testing.assert_array_equal(photographs(COLOURS)[0].pixels(1), expected)


@pytest.mark.parametrize(
    "source",
    [
        lambda grey: grey,
        lambda grey: grey[..., None],
        lambda grey: grey[:, None],
        lambda grey: torch.from_numpy(grey),
        lambda grey: torch.from_numpy(grey)[:, None].float() / 255,
        lambda grey: list(grey),
        lambda grey: [torch.from_numpy(one)[None] for one in grey],
        lambda grey: [(Image.fromarray(one), 3) for one in grey],
    ],
)
def test_grey_arrays_of_every_layout_are_the_same_pictures(source):
    grey = GENERATOR.integers(0, 256, (5, 12, 14), np.uint8)
    found = photographs(source(grey), channels=1)
    np.testing.assert_array_equal(np.stack([one.pixels(1) for one in found])[..., 0], grey)


def test_one_grey_picture_and_files_of_grey_arrays(tmp_path):
    grey = COLOURS[..., 0]
    (one,) = photographs(grey, channels=1)
    np.testing.assert_array_equal(one.pixels(1)[..., 0], grey)
    np.savez(tmp_path / "many.npz", images=np.stack([grey, 255 - grey]), labels=np.arange(2))
    np.testing.assert_array_equal(photographs(tmp_path / "many.npz", channels=1)[1].pixels(1)[..., 0], 255 - grey)


def test_sixteen_bits_of_grey_become_eight(tmp_path):
    grey = COLOURS[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.png")
    np.testing.assert_array_equal(photographs(tmp_path, channels=1)[0].pixels(1)[..., 0], grey)


@pytest.mark.parametrize("layout", ["y x c", "image y x c", "torch", "npy"])
def test_five_channels_come_from_arrays(tmp_path, layout):
    np.save(tmp_path / "five.npy", FIVE[None])
    source = {
        "y x c": FIVE,
        "image y x c": FIVE[None],
        "torch": torch.from_numpy(FIVE).movedim(-1, 0)[None],
        "npy": tmp_path / "five.npy",
    }[layout]
    np.testing.assert_array_equal(photographs(source, channels=5)[0].pixels(5), FIVE)


def test_opacity_is_the_fourth_channel_where_four_are_asked_for(tmp_path):
    four = FIVE[..., :4]
    Image.fromarray(four).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", Image.fromarray(four), four):
        np.testing.assert_array_equal(photographs(source, channels=4)[0].pixels(4), four)
    # Asked for three, a file has the colours that it keeps under what is transparent.
    np.testing.assert_array_equal(photographs(tmp_path / "a.png")[0].pixels(3), four[..., :3])
    Image.fromarray(four[..., :2]).save(tmp_path / "b.png")
    np.testing.assert_array_equal(photographs(tmp_path / "b.png", channels=2)[0].pixels(2), four[..., :2])


def test_pages_of_a_tiff_are_channels(tmp_path):
    pages = [Image.fromarray(np.ascontiguousarray(page)) for page in np.moveaxis(FIVE, -1, 0)]
    pages[0].save(tmp_path / "five.tiff", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(photographs(tmp_path / "five.tiff", channels=5)[0].pixels(5), FIVE)
    with Image.open(tmp_path / "five.tiff") as opened:
        opened.seek(2)
        np.testing.assert_array_equal(photographs(opened, channels=5)[0].pixels(5), FIVE)
        assert opened.tell() == 2


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_samples_of_a_tiff_are_channels_where_their_reader_is_installed(tmp_path, planar):
    tifffile = pytest.importorskip("tifffile", reason="reads TIFF files of five samples a pixel, and isn't installed")
    values = FIVE if planar == "contig" else np.moveaxis(FIVE, -1, 0)
    tifffile.imwrite(tmp_path / "five.tiff", values, photometric="minisblack", planarconfig=planar)
    np.testing.assert_array_equal(photographs(tmp_path / "five.tiff", channels=5)[0].pixels(5), FIVE)
    # Another number than there are is no picture to a network, nor is a damaged file.
    with pytest.raises(UnreadablePhotographError, match=r"five\.tiff: "):
        photographs(tmp_path / "five.tiff", channels=6)[0].pixels(6)
    (tmp_path / "cut.tiff").write_bytes((tmp_path / "five.tiff").read_bytes()[:900])
    with pytest.raises(UnreadablePhotographError, match=r"cut\.tiff: "):
        photographs(tmp_path / "cut.tiff", channels=5)[0].pixels(5)


@pytest.mark.parametrize(
    ("channels", "array", "said"),
    [
        (1, np.zeros((9, 8, 4), np.uint8), r"shape \(9, 8, 4\), and preprocess .* one channel; give grey images"),
        (1, np.zeros((2, 9, 8, 5), np.uint8), "of one channel"),
        (4, COLOURS, r"preprocess of the network is of 4 channels; give images as y x 4 or image y x 4"),
        (5, FIVE[..., 0], "of 5 channels"),
        (5, np.moveaxis(FIVE, -1, 0), r"channels are moved there by np.moveaxis\(image, -3, -1\)"),
        (3, COLOURS[..., 0], r"colours last.*np\.repeat.*one channel, give its Preprocess one number"),
    ],
)
def test_arrays_of_other_channels_are_refused_with_the_layout(channels, array, said):
    with pytest.raises(ValueError, match=said):
        photographs(array, channels=channels)


@pytest.mark.parametrize(("made", "there", "wanted"), [("RGB", 3, 4), ("L", 1, 4), ("RGBA", 4, 5), ("CMYK", 4, 2)])
def test_files_of_other_channels_are_left_out_by_name(tmp_path, made, there, wanted):
    Image.fromarray(COLOURS).convert(made).save(tmp_path / "a.tiff")
    said = rf"a\.tiff: {there} channels? \(Pillow's mode {made}\), and the network, .* takes {wanted}; give"
    with pytest.raises(UnreadablePhotographError, match=said):
        photographs(tmp_path, channels=wanted)[0].pixels(wanted)


def test_pixels_of_other_channels_than_asked_for_are_refused():
    with pytest.raises(UnreadablePhotographError, match=r"image: 5 channels \(an array\), and the network"):
        photographs(FIVE, channels=5)[0].pixels(4)
    with pytest.raises(ValueError, match=r"pixels has shape \(31, 43, 5\), and mean and std .* 3 channels"):
        network_input(FIVE, Preprocess())


@pytest.mark.parametrize("interpolation", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_each_channel_is_resized_like_a_grey_picture(interpolation):
    preprocess = plain(5, size=(12, 20), resize=20, interpolation=interpolation)
    small = visible(FIVE, preprocess)
    for channel in range(5):
        grey = Image.fromarray(np.ascontiguousarray(FIVE[..., channel]))
        expected = grey.resize((27, 20), Image.Resampling[interpolation.upper()]).crop((4, 4, 24, 16))
        np.testing.assert_array_equal(small[..., channel], np.asarray(expected))
        box = grey.crop((3, 2, 33, 22)).resize((20, 12), Image.Resampling[interpolation.upper()])
        np.testing.assert_array_equal(resized(FIVE, (2, 3, 22, 33), (12, 20), preprocess)[..., channel], box)
    np.testing.assert_array_equal(network_input(FIVE, preprocess), small.astype(np.float32) / np.float32(255))


def test_each_channel_has_its_own_mean_and_deviation():
    mean, std = (0.1, 0.2, 0.3, 0.4, 0.5), (1.0, 2.0, 3.0, 4.0, 5.0)
    given = network_input(FIVE, Preprocess(size=(31, 43), resize=(31, 43), mean=mean, std=std))
    np.testing.assert_allclose(given, (FIVE / 255 - mean) / std, atol=1e-6)


def test_people_see_grey_as_grey_and_three_of_many_channels():
    np.testing.assert_array_equal(in_colours(FIVE), FIVE[..., :3])
    np.testing.assert_array_equal(in_colours(FIVE, (4, 2, 0)), FIVE[..., [4, 2, 0]])
    np.testing.assert_array_equal(in_colours(FIVE, (3,)), FIVE[..., [3, 3, 3]])
    np.testing.assert_array_equal(in_colours(FIVE[..., :2]), FIVE[..., [0, 0, 0]])
    (photograph,) = photographs(COLOURS, channels=1)
    grey = np.asarray(Image.fromarray(COLOURS).convert("L"))
    view = view_of(photograph, plain(1, size=(31, 43), resize=(31, 43)))
    np.testing.assert_array_equal(view, np.repeat(grey[..., None], 3, axis=-1))


def test_notes_say_which_channels_are_shown():
    assert Preprocess().notes == plain(1).notes == ()
    assert "have 5 channels, of which pictures show channels 1, 2, 3 as red" in plain(5).notes[0]
    assert "channels 5, 3, 1 as red" in plain(5, shown=(4, 2, 0)).notes[0]
    assert "channel 4 in grey" in plain(5, shown=[3]).notes[0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": (1, 2, 3)}, r"size=\(1, 2, 3\) is no height and width"),
        ({"size": (0, 2)}, r"size=\(0, 2\) is no height"),
        ({"resize": "256"}, r"resize='256' isn't a number of pixels"),
        ({"fit": "cover"}, r"fit='cover' with resize=256, .* give resize=\(256, 256\)"),
        ({"fit": "stretch", "resize": (2, 2)}, "fit='stretch' is unknown"),
        ({"mean": ()}, r"mean=\(\) isn't valid"),
        ({"mean": (0.5,)}, r"mean=\(0.5,\) is of 1 channels and std=.* of 3"),
        ({"fill": (1, 2)}, "fill=.* has 2 values and mean is of 3"),
        ({"fill": (1, 2, 256)}, "fill=.* whole numbers of 0…255"),
        ({"shown": (0, 1)}, "shown=.* give three channels"),
        ({"shown": (0, 1, 3)}, "shown=.* whole numbers of 0…2"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        Preprocess(**settings)


def test_equal_sides_are_a_square_input_and_still_squash():
    assert Preprocess(size=(32, 32)) == Preprocess(size=32)
    squashed = Preprocess(size=32, resize=(32, 32))
    expected = Image.fromarray(COLOURS).resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(visible(COLOURS, squashed), expected)
    assert squashed.shape == (32, 32, 3)


def test_a_pillow_picture_in_memory_has_its_channels_too():
    buffer = io.BytesIO()
    Image.fromarray(FIVE[..., :4]).save(buffer, format="PNG")
    (photograph,) = photographs(Image.open(buffer), channels=4)
    np.testing.assert_array_equal(photograph.pixels(4), FIVE[..., :4])

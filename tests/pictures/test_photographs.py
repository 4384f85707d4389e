"""Photographs from every source, and what the network gets of them."""

import dataclasses
import os
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from face_jax.activations import survey
from face_jax.heads import Affine
from face_jax.model import Preprocess, SplitModel
from face_jax.pictures import crop_and_resize
from face_jax.pictures.crop_and_resize import visible, visible_box
from face_jax.pictures.photographs import (
    NoPhotographsError,
    Photograph,
    UnreadablePhotographError,
    network_input,
    photographs,
)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (61, 83, 3), dtype=np.uint8)


def test_a_folder_is_read_in_the_order_of_names_below_it_too(tmp_path, picture):
    (tmp_path / "b").mkdir()
    for name in ("c.png", "a.png", "b/d.png", ".hidden.png"):
        Image.fromarray(picture).save(tmp_path / name)
    found = photographs(tmp_path)
    assert [one.name for one in found] == ["a.png", "b/d.png", "c.png"]
    np.testing.assert_array_equal(found[0].pixels(), picture)


def test_equal_names_in_several_folders_are_told_apart_by_the_folders(tmp_path, picture):
    for folder in ("one/left", "one/right", "other/left"):
        (tmp_path / folder / "below").mkdir(parents=True)
        for name in ("0.png", "below/0.png"):
            Image.fromarray(picture).save(tmp_path / folder / name)
    np.save(tmp_path / "one" / "demo.npy", picture)
    np.save(tmp_path / "other" / "demo.npy", picture)
    Image.fromarray(picture).save(tmp_path / "alone.png")
    one, other = tmp_path / "one", tmp_path / "other"

    def names(source):
        return [photograph.name for photograph in photographs(source)]

    assert names([one / "left", str(one / "right")]) == [
        "left/0.png", "left/below/0.png", "right/0.png", "right/below/0.png",
    ]  # fmt: skip
    assert names([[one / "left"], other / "left", tmp_path / "alone.png"]) == [
        "one/left/0.png", "one/left/below/0.png", "other/left/0.png", "other/left/below/0.png", "alone.png",
    ]  # fmt: skip
    assert names([one / "left" / "0.png", one / "right" / "0.png"]) == ["left/0.png", "right/0.png"]
    assert names([one / "demo.npy", other / "demo.npy"]) == ["one/demo", "other/demo"]
    # There's nothing to tell apart in one photograph given twice.
    assert names([tmp_path / "alone.png"] * 2) == ["alone.png"] * 2


def test_a_name_that_is_not_utf8_is_shown_and_its_file_is_read(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "plain.png")
    for letter in (b"\xe9", b"\xe8"):
        shutil.copy(os.fsencode(tmp_path / "plain.png"), os.fsencode(tmp_path) + b"/caf" + letter + b".png")
    found = photographs(tmp_path)
    assert [one.name for one in found] == [r"caf\xe8.png", r"caf\xe9.png", "plain.png"]
    for one in found:
        np.testing.assert_array_equal(one.pixels(), picture)


def test_a_file_with_other_content_than_expected_is_not_read(tmp_path, picture):
    file = tmp_path / "0.png"
    Image.fromarray(picture).save(file)
    expecting = Photograph("0.png", file, Photograph("0.png", file).digest())
    np.testing.assert_array_equal(expecting.pixels(), picture)
    Image.fromarray(picture[::-1]).save(file)
    with pytest.raises(UnreadablePhotographError, match=r"0.png: '.*' is another picture now than the one .*images="):
        expecting.pixels()


def test_npz_of_images(tmp_path, picture):
    np.savez(tmp_path / "demo.npz", images=np.stack([picture, picture[::-1]]), labels=np.arange(2))
    found = photographs(tmp_path / "demo.npz")
    assert [one.name for one in found] == ["demo 0", "demo 1"]
    np.testing.assert_array_equal(found[1].pixels(), picture[::-1])


def test_arrays_of_real_numbers_and_single_pictures(picture):
    (real,) = photographs(picture / 255)
    (whole,) = photographs(picture.astype(np.int64))
    (pillow,) = photographs(Image.fromarray(picture))
    for one in (real, whole, pillow):
        np.testing.assert_array_equal(one.pixels(), picture)


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("/nowhere/at/all", NoPhotographsError, "does not exist"),
        ([], NoPhotographsError, "no pictures"),
        (np.zeros((4, 5)), ValueError, "colours last"),
        (np.zeros((3, 8, 8)), ValueError, "colours last"),
        (np.full((4, 4, 3), 300.0), ValueError, "0…1"),
        (np.full((4, 4, 3), -1), ValueError, "0…255"),
        (np.full((4, 4, 3), np.nan), ValueError, "0…1"),
    ],
)
def test_bad_sources(source, error, said):
    with pytest.raises(error, match=said):
        photographs(source)


def test_an_npz_without_one_array_of_images(tmp_path, picture):
    np.savez(tmp_path / "two.npz", a=picture, b=picture)
    with pytest.raises(ValueError, match="exactly one array"):
        photographs(tmp_path / "two.npz")


@pytest.mark.parametrize("content", [b"no picture at all", b""])
def test_files_that_are_no_pictures(tmp_path, content):
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(UnreadablePhotographError, match=r"notes.txt: not a picture"):
        photographs(tmp_path)[0].pixels()


def test_a_truncated_file(tmp_path, picture):
    Image.fromarray(picture).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    with pytest.raises(UnreadablePhotographError, match=r"cut.jpg"):
        photographs(tmp_path / "cut.jpg")[0].pixels()


def test_grey_transparent_and_turned_pictures_become_upright_rgb(tmp_path, picture):
    Image.fromarray(picture).convert("L").save(tmp_path / "a.png")
    Image.fromarray(picture).convert("RGBA").save(tmp_path / "b.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture).save(tmp_path / "c.png", exif=exif)
    grey, clear, turned = (one.pixels() for one in photographs(tmp_path))
    assert grey.shape == clear.shape == picture.shape
    np.testing.assert_array_equal(turned, np.rot90(picture, -1))


@pytest.mark.parametrize("file", ["a.png", "a.tiff"])
def test_sixteen_bits_become_eight(tmp_path, picture, file):
    grey = picture[..., 0]
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / file)
    np.testing.assert_array_equal(photographs(tmp_path)[0].pixels(), np.repeat(grey[..., None], 3, axis=-1))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_without_a_range_are_refused_by_name(tmp_path, picture, mode):
    Image.fromarray(picture).convert("L").convert(mode).save(tmp_path / "depth.tiff")
    with pytest.raises(UnreadablePhotographError, match=rf"depth.tiff: its values \(Pillow's mode {mode}\) .* 16 bits"):
        photographs(tmp_path)[0].pixels()


def test_digest_follows_content(tmp_path, picture):
    one, other = Photograph("a", picture), Photograph("b", picture.copy())
    changed = picture.copy()
    changed[0, 0, 0] ^= 1
    assert one.digest() == other.digest() != Photograph("a", changed).digest()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(61, 83), (90, 60), (64, 64), (48, 70)])
def test_input_is_torchvisions_to_the_bit(shape, interpolation):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    preprocess = Preprocess(size=40, resize=48, interpolation=interpolation)
    transforms = torchvision.transforms
    theirs = transforms.Compose(
        [
            transforms.Resize(48, transforms.InterpolationMode(interpolation)),
            transforms.CenterCrop(40),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )(Image.fromarray(pixels))
    assert isinstance(theirs, torch.Tensor)
    np.testing.assert_allclose(network_input(pixels, preprocess), theirs.permute(1, 2, 0).numpy(), atol=1e-6)


def test_a_box_is_cut_before_it_is_resized():
    pixels = np.zeros((60, 60, 3), np.uint8)
    pixels[10:20, 30:40] = 255
    preprocess = Preprocess(size=8, resize=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    np.testing.assert_array_equal(network_input(pixels, preprocess, (10, 30, 20, 40)), 1)
    np.testing.assert_array_equal(network_input(pixels, preprocess, (30, 0, 50, 20)), 0)


@pytest.mark.parametrize(("size", "resize"), [(40, 48), (48, 48)])
def test_squashed_photographs_are_resized_whole_and_their_box_is_what_is_visible(size, resize):
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    preprocess = Preprocess(size=size, resize=(resize, resize))
    beside = (resize - size) // 2
    expected = Image.fromarray(pixels).resize((resize, resize), Image.Resampling.BILINEAR)
    expected = expected.crop((beside, beside, beside + size, beside + size))
    np.testing.assert_array_equal(visible(pixels, preprocess), expected)
    assert visible_box((60, 90), preprocess) == ((5, 8, 55, 82) if size == 40 else (0, 0, 60, 90))


def test_the_visible_box_is_what_is_visible():
    pixels = np.zeros((100, 140, 3), np.uint8)
    preprocess = Preprocess(size=80, resize=100)
    top, left, bottom, right = visible_box((100, 140), preprocess)
    pixels[top:bottom, left:right] = 255
    assert visible(pixels, preprocess).min() == 255


def test_preprocessing_holds_tuples_whatever_was_given():
    given = Preprocess(mean=[0.5, 0.5, 0.5], std=[0.25] * 3)
    assert given == Preprocess(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert hash(given) == hash(dataclasses.replace(given))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"size": 0}, "size=0"),
        ({"resize": -1}, "resize=-1"),
        ({"mean": (0.5,)}, r"mean=\(0\.5,\)"),
        ({"std": (0.2, 0.0, 0.2)}, r"std=\(0\.2, 0\.0, 0\.2\).*above 0"),
        ({"mean": (0.5, float("nan"), 0.5)}, "mean=.*nan"),
    ],
)
def test_preprocessing_that_is_none_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        Preprocess(**wrong)


def test_another_interpolation_is_refused_by_name():
    preprocess = Preprocess()
    # Past the annotation, as without a type checker.
    object.__setattr__(preprocess, "interpolation", "sinc")
    with pytest.raises(ValueError, match=r"interpolation='sinc' is unknown; give 'nearest' or .* or 'lanczos'"):
        preprocess.__post_init__()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("shape", [(30, 200), (251, 40), (9, 1000)])
def test_of_long_photographs_only_what_is_kept_is_resized_to_the_same(monkeypatch, shape, interpolation):
    # Far from black and white: Pillow clips what overshoots between its two passes, whose order depends on the lengths.
    pixels = np.random.default_rng(2).integers(96, 160, (*shape, 3), dtype=np.uint8)
    for size, resize in ((40, 48), (48, 48), (60, 48)):
        preprocess = Preprocess(size=size, resize=resize, interpolation=interpolation)
        of_the_whole = visible(pixels, preprocess)
        with monkeypatch.context() as patch:
            patch.setattr(crop_and_resize, "_LARGE", 0)
            of_the_box = visible(pixels, preprocess)
        # Where a pixel lies is rounded otherwise.
        different = np.abs(of_the_box.astype(int) - of_the_whole)
        assert different.max() <= 1
        # With Lanczos' wide filter Pillow takes the passes of the part in another order, and rounds between them.
        assert (different > 0).mean() < (0.5 if interpolation == "lanczos" else 0.01)


@pytest.mark.parametrize("shape", [(1, 20_000), (60_000, 1), (3, 65_000)])
def test_slivers_take_no_more_memory_than_others(monkeypatch, shape):
    sizes = []
    resize = Image.Image.resize

    def noting(self, size, *rest, **how):
        sizes.append(size)
        return resize(self, size, *rest, **how)

    monkeypatch.setattr(Image.Image, "resize", noting)
    pixels = np.full((*shape, 3), 100, np.uint8)
    assert (visible(pixels, Preprocess()) == 100).all()
    assert max(max(size) for size in sizes) <= 256


def test_preprocessing_gives_the_very_input_that_networks_get(tmp_path, picture):
    for number in range(3):
        Image.fromarray(np.roll(picture, number, axis=0)).save(tmp_path / f"{number}.png")
    given = []

    def features(images):
        given.append(np.asarray(images))
        return jnp.abs(images)

    preprocess = Preprocess(size=40, resize=48)
    head = Affine(jnp.ones((3, 2), jnp.float32), jnp.zeros(2, jnp.float32))
    model = SplitModel(features, head, "layer", preprocess, ("a", "b"), "name", "print")
    inputs = preprocess(tmp_path)
    survey(model, photographs(tmp_path), batch=3)
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(given[0], inputs)
    theirs = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(48),
            torchvision.transforms.CenterCrop(40),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )(Image.fromarray(picture))
    np.testing.assert_allclose(np.moveaxis(inputs, -1, 1)[0], theirs, atol=1e-6)
    (tmp_path / "notes.txt").write_text("words")
    with pytest.raises(UnreadablePhotographError, match=r"notes.txt: not a picture"):
        preprocess(tmp_path)

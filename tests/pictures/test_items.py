"""Where pictures come from in a program: lists, generators, data sets, loaders, arrays of every layout, array files."""

import collections
import io
import os
import pathlib
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Subset, TensorDataset
from toy_model import pictures

from face_jax.pictures.photographs import NoPhotographsError, photographs
from face_jax.support import memory

PIXELS = pictures(3, 0)
TENSOR = torch.from_numpy(PIXELS).movedim(-1, 1)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "red").mkdir()
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(tmp_path / "red" / f"{number}.png")
    return tmp_path


class MapStyle:
    """A data set as torch's: a length and items, and no end to its items but the length."""

    def __len__(self):
        return 3

    def __getitem__(self, number):
        return Image.fromarray(PIXELS[number % 3]), number


def to_tensor(folder):
    return torchvision.datasets.ImageFolder(folder, torchvision.transforms.ToTensor())


@pytest.mark.parametrize(
    "source",
    [
        lambda folder: sorted((folder / "red").glob("*.png")),
        lambda folder: (file for file in sorted((folder / "red").glob("*.png"))),
        lambda folder: iter(sorted(os.scandir(folder / "red"), key=lambda entry: entry.name)),
        lambda folder: tuple(pathlib.PurePath(folder, "red", f"{number}.png") for number in range(3)),
        lambda folder: collections.deque(str(folder / "red" / f"{number}.png") for number in range(3)),
        lambda folder: np.array([str(folder / "red" / f"{number}.png") for number in range(3)]),
        lambda folder: {number: folder / "red" / f"{number}.png" for number in range(3)}.values(),
        lambda folder: torchvision.datasets.ImageFolder(folder),
        lambda folder: torchvision.datasets.ImageFolder(folder).samples,
        to_tensor,
        lambda folder: Subset(torchvision.datasets.ImageFolder(folder), range(3)),
        lambda folder: DataLoader(to_tensor(folder), batch_size=2),
        lambda _: MapStyle(),
        lambda _: TensorDataset(TENSOR, torch.arange(3)),
        lambda _: DataLoader(TensorDataset(TENSOR / 255), batch_size=2),
        lambda _: DataLoader(TensorDataset(torch.from_numpy(PIXELS), torch.arange(3)), batch_size=2),
        lambda _: ({"image": Image.fromarray(pixels), "label": 2} for pixels in PIXELS),
        lambda _: [{"img": pixels, "label": 2} for pixels in PIXELS],
        lambda _: [{"image": TENSOR, "label": torch.arange(3)}],
        lambda _: [(pixels, {"boxes": [1, 2]}) for pixels in PIXELS],
        lambda _: [(Image.fromarray(pixels), [{"bbox": [1, 2]}]) for pixels in PIXELS],
        lambda _: zip(PIXELS, range(3), strict=True),
        lambda _: map(Image.fromarray, PIXELS),
        lambda _: TENSOR,
        lambda _: torch.from_numpy(PIXELS),
        lambda _: (TENSOR / 255).requires_grad_(),
        lambda _: jnp.asarray(PIXELS),
        lambda _: jnp.asarray(PIXELS / 255, jnp.float32),
        lambda _: [TENSOR[0], PIXELS[1], Image.fromarray(PIXELS[2])],
        lambda _: np.asarray(PIXELS, ">i4"),
        lambda _: list(PIXELS / 255),
    ],
)
def test_every_picture_is_taken_in_its_order(folder, source):
    found = photographs(source(folder))
    np.testing.assert_array_equal([one.pixels() for one in found], PIXELS)
    assert len({one.name for one in found}) == 3


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ({"a.png"}, r"image is a set, which has no order; give sorted"),
        (frozenset({"a.png"}), r"image is a frozenset, which has no order"),
        ({"a": "a.png"}, r"image is a dict; give the pictures alone, as list\(….values\(\)\)"),
        (b"a.png", r"image is bytes; give a path as text"),
        (io.BytesIO(), r"image is an open file \(BytesIO\); give its path"),
        (None, r"image is of type NoneType, out of which no pictures come; give a folder"),
        (3, r"image is of type int"),
        ([3.5], r"image 0 is of type float"),
        ([{"path": "a.png"}], r"image 0 is a dict with 'path', in which it .*item\['image'\]"),
        ([{"a": Image.fromarray(PIXELS[0]), "b": Image.fromarray(PIXELS[0])}], r"a dict with 'a', 'b', in which"),
        ([(PIXELS[0], PIXELS[1])], r"image 0 is a tuple of ndarray, ndarray, in which it isn't clear"),
        ([(Image.fromarray(PIXELS[0]), "red")], r"image 0 is a tuple of Image, str, in which it isn't clear"),
        ([("a.png", "b.png")], r"image 0 is a tuple of str, str"),
        ("", r"images='' names nothing"),
        ([""], r"images='' names nothing"),
        ("a\0b", r"can't be looked at \(embedded null byte\)"),
        ("a" * 5000, r"images='a{100}' can't be looked at \(File name too long\)"),
        (iter(()), "holds no pictures"),
        (np.zeros((0, 4, 4, 3)), "holds no pictures"),
    ],
)
def test_what_no_pictures_come_from_is_refused_with_the_remedy(source, said):
    with pytest.raises(ValueError, match=said):
        photographs(source)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (TENSOR[0], r"shape \(3, 32, 40\), in which it isn't clear where the colours are; .*movedim\(-3, -1\)"),
        (torch.zeros(2, 3, 9, 3), r"shape \(2, 3, 9, 3\), in which it isn't clear where the colours are"),
        (TENSOR.float(), r"values from 0 to 240; give integers 0…255 or real numbers 0…1"),
        (TENSOR.to_sparse(), r"a Tensor that can't be read as an array \(.*\); give a NumPy array"),
        (TENSOR.to("meta"), r"a Tensor that can't be read as an array"),
        (np.moveaxis(PIXELS, -1, 1), r"shape \(3, 3, 32, 40\); .*colours last.*np.moveaxis\(image, -3, -1\)"),
        (np.moveaxis(PIXELS[0], -1, 0), r"np.moveaxis\(image, -3, -1\)"),
        (jnp.moveaxis(jnp.asarray(PIXELS), -1, 1), r"np.moveaxis\(image, -3, -1\)"),
        (PIXELS[0, ..., 0], r"np.repeat\(image\[..., None\], 3, axis=-1\)"),
        (np.zeros((5, 28, 28)), r"np.repeat\(image\[..., None\], 3, axis=-1\)"),
        (PIXELS[..., :1], r"np.repeat\(image, 3, axis=-1\)"),
        (np.zeros((5, 1, 28, 28)), r"np.repeat\(np.moveaxis\(image, -3, -1\), 3, axis=-1\)"),
        (np.zeros((5, 28, 28, 4)), r"image\[..., :3\]"),
        (PIXELS / 127.5 - 1, r"values from -1 to 0.88"),
        (PIXELS / 255 / 255, r"float64 values from 0 to 0.00369\d*, which is black"),
        ((PIXELS > 100).astype(np.int64), r"int64 values from 0 to 1, which is black"),
        (PIXELS.astype(np.uint16) * 257, r"values from 0 to 61680"),
        (PIXELS > 3, r"dtype bool"),
        (PIXELS + 0j, r"dtype complex128"),
        (np.ma.masked_less(PIXELS, 10), r"values that are masked"),
        (np.array(None), r"shape \(\)"),
    ],
)
def test_no_layout_and_no_range_is_taken_for_another(array, said):
    with pytest.raises(ValueError, match=said):
        photographs(array)


def test_coarser_floats_are_rounded_to_the_nearest_value():
    for array in (torch.from_numpy(PIXELS / 255).bfloat16(), jnp.asarray(PIXELS / 255, jnp.bfloat16)):
        found = np.stack([one.pixels() for one in photographs(array)])
        assert np.abs(found.astype(int) - PIXELS).max() <= 1


def test_a_pipe_is_no_source(tmp_path):
    for name in ("pipe", "pipe.png", "pipe.npz"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(NoPhotographsError, match=r"is a named pipe; give a folder"):
            photographs(tmp_path / name)


def header(shape, kind="|u1"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.npz", b""), ("a.npy", b""), ("a.npz", b"PK\x03\x04"), ("a.npy", b"words"), ("a.npz", b"\x80\x04N."),
        ("a.npy", header((10**6, 10**6, 3))), ("a.npy", header((2, 4, 4, 3)) + bytes(5)),
        ("a.npy", header((1, 4, 3), "|O") + bytes(500)), ("a.npy", b"\x93NUMPY\x01\x00\xff\xff"),
    ],
)  # fmt: skip
def test_broken_arrays_are_refused_in_a_sentence(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"^images='.*{name}' can't be read as an array of images \(.+\); write it"):
        photographs(tmp_path / name)


def test_an_archive_that_claims_more_than_there_is_memory_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 10**9)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as packed:
        packed.writestr("images.npy", header((10**6, 10**3, 3)))
        packed.writestr("labels.npy", header((5,)) + bytes(5))
    with pytest.raises(
        memory.NotEnoughMemoryError, match=r"'images' of shape \(1000000, 1000, 3\) would need about 2.8"
    ):
        photographs(tmp_path / "a.npz")

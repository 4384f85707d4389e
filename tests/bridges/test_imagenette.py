"""FACE's ten classes through torchvision's loader: from a folder that's there, and without internet."""

import numpy as np
import pytest
from face_jax.bridges.imagenette_photographs import ImagenetteError
from PIL import Image

from face_jax import bridges, photographs


@pytest.fixture
def folder(tmp_path):
    for wnid in ("n01440764", "n03028079"):
        there = tmp_path / "imagenette2-320" / "val" / wnid
        there.mkdir(parents=True)
        for number in range(2):
            pixels = np.full((8, 8, 3), 40 * number, np.uint8)
            Image.fromarray(pixels).save(there / f"{wnid}_{number}.JPEG")
    return tmp_path


def test_a_class_that_is_there_needs_no_internet(folder):
    found = bridges.imagenette("Church", folder)
    assert [path.name for path in found] == ["n03028079_0.JPEG", "n03028079_1.JPEG"]
    assert photographs(found)[1].pixels().mean() == pytest.approx(40, abs=2)


def test_unknown_class(folder):
    with pytest.raises(ImagenetteError, match=r"'cat'.*tench, English springer"):
        bridges.imagenette("cat", folder)


def test_without_internet_it_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(ImagenetteError, match=r"no internet.*imagenette2-320.tgz.*--images FOLDER"):
        bridges.imagenette("tench", tmp_path)

"""Text–image models from folders: made from a configuration, nothing is downloaded."""

import numpy as np
import pytest
import torch
import transformers
from face_jax.bridges.models import UnknownModelError, WeightsError
from small_clip import LAYERS, write_clip

from face_jax import bridges

PICTURES = [
    np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    for seed, shape in enumerate(((40, 60, 3), (32, 32, 3), (9, 200, 3)))
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


def test_pictures_and_texts_lie_where_transformers_puts_them(folder):
    model = bridges.load_text_image(folder)
    own, processor = transformers.CLIPModel.from_pretrained(folder), transformers.CLIPProcessor.from_pretrained(folder)
    given = processor(text=["a photo of red", "blue"], images=PICTURES, return_tensors="pt", padding=True)  # pyright: ignore[reportCallIssue]
    with torch.no_grad():
        expected = own(**given)
    unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)  # noqa: E731
    np.testing.assert_allclose(unit(model.pictures(PICTURES)), expected.image_embeds, atol=1e-5)
    np.testing.assert_allclose(unit(model.texts(["a photo of red", "blue"])), expected.text_embeds, atol=1e-5)
    assert repr(model) == f"TextImageModel({folder.name!r})"


def test_a_text_longer_than_the_model_reads_is_cut(folder):
    model = bridges.load_text_image(folder)
    long = "a photo of " + "red " * 50
    assert np.isfinite(model.texts([long, "red"])).all()


def test_what_is_no_text_image_model_is_refused(folder, tmp_path):
    with pytest.raises(UnknownModelError, match=r"neither a folder nor hf/OWNER/NAME"):
        bridges.load_text_image("openai/clip")
    with pytest.raises(ValueError, match="name=3 isn't the path of a text–image model's folder"):
        bridges.load_text_image(3)
    with pytest.raises(WeightsError, match="the model can't be read"):
        bridges.load_text_image(tmp_path)
    vision = tmp_path / "vit"
    transformers.ViTModel(transformers.ViTConfig(**LAYERS, image_size=32, patch_size=8)).save_pretrained(vision)
    with pytest.raises(UnknownModelError, match="is a ViTModel, which doesn't put texts and pictures into one space"):
        bridges.load_text_image(vision)


def test_a_folder_without_tokenizer_and_damaged_weights_are_refused(folder, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UnknownModelError, match="its processor can't be read"):
        bridges.load_text_image(bare)
    (bare / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(WeightsError, match="the model can't be read"):
        bridges.load_text_image(bare)

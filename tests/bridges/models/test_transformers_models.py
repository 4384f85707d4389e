"""transformers' image classifiers from folders: weights, preprocessing and names; nothing is downloaded."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers
from face_jax.bridges.models import UnknownModelError, WeightsError
from safetensors.torch import load_file

from face_jax import bridges

NAMES = ("cat, tabby", "dog", "fish")
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
    "id2label": dict(enumerate(NAMES)),
    "label2id": {name: number for number, name in enumerate(NAMES)},
}


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(1)
    return transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL)).eval()


@pytest.fixture(scope="module")
def folder(vit, tmp_path_factory):
    path = tmp_path_factory.mktemp("vit")
    vit.save_pretrained(path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def same_logits(one, other):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.equal(one(images).logits, other(images).logits)


def test_a_folder_brings_model_preprocessing_and_classes(vit, folder):
    for name, weights in ((folder, "DEFAULT"), (f"hf/{folder.name}/vit", folder)):
        loaded = bridges.load(name, weights=weights)
        assert same_logits(loaded.model, vit)
        assert not loaded.model.training
        assert loaded.classes == NAMES
        assert loaded.notes == ()
        assert loaded.preprocess == bridges.load(folder).preprocess
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    expected = processor(images=pixels, return_tensors="np")["pixel_values"][0]
    np.testing.assert_allclose(loaded.preprocess(pixels)[0], np.moveaxis(expected, 0, -1), rtol=0, atol=1e-5)


def test_a_folder_without_the_processors_settings_is_prepared_as_usual_and_says_so(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "bare")
    (tmp_path / "bare" / "preprocessor_config.json").unlink()
    loaded = bridges.load(tmp_path / "bare")
    assert (loaded.preprocess.size, loaded.preprocess.resize) == (32, 37)
    assert "has no preprocessor_config.json" in loaded.notes[0]


WRAPPED = {
    "plain": lambda s: s,
    "state_dict, module.": lambda s: {"state_dict": {f"module.{key}": value for key, value in s.items()}},
    "model, _orig_mod.": lambda s: {"model": {f"_orig_mod.{key}": value for key, value in s.items()}},
    "state_dict_ema": lambda s: {"state_dict_ema": s},
    "backbone.": lambda s: {f"backbone.{key}": value for key, value in s.items()},
}


@pytest.mark.parametrize("wrap", WRAPPED)
@pytest.mark.parametrize("names", ["modules", "published"])
def test_files_fit_by_the_names_of_the_modules_and_by_the_published_ones(vit, folder, tmp_path, wrap, names):
    state = vit.state_dict() if names == "modules" else load_file(folder / "model.safetensors")
    torch.save(WRAPPED[wrap](state), tmp_path / "weights.pth")
    loaded = bridges.load(folder, weights=tmp_path / "weights.pth")
    assert same_logits(loaded.model, vit)


def test_weights_in_several_files_are_read(vit, folder, tmp_path):
    vit.save_pretrained(tmp_path, max_shard_size="5KB")
    assert not (tmp_path / "model.safetensors").exists()
    assert same_logits(bridges.load(tmp_path).model, vit)
    assert same_logits(bridges.load(folder, weights=tmp_path / "model.safetensors.index.json").model, vit)


def test_weights_that_dont_fit_are_told_key_by_key(vit, folder, tmp_path):
    state = load_file(folder / "model.safetensors")
    state.pop("classifier.weight")
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"don't fit .*missing classifier\.weight"):
        bridges.load(folder, weights=tmp_path / "part.pth")
    shutil.copytree(folder, tmp_path / "other")
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2}
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=r"don't fit its config\.json: missing vit\.layers\.1\..* and \d+ more"):
        bridges.load(tmp_path / "other")
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1, "hidden_size": 8}))
    with pytest.raises(WeightsError, match=r"of another shape .*classifier\.weight"):
        bridges.load(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500])
    with pytest.raises(WeightsError, match="can't be read"):
        bridges.load(tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="can't be read"):
        bridges.load(tmp_path / "other")


def test_other_numbers_of_classes_are_for_weights_of_ones_own(folder):
    with pytest.raises(WeightsError, match="know 3 classes and classes has 2 names"):
        bridges.load(folder, classes=["a", "b"])
    loaded = bridges.load(folder, weights=None, classes=["a", "b"])
    assert loaded.model(torch.zeros(1, 3, 32, 32)).logits.shape == (1, 2)


def test_one_logit_is_a_binary_network(tmp_path):
    config = transformers.ViTConfig(**{**SMALL, "id2label": {0: "cat"}, "label2id": {"cat": 0}})
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    loaded = bridges.load(tmp_path)
    assert loaded.classes == ("not cat", "cat")
    assert loaded.split("vit.embeddings").halves(np.zeros((2, 32, 32, 3), np.float32))[0].shape == (2, 4, 4, 16)


def test_models_that_classify_no_images_are_refused(tmp_path):
    transformers.ViTModel(transformers.ViTConfig(**SMALL)).save_pretrained(tmp_path / "features")
    with pytest.raises(WeightsError, match="has the weights of a ViTModel, which has no classifier"):
        bridges.load(tmp_path / "features")
    transformers.BertConfig(hidden_size=16).save_pretrained(tmp_path / "text")
    with pytest.raises(UnknownModelError, match="is a bert, of which transformers has no image classifier"):
        bridges.load(tmp_path / "text")


@pytest.mark.parametrize("name", ["hf/google/vit-base-patch16-224", "hf/google/vit-base-patch16-224@main"])
def test_without_internet_says_what_to_download_and_where_to_give_it(name):
    with pytest.raises(
        WeightsError,
        match=r"can't be downloaded .*where there is internet, run: hf download google/vit-base-patch16-224 "
        r"--local-dir FOLDER .*give the folder here: --model FOLDER",
    ):
        bridges.load(name)


def test_without_transformers_says_which_extra_has_it(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"transformers, which .*pip install '\.\[transformers\]'"):
        bridges.load(folder)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"huggingface_hub, .*pip install '\.\[transformers\]'"):
        bridges.load("hf/someone/model")

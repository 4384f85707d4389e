"""Folders that are given as models or as weights, and what is wrong with them."""

import json

import pytest
import torch
from face_jax.bridges.models import UnknownModelError, WeightsError
from face_jax.bridges.models.folders import folder_tensors, weights_file
from safetensors.torch import save_file

from face_jax import bridges


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"has no config\.json"),
        ("{", "is no JSON"),
        ("[]", "holds a list, no settings"),
        ('{"size": 3}', "has neither model_type .* nor architecture"),
        ('{"architecture": "resnet_of_tomorrow"}', "architecture='resnet_of_tomorrow', which this timm"),
        ('{"model_type": "vit_of_tomorrow"}', r"can't read config\.json"),
        ('{"architecture": "test_resnet", "model_args": {"tomorrow": 1}}', "timm can't build"),
    ],
)
def test_folders_that_hold_no_model_say_what_is_wrong(tmp_path, content, said):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UnknownModelError, match=said):
        bridges.load(tmp_path)


def test_paths_that_are_no_folders_say_so(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    with pytest.raises(UnknownModelError, match="is a file; give the model's name, and the file as its weights"):
        bridges.load(str(file))
    with pytest.raises(UnknownModelError, match="is no folder"):
        bridges.load(str(tmp_path / "nowhere"))
    with pytest.raises(UnknownModelError, match=r"timm/NAME and hf/OWNER/NAME"):
        bridges.load("nowhere")
    with pytest.raises(UnknownModelError, match="is no repository of the hub; give hf/OWNER/NAME"):
        bridges.load("hf/a/b/c")


def test_the_weights_of_a_folder_are_found(tmp_path):
    with pytest.raises(WeightsError, match=r"no file of weights; give one with model\.safetensors"):
        weights_file(tmp_path)
    torch.save({"a": torch.ones(2)}, tmp_path / "mine.pth")
    assert weights_file(tmp_path).name == "mine.pth"
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=r"several files of weights; give one of mine\.pth, other\.pt"):
        weights_file(tmp_path)
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model.bin")
    assert weights_file(tmp_path).name == "pytorch_model.bin"
    save_file({"a": torch.ones(3)}, tmp_path / "model.safetensors")
    assert weights_file(tmp_path).name == "model.safetensors"
    assert folder_tensors(tmp_path)[0]["a"].shape == (3,)


def test_tables_of_several_files_stay_in_their_folder(tmp_path):
    table = tmp_path / "model.safetensors.index.json"
    save_file({"a": torch.ones(2)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.ones(3)}, tmp_path / "model-2.safetensors")
    table.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    assert set(folder_tensors(tmp_path)[0]) == {"a", "b"}
    table.write_text(json.dumps({"weight_map": {"a": "../model-1.safetensors"}}))
    with pytest.raises(WeightsError, match="outside the folder"):
        folder_tensors(tmp_path)
    table.write_text("{}")
    with pytest.raises(WeightsError, match="is no table of files"):
        folder_tensors(tmp_path)

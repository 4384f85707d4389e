"""timm's models by name, from folders and with files of weights; nothing is downloaded."""

import re
import sys
from typing import Any

import numpy as np
import pytest
import timm
import torch
from face_jax.bridges.models import UnknownModelError, WeightsError
from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from timm.models import save_for_hf

import face_jax as fj
from face_jax import bridges

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
NAMES = {"n1": "cat, tabby", "n2": "dog", "n3": "fish"}


def transform_of(**settings) -> Any:
    return create_transform(**settings, is_training=False)


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(1)
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **SMALL).eval()


@pytest.fixture(scope="module")
def folder(vit, tmp_path_factory):
    path = tmp_path_factory.mktemp("vit")
    labels = {"label_names": list(NAMES), "label_descriptions": NAMES}
    save_for_hf(vit, path, model_args=SMALL, model_config=labels, safe_serialization=True)
    return path


def same_logits(one, other, size=32):
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.equal(one(images), other(images))


@pytest.mark.parametrize("name", ["timm/test_resnet.r160_in1k", "timm/test-resnet", "timm/test_vit"])
def test_a_name_brings_timms_model_preprocessing_and_classes(name):
    loaded = bridges.load(name, weights=None)
    assert not loaded.model.training
    assert type(loaded.model).__module__.startswith("timm.")
    assert len(loaded.classes) == loaded.model.num_classes == 1000
    assert loaded.classes[281] == "tabby"
    pixels = np.random.default_rng(0).integers(0, 256, (150, 200, 3), np.uint8)
    config = resolve_model_data_config(loaded.model)
    expected = transform_of(**config)(Image.fromarray(pixels))
    np.testing.assert_allclose(loaded.preprocess(pixels)[0], expected.movedim(0, -1), rtol=0, atol=1e-5)
    assert loaded.preprocess.mean == tuple(config["mean"])


@pytest.mark.parametrize("mode", ["squash", "center", "border"])
def test_timms_ways_of_cropping_are_followed(tmp_path, mode):
    model = timm.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay={"crop_mode": mode})
    save_for_hf(model, tmp_path, safe_serialization=True)
    preprocess = bridges.load(tmp_path).preprocess
    assert isinstance(preprocess.resize, int) == (mode == "center")
    pixels = np.random.default_rng(0).integers(0, 256, (50, 80, 3), np.uint8)
    transform = transform_of(**resolve_model_data_config(model))
    expected = transform(Image.fromarray(pixels))
    np.testing.assert_allclose(preprocess(pixels)[0], expected.movedim(0, -1), rtol=0, atol=1e-5)


def test_other_channels_than_three_are_refused(tmp_path):
    save_for_hf(timm.create_model("test_resnet", num_classes=3, in_chans=1), tmp_path, safe_serialization=True)
    with pytest.raises(ValueError, match="takes pictures of 1 channel, which timm's transforms don't make"):
        bridges.load(tmp_path)


def test_a_folder_is_loaded_whole(vit, folder):
    for name, given in (
        (folder, "DEFAULT"),
        (f"timm/local-dir:{folder}", "DEFAULT"),
        ("timm/hf-hub:someone/vit", folder),
        ("hf/someone/vit", folder),
        ("timm/vit_tiny_patch16_224", folder),
    ):
        loaded = bridges.load(name, weights=given)
        assert same_logits(loaded.model, vit)
        assert loaded.classes == tuple(NAMES.values())
        assert (loaded.preprocess.size, loaded.preprocess.resize) == (32, 35)
        assert loaded.notes == ()
    split = bridges.load(folder).split("blocks.0")
    assert split.name == folder.name
    assert split.classes == tuple(NAMES.values())


WRAPPED = {
    "state_dict_ema": lambda s: {"state_dict_ema": s, "epoch": 3},
    "state_dict, module.": lambda s: {"state_dict": {f"module.{key}": value for key, value in s.items()}},
    "model, _orig_mod.": lambda s: {"model": {f"_orig_mod.{key}": value for key, value in s.items()}},
    "model.backbone.": lambda s: {f"model.backbone.{key}": value for key, value in s.items()},
    "ema, module._orig_mod.": lambda s: {"ema": {f"module._orig_mod.{key}": value for key, value in s.items()}},
    "both": lambda s: {"state_dict": s, "state_dict_ema": {key: 2 * value for key, value in s.items()}},
}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_wrapped_files_fit(vit, folder, tmp_path, wrap):
    torch.save(WRAPPED[wrap](vit.state_dict()), tmp_path / "weights.pth")
    loaded = bridges.load(folder, weights=tmp_path / "weights.pth")
    assert same_logits(loaded.model, vit)
    assert bool(loaded.notes) == (wrap == "both")


def published_convnext(key):
    """A name of a ConvNeXt's weights as its authors have it."""
    key = key.replace("stem.", "downsample_layers.0.").replace("head.norm.", "norm.").replace("head.fc.", "head.")
    key = re.sub(r"stages\.(\d)\.downsample\.", r"downsample_layers.\1.", key)
    key = re.sub(r"stages\.(\d)\.blocks\.", r"stages.\1.", key)
    return key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")


def test_a_file_in_the_names_of_the_first_publication_is_converted(tmp_path):
    options = {"depths": (1, 1, 1, 1), "dims": (4, 4, 8, 8), "num_classes": 3}
    torch.manual_seed(0)
    model = timm.create_model("convnext_atto", **options).eval()
    save_for_hf(timm.create_model("convnext_atto", **options), tmp_path, model_args=options, safe_serialization=True)
    state = {f"module.{published_convnext(key)}": value for key, value in model.state_dict().items()}
    torch.save({"model": state}, tmp_path / "published.pth")
    assert same_logits(bridges.load(tmp_path, weights=tmp_path / "published.pth").model, model)


def test_weights_that_dont_fit_are_told_key_by_key(vit, folder, tmp_path):
    state = vit.state_dict()
    state.pop("head.weight")
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(WeightsError, match=r"don't fit .*missing head\.weight"):
        bridges.load(folder, weights=tmp_path / "part.pth")
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=4, **SMALL).state_dict(), tmp_path / "four.pth")
    with pytest.raises(WeightsError, match=r"trained for 4 classes, not 3: give classes= with 4 names"):
        bridges.load(folder, weights=tmp_path / "four.pth")
    loaded = bridges.load(folder, weights=tmp_path / "four.pth", classes=["a", "b", "c", "d"])
    assert loaded.classes == ("a", "b", "c", "d")
    with pytest.raises(WeightsError, match="know 3 classes and classes has 2 names"):
        bridges.load(folder, classes=["a", "b"])
    with pytest.raises(WeightsError, match=r"are of vit_tiny_patch16_224, not of timm/test_resnet"):
        bridges.load("timm/test_resnet", weights=folder)


def test_a_size_is_built_for():
    preprocess = fj.Preprocess(size=96, resize=96)
    loaded = bridges.load("timm/test_vit", weights=None, preprocess=preprocess, classes=["a", "b"])
    assert loaded.preprocess == preprocess
    assert loaded.model(torch.zeros(1, 3, 96, 96)).shape == (1, 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("timm/resnet51", r"no model of timm .*nearest: .*resnet50"),
        ("timm/test_resnet.nonsense", r"timm has no weights 'nonsense' of test_resnet; there are r160_in1k"),
        ("timm/", "no model of timm"),
    ],
)
def test_unknown_names_list_the_nearest(name, said):
    with pytest.raises(UnknownModelError, match=said):
        bridges.load(name)


def test_models_without_weights_or_classifier_say_so(tmp_path):
    with pytest.raises(WeightsError, match=r"weights='DEFAULT' of timm/botnet50ts_256: timm has none"):
        bridges.load("timm/botnet50ts_256")
    save_for_hf(timm.create_model("test_vit", num_classes=0), tmp_path, safe_serialization=True)
    with pytest.raises(WeightsError, match="has no classifier, only features"):
        bridges.load(tmp_path)


@pytest.mark.parametrize("name", ["timm/test_resnet", "timm/hf-hub:timm/test_resnet.r160_in1k"])
def test_without_internet_says_what_to_download_and_where_to_give_it(name):
    with pytest.raises(
        WeightsError,
        match=r"can't be downloaded .*where there is internet, run: hf download timm/test_resnet\.r160_in1k "
        r"--local-dir FOLDER .*give the folder here: --model FOLDER",
    ):
        bridges.load(name)


def test_without_timm_says_which_extra_has_it(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "timm", None)
    for name in ("timm/resnet18", folder):
        with pytest.raises(ImportError, match=r"needs timm, which is not installed; in .*pip install '\.\[timm\]'"):
            bridges.load(name)

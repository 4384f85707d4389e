"""Weights files as people have them: prefixes, several sets, things beside the weights, other formats."""

import argparse
import datetime
import fractions
import pathlib

import numpy as np
import pytest
import torch
import torchvision
from face_jax.bridges.weights.files import WeightsError
from torch import nn
from torch.nn.utils import prune

from face_jax import bridges
from face_jax.model import Preprocess

EIGHT = Preprocess(size=8, resize=8)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.features(x).mean((2, 3)))


torch.manual_seed(0)
PICTURES = torch.randn(2, 3, 8, 8)
STATE = Small().state_dict()
OTHER = {name: value + 1 for name, value in STATE.items()}


def behind(prefix, state=STATE):
    return {prefix + name: value for name, value in state.items()}


def load(tmp_path, content, name="weights.pth", **options):
    torch.save(content, tmp_path / name)
    return bridges.load(Small().eval(), weights=tmp_path / name, preprocess=EIGHT, **options)


def assert_same(loaded, state=STATE):
    found = loaded.model.state_dict()
    for name, value in state.items():
        assert torch.equal(found[name], value), name


PREFIXES = [
    "", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.", "backbone.", "encoder.",
    "model.backbone.",
]  # fmt: skip
PLACES = ["state_dict", "model_state_dict", "model", "net", "model_ema", "weights", "params", "state_dict_ema", "ema"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_whatever_stands_before_all_names_is_taken_off(tmp_path, prefix):
    loaded = load(tmp_path, behind(prefix))
    assert_same(loaded)
    assert loaded.notes == ()


@pytest.mark.parametrize("place", PLACES)
def test_weights_are_found_under_any_key(tmp_path, place):
    assert_same(load(tmp_path, {place: behind("module."), "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}}))
    assert_same(load(tmp_path, {"outer": {place: STATE}}))


def test_weights_of_a_model_in_a_model_fit_it_from_inside_and_outside(tmp_path):
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Small()

        def forward(self, x):
            return self.inner(x)

    torch.save(STATE, tmp_path / "inner.pth")
    loaded = bridges.load(Outer().eval(), weights=tmp_path / "inner.pth", preprocess=EIGHT)
    assert_same(loaded, behind("inner."))


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."])
def test_wrappers_around_parts_are_taken_out_of_names(tmp_path, wrapper):
    inside = {name.replace("features.", f"features.{wrapper}"): value for name, value in STATE.items()}
    assert inside.keys() != STATE.keys()
    loaded = load(tmp_path, inside)
    assert_same(loaded)
    assert loaded.notes == ()
    averaged = {name.replace("features.", f"features.{wrapper}"): value for name, value in OTHER.items()}
    both = load(tmp_path, {"ema": averaged, "model": behind("module.", inside), "loss": {"scale": torch.ones(2)}})
    assert_same(both)
    assert "those under 'ema', which differ" in both.notes[0]
    # Where the same name would stand for two tensors, nothing is guessed.
    with pytest.raises(WeightsError, match="don't fit Small"):
        load(tmp_path, inside | {name: value + 1 for name, value in STATE.items() if name.startswith("features.0")})


@pytest.mark.parametrize(
    "change",
    [nn.utils.weight_norm, nn.utils.spectral_norm, nn.utils.parametrizations.weight_norm,
     lambda module: prune.random_unstructured(module, "weight", 0.3)],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_files_of_normalized_and_pruned_weights_say_what_they_are(tmp_path, change):
    model = Small()
    change(model.fc)
    with pytest.raises(WeightsError, match="normalized, constrained or pruned: take that off before"):
        load(tmp_path, model.state_dict())
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    with torch.no_grad():
        expected = model.eval()(PICTURES)
    other = Small()
    change(other.fc)
    loaded = bridges.load(other.eval(), weights=tmp_path / "weights.pth", preprocess=EIGHT)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(PICTURES), expected)


def test_counters_of_averages_and_of_operations_are_no_weights(tmp_path):
    counted = behind("module.") | {"n_averaged": torch.tensor(3), "module.fc.total_ops": torch.zeros(1)}
    assert load(tmp_path, counted).notes == ()
    uncounted = {name: value for name, value in STATE.items() if "num_batches" not in name}
    assert_same(load(tmp_path, uncounted), uncounted)


def test_tensors_of_losses_and_metrics_are_passed_over_and_told(tmp_path):
    beside = {"loss_fn.weight": torch.ones(3), "train_acc.tp": torch.ones(1)}
    loaded = load(tmp_path, {"state_dict": behind("model.") | beside})
    assert_same(loaded)
    (note,) = loaded.notes
    assert "weights.pth holds more tensors" in note
    assert "loss_fn.weight" in note
    assert "train_acc.tp" in note
    assert "criterion.weight" in load(tmp_path, STATE | {"criterion.weight": torch.ones(3)}).notes[0]


@pytest.mark.parametrize(
    ("content", "taken", "other"),
    [
        ({"model": STATE, "model_ema": OTHER}, "'model'", "'model_ema'"),
        ({"state_dict_ema": OTHER, "state_dict": STATE}, "'state_dict'", "'state_dict_ema'"),
        (behind("teacher.", OTHER) | behind("student."), "'student'", "'teacher'"),
        (behind("target.", OTHER) | behind("online."), "'online'", "'target'"),
        (behind("encoder_k.", OTHER) | behind("encoder_q."), "'encoder_q'", "'encoder_k'"),
    ],
    ids=["two keys", "the average first", "two prefixes", "a slow target", "a slow encoder"],
)
def test_of_several_sets_of_weights_it_says_which_was_taken(tmp_path, content, taken, other):
    loaded = load(tmp_path, content)
    assert_same(loaded)
    assert f"those under {taken} were taken, and not those under {other}" in loaded.notes[0]
    split = loaded.split("features")
    assert split.notes == loaded.notes


def test_equal_sets_and_moments_of_optimizers_are_no_choice(tmp_path):
    assert load(tmp_path, {"model": STATE, "model_ema": STATE}).notes == ()
    loaded = load(tmp_path, {"optimizer": {"exp_avg": OTHER}, "model": STATE})
    assert_same(loaded)
    assert loaded.notes == ()
    with pytest.raises(WeightsError, match=r"don't fit Small: missing"):
        load(tmp_path, {"optimizer": {"exp_avg": OTHER}})


def test_dictionaries_in_themselves_and_in_many_places_are_read_once(tmp_path):
    shared = {"state": STATE}
    for _ in range(40):
        shared = {"left": shared, "right": shared}
    shared["itself"] = shared
    assert_same(load(tmp_path, shared))


def test_names_that_dont_fit_are_told_with_their_prefix(tmp_path):
    with pytest.raises(WeightsError, match=r"names read behind 'model\.'\): missing fc\.weight, fc\.bias"):
        load(tmp_path, {name: value for name, value in behind("model.").items() if ".fc." not in name})
    # A larger network has all the names of a smaller one, and isn't it.
    with pytest.raises(WeightsError, match=r"unexpected features\.3\.weight"):
        load(tmp_path, STATE | {"features.3.weight": torch.ones(4)})
    with pytest.raises(WeightsError, match=r"unexpected attention\.weight"):
        load(tmp_path, STATE | {"attention.weight": torch.ones(4)})


def test_what_training_scripts_put_beside_weights_is_read_over(tmp_path):
    beside = {
        "best": np.float64(0.9),
        "steps": np.int64(7),
        "history": np.ones(3),
        "args": argparse.Namespace(rate=np.float32(0.1), out=pathlib.Path("runs")),
        "when": datetime.datetime(2024, 1, 1),
    }
    assert_same(load(tmp_path, {"state_dict": STATE, **beside}))
    torch.save({"state_dict": STATE, **beside}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert_same(bridges.load(Small(), weights=tmp_path / "old.pth", preprocess=EIGHT))


class Tell:
    """Writes a file when it's unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_what_torch_refuses_is_named_and_not_made(tmp_path):
    with pytest.raises(WeightsError, match=r"holds more than tensors: fractions\.Fraction, which torch refuses"):
        load(tmp_path, {"state_dict": STATE, "best": fractions.Fraction(1, 2)})
    with pytest.raises(WeightsError, match="holds more than tensors"):
        load(tmp_path, {"state_dict": STATE, "more": Tell(tmp_path / "ran")})
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", r"isn't a torch file \(an HTML page\)"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"isn't a torch file \(a Git LFS pointer\)"),
        (b"\x89PNG\r\n", "isn't a torch file"),
        (b"PK\x03\x04 and nothing behind it", "is damaged: cut off or overwritten"),
        (b"\x80\x02}q\x00", "is damaged: cut off or overwritten"),
    ],
)
def test_no_torch_file_and_a_damaged_one_are_told_apart(tmp_path, written, said):
    path = tmp_path / "weights.pth"
    path.write_bytes(written)
    with pytest.raises(WeightsError, match=said):
        bridges.load(Small(), weights=path, preprocess=EIGHT)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.int(), r"no real numbers features\.0\.weight \(torch\.int32\)"),
        (lambda value: value.to(torch.complex64), "no real numbers"),
        (lambda value: value * float("nan"), r"hold NaN or infinity in features\.0\.weight"),
        (lambda value: value.to("meta"), "without values"),
        (lambda value: value.to_sparse(), "quantized or sparse"),
        (lambda value: value[None], r"of another shape features\.0\.weight \(1, 4, 3, 3, 3\) for \(4, 3, 3, 3\)"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(tmp_path, change, said):
    changed = {name: change(value) if value.is_floating_point() else value for name, value in STATE.items()}
    with pytest.raises(WeightsError, match=said):
        load(tmp_path, changed)


def test_safetensors_are_read(tmp_path):
    save_file = pytest.importorskip("safetensors.torch", reason="safetensors isn't installed").save_file
    path = tmp_path / "weights.safetensors"
    save_file(behind("model."), path)
    assert_same(bridges.load(Small(), weights=path, preprocess=EIGHT))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WeightsError, match="isn't a torch file"):
        bridges.load(Small(), weights=path, preprocess=EIGHT)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_refused_with_the_way_to_its_weights(tmp_path):
    torch.jit.save(torch.jit.trace(Small().eval(), torch.ones(1, 3, 8, 8)), tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"is a TorchScript program .*torch\.jit\.load\(path\)\.state_dict\(\)"):
        bridges.load(Small(), weights=tmp_path / "weights.pt", preprocess=EIGHT)


def test_a_file_of_ones_own_says_whose_preprocessing_was_taken(tmp_path):
    torch.save(torchvision.models.squeezenet1_1(num_classes=2).state_dict(), tmp_path / "own.pth")
    loaded = bridges.load("squeezenet1_1", weights=tmp_path / "own.pth", classes="ab")
    (note,) = loaded.notes
    assert "own.pth doesn't say how photographs were prepared" in note
    assert "published squeezenet1_1: short side 256 pixels, centre 224, mean 0.485, 0.456, 0.406" in note
    own = Preprocess(size=96, resize=96, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    given = bridges.load("squeezenet1_1", weights=tmp_path / "own.pth", classes="ab", preprocess=own)
    assert given.notes == ()
    assert given.preprocess == own
    assert bridges.load("squeezenet1_1", weights=None).notes == ()


def test_networks_that_may_rescale_their_input_are_asked_about(tmp_path, monkeypatch):
    model = torchvision.models.googlenet(weights=None, num_classes=3, aux_logits=False, init_weights=False)
    path = tmp_path / "own.pth"
    torch.save(model.state_dict(), path)
    with pytest.raises(WeightsError, match=r"rescales its input inside: give transform_input=True .* False"):
        bridges.load("googlenet", weights=path, classes="abc")
    for wanted in (True, False):
        loaded = bridges.load("googlenet", weights=path, classes="abc", transform_input=wanted)
        assert loaded.model.transform_input is wanted
    with pytest.raises(ValueError, match="transform_input=False is for googlenet and inception_v3"):
        bridges.load("resnet18", weights=None, transform_input=False)
    # By its content: the published name ends in the first digits of the digest.
    monkeypatch.setattr("face_jax.bridges.models.torchvision_models.digest_of", lambda path: "1378be20" + "0" * 56)
    assert bridges.load("googlenet", weights=path, classes="abc").model.transform_input
    monkeypatch.undo()
    named = path.rename(tmp_path / "googlenet-1378be20.pth")
    assert bridges.load("googlenet", weights=named, classes="abc").model.transform_input


def test_a_module_of_ones_own_is_loaded_as_it_is(tmp_path):
    model = Small()
    loaded = bridges.load(model, preprocess=EIGHT)
    assert loaded.model is model
    assert model.training
    assert (loaded.name, loaded.classes) == ("Small", ("class 0", "class 1", "class 2"))
    assert loaded.split("features").classes == loaded.classes
    assert [layer.name for layer in loaded.layers()][-1] == "mean"
    assert bridges.load(nn.DataParallel(model), classes=["a", "b", "c"], preprocess=EIGHT).model is model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.save(OTHER, tmp_path / "other.pth")
    assert_same(bridges.load(model, weights=tmp_path / "other.pth", preprocess=EIGHT), OTHER)
    assert_same(loaded, before)
    with pytest.raises(ValueError, match="weights=None of a module"):
        bridges.load(model, weights=None)

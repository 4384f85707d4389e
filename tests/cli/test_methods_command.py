"""The command compare-methods, on a small model."""

import json
import re
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import create_autospec

import PIL.Image
import pytest
from toy_model import Squared, colour_model, pictures
from typer.main import get_command
from typer.testing import CliRunner

from face_jax import methods as ways
from face_jax.cli import methods
from face_jax.cli.app import app
from face_jax.evaluation import comparison
from face_jax.methods.by_name import KNOWN

MINE = """
import dataclasses
import numpy as np
import face_jax as fj

@dataclasses.dataclass(frozen=True)
class Brightest:
    name: str = "brightest [places]"

    def fit(self, activations, rank, key):
        rows = activations.reshape(-1, activations.shape[-1])
        return fj.methods.Bank(rows[np.argsort(-rows.sum(1))[:rank]])
"""
WORDS = ["--method", "nmf", "--method", "mine.py:Brightest", "--rank", "2", "--crops", "2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("methods")
    (found / "photos").mkdir()
    for colour, count in ((0, 8), (1, 2)):
        for number, pixels in enumerate(pictures(count, colour)):
            PIL.Image.fromarray(pixels).save(found / "photos" / f"{colour}-{number}.png")
    (found / "mine.py").write_text(MINE)
    return found


@pytest.fixture(scope="module")
def command(folder):
    with pytest.MonkeyPatch.context() as patch:
        model = create_autospec(methods.split_of, side_effect=lambda *_, **__: (None, colour_model(), []))
        patch.setattr(methods, "split_of", model)
        patch.setenv("FACE_JAX_CACHE", str(folder / "cache"))
        patch.setattr(sys, "path", [*sys.path])
        patch.chdir(folder)
        yield lambda *words: CliRunner().invoke(app, ["compare-methods", "--images", "photos", *words])


def test_methods_are_compared_and_the_same_command_goes_on(command, folder, monkeypatch):
    words = [*WORDS, "--target", "reddish", "--folds", "2", "--starts", "1", "--out", "out"]
    done = command(*words)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == "out/methods.html"
    told = json.loads((folder / "out" / "methods.json").read_text())
    names = [each["method"] for each in told["methods"]]
    assert names == ["NMF", "brightest [places]", *(each.name for each in ways.CONTROLS)]
    assert (told["class"], told["rank"], told["pictures"], told["folds"]) == ("reddish", 2, 8, 2)
    # What the page says is said, and what took no part.
    said = " ".join(done.stderr.split())
    for verdict in told["verdicts"]:
        assert " ".join(verdict["text"].split()) in said
    assert "2 of 10 photographs took no part" in told["verdicts"][-1]["text"]

    def fails(*given):
        raise AssertionError("fitted again")

    monkeypatch.setattr(comparison, "_fit", fails)
    again = command(*words)
    assert again.exit_code == 0, again.output
    assert json.loads((folder / "out" / "methods.json").read_text()) == told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "nfm"], "--method 'nfm' is no method; nearest: nmf"),
        (["--method", "yours.py:Mine"], "--method 'yours.py': there is no such file"),
        (["--folds", "1"], "--folds 1 isn't a number of parts; give 2 or more"),
        (["--starts", "0"], "--starts 0 isn't a number of fits; give 1 or more"),
        (["--rank", "0"], "--rank=0"),
        (["--signs", "both"], "--signs 'both'"),
        (["--faithfulness", "much"], "--faithfulness 'much'"),
        (["--out", "mine.py"], "--out 'mine.py' can't be written to"),
        ([*WORDS, "--target", "purple"], "target='purple' isn't a class"),
        (
            [*WORDS, "--target", "greenish"],
            "--folds 5: the model puts 2 of the photographs in 'greenish', and each fold needs one; give more "
            "photographs of the class, or --folds 2",
        ),
    ],
)
def test_what_isnt_valid_is_told_in_a_line(command, words, said):
    done = command(*words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


def test_the_help_names_every_method():
    commands = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    (option,) = [each for each in commands["compare-methods"].params if each.name == "method"]
    named = re.findall(r"[a-z-]+", option.help.partition("FILE.py")[0])
    assert set(KNOWN) <= set(named)


def chosen(words=None, signed=False, model=None, strength: Any = "usual", photographs=60):
    seen = SimpleNamespace(signed=signed, photographs=range(photographs), crops=range(10 * photographs))
    return methods._chosen(methods._known(words), seen, colour_model() if model is None else model, strength, 25, 5)


def names(found):
    return [each.name for each in found[0]]


def test_by_default_methods_are_those_that_fit_the_activations():
    everything = chosen()
    assert names(everything) == ["FACE", "NMF", "CRAFT", "ICE", "ACE", "PCA", "ICA", "k-means"]
    assert everything[1] == []
    mixed = chosen(signed=True)
    assert names(mixed) == ["FACE", "NMF", "sparse coding", "ACE", "PCA", "ICA", "k-means"]
    (note,) = mixed[1]
    assert note.startswith("Not compared: craft, ice. They can't represent activations below zero, which layer patches")
    with pytest.raises(ValueError, match=r"--method ice can't represent activations below zero.*--signs apart"):
        chosen(["nmf", "ice"], signed=True)


def test_face_is_compared_where_explain_would_keep_predictions_and_where_it_is_asked_for():
    model = colour_model(head=Squared(colour_model().head.kernel))
    for found, why in ((chosen(model=model), "Behind a head"), (chosen(photographs=14), "there are 11")):
        assert "FACE" not in names(found)
        (note,) = found[1]
        assert note.startswith("Not compared: face. ")
        assert why in note
    assert chosen(["face"], model=model)[0] == [ways.FACE()]
    assert chosen(strength="auto", model=model)[0][0] == ways.FACE()
    assert chosen(["face"], strength=1e3)[0] == [ways.FACE(1e3, name="FACE, λ = 1000")]
    assert chosen(["face"], strength=None)[0] == [ways.FACE(0.0, name="FACE, λ = 0")]


def test_where_scikit_learn_is_missing_its_methods_are_left_out_or_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    found = chosen()
    assert names(found) == ["FACE", "NMF"]
    (note,) = found[1]
    assert "craft, ice, ace, pca, ica, kmeans. They need scikit-learn; " in note
    assert note.endswith("pip install '.[methods]'")
    with pytest.raises(ImportError, match="PCA needs scikit-learn"):
        chosen(["pca"])

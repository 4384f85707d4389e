"""The commands why, edit and compare, on a small explanation in files."""

import collections
import html
import json
import pathlib
import re
import types

import PIL.Image
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from toy_model import colour_model, pictures
from typer.testing import CliRunner

import face_jax as fj
from face_jax import bridges
from face_jax.action import measured
from face_jax.cli import actions
from face_jax.cli.app import app

IMAGES = pictures(12, 0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("commands")
    lines, files = ["file,label"], [found / f"{number}.png" for number in range(len(IMAGES))]
    for number, file in enumerate(files):
        PIL.Image.fromarray(IMAGES[number]).save(file)
        lines.append(f"{file.name},{'bluish' if number == 0 else 'reddish'}")
    fj.save(
        fj.explain(colour_model(), files, "reddish", rank=3, batch=8, faithfulness=None, key=0), found / "explained"
    )
    (found / "labels.csv").write_text("\n".join(lines))
    return found


@pytest.fixture
def command(folder, monkeypatch):
    def loaded(where, *_):
        return fj.load(where, colour_model()), None

    monkeypatch.setattr(actions, "_loaded", loaded)
    monkeypatch.chdir(folder)

    def run(*words):
        return CliRunner().invoke(app, list(words))

    return run


def test_why(command, folder):
    done = command("why", "3.png", "--instead-of", "bluish", "--explanation", "explained", "--out", "why")
    assert done.exit_code == 0, done.output
    assert done.stdout.strip().endswith("why/why.html")
    told = json.loads((folder / "why" / "why.json").read_text())["photographs"][0]
    assert told["instead_of"]["class"] == "bluish"
    # What is printed adds up, and is what the page says.
    lines = re.findall(r"^(.*?) +([+-]\d+\.\d{3})(?: ± .*)?$", done.stderr, re.MULTILINE)
    *parts, (whole, total) = [(name, float(value)) for name, value in lines]
    assert whole == "reddish rather than bluish"
    assert [name for name, _ in parts][-2:] == ["what the concepts leave out", "no activations at all"]
    assert sum(value for _, value in parts) == pytest.approx(total, abs=0.0006 * len(lines))
    assert total == pytest.approx(told["difference"], abs=0.001)
    assert 'href="../explained' not in (folder / "why" / "why.html").read_text()


def test_concepts_lead_to_the_report_that_is_there(command, folder):
    (folder / "explained" / "report.html").touch()
    for words in (["why", "3.png", "--instead-of", "bluish"], ["edit", "--remove", "1", "--labels", "labels.csv"]):
        done = command(*words, "--explanation", "explained", "--out", f"deep/{words[0]}")
        assert done.exit_code == 0, done.output
        page = pathlib.Path(done.stdout.strip())
        (address, *_) = re.findall(r'href="([^"#]+)#concept-1"', page.read_text())
        assert (page.parent / address).resolve() == (folder / "explained" / "report.html").resolve()
    (folder / "explained" / "report.html").unlink()


def test_why_of_photographs_that_are_misread(command, folder):
    done = command("why", "--labels", "labels.csv", "--explanation", "explained", "--out", "misread")
    assert done.exit_code == 0, done.output
    told = json.loads((folder / "misread" / "why.json").read_text())["photographs"]
    assert [each["photograph"] for each in told] == ["0.png"]


def test_explain_with_labels_shows_what_is_misread(folder, monkeypatch, tmp_path):
    class Loaded:
        name = "colours"

        def split(self, layer):
            return colour_model()

    monkeypatch.setenv("FACE_JAX_CACHE", str(tmp_path / "cache"))
    for name, replaced in (("load", lambda *_, **__: Loaded()), ("share_processor", int), ("keep_freed_memory", int)):
        monkeypatch.setattr(bridges, name, replaced)
    words = ["explain", "--images", str(folder), "--layer", "patches", "--target", "reddish", "--rank", "3"]
    words += ["--faithfulness", "none", "--batch", "8", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--labels", str(folder / "labels.csv")])
    assert done.exit_code == 0, done.output
    assert "0.png: taken for reddish, is bluish" in (tmp_path / "out" / "report.html").read_text()
    wrong = CliRunner().invoke(app, [*words, "--labels", str(folder / "none.csv")])
    assert wrong.exit_code == 2
    assert "none.csv" in wrong.output.replace("\n", "")


def test_edit_counts_concepts_as_the_report_does(command, folder):
    words = ["edit", "--remove", "1", "--scale", "2=0.5", "--labels", "labels.csv", "--explanation", "explained"]
    done = command(*words, "--draws", "2", "--out", "edited")
    assert done.exit_code == 0, done.output
    told = json.loads((folder / "edited" / "edit.json").read_text())
    assert told["edit"] == "without concept 1, concept 2 × 0.5"
    assert len(told["photographs"]) == 12


def test_edit_takes_out_what_goes_with_a_concept_in_other_photographs(command, folder):
    head, *lines = (folder / "labels.csv").read_text().split("\n")
    for name, some in (("learned.csv", lines[:6]), ("measured.csv", lines[6:])):
        (folder / name).write_text("\n".join([head, *some]))
    words = ["edit", "--remove", "1", "--explanation", "explained", "--draws", "2", "--out", "whole"]
    done = command(*words, "--labels", "measured.csv", "--along", "learned.csv")
    assert done.exit_code == 0, done.output
    told = json.loads((folder / "whole" / "edit.json").read_text())
    assert told["edit"] == "without concept 1 and what goes with it"
    explanation = fj.load(folder / "explained", colour_model())
    labels = ["bluish", *["reddish"] * 5]
    along = fj.erasing_directions(explanation, IMAGES[:6], labels, remove=[0])
    effect = fj.measure_edit(explanation, IMAGES[6:], ["reddish"] * 6, remove=[0], along=along, draws=2, key=0)
    assert told["after"]["accuracy"]["value"] == pytest.approx(effect.after.accuracy.value)
    done = command(*words, "--labels", "labels.csv", "--along", "learned.csv")
    assert done.exit_code == 2
    assert "6 photographs of --along are in --labels as well" in " ".join(done.output.split())


@pytest.fixture
def weights(folder, monkeypatch):
    """A torch network behind an affine head, explained, and the command that edits it."""
    torch.manual_seed(0)
    parts = {"conv": nn.Conv2d(3, 6, 4, stride=4), "relu": nn.ReLU()}
    rest = {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "fc": nn.Linear(6, 3)}
    network = nn.Sequential(collections.OrderedDict({**parts, **rest})).eval()
    preprocess = fj.Preprocess(size=16, resize=16)
    model = bridges.split(network, "relu", preprocess=preprocess, classes=["reddish", "greenish", "bluish"])
    found = fj.explain(model, sorted(folder.glob("*.png")), rank=2, batch=12, faithfulness=None, key=0)
    monkeypatch.setattr(actions, "_loaded", lambda *_: (found, types.SimpleNamespace(model=network)))
    monkeypatch.chdir(folder)

    def run(out, *more, recommended, ends=0):
        monkeypatch.setattr(measured.EditEffect, "recommended", recommended)
        words = ["edit", "--remove", "1", "--labels", "labels.csv", "--draws", "1", "--out", out, *more]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == ends, done.output
        page = html.unescape((folder / out / "edit.html").read_text())
        notes = json.loads((folder / out / "edit.json").read_text())["notes"]
        # The terminal, the page and the JSON say the same.
        for note in notes:
            assert note in page
            assert note in " ".join(done.output.split())
        return folder / out, " ".join(notes)

    return network, run


def test_weights_are_written_only_of_what_is_recommended_or_asked_for_anyway(weights):
    network, run = weights
    out, said = run("linear", "--codes", "linear", recommended=False, ends=3)
    assert sorted(file.name for file in out.iterdir()) == ["edit.html", "edit.json"]
    assert "No weights are written, as the edit isn't recommended" in said
    out, said = run("linear", "--codes", "linear", "--anyway", recommended=False)
    assert "isn't recommended, and its weights were asked for all the same" in said
    assert "are in edited.safetensors" in said
    _, said = run("linear", "--codes", "linear", recommended=False, ends=3)
    assert "edited.safetensors in this folder is of an earlier run" in said
    out, said = run("good", "--codes", "linear", recommended=True)
    assert said == "The edited weights, of the same architecture, are in edited.safetensors."
    state = load_file(out / "edited.safetensors")
    assert list(state) == sorted(network.state_dict())
    assert not torch.equal(state["fc.weight"], network.state_dict()["fc.weight"])
    assert (out / "edited.safetensors").stat().st_mode == (out / "edit.html").stat().st_mode
    out, said = run("exact", recommended=True)
    assert "the same command with --codes linear" in said
    assert sorted(file.name for file in out.iterdir()) == ["edit.html", "edit.json"]
    # No weights were asked for: advice against the edit is what the command is for.
    run("exact", recommended=False)


def test_an_edit_that_is_in_no_last_layer_says_that_its_weights_are_not_written(weights, monkeypatch):
    monkeypatch.setattr(bridges, "edited_module", lambda *_: bridges.EditedNetwork.__new__(bridges.EditedNetwork))
    out, said = weights[1]("whole", "--codes", "linear", recommended=True, ends=3)
    assert said.startswith("The edit isn't in the weights of a last layer here")
    assert sorted(file.name for file in out.iterdir()) == ["edit.html", "edit.json"]


def test_each_model_that_is_compared_has_class_names_of_its_own(command, folder, monkeypatch):
    seen = []
    monkeypatch.setattr(
        actions, "_loaded", lambda *given: (seen.append(given), (fj.load(given[0], colour_model()), 0))[1]
    )
    words = ["compare", "explained", "explained", "--class-names", "one.txt", "--out", "named"]
    for more, expected in (([], "one.txt"), (["--second-class-names", "other.txt"], "other.txt")):
        assert command(*words, *more).exit_code == 0
        assert [str(given[3]) for given in seen[-2:]] == ["one.txt", expected]


def test_compare(command, folder):
    done = command("compare", "explained", "explained", "--out", "compared")
    assert done.exit_code == 0, done.output
    assert json.loads((folder / "compared" / "comparison.json").read_text())["equal"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["why"], "either a photograph, or --labels"),
        (["why", "3.png", "--labels", "labels.csv"], "either a photograph, or --labels"),
        (["why", "3.png", "--instead-of", "purple", "--explanation", "explained"], "instead_of='purple'"),
        (["edit", "--remove", "1"], "--labels is needed"),
        (["edit", "--remove", "1", "--labels", "labels.csv", "--anyway"], "give --codes linear with it"),
        (["edit", "--remove", "0", "--labels", "labels.csv"], "--remove 0 isn't a concept's number"),
        (["edit", "--scale", "2", "--labels", "labels.csv"], "isn't a concept and a factor"),
        (["edit", "--labels", "labels.csv", "--explanation", "explained"], "change no concept"),
        (["edit", "--remove", "1", "--labels", "folders", "--explanation", "explained"], "--images is needed"),
        (["why", "3.png", "--explanation", "nothing"], "has no explanation.json"),
    ],
)
def test_what_isnt_valid_is_told_in_a_line(command, words, said):
    done = command(*words)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())

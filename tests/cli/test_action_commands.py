"""The commands why, edit and compare, on a small explanation in files."""

import json

import PIL.Image
import pytest
from toy_model import colour_model, pictures
from typer.testing import CliRunner

import face_jax as fj
from face_jax import bridges
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

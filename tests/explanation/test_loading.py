"""An explanation from its files: the same as before, and refused where it doesn't belong."""

import dataclasses
import json
import operator
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from changing import changed
from layered_model import layered_model, warm_pictures
from PIL import Image

import face_jax as fj
from face_jax.explanation.loading import SavedFilesError, WrongModelError
from face_jax.explanation.saving import text_digest
from face_jax.faithfulness.lambda_path import Path, Point
from face_jax.pictures.crop_rules import NativeCrops
from face_jax.pictures.photographs import UnreadablePhotographError
from face_jax.pictures.preprocess import LATER_SETTINGS
from face_jax.support.atomic_folder import FolderInUseError

FILES = ["activations.safetensors", "bank.safetensors", "explanation.json", "seconds.json"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for number, pixels in enumerate(warm_pictures()):
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def explanation(files):
    found = fj.explain(layered_model("last"), files, "warm", rank=3, batch=8, faithfulness=None, key=jax.random.key(0))
    earlier = [layered_model("middle"), layered_model("pixels")]
    return fj.recurse(found, earlier, concepts=[0, 1], rank=2, threshold=0.3, batch=8)


@pytest.fixture
def folder(explanation, tmp_path):
    return fj.save(explanation, tmp_path / "saved")


def same(first, second, where=""):
    """Whether two things are equal all the way down; photographs by name and file, models by identity."""
    if isinstance(first, fj.SplitModel):
        assert first.fingerprint == second.fingerprint, where
    elif isinstance(first, fj.Photograph):
        assert (first.name, first.source) == (second.name, second.source), where
    elif dataclasses.is_dataclass(first):
        assert type(first) is type(second), where
        for field in dataclasses.fields(first):
            same(getattr(first, field.name), getattr(second, field.name), f"{where}.{field.name}")
    elif isinstance(first, np.ndarray):
        assert first.dtype == second.dtype, where
        np.testing.assert_array_equal(first, second, err_msg=where)
    elif isinstance(first, dict):
        assert list(first) == list(second), where
        for name in first:
            same(first[name], second[name], f"{where}[{name}]")
    elif isinstance(first, tuple | list):
        # JSON has lists only, which are found in the settings.
        assert len(first) == len(second), where
        for number, pair in enumerate(zip(first, second, strict=True)):
            same(*pair, f"{where}[{number}]")
    else:
        assert first == second or (first != first and second != second), f"{where}: {first} and {second}"


def rewrite(folder, change, name="explanation.json"):
    """Changes what a JSON file says, with the digest that fits it then."""
    text = json.loads((folder / name).read_text())
    change(text)
    if "text_digest" in text:
        text["text_digest"] = text_digest(text)
    (folder / name).write_text(json.dumps(text))


def test_everything_comes_back(explanation, folder):
    loaded = fj.load(folder, layered_model("last"))
    same(explanation, loaded)
    assert loaded.recursion.divisions


def test_the_comparison_can_fail(explanation, folder):
    loaded = fj.load(folder, layered_model("last"))
    with pytest.raises(AssertionError, match="dictionary"):
        same(explanation, changed(loaded, {"bank.dictionary": loaded.dictionary * 2}))


def test_new_photographs_are_encoded_with_the_saved_concepts(explanation, folder):
    loaded = fj.load(folder, layered_model("last"))
    new = warm_pictures()[::-1][:4]
    np.testing.assert_array_equal(loaded.encode(new), explanation.encode(new))
    np.testing.assert_array_equal(loaded.encode(new, pooled=True), explanation.encode(new, pooled=True))


def test_it_can_be_saved_again(folder, tmp_path):
    loaded = fj.load(folder, layered_model("last"))
    again = fj.save(loaded, tmp_path / "again")
    assert (again / "explanation.json").read_text() == (folder / "explanation.json").read_text()
    for name in ("bank.safetensors", "activations.safetensors", "seconds.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_choices_come_back(explanation, tmp_path):
    ranks = np.array([2, 4])
    scan = fj.RankScan(ranks, *(np.array([0.5, 0.25]) + number for number in range(5)))
    points = tuple(
        Point(weight, 0.3, 0.2, float("nan") if weight else 0.31, 0.5, 0.9, 1.0, 1e-4, 30) for weight in (0.0, 1.0)
    )
    solution = fj.factorize(jnp.asarray(explanation.pictures.crop_activations), 2)
    path = Path(points=points, chosen=1, solution=solution, most_error=1.1)
    chosen = changed(explanation, {"fit.rank_scan": scan, "fit.path": path})
    loaded = fj.load(fj.save(chosen, tmp_path), layered_model("last"))
    same(changed(chosen, {"fit.path.solution": None}), loaded)
    assert loaded.fit.path.weight == 1.0


def test_native_crops_come_back(files, tmp_path):
    model = layered_model("last")
    crops = NativeCrops(model.preprocess, size=8, overlap=0.5)
    found = fj.explain(model, files, "warm", rank=3, batch=8, faithfulness=None, crops=crops)
    loaded = fj.load(fj.save(found, tmp_path), model)
    np.testing.assert_array_equal(loaded.crops.window, found.crops.window)


@pytest.mark.parametrize(
    "other",
    [layered_model("middle"), layered_model("last", scale=2.0)],
    ids=["another layer", "other weights"],
)
def test_another_model_or_layer_is_refused(folder, other):
    with pytest.raises(WrongModelError) as caught:
        fj.load(folder, other)
    said = str(caught.value)
    assert "explains layered at layer 'last'" in said
    assert f"model is layered at layer {other.layer!r}" in said
    assert "layered-1.0-" in said
    assert other.fingerprint[:12] in said


def test_another_preprocessing_is_refused(folder):
    model = layered_model("last")
    other = dataclasses.replace(model, preprocess=dataclasses.replace(model.preprocess, std=(0.5, 0.5, 0.5)))
    said = r"with std=\[1.0, 1.0, 1.0\] in its preprocessing, and model.preprocess has std=\[0.5, 0.5, 0.5\]; give"
    with pytest.raises(WrongModelError, match=said):
        fj.load(folder, other)


@dataclasses.dataclass(frozen=True)
class Brightened(fj.Preprocess):
    by: float = 1.0


def test_a_preprocessing_of_ones_own_comes_back_with_its_settings(explanation, tmp_path):
    model = layered_model("last")
    model, other = (
        dataclasses.replace(model, preprocess=Brightened(**vars(model.preprocess), by=by)) for by in (1.5, 2.0)
    )
    settings = {"provenance.settings.preprocess": dataclasses.asdict(model.preprocess), "model": model}
    own = changed(explanation, settings)
    same(own, fj.load(fj.save(own, tmp_path), model))
    with pytest.raises(WrongModelError, match=r"with by=1\.5 in its preprocessing, and model\.preprocess has by=2\.0"):
        fj.load(tmp_path, other)


def test_a_preprocessing_from_before_there_was_a_choice_is_that_of_then(explanation, tmp_path):
    model = layered_model("last")
    settings = {key: value for key, value in dataclasses.asdict(model.preprocess).items() if key not in LATER_SETTINGS}
    old = changed(explanation, {"provenance.settings.preprocess": settings})
    same(old, fj.load(fj.save(old, tmp_path), model))
    whole = dataclasses.replace(model.preprocess, resize=(16, 16), fit="contain")
    with pytest.raises(WrongModelError, match=r"fit=squash, resize=16 in its preprocessing, and .* has fit=contain"):
        fj.load(tmp_path, dataclasses.replace(model, preprocess=whole))


def test_photographs_are_read_when_their_pixels_are_needed(explanation, folder, files, tmp_path):
    def moved(text):
        for number, photograph in enumerate(text["record"]["pictures"]["photographs"]):
            photograph["file"] = str(tmp_path / "gone" / f"{number:02}.png")

    rewrite(folder, moved)
    loaded = fj.load(folder, layered_model("last"))
    assert loaded.encode(warm_pictures()[:1]).shape == (1, 2, 2, 3)
    with pytest.raises(UnreadablePhotographError, match=r"00.png: there is no file .*gone/00.png' any more.*images="):
        loaded.photographs[0].pixels()
    found_again = fj.load(folder, layered_model("last"), images=files)
    np.testing.assert_array_equal(found_again.photographs[0].pixels(), explanation.photographs[0].pixels())


def test_photographs_are_found_again_by_their_content(folder, files, tmp_path):
    kept = json.loads((folder / "explanation.json").read_text())["photographs"]["kept"]
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, name in enumerate(kept[::-1]):
        shutil.copy(files / name, renamed / f"{number}.png")
    loaded = fj.load(folder, layered_model("last"), images=renamed)
    assert [photograph.name for photograph in loaded.photographs] == kept
    for photograph in loaded.photographs:
        np.testing.assert_array_equal(photograph.pixels(), fj.photographs(files / photograph.name)[0].pixels())
    # Under a name that was explained lies another picture.
    shutil.copytree(files, tmp_path / "changed")
    shutil.copy(files / kept[0], tmp_path / "changed" / kept[3])
    with pytest.raises(SavedFilesError, match=f"another picture under the name '{kept[3]}', and 1 of the 14 photogr"):
        fj.load(folder, layered_model("last"), images=tmp_path / "changed")


def test_an_explanation_is_saved_when_its_photographs_are_gone(files, tmp_path):
    shutil.copytree(files, tmp_path / "moving")
    found = fj.explain(
        layered_model("last"), tmp_path / "moving", "warm", rank=3, batch=8, faithfulness=None, key=jax.random.key(0)
    )
    (tmp_path / "moving").rename(tmp_path / "moved")
    saved = fj.save(found, tmp_path / "saved")
    loaded = fj.load(saved, layered_model("last"), images=tmp_path / "moved")
    np.testing.assert_array_equal(loaded.photographs[0].pixels(), warm_pictures()[0])


def test_names_that_are_not_utf8_are_saved(files, tmp_path):
    odd = tmp_path / "odd"
    odd.mkdir()
    for file in files.iterdir():
        shutil.copy(file, os.fsencode(odd) + b"/caf\xe9 " + os.fsencode(file.name))
    model, cache = layered_model("last"), fj.ArrayCache(tmp_path / "cache")
    found = fj.explain(model, odd, "warm", rank=3, batch=8, faithfulness=None, key=jax.random.key(0), cache=cache)
    loaded = fj.load(fj.save(found, tmp_path / "saved"), model)
    assert loaded.photographs[0].name == r"caf\xe9 00.png"
    assert loaded.photographs[0].source == found.photographs[0].source
    np.testing.assert_array_equal(loaded.photographs[0].pixels(), found.photographs[0].pixels())


def test_photographs_that_were_arrays_are_given_again(tmp_path):
    model, pixels = layered_model("last"), warm_pictures()
    saved = fj.save(fj.explain(model, pixels, "warm", rank=3, batch=8, faithfulness=None), tmp_path)
    loaded = fj.load(saved, model)
    with pytest.raises(UnreadablePhotographError, match="in no file"):
        loaded.photographs[0].pixels()
    for images in (pixels, pixels[::-1]):
        loaded = fj.load(saved, model, images=images)
        np.testing.assert_array_equal(loaded.photographs[0].pixels(), pixels[0])
    with pytest.raises(SavedFilesError, match="images has no 'image 2', and 12 of the 14 photographs"):
        fj.load(saved, model, images=pixels[:2])


@pytest.fixture(scope="module")
def another(files, tmp_path_factory):
    # The same network and layer, other concepts.
    found = fj.explain(layered_model("last"), files, "warm", rank=3, batch=8, faithfulness=None, key=jax.random.key(1))
    return found, fj.save(found, tmp_path_factory.mktemp("another"))


@pytest.mark.parametrize("name", ["bank.safetensors", "activations.safetensors"])
def test_files_of_two_explanations_of_one_model_are_not_read_together(folder, another, name):
    shutil.copy(another[1] / name, folder / name)
    with pytest.raises(SavedFilesError, match=rf"{name} and explanation\.json are of different .*copy all files"):
        fj.load(folder, layered_model("last"))


def as_a_whole(folder, first, second):
    """Which of two explanations a folder has; a mixture of them, or neither, is an error."""
    loaded = fj.load(folder, layered_model("last"))
    which = first if np.array_equal(loaded.dictionary, first.dictionary) else second
    same(which, loaded)
    return which


STEPS = ["pathlib.Path.open", "os.replace", "os.rename", "pathlib.Path.mkdir", "shutil.rmtree", "pathlib.Path.unlink"]


@pytest.mark.parametrize("stopped_at", range(36))
def test_saving_that_is_stopped_at_any_step_leaves_the_old_explanation_or_the_new_one(
    explanation, folder, another, monkeypatch, stopped_at
):
    steps = []

    def counted(function):
        def step(*arguments, **options):
            steps.append(1)
            if len(steps) > stopped_at:
                raise KeyboardInterrupt
            return function(*arguments, **options)

        return step

    for name in STEPS:
        monkeypatch.setattr(name, counted(operator.attrgetter(name.split(".", 1)[1])(sys.modules[name.split(".")[0]])))
    try:
        fj.save(another[0], folder)
        ended = True
    except KeyboardInterrupt:
        ended = False
    monkeypatch.undo()
    found = as_a_whole(folder, explanation, another[0])
    assert ended <= (found is another[0])
    if stopped_at % 4:
        return
    # Either way the folder is written to again, and nothing but the explanation is in it then.
    third = explanation if found is another[0] else another[0]
    fj.save(third, folder)
    same(third, fj.load(folder, layered_model("last")))
    assert sorted(file.name for file in folder.iterdir()) == FILES


def test_the_stopped_steps_are_all_there_are(explanation, folder, monkeypatch):
    steps = []
    for name in STEPS:
        function = operator.attrgetter(name.split(".", 1)[1])(sys.modules[name.split(".")[0]])
        monkeypatch.setattr(name, lambda *a, function=function, **k: steps.append(1) or function(*a, **k))
    fj.save(explanation, folder)
    assert 12 < len(steps) < 36


def test_the_same_explained_again_gives_the_same_bytes(explanation, files, tmp_path):
    again = fj.explain(layered_model("last"), files, "warm", rank=3, batch=8, faithfulness=None, key=jax.random.key(0))
    again = fj.recurse(
        again, [layered_model("middle"), layered_model("pixels")], concepts=[0, 1], rank=2, threshold=0.3, batch=8
    )
    assert again.provenance.seconds != explanation.provenance.seconds
    for one, name in ((explanation, "first"), (again, "second")):
        fj.save(one, tmp_path / name)
        fj.write_report(one, tmp_path / name)
    for name in (*FILES[:3], "report.html"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


HOLD = """
import pathlib, sys, time
from face_jax.support.atomic_folder import put_together
with put_together(pathlib.Path(sys.argv[1])) as new:
    (new / "explanation.json").write_text("half")
    print("writing", flush=True)
    time.sleep(100)
"""


def test_a_folder_is_one_runs_until_it_ends_however_it_does(explanation, folder):
    before = fj.load(folder, layered_model("last"))
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "writing\n"
    try:
        with pytest.raises(FolderInUseError, match=r"another run is writing to it; wait until it's done"):
            fj.save(explanation, folder)
        same(before, fj.load(folder, layered_model("last")))
    finally:
        other.kill()
        other.communicate()
    same(before, fj.load(folder, layered_model("last")))
    fj.save(explanation, folder)
    assert sorted(file.name for file in folder.iterdir()) == FILES


def test_whoever_may_read_new_files_may_read_all_of_them(folder, tmp_path):
    (tmp_path / "new").touch()
    assert {file.stat().st_mode for file in folder.iterdir()} == {(tmp_path / "new").stat().st_mode}


@pytest.mark.parametrize("act", ["save", "report", "load"])
def test_a_folder_without_a_name_or_that_is_a_file_is_refused(explanation, folder, act, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (here / "text").touch()
    does = {
        "save": lambda f: fj.save(explanation, f),
        "report": lambda f: fj.write_report(explanation, f),
        "load": lambda f: fj.load(f, explanation.model),
    }
    with pytest.raises(ValueError, match="folder='' names nothing"):
        does[act]("")
    with pytest.raises(ValueError, match=r"folder='text' is a file; give a folder, such as '\.'"):
        does[act]("text")
    assert [each.name for each in here.iterdir()] == ["text"]
    with pytest.raises(ValueError, match=r"explanation\.json' is a file"):
        does[act](folder / "explanation.json")


def test_files_that_no_explanation_can_be_restored_from(folder, tmp_path):
    model = layered_model("last")
    with pytest.raises(SavedFilesError, match=r"has no explanation\.json"):
        fj.load(tmp_path / "nowhere", model)
    text = (folder / "explanation.json").read_text()
    (folder / "explanation.json").write_text(text.replace('"format": 6', '"format": 3', 1))
    with pytest.raises(SavedFilesError, match=r"format 3, and this version .* reads formats 4, 5 and 6"):
        fj.load(folder, model)
    (folder / "explanation.json").write_text(text[:100])
    with pytest.raises(SavedFilesError, match=r"explanation\.json is damaged"):
        fj.load(folder, model)
    for old, new in (
        ('"scaled_kkt_residual"', '"scaled_kkt_residuum"'),
        ('"settings"', '"sittings"'),
        ('"kl_quantiles": [', '"kl_quantiles": [0.0, '),
        ('"photographs": [', '"photographs": [null, '),
    ):
        assert old in text
        (folder / "explanation.json").write_text(text.replace(old, new))
        with pytest.raises(SavedFilesError, match=r"don't fit together .*; copy all files of one"):
            fj.load(folder, model)
    (folder / "explanation.json").write_text(text)
    bank = (folder / "bank.safetensors").read_bytes()
    (folder / "bank.safetensors").write_bytes(bank[:50])
    with pytest.raises(SavedFilesError, match=r"bank\.safetensors is missing or damaged"):
        fj.load(folder, model)

"""Files of an explanation that were damaged or made up: refused in a sentence, and never loaded with other values."""

import copy
import json
import os
import pathlib
import random
import re
import shutil
import sys
import tomllib

import numpy as np
import pytest
from layered_model import layered_model, warm_pictures
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from test_loading import rewrite, same

import face_jax as fj
from face_jax.explanation.loading import SavedFilesError
from face_jax.explanation.saving import arrays_digest
from face_jax.pictures.photographs import UnreadablePhotographError

OLD = pathlib.Path(__file__).parent / "saved_format_4"
TEXT, BANK, ACTIVATIONS, SECONDS = "explanation.json", "bank.safetensors", "activations.safetensors", "seconds.json"
MODEL = layered_model("last")


@pytest.fixture(scope="module")
def explanation():
    return fj.load(OLD, MODEL)


@pytest.fixture
def folder(explanation, tmp_path):
    return fj.save(explanation, tmp_path / "saved")


@pytest.fixture
def old(tmp_path):
    return pathlib.Path(shutil.copytree(OLD, tmp_path / "old"))


def test_files_of_format_4_are_read_and_saved_anew(explanation, folder):
    assert explanation.seconds["factorization"] > 10
    assert explanation.recursion.divisions[1].parts[0].name == "2.1"
    np.testing.assert_array_equal(explanation.dictionary, load_file(OLD / BANK)["dictionary"])
    same(explanation, fj.load(folder, MODEL))
    again = fj.load(folder, MODEL, images=warm_pictures())
    np.testing.assert_array_equal(again.photographs[3].pixels(), warm_pictures()[3])


def at(place, value):
    """A change of the text: what stands at a place such as `concepts.0.importance`."""

    def change(text):
        *way, last = [int(step) if step.isdigit() else step for step in place.split(".")]
        for step in way:
            text = text[step]
        text[last] = value(text[last]) if callable(value) else value

    return change


HUGE = 10**19
UNBELIEVABLE = [
    ("concepts.0.importance", 1e9), ("concepts.0.importance", None), ("concepts.0.importance", "0.9"),
    ("concepts.0.importance", True), ("concepts.1.importance", 0.5), ("concepts.0.interval", [0.1, 0.2]),
    ("concepts.0.interval", [0.1]), ("concepts.0.number", 2), ("concepts.0.tcav", 0.5), ("concepts.0.tcav", -1),
    ("concepts.0.tcav_p_value", None), ("concepts.0.gradient_times_code", 7.0), ("concepts.0.coverage", 2),
    ("concepts.0.strongest.0.crop", HUGE), ("concepts.0.strongest.0.crop", -1), ("concepts.0.strongest.0.crop", 3),
    ("concepts.0.strongest.0.code", 1e6), ("concepts.0.strongest.0.box", [0, 0, 5, 5]),
    ("concepts.0.strongest", lambda crops: crops[::-1]), ("concepts", []), ("concepts", lambda all_: all_[:2]),
    ("concepts", {}), ("concepts", None), ("target.index", -1), ("target.index", 99), ("target.index", 1),
    ("target.index", 0.0), ("target.name", 3), ("notes", {"a": 1}), ("notes", "words"), ("notes", [1]),
    ("scores", None), ("scores", []), ("scores.0.agreement", 1.5), ("scores.0.agreement", None), ("scores.0.kl", -5.0),
    ("scores.0.kl", "0.1"), ("scores.0.insertion", [1.0]), ("scores.0.deletion.0", 0.123), ("scores.0.c_gini", 0.01),
    ("scores.0.c_insertion", 0.01), ("scores.0.kl_quantiles", {"50 %": 1}), ("scores.0.becomes_index", [[0]]),
    ("photographs.held_out", [0, 8, 99]), ("photographs.held_out", [0, 8, -1]), ("photographs.held_out", [0, 8]),
    ("photographs.held_out", [1, 8, 10]), ("photographs.fitted", []), ("photographs.fitted", [HUGE]),
    ("photographs.kept", []), ("photographs.kept.0", None), ("photographs.files.0", 5),
    ("photographs.files.0", "a\0b"), ("photographs.digests.0", "ab"), ("photographs.digests.0", 7),
    ("settings", None), ("settings.target", 1), ("settings.fingerprint", 4), ("settings.preprocess", {}),
    ("settings.preprocess", []),
    ("settings.versions", 1e400), ("importance_is_exact", "yes"), ("accuracy_of_nothing", 3.0), ("fit", []),
    ("recursion.divisions.0.concept", "../x"), ("recursion.divisions.0.crops", 5), ("recursion.spread", [1.0]),
    ("recursion.divisions.0.parts", []), ("recursion.divisions.0.parts.0.concept", "2.1"),
    ("recursion.divisions.0.parts.0.share", 7), ("recursion.suggested", [12]), ("recursion.threshold", None),
    ("recursion.divisions.0.parts.0.strongest.0.crop", 64), ("digest", None), ("digest", "0" * 64), ("more", 1),
    ("concepts.0.gradient_times_code", HUGE**20), ("fit", {"steps": HUGE**20}), ("target.index", HUGE**20),
    ("path", {"points": [], "chosen": 0, "most_error": 1.1}), ("rank_scan", {"ranks": [2]}), ("format", 9),
]  # fmt: skip


@pytest.mark.parametrize("version", ["old", "folder"])
def test_a_text_that_cannot_be_is_refused(request, version):
    folder = request.getfixturevalue(version)
    text = (folder / TEXT).read_text()
    for place, value in UNBELIEVABLE:
        (folder / TEXT).write_text(text)
        # With a digest that fits: whoever makes files up can compute one.
        rewrite(folder, at(place, value))
        with pytest.raises(SavedFilesError) as caught:
            pytest.fail(f"{place} = {value} was believed by {fj.load(folder, MODEL)}")
        assert re.search("; (copy|explain|give)", str(caught.value)), place
        assert "Error:" not in str(caught.value), place


def test_a_text_changed_without_a_word_is_noticed(folder):
    text = json.loads((folder / TEXT).read_text())
    text["scores"][0]["kl"] += 0.001
    (folder / TEXT).write_text(json.dumps(text))
    with pytest.raises(SavedFilesError, match=r"explanation\.json was changed after it was saved"):
        fj.load(folder, MODEL)


@pytest.mark.parametrize(
    "said",
    [
        "[" * 100_000,
        '{"format": 5, "a": ' * 5_000,
        '{"format": 5, "notes": NaN}',
        "[]",
        "null",
        "\xff",
        "",
        "1" * 9_000,
    ],
    ids=lambda text: text[:12],
)
def test_a_text_that_is_no_explanation_is_refused(folder, said):
    (folder / TEXT).write_text(said, encoding="latin-1")
    with pytest.raises(SavedFilesError, match=r"is damaged|has format None"):
        fj.load(folder, MODEL)


def test_a_text_that_is_far_too_long_is_not_read(folder):
    os.truncate(folder / TEXT, 300 * 10**6)
    with pytest.raises(SavedFilesError, match="has 300 MB, and no explanation has more than 64"):
        fj.load(folder, MODEL)


def made_up(folder, name, change):
    """Changes the arrays of a file, with the digests that fit them then."""
    stores = {file: load_file(folder / file) for file in (BANK, ACTIVATIONS)}
    change(stores[name])
    digest = arrays_digest(stores)
    for file, arrays in stores.items():
        save_file(arrays, folder / file, {"digest": digest})
    rewrite(folder, lambda text: text.update(digest=digest))


def filled(name, value):
    def change(arrays):
        arrays[name] = arrays[name].copy()
        arrays[name].flat[1] = value

    return change


ARRAYS = [
    (BANK, filled("dictionary", np.nan), "dictionary has values"), (BANK, filled("dictionary", -0.5), "dictionary has"),
    (BANK, lambda bank: bank.update(dictionary=np.ones((3, 9), np.float32)), "shape"),
    (BANK, lambda bank: bank.pop("codes"), "has no codes"), (BANK, lambda bank: bank.update(x=np.ones(3)), "has 'x'"),
    (BANK, filled("crop_image", 14), "crop_image has values from 1 to 14"), (BANK, filled("crop_box", -3), "crop_box"),
    (BANK, filled("crop_box", 500), "boxes that end before they begin"), (BANK, filled("codes", np.inf), "codes has"),
    (BANK, filled("total_sobol", 1e9), "total_sobol"), (BANK, filled("total_sobol", 0.5), "concepts: importance isn't"),
    (BANK, filled("importance_index", 14), "importance_index"), (BANK, filled("1.1_crops", 66), "1.1_crops"),
    (BANK, filled("score_0_insertion", 0.123), r"scores\[0\]\.insertion"), (BANK, filled("tcav_p_value", 2), "tcav_p"),
    (BANK, lambda bank: bank.update(crop_image=bank["crop_image"].astype(np.float32)), "of type F32, not of whole"),
    (BANK, lambda bank: bank.update(dictionary=bank["dictionary"].astype(np.float16)), "of type F16, not of real"),
    (BANK, lambda bank: bank.update(crop_image=bank["crop_image"][None]), "crop"),
    (BANK, lambda bank: bank.update(tcav_random_scores=np.zeros(0, np.float32)), r"tcav_random_scores has shape \[0\]"),
    (ACTIVATIONS, filled("maps", np.nan), "maps has"), (ACTIVATIONS, filled("maps", -1), "maps has"),
    (ACTIVATIONS, filled("logits", 1e9), "target.index"), (ACTIVATIONS, filled("crops", np.inf), "crops has"),
    (ACTIVATIONS, lambda seen: seen.update(logits=np.ones((14, 5), np.float32)), r"logits has shape \[14, 5\], not 14"),
]  # fmt: skip


@pytest.mark.parametrize("version", ["old", "folder"])
def test_arrays_that_cannot_be_are_refused(request, version):
    folder = request.getfixturevalue(version)
    files = {name: (folder / name).read_bytes() for name in (TEXT, BANK, ACTIVATIONS)}
    for name, change, said in ARRAYS:
        for file, content in files.items():
            (folder / file).write_bytes(content)
        made_up(folder, name, change)
        with pytest.raises(SavedFilesError, match=said):
            fj.load(folder, MODEL)


def test_made_up_files_that_fit_are_read(folder):
    # So that the refusals above are for what was changed, and not for having been written again.
    made_up(folder, BANK, lambda bank: None)
    assert fj.load(folder, MODEL).target_name == "warm"


def test_a_file_that_claims_more_than_the_memory_is_not_read(folder):
    header = (folder / ACTIVATIONS).read_bytes()
    length = int.from_bytes(header[:8], "little")
    said = json.loads(header[8 : 8 + length])
    bank = load_file(folder / BANK)
    side = 160_000
    bank["codes"] = np.zeros((14, side, 1, 3), np.float32)
    digest = said["__metadata__"]["digest"]
    save_file(bank, folder / BANK, {"digest": digest})
    # 14 × 160,000 × 200,000 × 6 numbers, of which the disk has none.
    begin = 0
    for name, shape in (("maps", [14, side, 1, 6]), ("logits", [14, 2]), ("crops", [66, 6])):
        size = 4 * int(np.prod(shape)) if name != "maps" else 4 * 14 * side * 6 * 200_000
        said[name] = {"dtype": "F32", "shape": [14, side * 200_000, 1, 6] if name == "maps" else shape}
        said[name]["data_offsets"] = [begin, begin + size]
        begin += size
    made = json.dumps(said).encode()
    made += b" " * (-len(made) % 8)
    (folder / ACTIVATIONS).write_bytes(len(made).to_bytes(8, "little") + made)
    os.truncate(folder / ACTIVATIONS, 8 + len(made) + begin)
    with pytest.raises(SavedFilesError, match=r"maps has shape|more than this machine's memory"):
        fj.load(folder, MODEL)


def test_without_a_digest_no_file_of_the_readers_disk_is_opened(folder, tmp_path):
    secret = tmp_path / "private.png"
    secret.write_bytes(b"nobody's business")

    def planted(text):
        text["photographs"]["files"][0] = str(secret)
        text["photographs"]["digests"][0] = None

    rewrite(folder, planted)
    loaded = fj.load(folder, MODEL)
    for ask in (loaded.photographs[0].pixels, loaded.photographs[0].digest, lambda: fj.write_report(loaded, tmp_path)):
        with pytest.raises(UnreadablePhotographError, match=r"its pixels were in no file, or in one .* images="):
            ask()
    # Given by the reader, it's found by its name.
    given = [fj.Photograph(f"image {number}", pixels) for number, pixels in enumerate(warm_pictures())]
    assert fj.load(folder, MODEL, images=given).photographs[0].pixels().shape == (32, 40, 3)


def numbers_of(value, place=()):
    if isinstance(value, dict | list):
        for step, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers_of(each, (*place, step))
    else:
        yield place


def mutants(folder, another, count, seed):
    """Copies of a folder's files, each damaged in one way: what was done, and name and content of each file."""
    draw = random.Random(seed)
    files = {name: (folder / name).read_bytes() for name in (TEXT, BANK, ACTIVATIONS, SECONDS)}
    text = json.loads(files[TEXT])
    places = list(numbers_of(text))
    values = (None, True, -1, 0, 1, 2, 0.5, 1e9, 1e-9, HUGE, "", "0", "x", [], {}, [0], "NaN")
    for _ in range(count):
        made, kind = dict(files), draw.choice(["bit", "bit", "byte", "value", "value", "cut", "more", "swap", "zero"])
        name = draw.choice([TEXT, BANK, ACTIVATIONS, SECONDS])
        content = bytearray(made[name])
        where = draw.randrange(len(content))
        if kind == "bit":
            content[where] ^= 1 << draw.randrange(8)
        elif kind == "byte":
            content[where] = draw.randrange(256)
        elif kind == "cut":
            del content[where:]
        elif kind == "more":
            content[where:where] = draw.randbytes(draw.randrange(1, 9))
        elif kind == "zero":
            content[where : where + 32] = bytes(len(content[where : where + 32]))
        elif kind == "swap":
            content = bytearray((another / name).read_bytes())
        else:
            name, changed = TEXT, copy.deepcopy(text)
            way = draw.choice(places)
            at(".".join(map(str, way)), draw.choice(values))(changed) if not any("." in str(s) for s in way) else None
            content = bytearray(json.dumps(changed).encode())
        made[name] = bytes(content)
        yield (kind, name, where), made


def surviving(folder, explanation, another, where, count, seed):
    """How many of the mutants load; all of them must be the explanation that was saved."""
    survived = 0
    for told, files in mutants(folder, another, count, seed):
        for name, content in files.items():
            (where / name).write_bytes(content)
        try:
            loaded = fj.load(where, MODEL)
        except SavedFilesError:
            continue
        survived += 1
        if told[1] == SECONDS and loaded.seconds == {}:
            loaded = fj.Explanation(**{**vars(loaded), "seconds": explanation.seconds})
        same(explanation, loaded, str(told))
    return survived


@pytest.fixture
def another(folder, tmp_path):
    other = pathlib.Path(shutil.copytree(folder, tmp_path / "another"))
    made_up(other, BANK, lambda bank: bank.update({"1_codes": bank["1_codes"] * 1.0000001}))
    return other


def test_no_mutant_loads_with_other_values(folder, explanation, another, tmp_path):
    (tmp_path / "mutant").mkdir()
    assert surviving(folder, explanation, another, tmp_path / "mutant", 120, seed=0) < 20


def test_every_file_has_the_digest_of_the_arrays(folder):
    digest = json.loads((folder / TEXT).read_text())["digest"]
    for name in (BANK, ACTIVATIONS):
        with safe_open(folder / name, framework="numpy") as opened:
            assert opened.metadata()["digest"] == digest


def test_without_safetensors_the_extras_that_have_it_are_named(explanation, folder, tmp_path, monkeypatch):
    extras = tomllib.loads(pathlib.Path(__file__).parents[1].joinpath("pyproject.toml").read_text())
    extras = extras["project"]["optional-dependencies"]
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for act in (lambda: fj.save(explanation, tmp_path / "new"), lambda: fj.load(folder, explanation.model)):
        with pytest.raises(ImportError, match="needs safetensors") as caught:
            act()
        named = re.findall(r"face-jax\[(\w+)\]", str(caught.value))
        assert named == ["torch", "report"]
        assert all(any(package.startswith("safetensors") for package in extras[extra]) for extra in named)

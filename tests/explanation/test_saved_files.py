"""Files of an explanation that were damaged or made up: refused in a sentence, and never loaded with other values."""

import copy
import json
import os
import pathlib
import random
import re
import shutil
import tomllib

import numpy as np
import pytest
from changing import changed
from layered_model import layered_model, sampled_pictures
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from test_loading import rewrite, same

import face_jax as fj
from face_jax.explanation.loading import SavedFilesError
from face_jax.explanation.old_formats import _ARRAYS
from face_jax.explanation.saving import arrays_digest
from face_jax.pictures.photographs import UnreadablePhotographError

SAMPLES = {number: pathlib.Path(__file__).parent / f"saved_format_{number}" for number in (4, 5)}
TEXT, BANK, ACTIVATIONS, SECONDS = "explanation.json", "bank.safetensors", "activations.safetensors", "seconds.json"
MODEL = layered_model("last")


@pytest.fixture(scope="module")
def explanation():
    return fj.load(SAMPLES[4], MODEL)


@pytest.fixture
def folder(explanation, tmp_path):
    return fj.save(explanation, tmp_path / "saved")


@pytest.fixture(params=[4, 5])
def old(request, tmp_path):
    return pathlib.Path(shutil.copytree(SAMPLES[request.param], tmp_path / "old"))


@pytest.mark.parametrize("number", [4, 5])
def test_files_of_older_formats_are_read_and_saved_anew(number, tmp_path):
    explanation = fj.load(SAMPLES[number], MODEL)
    assert explanation.provenance.seconds["factorization"] > 10
    assert explanation.recursion.divisions[1].parts[0].name == "2.1"
    assert (explanation.fit.path is None) == (explanation.fit.rank_scan is None) == (number == 4)
    bank = load_file(SAMPLES[number] / BANK)
    np.testing.assert_array_equal(explanation.dictionary, bank["dictionary"])
    np.testing.assert_array_equal(explanation.importance.tcav.derivative, bank["tcav_derivative"])
    deletion = explanation.scores.rows[2].fidelity.deletion
    np.testing.assert_array_equal([deletion.accuracy, deletion.probability], bank["score_2_deletion"])
    folder = fj.save(explanation, tmp_path / "saved")
    same(explanation, fj.load(folder, MODEL))
    again = fj.load(folder, MODEL, images=sampled_pictures())
    np.testing.assert_array_equal(again.photographs[3].pixels(), sampled_pictures()[3])


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


IMPOSSIBLE = [
    ("bank.concepts.0.importance", 1e9), ("bank.concepts.0.importance", None), ("bank.concepts.0.importance", "0.9"),
    ("bank.concepts.0.importance", True), ("bank.concepts.1.importance", 0.5), ("bank.concepts.0.low", 0.1),
    ("bank.concepts.0.high", None), ("bank.concepts.0.number", 2), ("bank.concepts.0.coverage", 2),
    ("bank.concepts.0.strongest.0", HUGE), ("bank.concepts.0.strongest.0", -1), ("bank.concepts.0.strongest.0", 3),
    ("bank.concepts.0.strongest.0", 1.0), ("bank.concepts.0.strongest", lambda crops: crops[::-1]),
    ("bank.concepts", []), ("bank.concepts", lambda all_: all_[:2]), ("bank.concepts", {}), ("bank.concepts", None),
    ("target.index", -1), ("target.index", 99), ("target.index", 1), ("target.index", 0.0), ("target.index", HUGE**20),
    ("target.chosen", 3), ("provenance.notes", {"a": 1}), ("provenance.notes", "words"), ("provenance.notes", [1]),
    ("scores.rows", None), ("scores.rows", []), ("scores.rows.0.agreement", 1.5), ("scores.rows.0.agreement", None),
    ("scores.rows.0.kl", -5.0), ("scores.rows.0.kl", "0.1"), ("scores.rows.0.gini", 0.01),
    ("scores.rows.0.fidelity.c_insertion", 0.01), ("scores.rows.0.kl_quantiles", [1.0]),
    ("scores.rows.0.kl_quantiles", {"50 %": 1}), ("scores.rows.0.becomes", [[0]]), ("scores.rows.0.becomes", [[0, -1]]),
    ("scores.accuracy_of_nothing", 3.0), ("pictures.photographs", []), ("pictures.photographs.0.name", None),
    ("pictures.photographs.0.file", 5), ("pictures.photographs.0.file", "a\0b"), ("pictures.photographs.0", None),
    ("pictures.photographs.0.digest", "ab"), ("pictures.photographs.0.digest", 7), ("pictures.fitted", [1]),
    ("pictures.photographs.0.more", 1), ("pictures.crops.window", [[0, 0, 1, 1]]), ("bank.dictionary", [[1.0]]),
    ("provenance.settings", None), ("provenance.settings.target", 1), ("provenance.settings.fingerprint", 4),
    ("provenance.settings.preprocess", {}), ("provenance.settings.preprocess", []), ("provenance.settings.key", [-1]),
    ("provenance.settings.preprocess.std", [0.0, "x", 1.0]), ("provenance.settings.preprocess.size", {"a": 1}),
    ("provenance.settings.versions", 1e400), ("provenance.settings.versions", {"jax": 1}),
    ("provenance.settings.faithfulness", "much"), ("importance.sobol.exact", "yes"), ("importance.sobol.exact", 1),
    ("importance", []), ("fit", []), ("fit.steps", HUGE**20), ("fit.objective", HUGE**20), ("fit.more", 1),
    ("recursion.divisions.0.path", ["../x"]), ("recursion.divisions.0.path", [2]), ("recursion.divisions.0.parts", []),
    ("recursion.divisions.0.parts.0.path", [2, 1]), ("recursion.divisions.0.parts.0.division.path", [1, 2]),
    ("recursion.divisions.0.parts.0.share", 7), ("recursion.suggested", [12]), ("recursion.suggested", [-1]),
    ("recursion.threshold", None), ("recursion.divisions.0.parts.0.strongest.0", 64), ("recursion.spread", [1.0]),
    ("fit.path", {"points": [], "chosen": 0, "most_error": 1.1}), ("fit.rank_scan", {}), ("model", {"name": "x"}),
    ("fit.path", {"points": [], "chosen": 0, "most_error": 1.1, "solution": {}}), ("provenance.seconds", {"a": 1.0}),
    ("more", 1),
]  # fmt: skip


def refused(folder, changes):
    """Tries every change of the text by itself; each has to be refused in a sentence."""
    text = (folder / TEXT).read_text()
    for place, value in changes:
        (folder / TEXT).write_text(text)
        # With a digest that fits: whoever makes files up can compute one.
        rewrite(folder, at(place, value))
        with pytest.raises(SavedFilesError) as caught:
            pytest.fail(f"{place} = {value} was believed by {fj.load(folder, MODEL)}")
        assert re.search("; (copy|explain|give)", str(caught.value)), place
        assert "Error:" not in str(caught.value), place


def test_an_older_text_that_cannot_be_is_refused(old):
    refused(old, UNBELIEVABLE)


def test_a_record_that_cannot_be_is_refused(folder):
    refused(folder, [(f"record.{place}", value) for place, value in IMPOSSIBLE])
    deep = []
    for _ in range(300):
        deep = [deep]
    refused(folder, [("record", None), ("record", []), ("record", {}), ("record.recursion.divisions.0.parts", deep)])
    refused(folder, [("digest", None), ("digest", "0" * 64), ("format", 9), ("format", 5), ("format", 4)])


def test_what_is_said_in_words_is_not_what_is_loaded(folder, explanation):
    rewrite(folder, lambda text: text["concepts"][0].update(importance=0.123))
    same(explanation, fj.load(folder, MODEL))


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


def with_value(value):
    def change(array):
        array = array.copy()
        array.flat[1] = value
        return array

    return change


def of_type(kind):
    return lambda array: array.astype(kind)


def gone(array):
    return None


# By the names that arrays had before, in which file, and what is said of them where they are now.
ARRAYS = [
    (BANK, "dictionary", with_value(np.nan), r"bank\.dictionary has values"),
    (BANK, "codes", with_value(-0.5), r"bank\.codes has values"),
    (BANK, "dictionary", lambda _: np.ones((3, 9), np.float32), r"dictionary has shape \[3, 9\], not 3 × 6|channel"),
    (BANK, "dictionary", of_type(np.float16), "dictionary is of type F16, not of real"),
    (BANK, "codes", gone, "bank has no codes"),
    (BANK, "codes", with_value(np.inf), r"bank\.codes has values"),
    (BANK, "x", lambda _: np.ones(3), "has 'x', which doesn't belong there"),
    (BANK, "crop_image", with_value(14), r"crops\.image has values from 1 to 14"),
    (BANK, "crop_image", of_type(np.float32), "of type F32, not of whole"),
    (BANK, "crop_image", lambda image: image[None], r"pictures\.crops\.image has shape \[1, 66\]"),
    (BANK, "crop_box", with_value(-3), r"crops\.box has values"),
    (BANK, "crop_box", with_value(500), "boxes that end before they begin"),
    (BANK, "total_sobol", with_value(1e9), r"sobol\.total has values"),
    (BANK, "total_sobol", with_value(0.5), "concepts: importance isn't"),
    (BANK, "importance_index", with_value(14), r"importance\.index counts further"),
    (BANK, "1.1_crops", with_value(66), r"divisions\[0\]\.parts\[0\]\.division\.crops has values"),
    (BANK, "score_0_insertion", with_value(0.123), r"scores\.rows\[0\]: its areas"),
    (BANK, "tcav_p_value", with_value(2), r"tcav\.p_value has values"),
    (BANK, "tcav_random_scores", lambda _: np.zeros(0, np.float32), r"tcav\.random_scores has shape \[0\]"),
    (ACTIVATIONS, "maps", with_value(np.nan), r"collected\.maps has values"),
    (ACTIVATIONS, "logits", with_value(1e9), r"target\.index"),
    (ACTIVATIONS, "crops", with_value(np.inf), r"pictures\.crop_activations has values"),
    (ACTIVATIONS, "logits", lambda _: np.ones((14, 5), np.float32), r"logits has shape \[14, 5\], not 14 × 2"),
]
PATHS = {
    **_ARRAYS,
    "1.1_crops": "recursion.divisions.0.parts.0.division.crops",
    "score_0_insertion": "scores.rows.0.fidelity.insertion.accuracy",
}


def refused_arrays(folder, names):
    files = {name: (folder / name).read_bytes() for name in (TEXT, BANK, ACTIVATIONS)}
    for file, name, change, said in ARRAYS:
        name = names.get(name, name)
        for each, content in files.items():
            (folder / each).write_bytes(content)

        def change_one(arrays, name=name, change=change):
            arrays[name] = change(arrays.get(name))
            if arrays[name] is None:
                del arrays[name]

        made_up(folder, file, change_one)
        with pytest.raises(SavedFilesError, match=said):
            fj.load(folder, MODEL)


def test_older_arrays_that_cannot_be_are_refused(old):
    refused_arrays(old, {})


def test_arrays_that_cannot_be_are_refused(folder):
    refused_arrays(folder, PATHS)


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
    bank["bank.codes"] = np.zeros((14, side, 1, 3), np.float32)
    digest = said["__metadata__"]["digest"]
    save_file(bank, folder / BANK, {"digest": digest})
    # 14 × 160,000 × 200,000 × 6 numbers, of which the disk has none.
    begin = 0
    for name, shape in (
        ("collected.maps", [14, side, 1, 6]),
        ("collected.logits", [14, 2]),
        ("crop_activations", [66, 6]),
    ):
        maps, name = name == "collected.maps", f"pictures.{name}"
        size = 4 * int(np.prod(shape)) if not maps else 4 * 14 * side * 6 * 200_000
        said[name] = {"dtype": "F32", "shape": [14, side * 200_000, 1, 6] if maps else shape}
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
        text["record"]["pictures"]["photographs"][0].update(file=str(secret), digest=None)

    rewrite(folder, planted)
    loaded = fj.load(folder, MODEL)
    for ask in (loaded.photographs[0].pixels, loaded.photographs[0].digest, lambda: fj.write_report(loaded, tmp_path)):
        with pytest.raises(UnreadablePhotographError, match=r"its pixels were in no file, or in one .* images="):
            ask()
    # Given by the reader, it's found by its name.
    given = [fj.Photograph(f"image {number}", pixels) for number, pixels in enumerate(sampled_pictures())]
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
        if told[1] == SECONDS and loaded.provenance.seconds == {}:
            loaded = changed(loaded, {"provenance.seconds": explanation.provenance.seconds})
        same(explanation, loaded, str(told))
    return survived


@pytest.fixture
def another(folder, tmp_path):
    other = pathlib.Path(shutil.copytree(folder, tmp_path / "another"))
    made_up(
        other,
        BANK,
        lambda bank: bank.update({name: bank[name] * 1.0000001 for name in ["recursion.divisions.0.codes"]}),
    )
    return other


def test_no_mutant_loads_with_other_values(folder, explanation, another, tmp_path):
    (tmp_path / "mutant").mkdir()
    assert surviving(folder, explanation, another, tmp_path / "mutant", 120, seed=0) < 20


def test_every_file_has_the_digest_of_the_arrays(folder):
    digest = json.loads((folder / TEXT).read_text())["digest"]
    for name in (BANK, ACTIVATIONS):
        with safe_open(folder / name, framework="numpy") as opened:
            assert opened.metadata()["digest"] == digest


def test_what_saving_needs_comes_with_the_core():
    project = tomllib.loads(pathlib.Path(__file__).parents[2].joinpath("pyproject.toml").read_text())["project"]
    assert {"cattrs", "safetensors"} <= {re.match(r"[\w-]+", package)[0] for package in project["dependencies"]}

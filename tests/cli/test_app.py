"""The command as users run it: a subprocess, on the embedded default; and what it says when something's wrong."""

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from face_jax import report
from face_jax.explanation import saving

pytest.importorskip("efficientnet_lite_pytorch", reason="the embedded classifier isn't installed")


def face_jax(*words, folder, cache, environment=None):
    """The command as a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "face_jax.cli", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "FACE_JAX_CACHE": str(cache), "COLUMNS": "200", "NO_COLOR": "1", **(environment or {})},
    )


def invoked(*words, **environment):
    """The command in this process, where all is imported already; a pipe is where it writes."""
    from typer.testing import CliRunner

    from face_jax.cli import app

    return CliRunner().invoke(app.app, words, env={"COLUMNS": "200", "NO_COLOR": "1", **environment})


@pytest.fixture(scope="module")
def own_settings():
    """The tests' own number of threads stays, whatever the command asks for."""
    from face_jax import bridges

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bridges, "share_processor", lambda: None, raising=False)
        yield


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def demo(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("demo")
    done = face_jax("demo", "--out", "cat", folder=folder, cache=cache)
    done.written = {file.name: file.read_bytes() for file in (folder / "cat").glob("*") if file.stem != "seconds"}  # pyright: ignore[reportAttributeAccessIssue]
    return folder, done


def test_the_demo_explains_the_cat(demo):
    folder, done = demo
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cat/report.html"]
    assert {file.name for file in (folder / "cat").iterdir()} == {
        "report.html",
        "explanation.json",
        "bank.safetensors",
        "activations.safetensors",
        "seconds.json",
    }
    text = json.loads((folder / "cat" / "explanation.json").read_text())
    assert text["target"]["name"] in ("tabby", "tiger cat", "Egyptian cat")
    assert len(text["concepts"]) == 6
    assert text["concepts"][0]["importance"] > 0.3
    own, without, *controls = text["scores"]
    assert own["relative_squared_error"] < min(row["relative_squared_error"] for row in controls)
    assert own["kl"] < min(row["kl"] for row in controls)
    # It's faithful by default.
    assert without["name"].startswith("λ = 0")
    assert own["kl"] < 0.9 * without["kl"]
    assert own["agreement"] > 0.8 > 0.6 > without["agreement"]
    assert any("Faithfulness with λ=" in note for note in text["notes"])
    # What the concepts leave out of a cat still is a cat.
    assert set(own["becomes"]) <= {"tabby", "tiger cat", "Egyptian cat"}


def test_it_is_quiet_in_a_pipe(demo):
    _, done = demo
    assert "━" not in done.stderr
    assert "\r" not in done.stderr
    assert "the network's forward passes" in done.stderr


def test_the_same_command_uses_the_kept_activations_and_gives_the_same_bytes(demo, cache, tmp_path):
    _, first = demo
    done = face_jax("demo", "--out", "cat", folder=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    assert first.written.keys() >= {"report.html", "explanation.json", "bank.safetensors", "activations.safetensors"}
    for name, content in first.written.items():
        assert (tmp_path / "cat" / name).read_bytes() == content, name
    seconds = json.loads((tmp_path / "cat" / "seconds.json").read_text())["seconds"]
    assert seconds.get("the network's forward passes", 0) == 0


@pytest.fixture
def tiny(monkeypatch, tmp_path, own_settings):
    """Runs the command in this process, on a small network; gives the folder of its report."""
    import torch
    from toy_model import pictures

    from face_jax import bridges
    from face_jax.model import Preprocess

    torch.manual_seed(3)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU(), torch.nn.Conv2d(8, 12, 2, stride=2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(12, 3),
    ).eval()  # fmt: skip
    loaded = bridges.LoadedModel(network, Preprocess(size=32, resize=32), ("a", "b", "c"), "tiny")
    monkeypatch.setattr(bridges, "load", lambda *_, **__: loaded, raising=False)
    (tmp_path / "photos").mkdir()
    for number, pixels in enumerate(pictures(12, 0)):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02}.png")

    def run(*words, ends=0, cache=None):
        options = ["--images", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--rank", "3", "--crops", "6"]
        kept = {} if cache is None else {"FACE_JAX_CACHE": str(cache)}
        done = invoked("explain", *options, *(["--no-cache"] if cache is None else []), *words, **kept)
        assert done.exit_code == ends, done.output
        return tmp_path / "out", done

    run.photos = tmp_path / "photos"  # pyright: ignore[reportFunctionMemberAccess]
    return run


def test_visualization_and_sanity_check_are_drawn_and_kept_beside_the_report(tiny):
    out, done = tiny("--visualize", "2", "--sanity")
    assert "feature visualization" in done.output
    assert "sanity check" in done.output
    for number in (1, 2):
        with Image.open(out / "visualization" / f"concept-{number}.png") as picture:
            assert picture.size == (32, 32)
            assert np.asarray(picture).std() > 1
    check = json.loads((out / "sanity.json").read_text())
    first, last = check["stages"][0], check["stages"][-1]
    assert first["name"] == "as trained"
    assert first["dictionary"] > 0.99 > last["dictionary"]
    assert (out / "sanity.png").exists()
    report = (out / "report.html").read_text()
    assert report.count("picture made for concept") == 2
    assert "Does it depend on what was learned?" in report
    assert not (out / ".writable").exists()
    # Another explanation in the same folder leaves nothing of this one.
    tiny()
    assert {file.name for file in out.iterdir()} == {
        "report.html", "explanation.json", "bank.safetensors", "activations.safetensors", "seconds.json",
    }  # fmt: skip


def test_concepts_are_taken_apart_at_an_earlier_layer_from_the_kept_activations(tiny, tmp_path, monkeypatch):
    # The small network mixes too little to be taken apart otherwise.
    module = sys.modules["face_jax.recursion.recurse"]
    monkeypatch.setattr(module, "recurse", functools.partial(module.recurse, threshold=0.1))
    tiny(cache=tmp_path / "cache")
    out, _ = tiny("--depth", "1", cache=tmp_path / "cache")
    seconds = json.loads((out / "seconds.json").read_text())["seconds"]
    assert seconds.get("the network's forward passes", 0) == 0
    recursion = json.loads((out / "explanation.json").read_text())["recursion"]
    assert recursion["layer"] == "1"
    assert len(recursion["spread"]) == 3
    assert recursion["suggested"]
    for number, division in zip(recursion["suggested"], recursion["divisions"], strict=True):
        assert division["concept"] == str(number)
        assert division["layer"] == "1"
        assert len(division["parts"]) > 1
    assert "What they are made of" in (out / "report.html").read_text()


@pytest.mark.parametrize("signs", ["mixed", "apart"])
def test_a_layer_with_activations_below_zero_is_explained_either_way(tiny, signs):
    more = ["--sanity", "--visualize", "1"] if signs == "apart" else []
    out, _ = tiny("--layer", "2", "--signs", signs, *more)
    text = json.loads((out / "explanation.json").read_text())
    settings = text["record"]["provenance"]["settings"]
    assert settings["solver"].startswith("ADMM(" if signs == "apart" else "SemiNMF(")
    said = {"apart": "channels of their own", "mixed": "concepts are directions whose entries have either sign"}
    assert said[signs] in (out / "report.html").read_text()
    if more:
        assert json.loads((out / "sanity.json").read_text())["stages"][0]["dictionary"] > 0.99


def test_activations_beyond_the_memory_allowed_are_in_files_and_the_report_says_so(tiny, tmp_path):
    out, done = tiny("--memory", "0", "--store", str(tmp_path / "store"))
    assert "were kept in files" in " ".join(done.output.split())
    assert "were kept in files" in (out / "report.html").read_text()
    assert any("were kept in files" in note for note in json.loads((out / "explanation.json").read_text())["notes"])
    assert list((tmp_path / "store").iterdir()) == []


def test_what_is_found_is_kept_before_the_extras(tiny, monkeypatch):
    from face_jax.cli import run

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "checked", interrupted)
    out, _ = tiny("--visualize", "1", "--sanity", ends=130)
    assert {"report.html", "explanation.json", "bank.safetensors", "visualization"} <= {
        file.name for file in out.iterdir()
    }


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize(("home", "name"), [(saving, "save"), (report, "write_report")], ids=["save", "report"])
def test_an_interrupt_while_files_are_made_leaves_the_old_ones(tiny, monkeypatch, home, name):
    out, _ = tiny()
    before = contents(out)
    make = getattr(home, name)

    def interrupted(*words, **more):
        make(*words, **more)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(home, name, interrupted)
    tiny("--seed", "1", ends=130)
    assert contents(out) == before


@pytest.mark.parametrize("becomes", [None, RuntimeError("a callback failed")], ids=["swallowed", "another error"])
def test_an_interrupt_that_gets_lost_in_a_callback_ends_the_run(tiny, monkeypatch, becomes):
    make = report.write_report

    def lost(*words, **more):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            if becomes is not None:
                raise becomes from None
        return make(*words, **more)

    monkeypatch.setattr(report, "write_report", lost)
    out, _ = tiny(ends=130)
    assert not out.exists()


def test_a_second_run_into_a_folder_is_refused_before_it_does_any_work(tiny, tmp_path):
    from face_jax.support.atomic_folder import claimed

    with claimed(tmp_path / "out"):
        _, done = tiny(ends=2)
        assert "another run is writing to it; wait until it's done, or name another folder" in done.output
    tiny()


def test_a_full_disk_is_said_in_a_line_and_leaves_the_old_files(tiny, monkeypatch):
    resource = pytest.importorskip("resource", reason="only Unix limits the size of files")
    out, _ = tiny()
    before = contents(out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    largest = max(map(len, before.values()))
    for room in (100, largest // 2):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            _, done = tiny("--seed", "1", ends=2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        (line,) = [line for line in done.output.splitlines() if line.strip()]
        assert "can't be written to (File too large), and is as it was; make room there" in line
        assert contents(out) == before


def test_names_with_brackets_are_said_as_they_are(tiny):
    photos = tiny.photos
    (photos / "trip [bold] [copy].png").write_bytes(b"no picture")
    _, done = tiny()
    assert "trip [bold] [copy].png: not a picture" in done.output


def test_a_number_is_the_weight_of_faithfulness(tiny):
    plain, _ = tiny()
    without = json.loads((plain / "explanation.json").read_text())
    out, _ = tiny("--faithfulness", "50")
    text = json.loads((out / "explanation.json").read_text())
    assert not without["settings"]["faithfulness"]
    assert text["settings"]["faithfulness"]
    assert "50.0" in text["settings"]["objective"]
    assert any("λ = 0" in row["name"] for row in text["scores"][1:])
    assert "fitted with a faithfulness term" in (out / "report.html").read_text()


def test_faithfulness_is_left_out_where_it_is_not_wanted(tiny):
    # Ten photographs are fitted, too few to choose λ on.
    for words, said in (((), True), (("--faithfulness", "none"), False)):
        text = json.loads((tiny(*words)[0] / "explanation.json").read_text())
        assert text["settings"]["faithfulness"] is False
        assert any("without the faithfulness term, which is there by default" in note for note in text["notes"]) == said


def test_a_preset_is_said_in_the_report_with_what_is_given_beside_it(tiny):
    out, done = tiny("--preset", "craft")
    settings = json.loads((out / "explanation.json").read_text())["settings"]
    assert settings["preset"] == "craft"
    assert settings["solver"].startswith("CRAFT(")
    said = "taken in its place: rank=3, crops=RandomCrops(per_image=6"
    assert said in " ".join(done.output.split())
    assert said in (out / "report.html").read_text()


def test_help_has_an_example_for_every_command():
    for command in ("explain", "demo", "layers"):
        done = invoked(command, "--help")
        assert done.exit_code == 0
        assert f"Example: face-jax {command}" in done.stdout


def test_layers_of_the_embedded_model():
    done = invoked("layers")
    assert done.exit_code == 0, done.output
    assert "7 × 7 × 1280" in done.stdout
    assert "pooling, then affine" in done.stdout


@pytest.mark.parametrize("terminal", [True, False])
def test_names_of_layers_are_whole(terminal, monkeypatch):
    from face_jax.bridges.splitting.listing import Layer
    from typer.testing import CliRunner

    from face_jax import bridges
    from face_jax.cli import app

    name = "features.denseblock4.denselayer16.relu2"
    place = Layer(name, (), "ReLU", (7, 7, 1280), -12.5, 0.43, False)
    model = SimpleNamespace(name="a [model]", layers=lambda: (place,))
    monkeypatch.setattr(bridges, "load", lambda *_, **__: model, raising=False)
    for variable, value in {"COLUMNS": "80", "FORCE_COLOR": "1" if terminal else ""}.items():
        monkeypatch.setenv(variable, value)
    done = CliRunner().invoke(app.app, ["layers"])
    assert done.exit_code == 0, done.output
    assert name in done.output
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", done.output).splitlines()) <= (
        80 if terminal else 120
    )
    assert ("43 %, down to -12" in done.output) == (not terminal)


MISTAKES = [
    (["explain", "--images", "nowhere"], "does not exist"),
    (["explain", "--images", "photos", "--model", "resnet43", "--weights", "none"], "resnet34"),
    (["explain", "--images", "photos", "--layer", "_conv_heat"], "_conv_head"),
    (["explain", "--images", "photos", "--target", "tenchh"], "did you mean tench"),
    (["explain", "--images", "photos", "--target", "church"], "none of the 2 photographs"),
    (["explain", "--images", "photos", "--signs", "both"], "neither mixed nor apart"),
    (["explain", "--images", "photos", "--crops", "2", "--rank", "20"], "rank=20"),
    (["explain", "--images", "photos", "--out", "file/report"], "can't be written to"),
    (["explain", "--images", "photos", "--model", "resnet18", "--weights", "wrong.pth"], "weights"),
    (["explain", "--images", "photos", "--model", "resnet18"], ".pth"),
    (["demo", "--photos", "imagenette"], "internet"),
    (["explain", "--images", "photos", "--faithfulness", "much"], "neither none nor auto nor a number"),
    (["explain", "--images", "nowhere", "--preset", "lad"], "--preset 'lad' is no paper's settings; give one of face"),
    (
        ["explain", "--images", "photos", "--preset", "ice", "--faithfulness", "auto"],
        "preset='ice' has no faithfulness",
    ),
    (["explain", "--images", "photos", "--visualize", "-1"], "--visualize -1"),
    (["explain", "--images", "nowhere", "--rank", "0"], "--rank=0 isn't a number of concepts"),
    (["explain", "--images", "nowhere", "--batch", "0"], "--batch=0 isn't a number of pictures"),
    (["demo", "--rank", "0"], "--rank=0 isn't a number of concepts"),
    (["demo", "--photos", "dog"], "chelsea"),
]


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    """A folder to make mistakes in, and the environment; no machine of the tests' may reach out, whatever it could."""
    import torch

    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "photos").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    (folder / "file").touch()
    torch.save({"fc.weight": torch.zeros(3, 4), "other": torch.zeros(1)}, folder / "wrong.pth")
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return folder, {**offline, "TORCH_HOME": str(folder / "torch")}


@pytest.fixture(scope="module")
def answers(mistaken, cache, own_settings):
    """How each mistake ends, and what is said."""
    folder, environment = mistaken
    with contextlib.chdir(folder):
        return [invoked(*words, FACE_JAX_CACHE=str(cache), **environment) for words, _ in MISTAKES]


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=lambda number: " ".join(MISTAKES[number][0]))
def test_what_is_wrong_is_said_in_a_line(number, answers):
    done = answers[number]
    assert done.exit_code == 2, f"{done.output}\n{done.exception!r}"
    assert MISTAKES[number][1] in done.output


def test_what_is_refused_leaves_no_folder(answers, mistaken):
    folder, _ = mistaken
    assert {file.name for file in folder.iterdir()} <= {"photos", "file", "wrong.pth", "torch"}
    assert answers


def test_a_process_ends_with_what_is_wrong(mistaken, cache):
    folder, environment = mistaken
    done = face_jax("explain", "--images", "nowhere", folder=folder, cache=cache, environment=environment)
    assert done.returncode == 2, done.stderr + done.stdout
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr

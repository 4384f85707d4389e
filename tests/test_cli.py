"""The command as users run it: a subprocess, on the embedded default; and what it says when something's wrong."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("efficientnet_lite_pytorch", reason="the embedded classifier isn't installed")


def face_jax(*words, folder, cache, environment=None):
    return subprocess.run(
        [sys.executable, "-m", "face_jax.cli", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "FACE_JAX_CACHE": str(cache), "COLUMNS": "200", "NO_COLOR": "1", **(environment or {})},
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def demo(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("demo")
    return folder, face_jax("demo", "--out", "cat", folder=folder, cache=cache)


def test_the_demo_explains_the_cat(demo):
    folder, done = demo
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cat/report.html"]
    assert {file.name for file in (folder / "cat").iterdir()} == {
        "report.html",
        "explanation.json",
        "bank.safetensors",
        "activations.safetensors",
    }
    text = json.loads((folder / "cat" / "explanation.json").read_text())
    assert text["target"]["name"] in ("tabby", "tiger cat", "Egyptian cat")
    assert len(text["concepts"]) == 6
    assert text["concepts"][0]["importance"] > 0.3
    own, *controls = text["scores"]
    assert own["relative_squared_error"] < min(row["relative_squared_error"] for row in controls)
    assert own["kl"] < min(row["kl"] for row in controls)
    # What the concepts leave out of a cat still is a cat.
    assert set(own["becomes"]) <= {"tabby", "tiger cat", "Egyptian cat"}


def test_it_is_quiet_in_a_pipe(demo):
    _, done = demo
    assert "━" not in done.stderr
    assert "\r" not in done.stderr
    assert "the network's forward passes" in done.stderr


def test_a_second_run_uses_the_kept_activations(demo, cache):
    folder, _ = demo
    before = (folder / "cat" / "explanation.json").read_text()
    done = face_jax("demo", "--out", "cat", "--depth", "1", folder=folder, cache=cache)
    assert done.returncode == 0, done.stderr
    again = json.loads((folder / "cat" / "explanation.json").read_text())
    assert again["concepts"] == json.loads(before)["concepts"]
    assert again["seconds"].get("the network's forward passes", 0) == 0
    recursion = again["recursion"]
    assert recursion["layer"].startswith("_blocks.")
    assert len(recursion["spread"]) == 6
    for number, division in zip(recursion["suggested"], recursion["divisions"], strict=True):
        assert division["concept"] == str(number)
        assert division["layer"].startswith("_blocks.")
        assert len(division["parts"]) > 1
    assert "What they are made of" in (folder / "cat" / "report.html").read_text()


def test_help_has_an_example_for_every_command(tmp_path, cache):
    for command in ("explain", "demo", "layers"):
        done = face_jax(command, "--help", folder=tmp_path, cache=cache)
        assert done.returncode == 0
        assert f"Example: face-jax {command}" in done.stdout


def test_layers_of_the_embedded_model(tmp_path, cache):
    done = face_jax("layers", folder=tmp_path, cache=cache)
    assert done.returncode == 0, done.stderr
    assert "7 × 7 × 1280" in done.stdout
    assert "pooling, then affine" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explain", "--images", "nowhere"], "does not exist"),
        (["explain", "--images", "photos", "--model", "resnet43", "--weights", "none"], "resnet34"),
        (["explain", "--images", "photos", "--layer", "_conv_heat"], "_conv_head"),
        (["explain", "--images", "photos", "--target", "tenchh"], "did you mean tench"),
        (["explain", "--images", "photos", "--target", "church"], "none of the 2 photographs"),
        (["explain", "--images", "photos", "--layer", "_blocks.10"], "below zero"),
        (["explain", "--images", "photos", "--crops", "2", "--rank", "20"], "rank=20"),
        (["explain", "--images", "photos", "--out", "file/report"], "can't be written to"),
        (["explain", "--images", "photos", "--model", "resnet18", "--weights", "wrong.pth"], "weights"),
        (["explain", "--images", "photos", "--model", "resnet18"], ".pth"),
        (["demo", "--photos", "imagenette"], "internet"),
        (["demo", "--photos", "dog"], "chelsea"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_in_a_line(words, said, tmp_path, cache):
    import torch

    (tmp_path / "photos").mkdir()
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    (tmp_path / "file").touch()
    torch.save({"fc.weight": torch.zeros(3, 4), "other": torch.zeros(1)}, tmp_path / "wrong.pth")
    # No machine of the tests' may reach out, whatever it could reach.
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    environment = {**offline, "TORCH_HOME": str(tmp_path / "torch")}
    done = face_jax(*words, folder=tmp_path, cache=cache, environment=environment)
    assert done.returncode == 2, done.stderr + done.stdout
    assert said in done.stderr
    assert "Traceback" not in done.stderr

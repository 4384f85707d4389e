"""Models of timm and transformers through the command, from folders; and weights of one's own with class names."""

import json

import numpy as np
import pytest
import safetensors
import torch
from PIL import Image
from small_clip import write_clip
from typer.testing import CliRunner

from face_jax import bridges
from face_jax.cli import app

# Blocks of the same small shape in both libraries.
BLOCKS = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}


@pytest.fixture
def explained(monkeypatch, tmp_path):
    """Runs `face-jax explain` in this process on three photographs of noise; gives what it wrote."""
    monkeypatch.setattr(bridges, "share_processor", lambda: None, raising=False)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")

    def run(*words):
        options = ["--images", str(tmp_path / "photos"), "--out", str(tmp_path / "out"), "--rank", "2", "--crops", "4"]
        done = CliRunner().invoke(app.app, ["explain", *options, "--no-cache", *words])
        assert done.exit_code == 0, done.output
        return json.loads((tmp_path / "out" / "explanation.json").read_text())

    return run


def layer_in(folder):
    """The layer that an explanation is of."""
    with safetensors.safe_open(folder / "bank.safetensors", "numpy") as bank:
        return bank.metadata()["layer"]


def test_a_model_of_transformers_is_explained_with_the_classes_that_it_brings(explained, tmp_path):
    transformers = pytest.importorskip("transformers", reason="an optional library")
    config = transformers.ViTConfig(
        **BLOCKS, image_size=32, patch_size=8, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1}
    )
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    (tmp_path / "words.txt").write_text("red\n\ngreen\nred\nblue\n")
    namer = "--namer", str(write_clip(tmp_path / "clip")), "--vocabulary", str(tmp_path / "words.txt")
    text = explained("--model", "hf/someone/vit", "--weights", str(tmp_path / "vit"), *namer)
    assert text["target"]["name"] in ("cat", "dog")
    assert len(text["concepts"]) == 2
    assert layer_in(tmp_path / "out") == "vit.layers.0"
    guesses = [{guess["word"] for guess in concept["names"]} for concept in text["concepts"] if concept["strongest"]]
    assert guesses
    assert all(words == {"red", "green", "blue"} for words in guesses)
    assert ", a guess (" in (tmp_path / "out" / "report.html").read_text()


def test_a_model_of_timm_is_explained_with_classes_of_a_file(explained, tmp_path):
    timm = pytest.importorskip("timm", reason="an optional library")
    torch.manual_seed(0)
    options = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "mlp_ratio": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=2, **options)
    timm.models.save_for_hf(model, tmp_path / "vit", model_args=options, safe_serialization=True)
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    text = explained("--model", str(tmp_path / "vit"), "--class-names", str(tmp_path / "names.txt"))
    assert text["target"]["name"] in ("cat", "dog")
    assert layer_in(tmp_path / "out") == "blocks.0"


def test_weights_for_other_classes_are_read_with_their_names(tmp_path):
    import torchvision

    torch.save(torchvision.models.squeezenet1_1(num_classes=3).state_dict(), tmp_path / "own.pth")
    (tmp_path / "names.json").write_text('{"a": 0, "b": 1, "c": 2}')
    words = ["layers", "--model", "squeezenet1_1", "--weights", str(tmp_path / "own.pth")]
    without = CliRunner().invoke(app.app, words)
    assert without.exit_code == 2
    assert "they were trained for 3 classes, not 1000" in without.output
    assert "--class-names FILE" in without.output
    for labels in ([], ["--multi-label"]):
        done = CliRunner().invoke(app.app, [*words, "--class-names", str(tmp_path / "names.json"), *labels])
        assert done.exit_code == 0, done.output
        assert "× 3" in done.output

"""What the command line's words mean."""

import pathlib

import pytest
from toy_model import colour_model

import face_jax as fj
from face_jax.cli.options import (
    check_counts,
    check_depth,
    check_preset,
    check_room,
    cropping_of,
    earlier_of,
    labels_of,
    last_map,
    names_in,
    rank_of,
    split_of,
    strength_of,
    vocabulary_of,
)
from face_jax.pictures.crop_rules import NativeCrops


def test_words_become_options():
    # Native crops are 64 pixels wide.
    model = colour_model(preprocess=fj.Preprocess(size=64, resize=64))
    assert cropping_of(None, model) is None
    assert cropping_of("12", model) == fj.RandomCrops(per_image=12)
    assert cropping_of("grid", model) == fj.GridCrops()
    assert cropping_of("native", model) == NativeCrops(model.preprocess)
    assert (rank_of("7"), rank_of("auto"), rank_of(None)) == (7, "auto", None)
    check_preset(None)
    check_preset("face")
    assert strength_of(None) == "usual"
    assert (strength_of("none"), strength_of("auto"), strength_of("1e3")) == (None, "auto", 1000.0)
    assert (labels_of(None, None), labels_of(True, None), labels_of(False, None)) == (None, True, False)
    assert labels_of(True, 0.3) == fj.MultiLabel(0.3)
    check_depth(2, None)
    check_depth(1, ("layer3", "layer2"))


@pytest.mark.parametrize(
    ("mistake", "said"),
    [
        (lambda: cropping_of("many", None), "--crops 'many'"),
        (lambda: cropping_of("0", None), "--crops '0'"),
        (lambda: rank_of("many"), "--rank 'many'"),
        (lambda: check_counts(0, 32, 0), "--rank=0 isn't a number of concepts"),
        (lambda: check_counts("auto", 0, 0), "--batch=0 isn't a number of pictures"),
        (lambda: check_room(-1.0, None), "--memory -1.0 isn't a number of GiB"),
        (lambda: check_room(float("nan"), None), "--memory nan"),
        (lambda: check_room(None, pathlib.Path(__file__)), "--store '.*test_options.py' is a file"),
        (lambda: check_preset("lad"), "--preset 'lad' is no paper's settings; give one of face, craft, ice"),
        (lambda: strength_of("much"), "--faithfulness 'much'"),
        (lambda: labels_of(None, 0.3), "--threshold 0.3 is on the probability of labels"),
        (lambda: labels_of(True, 2.0), "threshold=2.0 isn.t a probability"),
        (lambda: check_depth(-1, None), "--depth -1"),
        (lambda: check_depth(2, ("layer3",)), "--depth 2 with 1 --layers"),
    ],
)
def test_other_words_are_refused(mistake, said):
    with pytest.raises(ValueError, match=said):
        mistake()


def test_a_model_is_followed_once_however_often_it_is_split(monkeypatch):
    torch = pytest.importorskip("torch")
    from face_jax.bridges import LoadedModel
    from face_jax.bridges.splitting import surveying

    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 4, stride=4), torch.nn.ReLU(), torch.nn.Conv2d(8, 12, 2, stride=2), torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(12, 3),
    )  # fmt: skip
    loaded = LoadedModel(network.eval(), fj.Preprocess(size=32, resize=32), ("a", "b", "c"), "tiny")
    followed = []
    trace = surveying.trace
    monkeypatch.setattr(surveying, "trace", lambda *given: followed.append(given) or trace(*given))
    layer = last_map(loaded)
    split = loaded.split(layer)
    (earlier,) = earlier_of(loaded, layer, 1, None)
    assert (split.layer, earlier.layer) == ("3", "1")
    assert len(followed) == 1
    with torch.no_grad():
        network[0].weight.neg_()
    assert loaded.layers()
    assert len(followed) == 2, "new weights have signs of their own"


def test_a_model_of_the_options_is_cut_where_they_say():
    pytest.importorskip("torchvision")
    options = {"weights": "random", "transform_input": None, "multi_label": None, "classes": None}
    loaded, split, earlier = split_of("squeezenet1_1", "features.12", 1, ("features.7",), **options)
    assert loaded.name == "squeezenet1_1"
    assert (split.layer, [one.layer for one in earlier]) == ("features.12", ["features.7"])


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "church\ngas pump\ntench\n\n"),
        ("names", "\ufeffchurch\r\ngas pump  \r\ntench"),
        ("names.json", '["church", "gas pump", "tench"]'),
        ("names.json", '{"1": "gas pump", "0": "church", "2": "tench"}'),
        ("names.JSON", '{"tench": 2, "gas pump": 1, "church": 0}'),
        ("names.json", '{"0": ["n1", "church"], "1": ["n2", "gas pump"], "2": ["n3", "tench"]}'),
    ],
    ids=["lines", "of Windows", "list", "id2label", "class_to_idx", "Keras"],
)
def test_class_names_come_from_a_file(tmp_path, file, text):
    (tmp_path / file).write_bytes(text.encode())
    assert names_in(tmp_path / file) == ("church", "gas pump", "tench")
    assert names_in(None) is None


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("nowhere.txt", None, "No such file"),
        (".", None, "a folder, not a file"),
        ("names.txt", b"\xff\xfe\x00", "isn't text in UTF-8"),
        ("names.json", b"{", "isn't valid JSON"),
        ("names.json", b"[" * 100_000, "isn't valid JSON"),
        ("names.json", b"3", "holds a int"),
        ("names.json", b'{"a": 1, "b": 2}', "doesn't map all numbers from 0"),
        ("names.json", b"[1, 2]", "isn't a name"),
        ("names.txt", b"cat\n\ndog", r"classes\[1\]='' is an empty name"),
        ("names.txt", b" \n", "has no names"),
        ("names.json", b"[]", "has no names"),
    ],
)
def test_files_without_class_names_are_refused(tmp_path, file, content, said):
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"--class-names .*{said}"):
        names_in(tmp_path / file)


def test_a_vocabulary_is_the_words_of_a_file(tmp_path):
    file = tmp_path / "words.txt"
    file.write_bytes("\ufeff hat \n\ntree\nhat\n".encode())
    assert vocabulary_of("hf/some/clip", file) == ["hat", "tree"]
    assert vocabulary_of("hf/some/clip", None) is None
    with pytest.raises(ValueError, match="give --namer MODEL with it"):
        vocabulary_of(None, file)
    file.write_text(" \n")
    with pytest.raises(ValueError, match="has no words"):
        vocabulary_of("hf/some/clip", file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="isn't text in UTF-8"):
        vocabulary_of("hf/some/clip", file)
    with pytest.raises(ValueError, match="can't be read"):
        vocabulary_of("hf/some/clip", tmp_path / "none.txt")

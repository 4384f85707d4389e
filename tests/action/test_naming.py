"""Guesses at concepts' names: which word, how sure, and what a model or a vocabulary must be."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from toy_model import colour_model, pictures

import face_jax as fj

COLOURS = ("red", "green", "blue", "grey")


class Eye:
    """Pictures lie at their mean colour, words at theirs."""

    def __init__(self):
        self.asked, self.sizes = [], []

    def pictures(self, pictures):
        self.sizes.append(len(pictures))
        return np.asarray([picture.reshape(-1, 3).mean(axis=0) + 1 for picture in pictures])

    def texts(self, texts) -> Any:
        self.asked += texts
        known = dict(zip(COLOURS, (*np.eye(3), np.ones(3)), strict=True))
        return [known[text.rpartition(" ")[2]] for text in texts]


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(colour_model(), pictures(14, 0), "reddish", rank=3, faithfulness=None, batch=8, key=0)


@pytest.fixture(scope="module")
def named(explanation):
    return fj.name_concepts(explanation, Eye(), COLOURS)


def cosines_of(explanation, crop):
    top, left, bottom, right = explanation.crops.box[crop]
    pixels = explanation.photographs[explanation.crops.image[crop]].pixels()[top:bottom, left:right]
    mean = pixels.reshape(-1, 3).mean(axis=0) + 1
    words = np.asarray([*np.eye(3), np.ones(3) / np.sqrt(3)])
    return words @ mean / np.linalg.norm(mean)


def test_the_word_is_what_the_strongest_crops_are_nearer_to_than_all_crops_are(explanation, monkeypatch):
    count = len(explanation.crops)
    monkeypatch.setattr("face_jax.action.naming._USUAL", count)
    named = fj.name_concepts(explanation, Eye(), COLOURS)
    usual = np.mean([cosines_of(explanation, crop) for crop in range(count)], axis=0)
    for concept in named.concepts:
        scores = np.mean([cosines_of(explanation, crop) for crop in concept.strongest], axis=0) - usual
        order = np.argsort(-scores)
        first = concept.names[0]
        assert [guess.word for guess in concept.names] == [COLOURS[at] for at in order[:3]]
        assert first.score == pytest.approx(scores[order[0]], abs=1e-9)
        assert first.margin == pytest.approx(scores[order[0]] - scores[order[1]], abs=1e-9)
        assert [guess.margin for guess in concept.names[1:]] == [0, 0]
        assert 0 <= first.chance <= 1


def of_crops(explanation, crops):
    """The explanation, were these the strongest crops of its first concept."""
    concept = dataclasses.replace(explanation.concepts[0], strongest=tuple(int(crop) for crop in crops))
    bank = dataclasses.replace(explanation.bank, concepts=(concept, *explanation.concepts[1:]))
    return fj.name_concepts(dataclasses.replace(explanation, bank=bank), Eye(), COLOURS).concepts[0].names[0]


def test_chance_tells_crops_of_one_colour_from_any_crops(explanation):
    count = len(explanation.crops)
    purest = np.argsort([-cosines_of(explanation, crop)[0] for crop in range(count)])[:6]
    red = of_crops(explanation, purest)
    assert red.word == "red"
    assert red.chance <= 0.02
    drawn = np.random.default_rng(0)
    chances = [of_crops(explanation, drawn.permutation(count)[:6]).chance for _ in range(12)]
    assert np.median(chances) > 0.15


def test_the_same_key_gives_the_same_guesses_and_the_template_is_what_is_asked(explanation, named):
    eye = Eye()
    again = fj.name_concepts(explanation, eye, iter(COLOURS), template="something {}")
    assert again.concepts == named.concepts
    assert eye.asked == [f"something {colour}" for colour in COLOURS]
    assert max(eye.sizes) <= 32


def test_the_classifiers_classes_are_the_usual_vocabulary(explanation):
    class Classes(Eye):
        def texts(self, texts):
            self.asked += texts
            return np.eye(3)

    eye = Classes()
    named = fj.name_concepts(explanation, eye)
    assert eye.asked == [f"a photo of {name}" for name in explanation.model.classes]
    assert {guess.word for guess in named.concepts[0].names} == set(explanation.model.classes)


def test_guesses_are_saved_loaded_told_and_shown_as_guesses(explanation, named, tmp_path):
    tagged = fj.name_concepts(explanation, Eye(), COLOURS)
    bad = dataclasses.replace(tagged.concepts[0].names[0], word="<script>alert(1)</script>")
    concept = dataclasses.replace(tagged.concepts[0], names=(bad, *tagged.concepts[0].names[1:]))
    tagged = dataclasses.replace(
        tagged, bank=dataclasses.replace(tagged.bank, concepts=(concept, *tagged.concepts[1:]))
    )
    fj.save(tagged, tmp_path)
    loaded = fj.load(tmp_path, explanation.model)
    assert loaded.concepts == tagged.concepts
    page = fj.write_report(tagged, tmp_path).read_text()
    assert page.count(", a guess (") == len(tagged.concepts)
    assert "<script>alert(1)" not in page
    assert ", a guess (" not in fj.write_report(explanation, tmp_path).read_text()


class Flat(Eye):
    def texts(self, texts):
        return np.ones((len(texts), 7))


class Silent(Eye):
    def pictures(self, pictures):
        return np.zeros((len(pictures), 3))


class Short(Eye):
    def texts(self, texts):
        return np.ones((1, 3))


class Broken(Eye):
    def pictures(self, pictures):
        return np.full((len(pictures), 3), np.nan)


@pytest.mark.parametrize(
    ("model", "given", "error", "match"),
    [
        (Eye(), {"words": []}, ValueError, "words has 0 words"),
        (Eye(), {"words": ["red", "red "]}, ValueError, "words has 'red' twice"),
        (Eye(), {"words": ["red", " "]}, ValueError, "words has ' ' among them"),
        (Eye(), {"words": ["red", 3]}, ValueError, "words has 3 among them"),
        (Eye(), {"words": "red"}, TypeError, "words='red' isn't a vocabulary"),
        (Eye(), {"words": 3}, TypeError, "words=3 isn't a vocabulary"),
        (Eye(), {"words": COLOURS, "template": "a photo"}, ValueError, "has to have {} once"),
        (Eye(), {"words": COLOURS, "most": 0}, ValueError, "most=0"),
        (Flat(), {"words": COLOURS}, ValueError, "3 dimensions and texts into 7"),
        (Silent(), {"words": COLOURS}, ValueError, "rows of zeros"),
        (Short(), {"words": COLOURS}, ValueError, "gave 1 rows for 4 texts"),
        (Broken(), {"words": COLOURS}, ValueError, r"model.pictures\(…\)"),
        (object(), {"words": COLOURS}, ValueError, "model=.* isn't valid; give an object"),
        (Eye, {"words": COLOURS}, ValueError, "model=the class Eye isn't valid"),
    ],
)
def test_what_names_nothing_is_refused_in_words(explanation, model, given, error, match):
    with pytest.raises(error, match=match):
        fj.name_concepts(explanation, model, **given)

"""What the removal of a concept does, and that an explanation says it, in files and on the page."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import Disguised, colour_model, pictures

import face_jax as fj
from face_jax.heads import Affine
from face_jax.metrics.removal import removals

# Two concepts; the class 0 needs the first, and half of the pictures have much of the second, which speaks for class 2.
DICTIONARY = np.eye(2, 3)
CODES = np.asarray([[2.0, 0.0], [2.0, 1.0], [2.0, 1.0], [2.0, 0.0]])[:, None, None]
KERNEL = np.asarray([[3.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
HEAD = Affine(jnp.asarray(KERNEL), jnp.asarray([0.0, 0.5, 0.0]))


@pytest.mark.parametrize("head", [HEAD, Disguised(HEAD)], ids=["affine", "any"])
def test_photographs_leave_the_class_and_are_counted_where_they_go(head):
    maps = CODES @ DICTIONARY
    options = {"draws": 3, "key": jax.random.key(0)}
    first, second = removals(head, maps, CODES, DICTIONARY, 0, fj.MultiClass(), **options)
    assert (first.photographs, first.leave, first.becomes) == (4, 4, ((1, 2), (2, 2)))
    assert (second.leave, second.becomes, second.random) == (0, (), 0.0)
    assert 0 <= first.random <= 4


def test_labels_are_lost_and_become_nothing():
    maps = CODES @ DICTIONARY
    (first, _) = removals(HEAD, maps, CODES, DICTIONARY, 0, fj.MultiLabel(), draws=2, key=jax.random.key(0))
    assert (first.photographs, first.leave, first.becomes) == (4, 4, ())


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(colour_model(), pictures(14, 0), "reddish", rank=2, batch=8, faithfulness=None, key=0)


def test_an_explanation_says_what_each_concept_does(explanation):
    kernel = np.asarray(explanation.model.head.kernel, np.float64)
    codes, maps = explanation.codes.mean((1, 2)), explanation.pictures.collected.maps.mean((1, 2))
    for concept in explanation.concepts:
        scores = explanation.dictionary[concept.index].astype(np.float64) @ kernel
        assert concept.speaks_for[0].index == scores.argmax()
        assert concept.speaks_for[0].score == pytest.approx(scores.max(), rel=1e-6)
        less = maps - codes[:, concept.index, None] * explanation.dictionary[concept.index]
        stay = ((less @ kernel + np.asarray(explanation.model.head.bias)).argmax(1) == 0).sum()
        assert concept.without.leave == 14 - stay


def test_files_and_the_page_say_it_too(explanation, tmp_path):
    folder = fj.save(explanation, tmp_path / "saved")
    said = json.loads((folder / "explanation.json").read_text())["concepts"][0]
    assert said["speaks_for"][0]["class"] == explanation.model.classes[said["speaks_for"][0]["index"]] == "reddish"
    assert said["without"]["photographs"] == 14
    assert fj.load(folder, explanation.model).concepts == explanation.concepts
    page = fj.write_report(explanation, tmp_path / "report").read_text()
    assert "by itself speaks for reddish" in page
    assert "without a random concept of its strength" in page


def test_explanations_from_before_are_drawn_without_it(explanation, tmp_path):
    before = [dataclasses.replace(one, speaks_for=(), speaks_against=(), without=None) for one in explanation.concepts]
    old = dataclasses.replace(explanation, bank=dataclasses.replace(explanation.bank, concepts=tuple(before)))
    assert "random concept of its strength" not in fj.write_report(old, tmp_path / "old").read_text()

"""Models of several labels, and of one logit, through the whole pipeline: photographs that have two labels at once."""

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from toy_model import Squared, colour_model, pictures

import face_jax as fj
from face_jax.explanation.saved_files import SavedFilesError
from face_jax.heads import Affine
from face_jax.pipeline.selection import NoneOfTheClassError
from face_jax.report.verdicts import verdicts

LABELS = ("has red", "has green", "has blue")
SETTINGS = {"rank": 4, "batch": 8, "faithfulness": None, "key": jax.random.key(0)}
_KERNEL = np.zeros((14, 3), np.float32)
_KERNEL[:3] = 8 * np.eye(3)


def label_model(**changes) -> Any:
    """Which of three colours a picture has: each by its own logit, above 0 with a square of the colour."""
    head = Affine(jnp.asarray(_KERNEL), jnp.asarray([-4.5, -4.0, -4.5], jnp.float32))
    return colour_model(**({"head": head, "classes": LABELS, "outputs": fj.MultiLabel()} | changes))


def with_both(first, second):
    """Pictures with squares of two colours, side by side."""
    return np.concatenate([first[:, :, :20], second[:, :, :20]], axis=2)


def squares(count, colour, seed=0):
    """Pictures of 32 × 40 pixels whose left half has much of a colour."""
    found = np.random.default_rng(seed).integers(0, 70, (count, 32, 40, 3), dtype=np.uint8)
    found[:, 4:28, 2:19, colour] = 240
    found[:, 4:28, 21:38, colour] = 240
    return found


RED, GREEN = squares(4, 0, 1), squares(3, 1, 2)
BOTH = with_both(squares(8, 0, 3), squares(8, 1, 4))
DARK = np.random.default_rng(6).integers(0, 70, (2, 32, 40, 3), dtype=np.uint8)
PHOTOGRAPHS = np.concatenate([RED, GREEN, BOTH, DARK])


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(label_model(), PHOTOGRAPHS, "has red", **SETTINGS)


def test_photographs_that_have_the_label_are_explained_whatever_else_they_have(explanation):
    assert len(explanation.photographs) == len(RED) + len(BOTH)
    logits = explanation.pictures.collected.logits
    assert (logits[:, 0] > 0).all()
    # By the largest logit or without their second label, some would be missing.
    assert ((logits > 0).sum(1) == 2).sum() == len(BOTH)
    assert (logits.argmax(1) != 0).any()
    (note,) = [note for note in explanation.notes if "took no part" in note]
    assert note.startswith("5 of 17 photographs took no part, because the model doesn't predict the label: ")
    assert "(has green)" in note
    assert "(none)" in note


def test_each_label_has_its_own_explanation():
    green = fj.explain(label_model(), PHOTOGRAPHS, "has green", **SETTINGS)
    assert len(green.photographs) == len(GREEN) + len(BOTH)
    assert green.dictionary[0].argmax() == 1


def test_without_a_target_the_label_that_is_predicted_most_often_is_explained(explanation):
    found = fj.explain(label_model(), PHOTOGRAPHS, **SETTINGS)
    assert found.target_name == "has red"
    assert found.target.chosen == "what the model predicts most often here: 12 of 17 photographs"
    np.testing.assert_array_equal(found.dictionary, explanation.dictionary)


def test_importance_and_scores_are_of_the_labels(explanation):
    held_out, fitted = explanation.pictures.held_out, explanation.pictures.fitted
    rows = explanation.pictures.collected.maps.mean((1, 2))
    codes = np.asarray(fj.encode(jnp.asarray(rows), jnp.asarray(explanation.dictionary)))
    squares = (codes * (explanation.dictionary @ _KERNEL[:, 0]))[fitted] ** 2
    np.testing.assert_allclose(explanation.importance.sobol.total, squares / squares.sum(1, keepdims=True), atol=1e-5)
    assert explanation.dictionary[0].argmax() == 0
    rebuilt = (codes @ explanation.dictionary) @ _KERNEL + np.asarray(label_model().head.bias)
    logits = explanation.pictures.collected.logits[held_out].astype(np.float64)
    p, q = scipy.special.expit(logits), scipy.special.expit(rebuilt[held_out].astype(np.float64))
    own = explanation.scores.own
    kl = (scipy.special.rel_entr(p, q) + scipy.special.rel_entr(1 - p, 1 - q)).sum(1)
    np.testing.assert_allclose(own.kl, kl.mean(), rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(own.l1, 2 * np.abs(p - q).max(1).mean(), rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(own.agreement, ((p > 0.5) == (q > 0.5)).mean())
    curve = own.fidelity.deletion
    assert curve.accuracy[-1] == explanation.scores.accuracy_of_nothing == 0
    np.testing.assert_allclose(curve.probability[[0, -1]], [q[:, 0].mean(), scipy.special.expit(-4.5)], rtol=1e-4)


def test_a_threshold_chooses_other_photographs():
    strict = fj.explain(label_model(outputs=fj.MultiLabel(0.9)), PHOTOGRAPHS, "has red", **SETTINGS)
    assert 0 < len(strict.photographs) < 12
    assert (scipy.special.expit(strict.pictures.collected.logits[:, 0]) > 0.9).all()
    with pytest.raises(NoneOfTheClassError, match=r"predicts has green \(3\); ask for one of these"):
        fj.explain(label_model(), GREEN, "has red", **SETTINGS)
    with pytest.raises(NoneOfTheClassError, match=r"it predicts no label for any of them .* a lower threshold"):
        fj.explain(label_model(), DARK, "has red", **SETTINGS)
    with pytest.raises(NoneOfTheClassError, match="the model predicts no label for any of the 2 photographs"):
        fj.explain(label_model(), DARK, **SETTINGS)


def test_the_most_probable_label_of_a_single_photograph_is_explained():
    found = fj.explain(label_model(), BOTH[:1], crops=fj.RandomCrops(per_image=30), **SETTINGS)
    logits = found.pictures.collected.logits[0]
    assert (logits[:2] > 0).all()
    assert found.target.index == logits.argmax()
    assert found.target.chosen == "the most probable of the 2 labels that the model predicts"


def test_faithfulness_keeps_the_labels():
    few = SETTINGS | {"rank": 2, "solver": fj.ADMM(max_steps=5), "faithfulness": "auto"}
    chosen = fj.explain(label_model(), PHOTOGRAPHS, "has red", **few)
    assert "SigmoidKL" in chosen.provenance.settings.objective
    path = chosen.fit.path
    assert path.points[path.chosen].held_out_loss <= path.points[0].held_out_loss
    soft = fj.SquaredError() + 1.0 * fj.Faithfulness(label_model().head)
    with pytest.raises(ValueError, match=r"loss=ForwardKL\(\), which compares .* exclusive classes.*SigmoidKL"):
        fj.explain(label_model(), PHOTOGRAPHS, "has red", objective=soft, **SETTINGS)


def test_it_is_saved_and_loaded_with_the_same_kind_of_model_only(explanation, tmp_path):
    fj.save(explanation, tmp_path)
    loaded = fj.load(tmp_path, label_model())
    np.testing.assert_array_equal(loaded.dictionary, explanation.dictionary)
    assert loaded.scores.own.kl == explanation.scores.own.kl
    assert verdicts(loaded) == verdicts(explanation)
    for other in (fj.MultiClass(), fj.MultiLabel(0.9)):
        with pytest.raises(fj.WrongModelError, match=r"outputs=MultiLabel\(threshold=0.5\), and model.outputs is"):
            fj.load(tmp_path, label_model(outputs=other))


def test_photographs_without_the_label_are_no_saved_explanation(explanation):
    from face_jax.explanation.agreement import check_agreement
    from face_jax.support.json_values import Unfit

    collected = explanation.pictures.collected
    logits = collected.logits.copy()
    logits[0, 0] = -1
    wrong = dataclasses.replace(
        explanation,
        pictures=dataclasses.replace(explanation.pictures, collected=dataclasses.replace(collected, logits=logits)),
    )
    check_agreement(explanation)
    with pytest.raises(Unfit, match=r"target.index is 0"):
        check_agreement(wrong)


def test_files_from_before_labels_load_as_exclusive_classes(tmp_path):
    from face_jax.explanation.saving import TEXT, text_digest

    kept = fj.explain(colour_model(), np.concatenate([pictures(6, 0), pictures(6, 1)]), "reddish", **SETTINGS)
    fj.save(kept, tmp_path)
    text = json.loads((tmp_path / TEXT).read_text())
    for settings in (text["settings"], text["record"]["provenance"]["settings"]):
        assert settings.pop("outputs") == "MultiClass()"
    del text["text_digest"]
    (tmp_path / TEXT).write_text(json.dumps(text | {"text_digest": text_digest(text)}))
    assert fj.load(tmp_path, colour_model()).provenance.settings.outputs == "MultiClass()"
    with pytest.raises((fj.WrongModelError, SavedFilesError), match="outputs"):
        fj.load(tmp_path, colour_model(outputs=fj.MultiLabel()))


def test_the_report_speaks_of_labels(explanation, tmp_path):
    page = fj.write_report(explanation, tmp_path).read_text()
    words = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page))
    assert "of the labels that stay predicted, or not, in held-out pictures" in words
    assert "predicted class" not in words
    assert "label score" in words
    assert "class score" not in words
    # A photograph's probability is the label's sigmoid.
    held_out = explanation.pictures.held_out
    probabilities = scipy.special.expit(explanation.pictures.collected.logits[held_out, 0])
    assert {f"{100 * each:.0f}" for each in probabilities} == set(re.findall(r"has red: (\d+) %", words))


def test_cached_predictions_are_told_apart(tmp_path):
    cache = fj.ArrayCache(tmp_path)
    both = fj.explain(label_model(), PHOTOGRAPHS, "has red", cache=cache, **SETTINGS)
    one = fj.explain(label_model(outputs=fj.MultiClass()), PHOTOGRAPHS, "has red", cache=cache, **SETTINGS)
    strict = fj.explain(label_model(outputs=fj.MultiLabel(0.9)), PHOTOGRAPHS, "has red", cache=cache, **SETTINGS)
    assert len({len(each.photographs) for each in (both, one, strict)}) == 3


def test_parts_and_sanity_take_labels(explanation):
    parts = fj.recurse(explanation, label_model(), concepts=[0], rank=2, fewest=4)
    assert len(parts.recursion.divisions) == 1
    stages = [
        ("as it is", label_model()),
        ("forgot", label_model(head=Affine(-jnp.asarray(_KERNEL), jnp.zeros(3, jnp.float32)))),
    ]
    check = fj.sanity_check(explanation, stages, pictures=2)
    assert [stage.logit_agreement for stage in check.stages] == [1.0, 0.0]
    with pytest.raises(ValueError, match=r"'other' has outputs=MultiClass\(\) and the explained model MultiLabel"):
        fj.sanity_check(explanation, [("other", label_model(outputs=fj.MultiClass()))])


def test_people_predict_labels(explanation):
    from face_jax.study import Trial, utility_trials

    fresh = np.concatenate([squares(6, 0, 11), squares(6, 1, 12)])
    trials = utility_trials(explanation, fresh, sessions=1, training=2, tests=4, catches=0, maps=False)
    asked = [trial for trial in trials if isinstance(trial, Trial)]
    assert [option.label for option in asked[0].options] == ["has red", "not has red"]
    assert len(asked) == 4


def test_photographs_with_several_of_the_explained_labels_are_in_no_question():
    from face_jax.study.utility import _look

    every = tuple(fj.explain(label_model(), PHOTOGRAPHS, name, **SETTINGS) for name in LABELS[:2])
    seen = _look(every, np.concatenate([RED, GREEN, BOTH]), 8)
    assert len(seen.photographs) == len(RED) + len(GREEN)
    assert seen.decision.tolist() == [0] * len(RED) + [1] * len(GREEN)


def binary_head(kind: Callable[..., Any] = Affine):
    """One logit: red against a threshold."""
    column = jnp.asarray(_KERNEL[:, :1])
    return Affine(column, jnp.full(1, -4.5, jnp.float32)) if kind is Affine else kind(column)


def two_logits(kind: Callable[..., Any] = Affine):
    """The same written with two: [0, z]."""
    column = jnp.asarray(np.concatenate([0 * _KERNEL[:, :1], _KERNEL[:, :1]], axis=1))
    return Affine(column, jnp.asarray([0.0, -4.5], jnp.float32)) if kind is Affine else kind(column)


@pytest.mark.parametrize("kind", [Affine, Squared])
def test_one_logit_is_explained_as_two(kind):
    photographs = np.concatenate([RED, BOTH])
    one = fj.explain(colour_model(head=binary_head(kind), classes=["red"]), photographs, "red", **SETTINGS)
    names = ["not red", "red"]
    two = fj.explain(colour_model(head=two_logits(kind), classes=names), photographs, "red", **SETTINGS)
    assert one.target_name == "red"
    assert len(one.photographs) == len(photographs)
    np.testing.assert_allclose(one.dictionary, two.dictionary, atol=1e-6)
    np.testing.assert_allclose(one.importance.sobol.total, two.importance.sobol.total, atol=1e-5)
    for name in ("kl", "l1", "agreement"):
        np.testing.assert_allclose(getattr(one.scores.own, name), getattr(two.scores.own, name), rtol=1e-4, atol=1e-7)


def test_the_first_class_of_one_logit_is_decided_by_its_negative():
    model = colour_model(head=binary_head(), classes=["red"])
    against = fj.explain(model, GREEN.repeat(2, axis=0) + np.arange(6, dtype=np.uint8)[:, None, None, None], **SETTINGS)
    assert against.target_name == "not red"
    rows = jnp.asarray(against.pictures.collected.maps.mean((1, 2))[against.pictures.fitted])
    added = np.asarray(fj.encode(rows, jnp.asarray(against.dictionary))) * (against.dictionary @ -_KERNEL[:, 0])
    found = np.asarray([concept.contribution for concept in against.concepts], float)
    np.testing.assert_allclose(found, added.mean(0), rtol=1e-3)
    np.testing.assert_allclose(sum(concept.importance for concept in against.concepts), 1, atol=1e-5)


def test_one_logit_without_its_name_is_explained_by_a_sentence():
    model = colour_model(head=binary_head(), classes=["a", "b"])
    with pytest.raises(ValueError, match=r'gives 1 logit and classes has 2 names; for a binary .* classes=\["cat"\]'):
        fj.explain(model, RED, **SETTINGS)

"""Trials made from an explanation."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax.activations import Crops
from face_jax.pictures.photographs import Photograph
from face_jax.study import BeforeAndAfter, Lesson, OneCondition, Trial


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(
        colour_model(), pictures(14, 0), "reddish", rank=4, batch=8, faithfulness=None, key=jax.random.key(0)
    )


@dataclasses.dataclass(frozen=True)
class Cropped:
    """Crops whose concepts are known: concept k is in crops k, k + concepts, k + 2 concepts, …"""

    photographs: tuple[Photograph, ...]
    crops: Crops
    crop_codes: np.ndarray


def planted(concepts: int = 3, each: int = 8) -> Cropped:
    """Each photograph is of one colour and one crop, which is all of it."""
    count = concepts * each
    colours = np.linspace(0, 255, count).astype(np.uint8)
    photographs = tuple(Photograph(f"p{n}", np.full((16, 16, 3), value, np.uint8)) for n, value in enumerate(colours))
    codes = np.where(np.arange(count)[:, None] % concepts == np.arange(concepts)[None, :], 1.0, 0.0)
    codes *= 1 + np.arange(count)[:, None] / count
    box = np.tile([0, 0, 16, 16], (count, 1))
    return Cropped(photographs, Crops(np.arange(count), box), codes)


def shown_crops(trial: Trial, bank: Cropped) -> list[int]:
    """Which crops a trial's options show, by their colour."""
    values = [photograph.pixels()[0, 0, 0] for photograph in bank.photographs]
    return [values.index(option.pictures[0].pixels[0, 0, 0]) for option in trial.options]


def test_the_intruder_is_of_another_concept_and_the_others_are_of_one():
    bank = planted()
    trials = fj.study.intruder_trials(bank, trials=12, crops=4, key=jax.random.key(3))
    assert len(trials) == 12
    places = set()
    for trial in trials:
        owners = np.asarray(shown_crops(trial, bank)) % 3
        concept = trial.about["concept"] - 1
        assert len(owners) == 5
        assert owners[trial.correct] == trial.about["intruder"] - 1 != concept
        assert (np.delete(owners, trial.correct) == concept).all()
        places.add(trial.correct)
    assert len(places) > 2
    assert {trial.about["concept"] for trial in trials} == {1, 2, 3}


def test_binary_choice_has_one_crop_of_the_concept_shown():
    bank = planted()
    for trial in fj.study.binary_trials(bank, trials=6, crops=5, key=jax.random.key(4)):
        owners = np.asarray(shown_crops(trial, bank)) % 3
        assert len(trial.shown) == 5
        assert owners[trial.correct] == trial.about["concept"] - 1
        assert owners[1 - trial.correct] == trial.about["other"] - 1


def test_binary_choice_between_a_concept_and_its_part():
    bank, parts = planted(), planted(concepts=2, each=9)
    trials = fj.study.binary_trials(bank, parts, parent=1, trials=8, crops=4, key=jax.random.key(5))
    assert {trial.condition for trial in trials} == {"sub-concept"}
    assert {trial.correct for trial in trials} == {0, 1}
    assert {trial.about["sub_concept"] for trial in trials} == {1, 2}
    part_values = [photograph.pixels()[0, 0, 0] for photograph in parts.photographs]
    parent_values = [photograph.pixels()[0, 0, 0] for photograph in bank.photographs]
    for trial in trials:
        probe = trial.shown[0].pixels[0, 0, 0]
        group, whole = (
            [p.pixels[0, 0, 0] for p in trial.options[at].pictures] for at in (trial.correct, 1 - trial.correct)
        )
        assert len(group) == len(whole) == 4
        assert probe not in group
        assert probe not in whole
        assert {part_values.index(value) % 2 for value in group} == {trial.about["sub_concept"] - 1}
        assert {parent_values.index(value) % 3 for value in whole} == {1}


def test_a_key_fixes_everything_and_another_changes_it(explanation):
    first, again, other = (fj.study.intruder_trials(explanation, trials=4, key=jax.random.key(k)) for k in (1, 1, 2))
    assert [trial.name for trial in first] == [trial.name for trial in again]
    assert [trial.about for trial in first] == [trial.about for trial in again]
    assert [trial.about for trial in first] != [trial.about for trial in other]
    assert not {trial.name for trial in first} & {trial.name for trial in other}


def test_an_intruder_comes_from_a_photograph_of_its_own(explanation):
    for trial in fj.study.intruder_trials(explanation, trials=6, crops=3, key=jax.random.key(6)):
        images = explanation.crops.image[trial.about["crops"]]
        assert images[trial.correct] not in np.delete(images, trial.correct)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crops": 9}, "0 concepts have the 9 crops"),
        ({"crops": 1}, "crops=1 is too few"),
        ({"trials": 0}, "trials=0 is too few"),
        ({"concepts": [5]}, r"concepts=\[5\] of 3"),
        ({"concepts": [1]}, "1 concepts have"),
    ],
)
def test_what_cannot_be_asked_is_said(change, message):
    with pytest.raises(ValueError, match=message):
        fj.study.intruder_trials(planted(), **change)


def test_concepts_that_share_all_their_crops_cannot_be_told_apart():
    bank = planted(concepts=2)
    same = dataclasses.replace(bank, crop_codes=np.repeat(bank.crop_codes[:, :1], 2, axis=1))
    with pytest.raises(ValueError, match="strong in the same crops"):
        fj.study.intruder_trials(same)


@dataclasses.dataclass(frozen=True)
class Divided:
    crops: np.ndarray
    codes: np.ndarray


def test_sub_concepts_take_their_crops_from_the_explanation():
    bank = planted()
    used = np.flatnonzero(bank.crop_codes[:, 1])
    codes = np.where(np.arange(len(used))[:, None] % 2 == np.arange(2)[None, :], 1.0, 0.0)
    parts = fj.study.parts_of(bank, Divided(used, codes))
    trials = fj.study.intruder_trials(parts, trials=4, crops=3, condition="sub-concept", key=jax.random.key(8))
    values = [photograph.pixels()[0, 0, 0] for photograph in bank.photographs]
    for trial in trials:
        shown = np.asarray([values.index(option.pictures[0].pixels[0, 0, 0]) for option in trial.options])
        owners = np.searchsorted(used, shown) % 2
        assert (used[np.searchsorted(used, shown)] == shown).all()
        assert (np.delete(owners, trial.correct) == trial.about["concept"] - 1).all()
        assert owners[trial.correct] == trial.about["intruder"] - 1
    assert {trial.condition for trial in trials} == {"sub-concept"}


def test_a_parent_must_be_named():
    with pytest.raises(ValueError, match="parent=None is none of 3 concepts"):
        fj.study.binary_trials(planted(), planted())


SMALL: dict[str, Any] = {"sessions": 2, "training": 3, "tests": 3, "batch": 8}


@pytest.fixture(scope="module")
def new_pictures():
    return np.concatenate([pictures(10, 0, seed=1), pictures(10, 1, seed=1), pictures(10, 2, seed=1)])


def test_questions_are_about_new_photographs_and_know_the_models_decision(explanation, new_pictures):
    images = [*explanation.photographs, *fj.photographs(new_pictures)]
    entries = fj.study.utility_trials(explanation, images, key=jax.random.key(7), **SMALL)
    lessons = [entry for entry in entries if isinstance(entry, Lesson)]
    questions = [entry for entry in entries if isinstance(entry, Trial) and not entry.catch]
    catches = [entry for entry in entries if isinstance(entry, Trial) and entry.catch]
    assert (len(lessons), len(questions), len(catches)) == (2, 6, 2)
    names = [trial.about["photograph"] for trial in questions]
    assert len(set(names)) == 6
    own = {photograph.digest() for photograph in explanation.photographs}
    by_name = {photograph.name: photograph for photograph in fj.photographs(new_pictures)}
    for trial in questions:
        photograph = by_name[trial.about["photograph"]]
        assert photograph.digest() not in own
        reddish = photograph.pixels()[..., 0].mean() > photograph.pixels()[..., 1:].mean(axis=(0, 1)).max()
        assert trial.options[trial.correct].label == ("reddish" if reddish else "something else")
    assert {trial.correct for trial in questions} == {0, 1}
    # A catch trial repeats an example of its own lesson, where the decision stood.
    for trial in catches:
        lesson = lessons[trial.session]
        match = [one for one in lesson.examples if (one.picture.pixels == trial.shown[0].pixels).all()]
        assert [one.decision for one in match] == [trial.options[trial.correct].label]


def test_only_the_explained_condition_explains(explanation, new_pictures):
    def lessons(design, **options):
        entries = fj.study.utility_trials(explanation, new_pictures, design=design, **SMALL, **options)
        return [entry for entry in entries if isinstance(entry, Lesson)]

    for lesson in lessons(OneCondition(explained=False)):
        assert lesson.concepts == ()
        assert all(example.details == () for example in lesson.examples)
    for lesson in lessons(OneCondition(), concepts=2):
        assert [option.label for option in lesson.concepts] == ["concept 1", "concept 2"]
        assert all(len(example.details) == 2 for example in lesson.examples)
    for lesson in lessons(OneCondition(), maps=False):
        assert len(lesson.concepts) == 3
        assert all(example.details == () for example in lesson.examples)
    assert [bool(lesson.concepts) for lesson in lessons(BeforeAndAfter())] == [False, True, False, True]


def test_groups_of_people_are_asked_about_the_same_photographs(explanation, new_pictures):
    asked = []
    for explained in (True, False):
        entries = fj.study.utility_trials(explanation, new_pictures, design=OneCondition(explained), **SMALL)
        asked.append([entry.about["photograph"] for entry in entries if isinstance(entry, Trial)])
    assert asked[0] == asked[1]


def test_several_classes_are_named(explanation, new_pictures):
    other = fj.explain(
        colour_model(), pictures(14, 1), "greenish", rank=4, batch=8, faithfulness=None, key=jax.random.key(0)
    )
    entries = fj.study.utility_trials([explanation, other], new_pictures, **SMALL)
    trials = [entry for entry in entries if isinstance(entry, Trial)]
    assert all([option.label for option in trial.options] == ["reddish", "greenish"] for trial in trials)
    lesson = next(entry for entry in entries if isinstance(entry, Lesson))
    assert "concept 1 of greenish" in [option.label for option in lesson.concepts]
    with pytest.raises(ValueError, match="give each class once"):
        fj.study.utility_trials([explanation, explanation], new_pictures)
    elsewhere = dataclasses.replace(other, model=dataclasses.replace(other.model, layer="other"))
    with pytest.raises(ValueError, match="2 models or layers"):
        fj.study.utility_trials([explanation, elsewhere], new_pictures)


def test_too_few_photographs_are_said(explanation, new_pictures):
    with pytest.raises(ValueError, match="images don't suffice: 3 sessions take 15 examples and 21 questions"):
        fj.study.utility_trials(explanation, new_pictures[:12], batch=8)
    with pytest.raises(ValueError, match="images don't suffice"):
        fj.study.utility_trials(explanation, [*explanation.photographs], **SMALL)
    with pytest.raises(ValueError, match="training=1 is too few"):
        fj.study.utility_trials(explanation, new_pictures, training=1)

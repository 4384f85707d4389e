"""Several classes in one call: each as by itself, or with one bank; usage, what tells them apart, what goes wrong."""

import dataclasses
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from toy_model import CLASSES, Disguised, colour_features, colour_model, pictures, recorded_progress

import face_jax as fj
from face_jax.faithfulness.chosen_lambda import leading_to
from face_jax.pipeline import class_folders
from face_jax.pipeline.class_folders import folder_names
from face_jax.support.classes import class_of_folder

IMAGES = {"reddish": pictures(12, 0), "greenish": pictures(9, 1), "bluish": pictures(15, 2)}
EVERY = np.concatenate(list(IMAGES.values()))
SETTINGS: dict[str, Any] = {"rank": 3, "batch": 8, "faithfulness": None, "key": 0, "progress": False}


@pytest.fixture(scope="module")
def each():
    return fj.explain_classes(colour_model(), IMAGES, **SETTINGS)


@pytest.fixture(scope="module")
def shared():
    return fj.explain_classes(colour_model(), IMAGES, shared=True, **SETTINGS)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with a folder for each class, one that is named as none, and a class without photographs of it."""
    found = tmp_path_factory.mktemp("folders")
    for name, colour, count in (("Reddish", 0, 12), ("greenish", 1, 9), ("bluish", 1, 3), ("purple", 2, 2)):
        (found / name).mkdir()
        for number, pixels in enumerate(pictures(count, colour, seed=len(name))):
            PIL.Image.fromarray(pixels).save(found / name / f"{number}.png")
    return found


def test_each_class_is_what_it_is_by_itself():
    settings = {**SETTINGS, "solver": fj.ADMM(rtol=1e-6, max_steps=3000)}
    each = fj.explain_classes(colour_model(), IMAGES, **settings)
    for name, images in IMAGES.items():
        alone = fj.explain(colour_model(), images, name, **settings)
        found = each[name]
        np.testing.assert_allclose(found.dictionary, alone.dictionary, atol=3e-3)
        np.testing.assert_allclose(found.codes, alone.codes, atol=1e-2)
        importance = [[concept.importance for concept in one.concepts] for one in (found, alone)]
        np.testing.assert_allclose(importance[0], importance[1], atol=3e-3)
        assert found.target == alone.target
        assert [row.name for row in found.scores.rows] == [row.name for row in alone.scores.rows]


def test_a_shared_bank_is_that_of_all_crops(shared):
    rows = np.concatenate([shared[name].pictures.crop_activations for name in CLASSES])
    alone = fj.factorize(rows, 3, start=fj.NNDSVD(), solver=fj.ADMM(rtol=1e-6, max_steps=3000))
    # One to one, in any order.
    cosine = shared.bank @ np.asarray(alone.dictionary).T
    np.testing.assert_allclose(cosine.max(1), 1, atol=1e-3)
    assert sorted(cosine.argmax(1)) == [0, 1, 2]
    for name in CLASSES:
        found = shared[name]
        np.testing.assert_array_equal(shared.bank[shared.numbers(name) - 1], found.dictionary)
        importance = [concept.importance for concept in found.concepts]
        assert importance == sorted(importance, reverse=True)
        assert any("a bank that 3 classes share" in note for note in found.notes)
    mean = shared.usage.importance.mean(0)
    assert (np.diff(mean) <= 0).all()


def test_an_objective_is_the_same_for_each_class():
    objective = fj.SquaredError(l1_codes=0.1, l1_dictionary=0.1)
    settings = {**SETTINGS, "objective": objective, "faithfulness": "usual"}
    found = fj.explain_classes(colour_model(), {"reddish": IMAGES["reddish"]}, **settings)["reddish"]
    alone = fj.explain(colour_model(), IMAGES["reddish"], "reddish", **settings)
    assert found.provenance.settings == alone.provenance.settings
    np.testing.assert_allclose(found.dictionary, alone.dictionary, atol=1e-6)


def test_each_class_weighs_a_shared_bank_by_its_own_logit(shared):
    kernel = np.asarray(colour_model().head.kernel, np.float64)
    for number, name in enumerate(CLASSES):
        found = shared[name]
        codes = fj.encode(found.pictures.collected.maps.mean((1, 2))[found.pictures.fitted], found.dictionary)
        # Behind an affine head the total index is the share of the squares that a concept adds.
        adds = (np.asarray(codes, np.float64) * (found.dictionary.astype(np.float64) @ kernel[:, number])) ** 2
        expected = (adds / adds.sum(1, keepdims=True)).mean(0)
        np.testing.assert_allclose([concept.importance for concept in found.concepts], expected, atol=1e-4)


def test_every_photograph_goes_through_the_network_once():
    for images, targets in ((IMAGES, None), (EVERY, CLASSES)):
        told, progress = recorded_progress()
        fj.explain_classes(colour_model(), images, targets, **{**SETTINGS, "progress": progress})
        stages = [(total, done) for stage, total, done in told if stage == "Photographs through the network"]
        assert sum(done for _, done in stages) == sum(total for total, _ in stages) == len(EVERY)


def test_with_targets_photographs_are_those_that_the_model_puts_in_each(each):
    found = fj.explain_classes(colour_model(), EVERY, ["bluish", 0], **SETTINGS)
    assert list(found.explanations) == ["bluish", "reddish"]
    for name in found.explanations:
        assert "of 36 photographs are predicted so" in found[name].target.chosen
        np.testing.assert_array_equal(found[name].pictures.collected.logits, each[name].pictures.collected.logits)


def test_a_class_that_fails_leaves_the_others(folders):
    found = fj.explain_classes(colour_model(), folders, **SETTINGS)
    assert list(found.explanations) == ["reddish", "greenish"]
    assert "the model predicts it for none of the 3 photographs" in found.failed["bluish"]
    assert "the folder 'purple' isn't a class of the model" in found.failed["purple"]
    with pytest.raises(fj.UnknownClassError, match="second='bluish' isn't among the classes"):
        found.tell_apart("reddish", "bluish")


def test_what_is_in_the_folder_is_loaded_where_the_same_is_asked_for(tmp_path, monkeypatch):
    def run(images, **changes):
        told, progress = recorded_progress()
        settings = SETTINGS | {"progress": progress, "folder": tmp_path} | changes
        found = fj.explain_classes(colour_model(), images, **settings)
        return found, sum(stage == "Factorizing" for stage, *_ in told)

    first, fits = run(IMAGES)
    assert fits == 3
    again, fits = run(IMAGES)
    assert fits == 0
    for name in CLASSES:
        np.testing.assert_array_equal(again[name].dictionary, first[name].dictionary)
    others = IMAGES | {"greenish": pictures(9, 1, seed=3)}
    assert run(others)[1] == 1
    assert run(others, rank=2)[1] == 3
    (tmp_path / "bluish" / "bank.safetensors").write_bytes(b"torn")
    assert run(others, rank=2)[1] == 1
    _, fits = run(IMAGES, shared=True)
    assert fits == 1
    again, fits = run(IMAGES, shared=True)
    assert fits == 0
    assert again.bank.shape == (3, 14)
    # One bank depends on the photographs of all.
    assert run(others, shared=True)[1] == 1
    # An edited file of face_jax counts, whatever its version says.
    monkeypatch.setattr(class_folders, "package_digest", lambda: b"edited")
    assert run(others, shared=True)[1] == 1


def test_faithfulness_is_chosen_once_and_taken_in_proportion():
    images = IMAGES | {"bluish": pictures(20, 2)}
    found = fj.explain_classes(colour_model(), images, **{**SETTINGS, "faithfulness": "auto"})
    chooser = found["bluish"]
    assert chooser.fit.path is not None

    def size(explanation):
        rows = explanation.pictures.crop_activations.astype(np.float64)
        return (rows**2).sum() / len(explanation.pictures.fitted)

    for name in ("reddish", "greenish"):
        one = found[name]
        assert one.fit.path is None
        expected = (leading_to(chooser.fit.path) or [0])[-1] * size(one) / size(chooser)
        assert one.provenance.settings.faithfulness == pytest.approx(expected, rel=1e-6)
        assert any("was chosen on photographs of bluish" in note for note in one.notes)


def test_faithfulness_of_a_shared_bank_is_chosen_on_some_photographs():
    images = {name: pictures(30, number, seed=2) for number, name in enumerate(CLASSES)}
    found = fj.explain_classes(colour_model(), images, shared=True, **{**SETTINGS, "faithfulness": "auto"})
    assert any("chosen on 60 of the 72 photographs" in note for note in found.notes)
    weights = {found[name].provenance.settings.faithfulness for name in CLASSES}
    assert len(weights) == 1


@pytest.mark.parametrize("kind", ["each", "shared"])
def test_parts_that_tell_classes_apart_are_those_of_why(kind, request):
    found = request.getfixturevalue(kind)
    told = found.tell_apart("reddish", "bluish", key=0)
    for parts, at, name in ((told.first, 0, "reddish"), (told.second, 1, "bluish")):
        logits = found[name].pictures.collected.logits.astype(np.float64)
        assert told.difference[at] == pytest.approx((logits[:, 0] - logits[:, 2]).mean(), abs=1e-9)
        assert parts.sum() + told.left_out[at] + told.nothing[at] == pytest.approx(told.difference[at], abs=1e-5)
    assert told.photographs == (12, 15)
    assert told.exact
    # Squares of one colour and of the other: some concept orders the photographs without a mistake.
    assert max(told.separates) == pytest.approx(1)
    assert 0.5 < told.by_chance < 1
    back = found.tell_apart(2, 0, key=0)
    np.testing.assert_allclose(np.sort(back.tells), np.sort(told.tells), atol=2e-4)
    if kind == "shared":
        whys = [found["reddish"].why(picture, "bluish").parts for picture in found["reddish"].photographs]
        np.testing.assert_allclose(told.first, np.mean([one.concepts for one in whys], axis=0), atol=1e-4)
        assert told.left_out[0] == pytest.approx(np.mean([one.left_out for one in whys]), abs=1e-4)


def test_behind_another_head_parts_are_shapley_values():
    model = colour_model(head=Disguised(colour_model().head))
    found = fj.explain_classes(model, IMAGES, shared=True, **SETTINGS)
    told = found.tell_apart("reddish", "bluish", key=0)
    assert told.photographs == (12, 12)
    assert told.first.sum() + told.left_out[0] + told.nothing[0] == pytest.approx(told.difference[0], abs=1e-4)
    # The head is affine, whatever it says: a concept's value is what it adds.
    kernel = np.asarray(colour_model().head.kernel, np.float64)
    amount = found["reddish"].codes.astype(np.float64).mean((0, 1, 2))
    expected = amount * (found["reddish"].dictionary.astype(np.float64) @ (kernel[:, 0] - kernel[:, 2]))
    np.testing.assert_allclose(told.first, expected, atol=1e-3)


def test_usage_of_a_shared_bank_has_every_concept_in_every_class(shared):
    usage = shared.usage
    assert usage.classes == CLASSES
    assert usage.alike is None
    for at, column in enumerate(usage.columns):
        for row, name in enumerate(CLASSES):
            concept = shared[name].concepts[column[name] - 1]
            np.testing.assert_array_equal(shared[name].dictionary[concept.index], shared.bank[at])
            assert usage.importance[row, at] == concept.importance
            assert usage.adds[row, at] == concept.contribution
            assert usage.coverage[row, at] == concept.coverage


def test_usage_with_a_bank_each_puts_alike_concepts_into_one_column(each):
    usage = each.usage
    assert usage.alike >= 0.8
    names = [(name, number) for column in usage.columns for name, number in column.items()]
    assert sorted(names) == sorted((name, number) for name in CLASSES for number in (1, 2, 3))
    assert (np.isfinite(usage.importance).sum(0) == [len(column) for column in usage.columns]).all()
    # Of banks that are copies each concept is in one column with its copy.
    red, blue = each["reddish"], each["bluish"]
    copied = dataclasses.replace(blue, bank=dataclasses.replace(blue.bank, dictionary=np.eye(3, 14, dtype=np.float32)))
    own = dataclasses.replace(red, bank=dataclasses.replace(red.bank, dictionary=np.eye(3, 14, dtype=np.float32)))
    both = dataclasses.replace(each, explanations={"reddish": own, "bluish": copied})
    assert all(column["reddish"] == column["bluish"] for column in both.usage.columns)


def test_pairs_come_by_how_near_their_logits_are(each):
    assert len(each.confusable) == 3

    def distance(pair):
        one, other = (each[name].pictures.collected.logits.mean(0, dtype=np.float64) for name in pair)
        first, second = (CLASSES.index(name) for name in pair)
        return one[first] - one[second] + other[second] - other[first]

    distances = [distance(pair) for pair in each.confusable]
    assert distances == sorted(distances)


def test_with_signs_apart_all_classes_have_the_same_channels():
    def features(images):
        # Below zero in one class only.
        found = colour_features(images)
        return found - 0.5 * (found[..., :1] > 1.5).astype(found.dtype)

    model = colour_model(features=lambda images: features(images), fingerprint="signed")
    found = fj.explain_classes(model, IMAGES, shared=True, signs="apart", **SETTINGS)
    channels = {found[name].dictionary.shape[1] for name in CLASSES}
    assert len(channels) == 1
    mixed = fj.explain_classes(
        colour_model(features=lambda images: colour_features(images) - 0.1, fingerprint="mixed"), IMAGES, **SETTINGS
    )
    assert mixed["reddish"].dictionary.min() < 0
    assert mixed.tell_apart("reddish", "greenish").concepts[3] == ("greenish", 1)


def test_labels_each_by_itself_are_explained_as_well():
    model = colour_model(outputs=fj.MultiLabel(threshold=0.6))
    found = fj.explain_classes(model, EVERY, ["reddish", "bluish"], **SETTINGS)
    for name in found.explanations:
        logits = found[name].pictures.collected.logits[:, found[name].target.index]
        assert (logits > np.log(1.5)).all()


def test_classes_of_one_name_are_told_apart_by_their_numbers():
    model = colour_model(classes=("crane", "crane", "bluish"))
    found = fj.explain_classes(model, {0: IMAGES["reddish"], 1: IMAGES["greenish"]}, **SETTINGS)
    assert list(found.explanations) == ["crane (0)", "crane (1)"]
    assert found[1].target.index == 1


def test_folders_are_named_as_classes():
    classes = ("English springer, springer", "chain saw", "T-shirt", "a_b")
    assert [class_of_folder(classes, name) for name in ("English_springer", "chain-saw", "t-shirt", "a_b", "1")] == [
        0, 1, 2, 3, 1,
    ]  # fmt: skip
    assert list(folder_names(["a/b", "a b", "A-B", "..", "Zürich, city"]).values()) == [
        "a-b", "a-b-2", "A-B-3", "class", "Z-rich",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("images", "options", "said"),
    [
        (EVERY, {}, "targets is needed"),
        (EVERY, {"targets": "reddish"}, "targets='reddish' is one class"),
        (EVERY, {"targets": 1}, "targets=1 is one class"),
        (EVERY, {"targets": []}, "targets is an empty list"),
        (EVERY, {"targets": ["reddish", 0]}, "targets has 'reddish' twice"),
        (EVERY, {"targets": ["purple"]}, "target='purple' isn't a class"),
        (IMAGES, {"targets": ["reddish"]}, "images is a mapping from classes and targets are given"),
        ({}, {}, "images is an empty mapping"),
        ({"purple": EVERY}, {}, "images: 'purple' isn't a class"),
        ({"reddish": EVERY, 0: EVERY}, {}, "under two names"),
        ({"reddish": EVERY[20:]}, {}, "none of 1 classes can be explained: reddish"),
        (IMAGES, {"rank": 0}, "rank=0 isn't a number of concepts"),
        (IMAGES, {"rank": 15, "shared": True}, "rank=15 is more than"),
        (IMAGES, {"faithfulness": -1}, "faithfulness=-1 isn't a λ"),
        (IMAGES, {"objective": fj.SquaredError(row_weights=jnp.ones(9))}, "row_weights, which belong to the crops"),
        (IMAGES, {"objective": fj.SquaredError(), "faithfulness": 1.0}, "faithfulness and objective are both given"),
        (IMAGES, {"preset": "lime"}, "preset='lime' isn't a paper's settings"),
        (IMAGES, {"memory": -1}, "memory=-1 isn't a number of GiB"),
    ],
)
def test_what_isnt_valid_is_refused(images, options, said):
    with pytest.raises(ValueError, match=said):
        fj.explain_classes(colour_model(), images, **SETTINGS | options)


def test_what_is_wrong_with_every_class_is_told_with_its_cause():
    def broken(images):
        raise ValueError("this network is broken")

    with pytest.raises(ValueError, match=r"none of 3 classes .* this network is broken") as caught:
        fj.explain_classes(colour_model(features=broken), IMAGES, **SETTINGS)
    assert isinstance(caught.value.__cause__, ValueError)


def test_questions_that_arent_valid_are_refused(each):
    with pytest.raises(ValueError, match="second='reddish' is the first class"):
        each.tell_apart("reddish", 0)
    with pytest.raises(ValueError, match="shuffles=1 is too few"):
        each.tell_apart("reddish", "bluish", shuffles=1)
    with pytest.raises(ValueError, match="numbers are of a shared bank"):
        each.numbers("reddish")
    with pytest.raises(fj.UnknownClassError, match="first='purple'"):
        each.tell_apart("purple", "bluish")


def test_classes_of_about_as_many_rows_are_one_compiled_program(monkeypatch):
    """Rows of zeros fill both up; the solver is given one shape."""
    from face_jax.faithfulness import chosen_lambda

    shapes = []

    def recorded(rows, *arguments, **options):
        shapes.append(rows.shape)
        return fj.factorize(rows, *arguments, **options)

    monkeypatch.setattr(chosen_lambda, "factorize", recorded)
    images = {"reddish": pictures(41, 0), "bluish": pictures(42, 2)}
    found = fj.explain_classes(colour_model(), images, **SETTINGS)
    assert len({len(found[name].crops) for name in images}) == 2
    assert len(set(shapes)) == 1


def together(monkeypatch, calls):
    """As on an accelerator: classes are fitted together, and how many at a time is noted."""
    from face_jax.pipeline import fitting, several

    def recorded(rows, *arguments, **options):
        calls.append(len(rows))
        return fj.factorize_many(rows, *arguments, **options)

    monkeypatch.setattr(several, "_at_a_time", lambda: 16)
    monkeypatch.setattr(fitting, "factorize_many", recorded)


def assert_alike(found, wanted):
    assert list(found.explanations) == list(wanted.explanations)
    for name, one in found.explanations.items():
        alone = wanted[name]
        np.testing.assert_allclose(one.dictionary, alone.dictionary, atol=1e-4)
        np.testing.assert_allclose(one.codes, alone.codes, atol=1e-3)
        assert one.fit.steps == alone.fit.steps
        assert one.fit.objective == pytest.approx(alone.fit.objective, rel=1e-4)
        assert one.provenance.settings == alone.provenance.settings
        assert one.notes == alone.notes
        assert one.provenance.seconds["factorization"] > 0


def test_classes_that_are_fitted_together_are_as_each_by_itself(each, monkeypatch):
    calls = []
    together(monkeypatch, calls)
    told, progress = recorded_progress()
    settings: dict[str, Any] = {**SETTINGS, "progress": progress}
    assert_alike(fj.explain_classes(colour_model(), IMAGES, **settings), each)
    assert calls == [3]
    assert [total for stage, total, done in told if stage == "Factorizing" and done == total] == [3]


@pytest.mark.parametrize("changes", [{"faithfulness": 30.0}, {"solver": fj.SemiNMF(max_steps=30)}])
def test_with_a_faithfulness_or_signs_classes_are_fitted_together(changes, monkeypatch):
    some = {name: IMAGES[name] for name in ("reddish", "greenish")}
    wanted = fj.explain_classes(colour_model(), some, **SETTINGS | changes)
    calls = []
    together(monkeypatch, calls)
    assert_alike(fj.explain_classes(colour_model(), some, **SETTINGS | changes), wanted)
    assert calls == [2]


def test_on_the_way_to_a_chosen_faithfulness_classes_are_fitted_together(monkeypatch):
    from face_jax.pipeline import several

    # Of this model's concepts none are wrong without the term, and λ = 0 is chosen.
    monkeypatch.setattr(several, "leading_to", lambda path: [3.0, 30.0])
    settings: dict[str, Any] = {**SETTINGS, "faithfulness": "auto"}
    wanted = fj.explain_classes(colour_model(), IMAGES, **settings)
    chosen: list[Any] = [wanted[name].provenance.settings.faithfulness for name in ("reddish", "greenish")]
    assert 0 < chosen[0] != chosen[1]
    calls = []
    together(monkeypatch, calls)
    found = fj.explain_classes(colour_model(), IMAGES, **settings)
    assert_alike(found, wanted)
    # The largest chooses by itself; the others go the way together, from no faithfulness on.
    assert calls == [2, 2, 2]


def test_classes_that_cant_be_fitted_together_are_fitted_by_themselves(each, monkeypatch):
    from face_jax.nmf import RESULTS
    from face_jax.pipeline import fitting, several

    calls = []
    together(monkeypatch, calls)
    recorded = fitting.factorize_many

    def refused(*arguments, **options):
        raise fj.NotEnoughMemoryError("no room")

    monkeypatch.setattr(fitting, "factorize_many", refused)
    assert_alike(fj.explain_classes(colour_model(), IMAGES, **SETTINGS), each)

    def lost(*arguments, **options):
        first, *others = recorded(*arguments, **options)
        bad = dataclasses.replace(first.result, code=jnp.asarray(RESULTS.nonfinite.value))
        return [dataclasses.replace(first, result=bad), *others]

    # What one of them can't be is no matter of the others.
    monkeypatch.setattr(fitting, "factorize_many", lost)
    assert_alike(fj.explain_classes(colour_model(), IMAGES, **SETTINGS), each)
    # Where no two fit into memory, each is by itself.
    monkeypatch.setattr(fitting, "factorize_many", refused)
    monkeypatch.setattr(several, "_MOST_BYTES", 0)
    calls.clear()
    assert_alike(fj.explain_classes(colour_model(), IMAGES, **SETTINGS), each)
    assert not calls


def test_tables_are_plain(shared):
    table = shared.tell_apart("reddish", "bluish").table()
    assert json.loads(json.dumps(table)) == table
    assert jnp.asarray(jax.tree.leaves(table["difference"])).shape == (2,)
    assert "3 concepts shared" in repr(shared)


def test_something_is_added_to_every_explanation_and_nothing_else_changes(shared):
    noted = shared.map(
        lambda one: dataclasses.replace(one, provenance=dataclasses.replace(one.provenance, notes=("seen",)))
    )
    assert [one.notes for one in noted.explanations.values()] == [("seen",)] * len(shared.explanations)
    assert noted.bank is shared.bank
    first, second = list(shared.explanations.values())[:2]
    with pytest.raises(ValueError, match="by other concepts for"):
        shared.map(lambda one: second if one is first else one)
    with pytest.raises(ValueError, match="change gave None for"):
        shared.map(lambda one: None)
    with pytest.raises(ValueError, match="change=3 can't be called"):
        shared.map(3)

"""What an edit does on labelled photographs: accuracies that can be counted, controls, and what is recommended."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from toy_model import Disguised, colour_model, pictures

import face_jax as fj
from face_jax.action.edits import edit_of
from face_jax.action.intervals import Interval
from face_jax.action.variants import least_important, other_concepts, through
from face_jax.heads import Affine
from face_jax.model import labelled_photographs_for

# Red pictures; half of the "greenish" ones have a bright blue corner, by which the model takes them for reddish.
KERNEL = np.zeros((14, 3), np.float32)
KERNEL[:3] = [[8, 0, 0], [0, 8, 0], [8, 0, 0]]


def shortcut(head=None):
    affine = Affine(jnp.asarray(KERNEL), jnp.asarray([0.0, 1.0, 0.0], jnp.float32))
    return colour_model(head=head(affine) if head else affine, fingerprint=f"shortcut {head}")


def marked(colour, seed=0):
    found = pictures(10, colour, seed)
    found[:, :14, :16] = [0, 0, 255]
    return found


IMAGES = np.concatenate([marked(0), pictures(10, 0, 1), marked(1), pictures(10, 1, 1)])
LABELS = ["reddish"] * 20 + ["greenish"] * 20
GROUPS = ["marked"] * 10 + ["plain"] * 10 + ["marked"] * 10 + ["plain"] * 10


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(
        shortcut(),
        np.concatenate([marked(0), pictures(10, 0, 1)]),
        "reddish",
        rank=2,
        batch=8,
        faithfulness=None,
        key=0,
    )


def blue(explanation):
    return int(explanation.dictionary[:, 2].argmax())


@pytest.fixture(scope="module")
def effect(explanation):
    return fj.measure_edit(explanation, IMAGES, LABELS, remove=blue(explanation), batch=8, draws=5, key=0)


def test_accuracies_are_those_of_the_model_and_of_the_edited_one(explanation, effect):
    edited = fj.edit(shortcut(), explanation, remove=blue(explanation))
    inputs = jnp.asarray(shortcut().preprocess(IMAGES))
    truth = np.asarray([0] * 20 + [1] * 20)
    for outcome, model in ((effect.before, shortcut()), (effect.after, edited)):
        predicted = np.asarray(model.head(model.features(inputs))).argmax(1)
        assert outcome.accuracy.value == pytest.approx((predicted == truth).mean())
        assert outcome.per_class[1].value == pytest.approx((predicted == truth)[20:].mean())
        assert outcome.accuracy.low <= outcome.accuracy.value <= outcome.accuracy.high
    assert (effect.predicted[:, 1] == predicted).all()
    changed = (effect.predicted[:, 0] != effect.predicted[:, 1]).sum()
    assert sum(count for _, _, count in effect.moves) == changed > 0
    assert effect.after.changed == pytest.approx(changed / 40)


def test_the_shortcut_taken_out_helps(effect):
    assert effect.before.accuracy.value == pytest.approx(0.75)
    assert effect.after.accuracy.value >= 0.95
    assert [control.kind for control in effect.controls] == ["other concepts", "least important", "random directions"]
    assert effect.after.gain.low > 0
    assert all(interval.value > 0 for interval in effect.above.values())


def test_it_is_recommended_only_where_it_does_more_than_every_control(effect):
    def rival(gain, low):
        control = dataclasses.replace(effect.controls[0], draws=(0.0, gain))
        above = {control.kind: Interval(0.1, low, 0.2)}
        return dataclasses.replace(effect, controls=(control,), above=above)

    assert rival(0.1, 0.05).recommended
    assert "is recommended" in rival(0.1, 0.05).verdict
    for other in (rival(0.1, 0.0), rival(effect.after.gain.value, 0.05), rival(0.9, 0.05)):
        assert not other.recommended
        assert "a control does as much: other concepts" in other.verdict
    chance = dataclasses.replace(rival(0.1, 0.05), after=dataclasses.replace(effect.after, gain=effect.before.gain))
    assert not chance.recommended
    assert "is no gain" in chance.verdict


def test_what_helps_no_more_than_its_controls_isnt_recommended(explanation):
    effect = fj.measure_edit(
        explanation, IMAGES[:20], LABELS[:20], remove=1 - blue(explanation), batch=8, draws=5, key=0
    )
    assert not effect.recommended
    assert "isn't recommended" in effect.verdict


def test_groups_come_from_a_table_and_count_alike(explanation, tmp_path):
    import PIL.Image

    chosen = [*range(10), 10, 11, *range(20, 30), 30]
    lines = ["file,label,group"]
    for at in chosen:
        PIL.Image.fromarray(IMAGES[at]).save(tmp_path / f"{at}.png")
        lines.append(f"{at}.png,{LABELS[at]},{GROUPS[at]}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    effect = fj.measure_edit(
        explanation, tmp_path.glob("*.png"), tmp_path / "labels.csv", remove=blue(explanation), batch=8, draws=2, key=0
    )
    marked_, plain = (effect.before.per_group[name].value for name in ("marked", "plain"))
    assert (marked_, plain) == (0.5, 1.0)
    assert effect.before.accuracy.value == pytest.approx(0.75)
    assert effect.before.accuracy.low > 0.5


def test_behind_a_head_that_isnt_affine_it_is_the_same(explanation, effect):
    model = shortcut(Disguised)
    other = dataclasses.replace(explanation, model=model)
    found = fj.measure_edit(other, IMAGES, LABELS, remove=blue(explanation), batch=8, draws=5, key=0)
    np.testing.assert_array_equal(found.predicted, effect.predicted)
    assert found.after.accuracy == effect.after.accuracy


def test_of_labels_the_sets_before_and_after_are_told(explanation, tmp_path):
    inputs = jnp.asarray(shortcut().preprocess(IMAGES))
    edited = fj.edit(shortcut(), explanation, remove=blue(explanation))
    logits = [np.asarray(each.head(each.features(inputs)), np.float64) for each in (shortcut(), edited)]
    # Between what pictures with the corner have of "reddish" with the concept and without; "greenish" stays.
    cut = scipy.special.expit(np.mean([each[:10, 0].mean() for each in logits]))
    model = dataclasses.replace(shortcut(), outputs=fj.MultiLabel(threshold=(float(cut), 0.5, 0.999)))
    other = dataclasses.replace(explanation, model=model)
    effect = fj.measure_edit(other, IMAGES, LABELS, remove=blue(explanation), batch=8, draws=2, key=0)
    sets = [model.outputs.predicted(each) for each in logits]
    np.testing.assert_array_equal(effect.label_sets, np.stack(sets, axis=1))
    assert effect.predicted is None
    assert effect.moves == ()
    changed = (sets[0] != sets[1]).any(1)
    assert effect.after.changed == pytest.approx(changed.mean())
    counted = {at: ((sets[0] & ~sets[1])[:, at].sum(), (sets[1] & ~sets[0])[:, at].sum()) for at in range(3)}
    assert {at: pair for at, *pair in effect.label_changes} == {at: list(c) for at, c in counted.items() if sum(c)}
    recall = sets[1][np.arange(40), [0] * 20 + [1] * 20].mean()
    assert effect.after.accuracy.value == pytest.approx(recall)
    assert "recall of the given labels goes from" in effect.verdict
    page = fj.write_edit(other, effect, tmp_path).read_text()
    told = json.loads((tmp_path / "edit.json").read_text())
    names = [[[model.classes[at] for at in np.flatnonzero(row)] for row in each] for each in sets]
    assert [each["before"] for each in told["photographs"]] == names[0]
    assert [each["after"] for each in told["photographs"]] == names[1]
    assert told["changes"] == [
        {"label": model.classes[at], "lost": lost, "gained": gained} for at, lost, gained in effect.label_changes
    ]
    # Photographs whose strongest label stays are shown, too.
    assert (changed & (logits[0].argmax(1) == logits[1].argmax(1))).any()
    assert page.count("<figcaption>") == min(12, changed.sum()) > 0
    at = int(np.flatnonzero(changed)[effect.strength[changed].argmax()])
    said = [", ".join(each[at]) or "no label" for each in names]
    assert f"{said[0]} → <strong>{said[1]}</strong>" in page


def test_linear_codes_measure_the_linear_edit(explanation):
    options = {"remove": blue(explanation), "codes": "linear"}
    found = fj.measure_edit(explanation, IMAGES, LABELS, **options, batch=8, draws=2, key=0)
    edited = fj.edit(shortcut(), explanation, **options)
    logits = np.asarray(edited.head(edited.features(jnp.asarray(shortcut().preprocess(IMAGES)))))
    np.testing.assert_array_equal(found.predicted[:, 1], logits.argmax(1))


@pytest.fixture(scope="module")
def three():
    return fj.explain(
        shortcut(), np.concatenate([marked(0), pictures(10, 0, 1)]), 0, rank=4, batch=8, faithfulness=None, key=0
    )


@pytest.mark.parametrize(
    ("asked", "amounts"),
    [
        ({"scale": {0: 3}}, [-2]),
        ({"scale": {0: 0.9}}, [0.1]),
        ({"remove": [0], "scale": {1: 1.5}}, [1, -0.5]),
        ({"remove": [0]}, [1]),
    ],
)
def test_controls_are_changed_the_same_way_and_as_much(three, asked, amounts):
    change = edit_of(three, asked.get("remove", ()), asked.get("scale"), "exact")
    seen = through(shortcut(), labelled_photographs_for(shortcut(), IMAGES, LABELS), change, 8, None)
    averages = np.asarray(seen.codes, np.float64).mean((1, 2))
    bank = three.dictionary.astype(np.float64)

    def size(drawn):
        return np.sqrt(np.mean(((averages * drawn) @ bank) ** 2))

    drawn = list(other_concepts(seen, change, 4, np.random.default_rng(0)))
    assert drawn
    for each in drawn:
        there = each[np.flatnonzero(each)]
        assert (change.amounts[np.flatnonzero(each)] == 0).all()
        assert size(each) == pytest.approx(size(change.amounts))
        # In the edit's proportions, signs among them.
        factor = np.sort(there) / np.sort(amounts)
        np.testing.assert_allclose(factor, factor[0])
        assert factor[0] > 0
    assert sorted(each.sum() for each in least_important(change)) == pytest.approx(sorted(amounts))
    assert all(np.flatnonzero(each).tolist() == [3] for each in least_important(change))


def test_an_edit_that_puts_in_is_measured_beside_controls_that_put_in(three, tmp_path):
    effect = fj.measure_edit(three, IMAGES, LABELS, scale={0: 3}, batch=8, draws=2, key=0)
    most = {each.kind: each.most for each in (effect.before, effect.after, *effect.controls)}
    assert (most["before"], most["random directions"]) == (None, None)
    assert most["edit"] == most["least important"] == -2
    assert most["other concepts"] < 0
    edited = fj.edit(shortcut(), three, scale={0: 3})
    logits = np.asarray(edited.head(edited.features(jnp.asarray(shortcut().preprocess(IMAGES)))))
    np.testing.assert_array_equal(effect.predicted[:, 1], logits.argmax(1))
    page = fj.write_edit(three, effect, tmp_path).read_text()
    assert f"here up to {abs(most['other concepts']):.3g} times its codes are put in" in page  # pyright: ignore[reportArgumentType]
    assert "was multiplied, by the factor above" in page


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["reddish"] * 3, "3 labels for 40 photographs"),
        (["purple"] * 40, "labels: image 0: label='purple' isn't a class"),
        ({"nothing": "reddish"}, "has none of the 40 photographs"),
        (3, "labels=3 for 40"),
        ("folders", "lies in no folder"),
        ("no.csv", "can't be read"),
    ],
)
def test_labels_that_arent_valid_are_refused(explanation, labels, said):
    with pytest.raises(ValueError, match=said):
        fj.measure_edit(explanation, IMAGES, labels, remove=[0])

"""What goes with a concept: a regression that can be written down, and edits along it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import colour_model, pictures

import face_jax as fj
from face_jax.action.edits import EditedFeatures

MODEL = colour_model()
# Of two classes, half of each with a bright blue corner.
IMAGES = np.concatenate([pictures(8, 0, 1), pictures(8, 0, 2), pictures(8, 1, 3), pictures(8, 1, 4)])
MARKED = np.tile(np.repeat([True, False], 8), 2)
IMAGES[MARKED, :14, :16] = [0, 0, 255]
CLASSES = np.repeat([0, 1], 16)


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(MODEL, IMAGES[:16], "reddish", rank=3, faithfulness=None, batch=8, key=0)


def averages(explanation):
    """Activations and codes of the pictures, averaged over places."""
    maps = np.asarray(MODEL.features(jnp.asarray(MODEL.preprocess(IMAGES))), np.float64)
    return maps.mean((1, 2)), np.asarray(explanation.encode(IMAGES), np.float64).mean((1, 2))


def slopes(rows, codes):
    """Least squares beside a column for each class (Frisch and Waugh 1933)."""
    return np.linalg.lstsq(np.column_stack([codes, np.eye(2)[CLASSES]]), rows, rcond=None)[0][: codes.shape[1]]


def shrunk(rows, codes):
    """The slopes with a ridge of a hundredth of the codes' mean variance within classes."""
    within = codes - np.stack([codes[label == CLASSES].mean(0) for label in (0, 1)])[CLASSES]
    gram = within.T @ within
    ridge = 0.01 * np.trace(gram) / len(gram)
    return np.linalg.solve(gram + ridge * np.eye(len(gram)), gram @ slopes(rows, codes))


def test_it_is_the_regression_within_classes(explanation):
    rows, codes = averages(explanation)
    for remove in ([1], [0, 1]):
        along = fj.erasing_directions(explanation, IMAGES, CLASSES.tolist(), remove=remove)
        expected = np.zeros_like(along)
        expected[remove] = shrunk(rows, codes[:, remove])
        # Of others what goes with them alone, and not with what is removed.
        for at in set(range(3)) - set(remove):
            expected[at] = shrunk(rows, codes[:, [*remove, at]])[-1]
        np.testing.assert_allclose(along, expected, atol=2e-4 * np.abs(expected).max())


def test_marked_pictures_become_as_others_of_their_class(explanation):
    blue = int(explanation.dictionary[:, 2].argmax())
    along = fj.erasing_directions(explanation, IMAGES[::2], CLASSES[::2].tolist(), remove=blue)
    inputs = jnp.asarray(MODEL.preprocess(IMAGES[1::2]))
    marked, classes = MARKED[1::2], CLASSES[1::2]

    def apart(model):
        means = np.asarray(model.features(inputs), np.float64).mean((1, 2))
        return max(
            np.abs(means[marked & (classes == one)].mean(0) - means[~marked & (classes == one)].mean(0)).max()
            for one in (0, 1)
        )

    plain = fj.edit(MODEL, explanation, remove=blue)
    whole = fj.edit(MODEL, explanation, remove=blue, along=along)
    # The concept is only a part of what the mark does.
    assert 0.25 * apart(MODEL) < apart(plain)
    assert apart(whole) < 0.5 * apart(plain)
    assert whole.name.endswith(f"without concept {blue + 1} and what goes with it")
    assert whole.fingerprint != plain.fingerprint


@pytest.mark.parametrize("codes", ["exact", "linear"])
def test_edits_go_along_it_at_each_place(explanation, codes):
    along = fj.erasing_directions(explanation, IMAGES, CLASSES.tolist(), remove=[0, 2], codes=codes)
    edited = fj.edit(MODEL, explanation, remove=[0], scale={2: 0.5}, codes=codes, along=along)
    before = np.asarray(MODEL.features(jnp.asarray(MODEL.preprocess(IMAGES[:3]))), np.float64)
    after = np.asarray(edited.features(jnp.asarray(MODEL.preprocess(IMAGES[:3]))))
    bank = explanation.dictionary.astype(np.float64)
    found = np.asarray(explanation.encode(IMAGES[:3])) if codes == "exact" else before @ np.linalg.pinv(bank)
    taken = found[..., :1] * along.directions[0] + 0.5 * found[..., 2:] * along.directions[2]
    np.testing.assert_allclose(after, before - taken, atol=1e-4 * np.abs(before).max())


def test_its_effect_is_measured_beside_controls_as_large(explanation, tmp_path):
    blue = int(explanation.dictionary[:, 2].argmax())
    along = fj.erasing_directions(explanation, IMAGES[::2], CLASSES[::2].tolist(), remove=blue)
    others, labels = IMAGES[1::2], CLASSES[1::2].tolist()
    effect = fj.measure_edit(explanation, others, labels, remove=blue, along=along, draws=2, batch=8, key=0)
    edited = fj.edit(MODEL, explanation, remove=blue, along=along)
    logits = np.asarray(edited.head(edited.features(jnp.asarray(MODEL.preprocess(others)))))
    np.testing.assert_array_equal(effect.predicted[:, 1], logits.argmax(1))
    assert effect.whole
    assert "what goes with it" in effect.verdict
    page = fj.write_edit(explanation, effect, tmp_path).read_text()
    assert "along the direction in which activations change with it" in page
    assert [control.kind for control in effect.controls] == ["other concepts", "least important", "random directions"]


def test_what_was_learned_for_another_edit_or_from_these_photographs_is_refused(explanation):
    labels = CLASSES.tolist()
    along = fj.erasing_directions(explanation, IMAGES[::2], labels[::2], remove=[0])
    for options, said in (
        ({"remove": [1]}, r"along was learned for concepts \[0\] together, and concepts \[1\] are edited"),
        ({"remove": [0], "scale": {2: 2}}, r"concepts \[0, 2\] are edited; call face_jax.erasing_directions with"),
        ({"remove": [0], "codes": "linear"}, "along was learned with codes='exact', and the edit has codes='linear'"),
    ):
        for act in (
            lambda **options: fj.edit(MODEL, explanation, **options),
            lambda **options: fj.measure_edit(explanation, IMAGES[1::2], labels[1::2], **options),
        ):
            with pytest.raises(ValueError, match=said):
                act(along=along, **options)
    # Whatever becomes of an edit on its way to a torch module.
    features = fj.edit(MODEL, explanation, remove=[0], along=along).features
    assert isinstance(features, EditedFeatures)
    change = features.change
    with pytest.raises(ValueError, match="learned with codes='exact'"):
        dataclasses.replace(change, linear=True)
    bank = dataclasses.replace(explanation.bank, dictionary=2 * explanation.dictionary)
    with pytest.raises(ValueError, match="along was learned for another explanation"):
        fj.edit(MODEL, dataclasses.replace(explanation, bank=bank), remove=[0], along=along)
    with pytest.raises(ValueError, match="1 photographs of along are in images as well, such as image 1; what is"):
        fj.measure_edit(explanation, IMAGES[[1, 2, 3]], [0, 0, 0], remove=[0], along=along)
    # Numbers of one's own have no such record.
    fj.edit(MODEL, explanation, remove=[1], along=np.asarray(along))


def test_directions_go_into_compiled_programs(explanation):
    along = fj.erasing_directions(explanation, IMAGES, CLASSES.tolist(), remove=[0])
    twice = jax.jit(lambda given: jax.tree.map(lambda each: 2 * each, given))(along)
    assert isinstance(twice, fj.ErasingDirections)
    assert twice.learned == along.learned
    np.testing.assert_allclose(twice, 2 * along.directions)
    assert fj.edit(MODEL, explanation, remove=[0], along=twice).name.endswith("and what goes with it")


def test_what_says_nothing_is_refused(explanation):
    labels = CLASSES.tolist()
    with pytest.raises(ValueError, match=r"remove names concept 1, of which photographs of the same class all have"):
        fj.erasing_directions(explanation, IMAGES[[0, 31]], [0, 1], remove=[1])
    with pytest.raises(ValueError, match="change no concept"):
        fj.erasing_directions(explanation, IMAGES, labels, remove=[])
    for along, what in (
        (np.ones((3, 2)), r"has shape \(3, 2\)"),
        (np.full((3, 14), np.nan), "has entries that aren't finite"),
    ):
        with pytest.raises(ValueError, match=f"along {what}.*; give the 3 × 14 numbers"):
            fj.edit(MODEL, explanation, remove=[0], along=along)
    with pytest.raises(ValueError, match="along='everything' isn't an array of real numbers"):
        fj.measure_edit(explanation, IMAGES, labels, remove=[0], along="everything")

"""The whole river on a small model in pure JAX, and every way in which its input can be wrong."""

import dataclasses
import json
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import CLASSES, Squared, colour_features, colour_model, pictures, recorded_progress

import face_jax as fj
from face_jax import attribution
from face_jax.faithfulness import Path
from face_jax.faithfulness.lambda_path import Point
from face_jax.heads import Affine
from face_jax.pictures.crop_rules import Crops, NativeCrops
from face_jax.pictures.photographs import UnreadablePhotographError, network_input
from face_jax.pipeline import checks, fitting, provenance, ranking, selection
from face_jax.pipeline.checks import check_settings
from face_jax.pipeline.selection import NoneOfTheClassError, split
from face_jax.report.verdicts import verdicts
from face_jax.support import progress_line, watched_steps
from face_jax.support.classes import UnknownClassError

RED, GREEN = pictures(14, 0), pictures(4, 1)
SETTINGS: dict[str, Any] = {"rank": 4, "batch": 8, "faithfulness": None, "key": jax.random.key(0)}


def inputs(images):
    """Network input of arrays of pictures."""
    return np.stack([network_input(pixels, colour_model().preprocess) for pixels in images])


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(colour_model(), np.concatenate([RED, GREEN]), "reddish", **SETTINGS)


def test_photographs_are_chosen_by_the_models_prediction(explanation):
    assert len(explanation.photographs) == 14
    assert (explanation.pictures.collected.logits.argmax(-1) == 0).all()
    assert "14 of 18" in explanation.target.chosen


def test_photographs_are_fitted_or_held_out(explanation):
    assert len(explanation.pictures.held_out) == 3
    assert sorted([*explanation.pictures.fitted, *explanation.pictures.held_out]) == list(range(14))
    assert set(explanation.crops.image) == set(explanation.pictures.fitted)


def test_concepts_come_by_importance(explanation):
    importance = [concept.importance for concept in explanation.concepts]
    assert importance == sorted(importance, reverse=True)
    assert sum(importance) == pytest.approx(1, abs=1e-5)
    np.testing.assert_array_equal(explanation.importance.index, explanation.pictures.fitted)
    assert [concept.number for concept in explanation.concepts] == [1, 2, 3, 4]
    np.testing.assert_allclose(explanation.importance.sobol.total.mean(0), importance, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(explanation.dictionary, axis=1), 1, atol=1e-5)


def test_the_most_important_concept_is_the_colour(explanation):
    of_the_colour = explanation.dictionary.argmax(axis=1) == 0
    assert of_the_colour[0]
    # Whether it is one concept or two depends on the pictures.
    importance = np.asarray([concept.importance for concept in explanation.concepts])
    assert importance[of_the_colour].sum() > 0.5
    assert explanation.concepts[0].contribution > 0


def test_other_measures_are_of_the_same_concepts_and_pictures(explanation):
    sizes = explanation.importance.gradient_times_code
    weighed = explanation.importance
    assert sizes.contribution.shape == weighed.sobol.total.shape == weighed.tcav.derivative.shape
    # Behind an affine head all are functions of what a concept adds to the logit.
    added = [concept.contribution for concept in explanation.concepts]
    np.testing.assert_allclose(sizes.contribution.mean(0), added, rtol=1e-4)
    squares = sizes.contribution**2
    np.testing.assert_allclose(squares / squares.sum(1, keepdims=True), explanation.importance.sobol.total, atol=1e-5)
    np.testing.assert_array_equal(explanation.importance.tcav.per_class, np.sign(added) > 0)


def test_codes_rebuild_the_crops(explanation):
    missed = explanation.pictures.crop_activations - explanation.crop_codes @ explanation.dictionary
    assert np.square(missed).sum() < 0.2 * np.square(explanation.pictures.crop_activations).sum()


def test_strongest_crops_are_in_order_and_of_different_photographs(explanation):
    for number, concept in enumerate(explanation.concepts):
        codes = explanation.crop_codes[list(concept.strongest), number]
        assert (np.diff(codes) <= 0).all()
        assert len(set(explanation.crops.image[list(concept.strongest)])) == len(concept.strongest)


def test_scores_have_their_controls(explanation):
    names = [row.name for row in explanation.scores.rows]
    assert names[0] == "this explanation"
    assert any("NNDSVD" in name for name in names)
    assert any("mean activation" in name for name in names)
    own, random = explanation.scores.rows[0], explanation.scores.rows[-1]
    assert own.relative_error < random.relative_error
    assert own.agreement == 1
    assert explanation.provenance.settings.faithfulness is False


def test_the_same_key_gives_the_same_explanation(explanation):
    again = fj.explain(colour_model(), np.concatenate([RED, GREEN]), "reddish", **SETTINGS)
    np.testing.assert_array_equal(again.dictionary, explanation.dictionary)
    np.testing.assert_array_equal(again.crops.box, explanation.crops.box)


def test_without_a_target_the_most_frequent_class_is_explained():
    found = fj.explain(colour_model(), np.concatenate([GREEN[:1], RED]), **SETTINGS)
    assert found.target_name == "reddish"
    assert "14 of 15" in found.target.chosen
    assert len(found.photographs) == 14


def test_nobody_is_told_on_a_terminal_who_is_not_to_be(monkeypatch):
    told, line = recorded_progress()
    monkeypatch.setattr(progress_line, "_watched", lambda: True)
    monkeypatch.setattr(progress_line, "line", line)
    monkeypatch.setattr(watched_steps, "_LARGE", 0)
    settings = {"rank": 3, "batch": 8, "faithfulness": 3.0, "key": jax.random.key(0), "progress": False}
    fj.explain(colour_model(), pictures(14, 0), "reddish", **settings)
    fj.explain_classes(colour_model(), {"reddish": pictures(14, 0)}, **settings)
    assert told == []


def test_a_name_that_is_a_number_means_the_class_and_the_other_reading_is_told():
    numbered = colour_model(classes=("1", "0", "2"))
    found = fj.explain(numbered, np.concatenate([RED[:6], GREEN]), "1", **SETTINGS)
    assert (found.target.index, found.target_name, len(found.photographs)) == (0, "1", 6)
    assert "Class number 1 is named '0'" in found.notes[0]
    by_number = fj.explain(numbered, np.concatenate([RED[:6], GREEN]), np.int64(1), **{**SETTINGS, "rank": np.int32(4)})
    assert (by_number.target.index, len(by_number.photographs)) == (1, 4)
    assert "named '1' is number 0" in by_number.notes[0]
    assert not any("was taken for" in note for note in fj.explain(numbered, RED[:6], **SETTINGS).notes)


def test_names_may_come_in_a_mapping():
    for classes in ({"bluish": 2, "reddish": 0, "greenish": 1}, {2: "bluish", 0: "reddish", 1: "greenish"}):
        assert colour_model(classes=classes).classes == CLASSES
    with pytest.raises(ValueError, match="no order of the logits"):
        colour_model(classes=set(CLASSES))


def dead_but(kept):
    """The colours' model, all reddish, with a layer that is 0 in inputs for which `kept` of their red says no."""

    def features(images):
        maps = colour_features(images)
        return jnp.where(kept(maps[..., 0].mean((1, 2)))[:, None, None, None], maps, 0)

    head = Affine(colour_model().head.kernel, jnp.asarray([9.0, 0.0, 0.0], jnp.float32))
    return colour_model(features=features, head=head)


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("kept", [lambda red: red < 0, lambda red: (red > 0.2) & (red < 0.21)], ids=["all", "wholes"])
def test_a_dead_layer_is_refused(kept, count):
    with pytest.raises(ValueError, match="all activations of layer='patches' of colours are 0 in these"):
        fj.explain(dead_but(kept), RED[:count], **SETTINGS)


def test_pictures_held_out_without_activations_are_told(tmp_path):
    both = np.stack([RED[0], np.zeros_like(RED[0])])
    key = next(
        key
        for key in range(20)
        if split(2, 0.5, key=jax.random.split(jax.random.key(np.uint32(key)), 8)[0])[1].tolist() == [1]
    )
    found = fj.explain(dead_but(lambda red: red > 0.05), both, rank=4, held_out=0.5, batch=8, key=key)
    assert found.pictures.held_out.tolist() == [1]
    assert any("are 0 in the pictures held out" in note for note in found.notes)
    assert np.isnan(found.scores.rows[0].relative_error)
    assert ">nan<" not in fj.write_report(found, tmp_path).read_text()


def test_activations_with_fewer_parts_than_concepts_are_told():
    def one_channel(images):
        maps = colour_features(images)
        return maps * (jnp.arange(14) == 0).astype(maps.dtype)[None, None, None]

    for features in (one_channel, lambda images: jnp.ones((len(images), 4, 4, 14), images.dtype)):
        found = fj.explain(colour_model(features=features), RED[:6], **SETTINGS)
        assert any("3 of 4 concepts are in no crop" in note for note in found.notes)
        assert np.isnan(fj.suggest_recursion(found).spread).all()
        assert np.isfinite([concept.importance for concept in found.concepts]).all()


def test_codes_find_the_square(explanation):
    maps = explanation.maps(RED[:5], concepts=(0,))
    assert maps.shape == (1, 5, 16, 16)
    np.testing.assert_array_equal(explanation.maps(RED[:5], concepts=np.int64(0)), maps)
    red = np.stack([one[:, 4:36] for one in RED[:5]])[:, ::2, ::2, 0] > 200
    # The background's red is a seventh of the square's, and enlarging blurs the border.
    assert maps[0][red].mean() > 3 * maps[0][~red].mean()


def test_gradient_maps_are_the_derivative_of_the_code(explanation):
    maps = explanation.maps(RED[:1], method="saliency", concepts=(0, 2))
    assert maps.shape == (2, 1, 16, 16)
    dictionary = jnp.asarray(explanation.dictionary, jnp.float64)
    pixels = jnp.asarray(inputs(RED[:1]), jnp.float64)

    def code(images, concept):
        return fj.encode(colour_features(images).reshape(-1, 14), dictionary)[:, concept].sum()

    for number, concept in enumerate((0, 2)):
        for place in ((3, 7), (8, 8)):
            step = jnp.zeros_like(pixels)
            difference = sum(
                abs(float(code(pixels + step.at[0, *place, colour].set(1e-6), concept)
                          - code(pixels - step.at[0, *place, colour].set(1e-6), concept))) / 2e-6
                for colour in range(3)
            )  # fmt: skip
            assert maps[number, 0, *place] == pytest.approx(difference, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize(
    ("method", "each"),
    [
        (attribution.RISE(masks=10, cells=4, batch=4), 10),
        (attribution.Occlusion(patch=8, stride=8, batch=4), 4),
        (attribution.HSIC(grid=2, designs=8, batch=4), 8),
        (attribution.SmoothGrad(samples=5, batch=4), 5),
    ],
    ids=lambda value: type(value).__name__,
)
def test_methods_tell_how_far_they_are(explanation, method, each):
    told, progress = recorded_progress()
    quiet = explanation.maps(RED[:2], method=method, key=jax.random.key(0))
    maps = explanation.maps(RED[:2], method=method, key=jax.random.key(0), progress=progress)
    np.testing.assert_array_equal(maps, quiet)
    ((stage, total, done),) = told
    assert stage
    assert total == done == 2 * each


def test_new_photographs_are_encoded_on_the_grid(explanation):
    codes = explanation.encode(GREEN)
    assert codes.shape == (4, 4, 4, 4)
    assert (codes >= 0).all()
    activations = np.asarray(explanation.model.features(inputs(GREEN)))
    expected = fj.encode(jnp.asarray(activations.reshape(-1, 14)), jnp.asarray(explanation.dictionary))
    np.testing.assert_allclose(codes.reshape(-1, 4), expected, atol=1e-5)


def test_new_photographs_are_encoded_pooled(explanation):
    codes = explanation.encode(GREEN, pooled=True)
    assert codes.shape == (4, 4)
    means = np.asarray(explanation.model.features(inputs(GREEN))).mean(axis=(1, 2))
    expected = fj.encode(jnp.asarray(means), jnp.asarray(explanation.dictionary))
    np.testing.assert_allclose(codes, expected, atol=1e-5)
    assert (codes > 0).any()


def test_encoding_takes_few_photographs_at_a_time(explanation):
    sizes = []

    def features(images):
        sizes.append(len(images))
        return colour_features(images)

    told, progress = recorded_progress()
    watched = dataclasses.replace(explanation, model=colour_model(features=features))
    codes = watched.encode(RED, pooled=True, batch=4, progress=progress)
    assert sizes == [4, 4, 4, 4]
    assert [entry[1:] for entry in told] == [[14, 14]]
    np.testing.assert_allclose(codes, explanation.encode(RED, pooled=True), atol=1e-5)
    # The default doesn't fill a single photograph up to a whole batch.
    watched.encode(RED[:1])
    assert sizes[4:] == [1]
    with pytest.raises(ValueError, match="batch=0 isn't a number of pictures"):
        explanation.encode(RED, batch=0)


def test_files_that_cannot_be_read_keep_their_places(explanation, tmp_path):
    from PIL import Image

    for number, pixels in enumerate(RED[:3]):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_text("not a picture")
    with pytest.warns(UserWarning, match=r"1 of 3 files can't be read, and have NaN.*1\.png: not a picture"):
        codes = explanation.encode(tmp_path, pooled=True)
    assert np.isnan(codes[1]).all()
    np.testing.assert_allclose(codes[[0, 2]], explanation.encode(RED[[0, 2]], pooled=True), atol=1e-5)
    with pytest.warns(UserWarning, match="1 of 3 files"):
        maps = explanation.maps(tmp_path, concepts=1)
    assert maps.shape == (1, 3, 16, 16)
    assert np.isnan(maps[:, 1]).all()
    np.testing.assert_allclose(maps[:, [0, 2]], explanation.maps(RED[[0, 2]], concepts=(1,)), atol=1e-5)
    with pytest.raises(UnreadablePhotographError, match="none of the 1 files"):
        explanation.encode(tmp_path / "1.png")


def test_a_photographs_concepts_are_drawn_in_one_picture(explanation, tmp_path):
    from matplotlib.text import Text

    figure = fj.picture(explanation, RED[0], tmp_path / "new" / "red.png", most=2, title="a red square")
    assert (tmp_path / "new" / "red.png").stat().st_size > 5000
    said = " ".join(text.get_text() for text in figure.findobj(Text))
    assert "a red square" in said
    assert "concept 1, " in said
    assert fj.picture(explanation, RED[0], method="saliency").axes
    with pytest.raises(ValueError, match="image holds 2 photographs; give one"):
        fj.picture(explanation, RED[:2])


def test_saved_files_say_what_the_object_says(explanation, tmp_path):
    from safetensors.numpy import load_file

    fj.save(explanation, tmp_path)
    text = json.loads((tmp_path / "explanation.json").read_text())
    assert text["target"]["name"] == "reddish"
    importance = [concept.importance for concept in explanation.concepts]
    assert [concept["importance"] for concept in text["concepts"]] == pytest.approx(importance)
    weighed = explanation.importance
    for name, measure in (("tcav", weighed.tcav), ("gradient_times_code", weighed.gradient_times_code)):
        assert [concept[name] for concept in text["concepts"]] == pytest.approx(measure.per_class.tolist())
    assert text["scores"][0]["c_insertion"] == explanation.scores.rows[0].fidelity.c_insertion
    np.testing.assert_array_equal(load_file(tmp_path / "bank.safetensors")["bank.dictionary"], explanation.dictionary)


def test_activations_are_kept_between_runs_until_something_changes(tmp_path, monkeypatch):
    calls = []

    def counting(images):
        calls.append(1)
        return colour_features(images)

    cache = fj.ArrayCache(tmp_path)
    first = fj.explain(colour_model(features=counting), RED, "reddish", cache=cache, **SETTINGS)
    before = len(calls)
    again = fj.explain(colour_model(features=counting), RED, "reddish", cache=cache, **SETTINGS)
    assert len(calls) == before
    np.testing.assert_array_equal(first.dictionary, again.dictionary)
    changed = RED.copy()
    changed[3, 0, 0, 0] ^= 1
    fj.explain(colour_model(features=counting, fingerprint="other"), RED, "reddish", cache=cache, **SETTINGS)
    assert len(calls) == 2 * before
    fj.explain(colour_model(features=counting), changed, "reddish", cache=cache, **SETTINGS)
    assert len(calls) >= 3 * before - 1
    few = fj.RandomCrops(per_image=3)
    fj.explain(colour_model(features=counting), RED, "reddish", cache=cache, crops=few, **SETTINGS)
    assert len(calls) > 3 * before
    # An edited file of face_jax counts, whatever its version says.
    monkeypatch.setattr(selection, "package_digest", lambda: b"edited")
    before = len(calls)
    fj.explain(colour_model(features=counting), RED, "reddish", cache=cache, crops=few, **SETTINGS)
    assert len(calls) > before


def test_native_crops_are_parts_of_the_networks_own_input():
    model = colour_model()
    crops = NativeCrops(model.preprocess, size=8, overlap=0.5)
    found = fj.explain(model, RED, "reddish", crops=crops, **SETTINGS)
    assert len(found.crops) == 9 * len(found.pictures.fitted)
    whole = inputs(RED)
    for crop in (0, 5, 40):
        top, left, bottom, right = found.crops.window[crop]
        number = found.crops.image[crop]
        part = colour_features(jnp.asarray(whole[number : number + 1, top:bottom, left:right]))
        np.testing.assert_allclose(found.pictures.crop_activations[crop], np.asarray(part).mean((0, 1, 2)), rtol=1e-5)


def test_native_crops_need_an_affine_head():
    model = colour_model(head=Squared(colour_model().head.kernel))
    with pytest.raises(ValueError, match="smaller maps than the head"):
        fj.explain(model, RED, "reddish", crops=NativeCrops(model.preprocess, size=8), **SETTINGS)


def test_a_single_photograph_is_explained_from_its_crops():
    found = fj.explain(colour_model(), RED[:1], rank=3, crops=fj.RandomCrops(per_image=60), key=jax.random.key(1))
    assert found.single
    assert found.target_name == "reddish"
    assert found.target.chosen == "the model's own prediction"
    assert len(found.crops) == 60
    # The indices are of those crops that the model puts in the class.
    logits = np.asarray(found.model.head(jnp.asarray(found.pictures.crop_activations)))
    np.testing.assert_array_equal(found.importance.index, np.flatnonzero(logits.argmax(-1) == 0))
    assert len(found.importance.sobol.total) == len(found.importance.index)
    assert any("One photograph" in note for note in found.notes)


def test_crops_that_are_not_of_the_class_are_confessed():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[..., 2] = 40
    picture[16:, 16:, 0] = 255

    def mostly_elsewhere(shapes, *, key):
        places = np.asarray([[0, 0], [0, 4], [4, 0], [2, 2]] * 5 + [[20, 20]] * 3)
        return Crops(np.zeros(23, np.int64), np.concatenate([places, places + 10], axis=1))

    found = fj.explain(colour_model(), picture, rank=2, crops=mostly_elsewhere)
    assert found.target_name == "reddish"
    (note,) = [note for note in found.notes if "not about reddish" in note]
    assert "Only 6 of 46 crops are still reddish to the model (40 bluish)" in note
    # The three that are, and those that come closest.
    assert set(found.importance.index) > {20, 21, 22}
    assert not [verdict for verdict in verdicts(found) if verdict.level == "good"]


def test_photographs_of_other_classes_are_named(explanation):
    (note,) = [note for note in explanation.notes if "took no part" in note]
    named = "; ".join(f"image {number} (greenish)" for number in range(14, 18))
    assert note == f"4 of 18 photographs took no part, because the model predicts another class: {named}"
    assert not [note for note in explanation.notes if "still" in note or "converged" in note]


def test_a_factorization_that_stops_early_says_how_far_it_is():
    # One of the two photographs is scored on.
    found = fj.explain(colour_model(), RED[:2], "reddish", solver=fj.ADMM(max_steps=2, rtol=1e-9), **SETTINGS)
    (note,) = [note for note in found.notes if "before it converged" in note]
    residual = found.fit.scaled_kkt_residual
    assert ("differ a little" in note) == (residual**2 < 1e-4)
    assert (f"about {100 * residual**2:.2g} % of the activations' squares" in note) == (residual**2 >= 1e-4)
    assert f"is {found.fit.scaled_kkt_residual:.1e} instead of at most 1.0e-09" in note
    assert "float64" not in note
    assert any("Only 1 photograph is held out to score on, and 1 fitted" in note for note in found.notes)


def test_an_explanation_is_shown_in_a_line(explanation):
    assert repr(explanation) == "<Explanation of 'reddish' by colours: 4 concepts of layer 'patches' in 14 photographs>"


def test_a_model_without_a_choice_is_refused():
    with pytest.raises(ValueError, match=r"kernel has shape \(14, 3\), and a binary classifier's has one column"):
        colour_model(classes=("cat",))
    with pytest.raises(ValueError, match="classes is empty"):
        colour_model(classes=())
    with pytest.raises(ValueError, match="the head of colours gives 3 logits and classes has 2 names"):
        fj.explain(colour_model(classes=("a", "b")), RED, **SETTINGS)


def test_a_head_that_is_not_affine_is_sampled(monkeypatch):
    monkeypatch.setattr(ranking, "_SAMPLED", (5, 4, 32))
    model = colour_model(head=Squared(colour_model().head.kernel))
    found = fj.explain(model, RED, "reddish", **SETTINGS)
    assert not found.importance.sobol.exact
    assert found.concepts[0].low < found.concepts[0].importance < found.concepts[0].high
    assert found.concepts[0].contribution is None
    assert found.dictionary[0].argmax() == 0
    # Five of the eleven photographs fitted are looked at, and it says which.
    assert set(found.importance.index) < set(found.pictures.fitted)
    codes, bank = jnp.asarray(found.codes[found.importance.index]), jnp.asarray(found.dictionary)
    again = fj.gradient_times_code(model.head, codes, bank, 0)
    gradients = found.importance.gradient_times_code
    np.testing.assert_allclose(gradients.contribution, again.contribution, rtol=1e-3, atol=1e-5)
    assert len(found.importance.sobol.total) == len(found.importance.tcav.derivative) == 5


def test_a_concept_adds_to_the_logit_of_any_affine_head(explanation):
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Own:
        inside: Affine
        affine = True

        def __call__(self, maps):
            return self.inside(maps)

    found = fj.explain(colour_model(head=Own(colour_model().head)), np.concatenate([RED, GREEN]), "reddish", **SETTINGS)
    assert [concept.contribution for concept in found.concepts] == pytest.approx(
        [concept.contribution for concept in explanation.concepts], rel=1e-4
    )


def test_files_that_are_no_pictures_are_skipped_by_name(tmp_path):
    from PIL import Image

    for number, pixels in enumerate(RED):
        Image.fromarray(pixels).save(tmp_path / f"{number:02}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "05.png").write_bytes((tmp_path / "05.png").read_bytes()[:200])
    found = fj.explain(colour_model(), tmp_path, "reddish", **SETTINGS)
    assert len(found.photographs) == 13
    (note,) = [note for note in found.notes if "skipped" in note]
    assert "2 of 15" in note
    assert "notes.txt" in note
    assert "05.png" in note


def test_no_readable_file_at_all(tmp_path):
    (tmp_path / "notes.txt").write_text("not a picture")
    with pytest.raises(UnreadablePhotographError, match=r"none of the 1 files.*notes.txt"):
        fj.explain(colour_model(), tmp_path, "reddish", **SETTINGS)


def test_no_photograph_of_the_class():
    with pytest.raises(NoneOfTheClassError, match=r"'bluish'.*none of the 18.*reddish \(14\), greenish \(4\)"):
        fj.explain(colour_model(), np.concatenate([RED, GREEN]), "bluish", **SETTINGS)


def test_unknown_class():
    with pytest.raises(UnknownClassError, match="did you mean reddish"):
        fj.explain(colour_model(), RED, "redish", **SETTINGS)


def test_activations_that_are_nan_are_no_signed_ones():
    def broken(images):
        return jnp.where(jnp.arange(len(images))[:, None, None, None] < 3, jnp.nan, 1.0) * colour_features(images)

    model = colour_model(features=broken)
    with pytest.raises(ValueError, match=r"'patches' of colours has activations that are NaN or infinite in 3 of 8"):
        fj.explain(model, RED, "reddish", **SETTINGS)


def test_logits_that_are_nan_are_no_class():
    head = colour_model().head
    model = colour_model(head=dataclasses.replace(head, bias=head.bias.at[1].set(jnp.nan)))
    with pytest.raises(ValueError, match=r"the head of colours gives NaN for 8 of 8 pictures"):
        fj.explain(model, RED, "reddish", **SETTINGS)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rank": 0}, "rank=0"),
        ({"rank": 15}, "rank=15 is more than"),
        ({"held_out": 1.0}, "held_out=1.0"),
        ({"batch": 0}, "batch=0"),
        ({"strongest": -1}, "strongest=-1"),
    ],
)
def test_settings_out_of_range(wrong, said):
    with pytest.raises(ValueError, match=said):
        fj.explain(colour_model(), RED, "reddish", **(SETTINGS | wrong))


def test_settings_of_another_kind():
    """As of callers whose types nobody checks."""
    with pytest.raises(ValueError, match=r"batch=2\.5 isn't a number of pictures"):
        check_settings(4, 0.2, 8, 2.5, None)
    with pytest.raises(ValueError, match=r"crops='grid' isn't a rule.*RandomCrops"):
        check_settings(4, 0.2, 8, 32, "grid")


def test_classes_are_what_the_model_has():
    assert colour_model().classes == CLASSES


def test_the_rank_can_be_chosen(monkeypatch):
    monkeypatch.setattr(checks, "RANKS", (2, 4, 60))
    found = fj.explain(colour_model(), RED, "reddish", **{**SETTINGS, "rank": "auto"})
    assert found.fit.rank_scan is not None
    assert len(found.concepts) == found.fit.rank_scan.suggested
    # There are only 14 channels.
    assert found.fit.rank_scan.ranks.tolist() == [2, 4]
    for errors, told in ([0.1, 0.5], False), ([0.5, 0.1], True):
        scan = dataclasses.replace(found.fit.rank_scan, held_out=np.array(errors), held_out_error=np.full(2, 0.01))
        monkeypatch.setattr(fitting, "rank_scan", lambda *_, scan=scan, **__: scan)
        other = fj.explain(colour_model(), RED, "reddish", **{**SETTINGS, "rank": "auto"})
        words = "still falls at 4 concepts, the largest number that was tried"
        assert any(words in note for note in other.notes) is told


@pytest.mark.parametrize(
    ("residual", "words"),
    [
        (1e-3, "may differ a little"),
        (0.05, "about 0.25 % of the activations' squares, .* noticeably better"),
        (0.36, "about 13 % of the activations' squares, .* clearly lower errors"),
    ],
)
def test_a_fit_that_stopped_early_is_told_by_how_far_it_is(residual, words):
    said = provenance._on_residual(residual, 60)
    assert re.search(words, said)
    # Whoever gave no solver has none to leave out, and must learn how many steps were too few.
    assert ("give a solver of more than 60 steps" in said) is (residual > 0.01)


def test_a_path_that_gained_nothing_is_told():
    def told(chosen, loss):
        points = tuple(
            Point(weight, 0.1, 0.2, 0.3, kl, 1.0, 1.0, 1e-5, 9) for weight, kl in ((0.0, 0.129), (30.0, loss))
        )
        return provenance._on_path(Path(points, chosen, None, 1.1))

    assert "KL from 0.129 to 0.127" in told(1, 0.127)
    assert "hardly a gain" in told(1, 0.127)
    assert "hardly a gain" not in told(1, 0.09)
    assert "No faithfulness was worth it" in told(0, 0.2)

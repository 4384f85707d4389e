"""The sanity check on models that forgot."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import colour_model, pictures, recorded_progress

import face_jax as fj
from face_jax.attribution import Saliency
from face_jax.heads import Affine
from face_jax.report.sanity import sanity_figure
from face_jax.sanity import sanity_check

# Where two concepts matter about equally, runs that stop early rank them either way.
SHARP = fj.ADMM(rtol=1e-6, max_steps=5000)


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(
        colour_model(),
        pictures(14, 0),
        "reddish",
        rank=4,
        batch=8,
        faithfulness=None,
        solver=SHARP,
        key=jax.random.key(0),
    )


def forgot_features(images):
    """The toy's layer with other directions."""
    directions = 0.15 * np.random.default_rng(11).normal(size=(48, 14))
    count, height, width, _ = images.shape
    patches = images.reshape(count, height // 4, 4, width // 4, 4, 3).transpose(0, 1, 3, 5, 2, 4)
    patches = patches.reshape(count, height // 4, width // 4, 48)
    return jax.nn.relu(patches @ jnp.asarray(directions, images.dtype))


def dead_features(images):
    return jnp.zeros((len(images), images.shape[1] // 4, images.shape[2] // 4, 14), images.dtype)


def other_head(explanation):
    """A head to which all concepts count alike, but for the one that was the most important, which doesn't."""
    wanted = np.zeros((4, 3), np.float32)
    wanted[1:, 0] = 1
    kernel = np.linalg.pinv(explanation.dictionary) @ wanted
    return Affine(jnp.asarray(kernel, jnp.float32), jnp.zeros(3, jnp.float32))


@pytest.fixture(scope="module")
def check(explanation):
    model = colour_model()
    stages = [
        ("as trained", model),
        ("head", dataclasses.replace(model, head=other_head(explanation))),
        ("everything", dataclasses.replace(model, head=other_head(explanation), features=forgot_features)),
        ("dead", dataclasses.replace(model, features=dead_features)),
    ]
    return sanity_check(explanation, stages, solver=SHARP, batch=8, key=jax.random.key(1))


def test_unchanged_weights_give_the_same_explanation(check):
    same = check.stages[0]
    assert same.dictionary == pytest.approx(1, abs=1e-3)
    assert same.importance == pytest.approx(1)
    assert same.maps == pytest.approx(1, abs=1e-2)
    assert same.logit_agreement == 1


def test_another_head_changes_importance_alone(check):
    head = check.stages[1]
    assert head.dictionary == pytest.approx(check.stages[0].dictionary, abs=1e-9)
    assert head.maps == pytest.approx(check.stages[0].maps, abs=1e-9)
    assert head.importance < 0.9


def test_without_what_was_learned_concepts_and_maps_fall_apart(check):
    gone = check.stages[2]
    assert gone.dictionary < 0.5 * (1 + check.dictionary_floor)
    assert gone.maps < check.stages[0].maps - 0.3
    assert check.dictionary_floor < 0.6
    # Four concepts have 24 orders, of which two are the same or the reverse.
    assert check.importance_floor == pytest.approx(1.0)


def test_a_model_that_answers_nothing_has_no_concepts(check):
    dead = check.stages[3]
    assert dead.dictionary == 0
    assert np.isnan(dead.importance)
    assert np.isfinite(dead.maps)
    assert not dead.shown.any()


def test_a_key_fixes_the_check_and_any_method_makes_its_maps(explanation):
    stages = [("as trained", colour_model())]
    first, again = (
        sanity_check(explanation, stages, method=method, pictures=2, solver=SHARP, batch=8, key=jax.random.key(2))
        for method in (Saliency(), "saliency")
    )
    assert first.stages[0].maps == again.stages[0].maps == pytest.approx(1, abs=0.05)
    assert first.maps_floor == again.maps_floor < 0.95
    assert first.dictionary_floor == again.dictionary_floor


def test_a_single_photograph_is_checked_by_its_crops():
    crops = fj.RandomCrops(per_image=60)
    one = fj.explain(
        colour_model(), pictures(1, 0), rank=3, crops=crops, batch=8, faithfulness=None, key=jax.random.key(1)
    )
    told, progress = recorded_progress()
    found = sanity_check(one, [("as trained", colour_model())], batch=8, progress=progress, key=jax.random.key(1))
    assert found.stages[0].importance == pytest.approx(1)
    assert found.stages[0].dictionary == pytest.approx(1, abs=1e-3)
    assert told == [["Sanity check, as trained", 61, 61]]


def test_its_numbers_are_saved(check, tmp_path):
    fj.write_sanity_check(check, tmp_path / "new")
    assert (tmp_path / "new" / "sanity.png").stat().st_size > 5000
    text = json.loads((tmp_path / "new" / "sanity.json").read_text())
    assert [stage["name"] for stage in text["stages"]] == ["as trained", "head", "everything", "dead"]
    assert text["stages"][1]["importance"] == check.stages[1].importance
    assert text["stages"][3]["importance"] is None
    assert text["floors"]["maps"] == check.maps_floor


def test_what_cannot_be_checked_is_said(explanation):
    with pytest.raises(ValueError, match="stages is empty"):
        sanity_check(explanation, [], batch=8)
    with pytest.raises(ValueError, match="pictures=0"):
        sanity_check(explanation, [], pictures=0, batch=8)
    with pytest.raises(ValueError, match="batch=0 isn't a number of pictures"):
        sanity_check(explanation, [], batch=0)
    with pytest.raises(ValueError, match="stages holds a SplitModel; give pairs"):
        sanity_check(explanation, iter([colour_model()]), batch=8)  # pyright: ignore[reportArgumentType]
    fewer = dataclasses.replace(colour_model(), classes=("a", "b"))
    with pytest.raises(ValueError, match="'fewer' has 14 channels and 2 classes"):
        sanity_check(explanation, [("fewer", fewer)], batch=8)


def test_it_is_drawn(check, tmp_path):
    from PIL import Image

    with Image.open(sanity_figure(check, tmp_path / "sanity.png")) as picture:
        assert picture.width > picture.height > 300
    text = sanity_figure(check, tmp_path / "sanity.svg").read_text()
    assert "matched cosine" in text
    assert "as trained" in text
    assert text == sanity_figure(check, tmp_path / "again.svg").read_text()


def test_the_figure_of_a_single_stage_has_room_for_its_legend(check, tmp_path):
    one = dataclasses.replace(check, stages=check.stages[:1])
    # matplotlib warns where there is none, which is an error here.
    assert "matched cosine" in sanity_figure(one, tmp_path / "one.svg").read_text()

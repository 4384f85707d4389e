"""Concepts taken apart at earlier layers: planted parts are found, and the measures by hand."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from changing import changed
from layered_model import layered_model, warm_pictures

import face_jax as fj
from face_jax.blocks import room as rooms
from face_jax.explanation.sub_concepts import coherence, spreads, top_crops
from face_jax.pictures.photographs import network_input
from face_jax.pipeline.selection import Activator
from face_jax.recursion import dividing
from face_jax.recursion.earlier_layers import earlier_layers
from face_jax.recursion.recurse import suggest_recursion
from face_jax.support.progress import Stopwatch, silent

RANK = {"rank": 2, "threshold": 0.3}


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(
        layered_model("last"), warm_pictures(), "warm", rank=3, batch=8, faithfulness=None, key=jax.random.key(0)
    )


@pytest.fixture(scope="module")
def recursive(explanation):
    earlier = [layered_model("middle"), layered_model("pixels")]
    return fj.recurse(explanation, earlier, concepts=[0], batch=8, **RANK)


def test_coherence_by_hand():
    rows = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    assert coherence(rows) == pytest.approx((0 + 2 / np.sqrt(2)) / 3)
    assert coherence(np.ones((4, 3))) == pytest.approx(1)
    assert np.isnan(coherence(rows[:1]))
    for unit in (1e-30, 1e30):
        assert coherence(rows.astype(np.float32) * np.float32(unit)) == pytest.approx(coherence(rows), rel=1e-5)
    assert coherence(np.array([[0.0, 0.0], [0.0, 1.0]])) == 0


def test_top_crops_are_at_or_above_the_percentile():
    codes = np.arange(100.0)
    assert top_crops(codes, 90.0, 2).tolist() == list(range(90, 100))
    assert top_crops(codes, 90.0, 15).tolist() == list(range(85, 100))
    # Crops without the concept never count.
    assert top_crops(np.array([0.0, 0, 0, 2, 1]), 90.0, 4).tolist() == [3, 4]
    assert top_crops(np.array([5.0, 1, 5, 5, 1]), 50.0, 1).tolist() == [0, 2, 3]


def test_spread_is_a_share_of_the_classs_own():
    # Two kinds of crops at right angles; the first concept is one kind, the second is both.
    rows = np.repeat(np.eye(2), 10, axis=0)
    codes = np.stack([rows[:, 0], np.ones(20)], axis=1)
    found = spreads(codes, rows, percentile=0.0, fewest=1)
    np.testing.assert_allclose(found, [0, 1], atol=1e-12)


def test_out_of_files_concepts_are_taken_apart_as_in_memory(explanation, monkeypatch):
    earlier = [layered_model("middle")]
    settings: dict[str, Any] = {"solver": fj.ADMM(rtol=0.0, max_steps=4), "batch": 8, **RANK}
    wanted = fj.recurse(explanation, earlier, **settings).recursion
    monkeypatch.setattr(rooms, "_PART", 1000)
    monkeypatch.setattr(rooms, "_SMALL", 0)
    given = []
    monkeypatch.setattr(
        dividing, "factorize", lambda rows, *more, **named: given.append(rows) or fj.factorize(rows, *more, **named)
    )
    found = fj.recurse(explanation, earlier, memory=0, **settings).recursion
    assert {type(rows) for rows in given} == {fj.RowBlocks}
    np.testing.assert_allclose(found.spread, wanted.spread, rtol=1e-5)
    assert found.suggested == wanted.suggested
    for ours, theirs in zip(found.divisions, wanted.divisions, strict=True):
        np.testing.assert_array_equal(ours.crops, theirs.crops)
        np.testing.assert_allclose(ours.dictionary, theirs.dictionary, atol=1e-4)
        np.testing.assert_allclose(ours.codes, theirs.codes, atol=1e-4 * theirs.codes.max())
        assert ours.floor == pytest.approx(theirs.floor, rel=1e-6)
    # A solver that moves all rows together has those of a concept in memory.
    fj.recurse(explanation, earlier, memory=0, **{**settings, "solver": fj.PaperAdam(max_steps=3)})
    assert not isinstance(given[-1], fj.RowBlocks)
    with pytest.raises(ValueError, match="memory=-1 isn't a number of GiB"):
        fj.recurse(explanation, earlier, memory=-1)


def test_at_the_earlier_layer_the_mixed_concept_spreads(explanation):
    found = fj.recurse(explanation, [layered_model("middle")], batch=8, **RANK).recursion
    assert found.layer == "middle"
    assert 0 in found.suggested
    for concept, spread in zip(explanation.concepts, found.spread, strict=True):
        assert (concept.index in found.suggested) == (spread >= 0.3 and concept.importance >= 0.01)
    assert tuple(division.path[0] - 1 for division in found.divisions) == found.suggested
    assert found.divisions[0].spread == found.spread[0]
    # Its own layer has merged the two colours, and sees nothing.
    hint = suggest_recursion(explanation, threshold=0.3)
    assert hint.layer == "last"
    assert hint.divisions == ()
    assert hint.spread[0] < 0.5 * found.spread[0]
    none = fj.recurse(explanation, [layered_model("middle")], batch=8, rank=2, threshold=1e9).recursion
    assert (none.suggested, none.divisions) == ((), ())
    # What is suggested is what `concepts` takes.
    chosen = fj.recurse(explanation, [layered_model("middle")], concepts=found.suggested, batch=8, **RANK).recursion
    assert [division.path for division in chosen.divisions] == [division.path for division in found.divisions]


def test_what_it_keeps_of_crops_is_not_taken_for_what_an_explanation_keeps(explanation, tmp_path):
    cache, earlier = fj.ArrayCache(tmp_path), layered_model("middle")
    fj.recurse(explanation, [earlier], batch=8, cache=cache, **RANK)
    seen = Activator(earlier, 8, cache, silent, Stopwatch()).crops(
        explanation.photographs, explanation.crops, maps=False
    )
    assert seen.logits.shape == (len(explanation.crops), 2)


def test_the_concept_that_mixes_two_colours_is_taken_apart_into_them(recursive, explanation):
    (division,) = recursive.recursion.divisions
    assert division.path == (1,)
    assert division.layer == "middle"
    codes = explanation.crop_codes[:, 0]
    np.testing.assert_array_equal(division.crops, np.flatnonzero(codes >= np.percentile(codes, 90)))
    assert division.codes.shape == (len(division.crops), 2)
    np.testing.assert_allclose(np.linalg.norm(division.dictionary, axis=1), 1, rtol=1e-5)
    assert sum(part.share for part in division.parts) == pytest.approx(1)
    # The first seven photographs are red, the others green.
    green = explanation.crops.image[division.crops] >= 7
    assert 0 < green.mean() < 1
    sides = []
    for part in division.parts:
        kinds = explanation.crops.image[list(part.strongest)] >= 7
        assert kinds.all() or not kinds.any()
        sides.append(bool(kinds[0]))
        assert set(part.strongest) <= set(division.crops.tolist())
    assert sorted(sides) == [False, True]
    assert {int(row.argmax()) for row in division.dictionary} == {0, 1}


def test_parts_are_more_coherent_than_their_parent(recursive):
    (division,) = recursive.recursion.divisions
    for part in division.parts:
        assert part.coherence > division.coherence + 0.02
    assert division.parts_coherence > division.coherence


def test_likeness_is_beside_all_crops_used(recursive):
    (division,) = recursive.recursion.divisions
    assert division.likeness(division.floor) == pytest.approx(0)
    assert division.likeness(1.0) == 1
    assert all(division.likeness(part.coherence) > 0.3 for part in division.parts)


def test_activations_are_those_of_the_earlier_layer(recursive, explanation):
    (division,) = recursive.recursion.divisions
    model = layered_model("middle")
    inputs = np.stack(
        [
            network_input(
                explanation.photographs[explanation.crops.image[crop]].pixels(),
                model.preprocess,
                tuple(explanation.crops.box[crop].tolist()),
            )
            for crop in division.crops
        ]
    )
    rows = np.asarray(model.features(inputs)).mean((1, 2))
    assert np.square(rows - division.codes @ division.dictionary).sum() < 0.05 * np.square(rows).sum()
    assert division.floor == pytest.approx(coherence(rows), rel=1e-5)


def test_it_goes_on_to_any_depth(recursive):
    (division,) = recursive.recursion.divisions
    deeper = [part.division for part in division.parts if part.division is not None]
    assert deeper
    for one in deeper:
        assert one.layer == "pixels"
        assert len(one.path) == 2
        assert set(one.crops) <= set(division.crops)
        assert all(len(part.path) == 3 and part.division is None for part in one.parts)
    assert [one.name for one in recursive.recursion.walk()] == ["1", *(one.name for one in deeper)]


def test_a_function_gives_cuts_level_by_level(explanation, recursive):
    asked = []

    def cut(level):
        asked.append(level)
        return layered_model(("middle", "pixels")[level - 1])

    found = fj.recurse(explanation, cut, concepts=[0], batch=8, **RANK)
    assert asked == [1]
    (division,) = found.recursion.divisions
    np.testing.assert_array_equal(division.dictionary, recursive.recursion.divisions[0].dictionary)
    assert all(part.division is None for part in division.parts)
    # A single cut stands for a list of one.
    (alone,) = fj.recurse(explanation, layered_model("middle"), concepts=[0], batch=8, **RANK).recursion.divisions
    np.testing.assert_array_equal(alone.dictionary, division.dictionary)


def test_a_cut_of_another_model_is_refused(explanation):
    with pytest.raises(ValueError, match="of another model than the explanation's layered"):
        fj.recurse(explanation, [layered_model("middle", scale=2.0)], concepts=[0], batch=8)


def test_too_few_crops_are_said(explanation):
    few = changed(explanation, {"bank.crop_codes": np.zeros_like(explanation.crop_codes)})
    found = fj.recurse(few, [layered_model("middle")], concepts=[0], batch=8)
    assert found.recursion.divisions == ()
    assert "only 0 crops" in found.recursion.notes[0]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"depth": 2}, "depth=2 with 1 models"),
        ({"depth": 0}, "depth=0"),
        ({"concepts": [3]}, r"concepts=\[3\]"),
        ({"rank": 1}, "rank=1"),
        ({"percentile": 100.0}, "percentile=100"),
        ({"threshold": -1.0}, "threshold=-1"),
        ({"strongest": -1}, "strongest=-1"),
        ({"batch": 0}, "batch=0"),
    ],
)
def test_settings_that_make_no_sense(explanation, wrong, said):
    with pytest.raises(ValueError, match=said):
        fj.recurse(explanation, [layered_model("middle")], **wrong)


@dataclasses.dataclass(frozen=True)
class Layer:
    name: str
    shape: tuple[int, int, int]
    non_negative: bool = True
    aliases: tuple[str, ...] = ()


PLACES = (
    Layer("stem", (56, 56, 8)),
    Layer("one", (28, 28, 16)),
    Layer("two.0", (14, 14, 32)),
    Layer("two.1", (14, 14, 32)),
    Layer("two.signed", (14, 14, 32), non_negative=False),
    Layer("three.0", (7, 7, 64)),
    Layer("three.1", (7, 7, 64), aliases=("last",)),
    Layer("pooled", (1, 1, 64)),
)


def test_earlier_layers_are_the_last_of_each_finer_grid():
    assert earlier_layers(PLACES, "three.1", 3) == ("two.1", "one", "stem")
    assert earlier_layers(PLACES, "last", 1) == ("two.1",)
    # Where nothing before it is free of negative activations, layers with such are taken.
    signed = [dataclasses.replace(place, non_negative=False) for place in PLACES]
    assert earlier_layers(signed, "three.1", 3) == ("two.signed", "one", "stem")
    with pytest.raises(ValueError, match=r"depth=3 .* before 'two.0' there are: one, stem"):
        earlier_layers(PLACES, "two.0", 3)
    # A grid whose layers are all signed is no less fine.
    of_one_grid = dataclasses.replace(PLACES[1], non_negative=False)
    signed = (PLACES[0], of_one_grid, *PLACES[2:])
    assert earlier_layers(signed, "last", 3) == ("two.1", "one", "stem")
    with pytest.raises(ValueError, match="'four' is none of the layers"):
        earlier_layers(PLACES, "four", 1)


def test_on_one_grid_earlier_layers_are_half_as_deep_each():
    @dataclasses.dataclass(frozen=True)
    class Block(Layer):
        prefix: int = 1
        stage: bool = True

    shape = (14, 14, 32)
    places = [
        Block("patches", shape, non_negative=False, prefix=0),
        Block("with class token", shape, non_negative=False, stage=False),
        *(
            Block(name, shape, non_negative=False, stage=stage)
            for number in range(9)
            for name, stage in ((f"{number}.add", False), (f"{number}", True))
        ),
    ]
    assert earlier_layers(places, "8", 4) == ("4", "2", "1", "0")
    assert earlier_layers(places, "1", 1) == ("0",)
    with pytest.raises(ValueError, match=r"half as deep in it; before '0' there are: none"):
        earlier_layers(places, "0", 1)

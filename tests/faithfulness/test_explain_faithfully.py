"""Explanations that keep the model's predictions: by a number, by a path, for any head."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import colour_model

import face_jax as fj
from face_jax.faithfulness import chosen_lambda
from face_jax.faithfulness.chosen_lambda import fit_along
from face_jax.heads import Affine
from face_jax.nmf.matching import matched
from face_jax.pipeline.fitting import why_plain

SETTINGS: dict[str, Any] = {"target": "reddish", "rank": 2, "batch": 8, "key": 0}


def _colourful(count):
    """Pictures of 32 × 40 pixels with four squares of any colour each, so that no two directions describe them."""
    # Whether faithfulness pays on pictures held out depends on the pictures; with these and this key it does.
    generator = np.random.Generator(np.random.PCG64(11))
    found = generator.integers(0, 90, (count, 32, 40, 3), dtype=np.uint8)
    for picture in found:
        for top, left in generator.integers(0, 24, (4, 2)):
            picture[top : top + 10, left : left + 12] = generator.integers(0, 255, 3)
    return found


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Squared:
    """A head that isn't affine."""

    kernel: jax.Array
    bias: jax.Array
    affine = False

    def __call__(self, maps):
        return jnp.mean(maps**2, axis=(1, 2)) @ self.kernel + self.bias[None]


@functools.cache
def _hard_model(head: Callable[..., Any] = Affine) -> Any:
    """The toy classifier with a head that looks at every channel, so that two concepts can't keep its predictions."""
    kernel = np.array(colour_model().head.kernel)
    kernel[3:] = np.random.Generator(np.random.PCG64(3)).normal(size=kernel[3:].shape)
    return colour_model(head=head(jnp.asarray(2 * kernel), jnp.asarray([4.0, 0.0, 0.0], jnp.float32)))


PICTURES = _colourful(40)


@pytest.fixture(scope="module", name="explained")
def _explained():
    """The explanation with a setting of `faithfulness`, made once for all tests that look at it."""
    return functools.cache(
        lambda faithfulness: fj.explain(_hard_model(), PICTURES, **SETTINGS, faithfulness=faithfulness)
    )


def test_a_weight_buys_faithfulness_for_reconstruction(explained):
    found = explained(30.0)
    own, without = found.scores.rows[:2]
    assert "λ = 0" in without.name
    assert without.kl > 5e-3, "there's nothing to be bought"
    assert own.kl < 0.8 * without.kl
    assert own.relative_error > without.relative_error
    assert found.provenance.settings.faithfulness == 30.0
    assert found.fit.path is None
    assert len(found.crop_codes) == len(found.pictures.crop_activations) == len(found.crops)


def test_auto_chooses_along_a_path_that_comes_with_it(explained):
    found = explained("auto")
    first, chosen = found.fit.path.points[0], found.fit.path.points[found.fit.path.chosen]
    assert first.weight == 0
    assert chosen.held_out_loss <= first.held_out_loss
    assert chosen.held_out_error <= found.fit.path.most_error * first.held_out_error
    assert found.scores.rows[0].kl < found.scores.rows[1].kl
    assert set(found.fit.path.table()[0]) >= {"weight", "held_out_error", "held_out_loss"}
    (note,) = [note for note in found.notes if "Faithfulness with λ" in note]
    assert f"KL from {first.held_out_loss:.3g} to {chosen.held_out_loss:.3g}" in note
    assert f"error from {first.held_out_error:.3g} to {chosen.held_out_error:.3g}" in note
    assert found.provenance.settings.faithfulness == found.fit.path.weight
    assert found.provenance.seconds["choice of the faithfulness"] > 0


def test_lambda_is_judged_on_pictures_of_which_not_even_crops_are_learned(monkeypatch):
    seen, along = [], chosen_lambda.path_over

    def looked_at(parts, rank, **others):
        seen.extend((np.asarray(one.activations), np.asarray(one.held_out), one.term.weights) for one in parts)
        return along(parts, rank, **others)

    monkeypatch.setattr(chosen_lambda, "path_over", looked_at)
    found = fj.explain(_hard_model(), PICTURES, **SETTINGS, faithfulness="auto")
    averages, judges = found.pictures.collected.maps[found.pictures.fitted].mean(axis=(1, 2)), []
    for rows, judged, weights in seen:
        judging = found.pictures.fitted[(averages[:, None] == judged[None]).all(-1).any(1)]
        assert len(judging) == len(judged) == len(found.pictures.fitted) // 4
        learned, crops = ~np.isin(found.crops.image, judging), found.pictures.crop_activations
        # What isn't learned from is there as zeros.
        np.testing.assert_array_equal(rows[: len(crops)], crops * learned[:, None])
        others = ~np.isin(found.pictures.fitted, judging)
        np.testing.assert_array_equal(rows[len(crops) :], averages * others[:, None])
        np.testing.assert_array_equal(weights[len(crops) :], others)
        assert not np.asarray(weights[: len(crops)]).any()
        judges.extend(judging.tolist())
    assert len(seen) == 4
    assert len(set(judges)) == len(judges)


def test_it_is_faithful_by_default_where_there_are_photographs_enough(explained):
    found, asked = fj.explain(_hard_model(), PICTURES, **SETTINGS), explained("auto")
    assert found.provenance.settings.faithfulness == asked.provenance.settings.faithfulness > 0
    np.testing.assert_array_equal(found.dictionary, asked.dictionary)
    assert not any("without the faithfulness term" in note for note in found.notes)
    plain = explained(None)
    assert plain.provenance.settings.faithfulness is False
    assert not any("without the faithfulness term" in note for note in plain.notes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"images": PICTURES[:12]}, r"some of the photographs fitted, of which there should be 12 at least"),
        ({"images": PICTURES[:1], "crops": fj.RandomCrops(per_image=12)}, r"some of the crops of the class, of which"),
        ({"model": _hard_model(Squared)}, r"behind a head that doesn't average first"),
        ({"solver": fj.HALS()}, r"HALS can't fit it"),
    ],
)
def test_where_it_cannot_be_had_by_default_a_note_says_why(given, said):
    found = fj.explain(**({"model": _hard_model(), "images": PICTURES} | SETTINGS | given))
    assert found.provenance.settings.faithfulness is False
    (note,) = [note for note in found.notes if "without the faithfulness term, which is there by default" in note]
    assert re.search(said, note)


def test_it_is_not_had_by_default_where_a_fit_of_three_quarters_has_too_few_crops():
    def material(crops):
        pictures = SimpleNamespace(crop_activations=range(crops), photographs=range(25))
        return SimpleNamespace(fitted=range(20), pictures=pictures)

    head, why = colour_model().head, inspect.unwrap(why_plain)
    assert why(head, material(20), 16, None) == (
        "λ is chosen by fits of three in four of the 20 crops, which don't allow 16 concepts"
    )
    assert not why(head, material(20), 15, None)
    assert not why(head, material(20), 15, fj.PaperAdam())


def test_the_way_to_a_weight_leads_over_those_before_it():
    rows = _colourful(3)[:, ::8, ::8].reshape(-1, 3) / 255
    term = fj.Faithfulness(Affine(jnp.asarray(np.eye(3)), jnp.zeros(3)))
    given: dict[str, Any] = {"solver": fj.ADMM(max_steps=8), "start": fj.NNDSVD(), "key": jax.random.key(0)}
    found = fit_along([1.0, 9.0], rows, 2, term, **given)
    last = fj.factorize(jnp.asarray(rows), 2, **given)
    for weight in (1.0, 9.0):
        start = fj.Given(last.codes, last.dictionary)
        last = fj.factorize(
            jnp.asarray(rows), 2, objective=fj.SquaredError() + weight * term, **{**given, "start": start}
        )
    np.testing.assert_allclose(found.dictionary, last.dictionary, rtol=1e-6)
    assert fit_along([], rows, 2, term, **given).stats.final_objective >= 0


def test_the_sanity_check_finds_a_faithful_explanation_again_in_any_unit(explained):
    model = _hard_model()
    small = dataclasses.replace(
        model,
        features=lambda images: model.features(images) / 300,
        head=dataclasses.replace(model.head, kernel=300 * model.head.kernel),
    )
    plain = explained(None).dictionary
    for faithfulness in (30.0, "auto"):
        found = explained(faithfulness)
        assert matched(found.dictionary, plain)[1] < 0.995, "there's nothing that could be missed"
        check = fj.sanity_check(found, [("as trained", model), ("in another unit", small)], pictures=1, batch=8, key=0)
        assert [stage.dictionary for stage in check.stages] == pytest.approx([1, 1], abs=2e-3)


def test_heads_that_are_not_affine():
    found = fj.explain(_hard_model(Squared), PICTURES, **SETTINGS, faithfulness=10.0)
    assert found.scores.rows[0].kl < found.scores.rows[1].kl
    assert len(found.crop_codes) == len(found.crops)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"faithfulness": -1.0}, "faithfulness=-1.0 isn't a λ"),
        ({"faithfulness": float("nan")}, "faithfulness=nan"),
        ({"faithfulness": 1.0, "objective": fj.SquaredError()}, "both given"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        fj.explain(colour_model(), PICTURES, **SETTINGS, **wrong)

"""Layers with activations below zero, from explanation to report: both signs apart, or concepts of either sign."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from toy_model import CLASSES, Disguised, Squared, colour_features, colour_model, pictures

import face_jax as fj
from face_jax.activations import SignedActivationsError
from face_jax.attribution import forward_with_pullback
from face_jax.heads import Affine
from face_jax.nmf.matching import matched
from face_jax.nmf.settings import usual_objective
from face_jax.pipeline import checks, refit
from face_jax.pipeline.material import keys_of, some_places
from face_jax.signs import Difference, parts_of

RED = pictures(14, 0)
SETTINGS: dict[str, Any] = {"batch": 8, "key": 0, "faithfulness": None, "progress": False}


def signed_features(images):
    """The toy's patches less a constant, so that most activations are below zero."""
    return colour_features(images) - 0.3


def signed_model(**changes) -> Any:
    return colour_model(features=signed_features, fingerprint="colours-signed", **changes)


@pytest.fixture(scope="module")
def explanation():
    return fj.explain(signed_model(), RED, "reddish", rank=3, **SETTINGS)


@pytest.fixture(scope="module")
def apart():
    return fj.explain(signed_model(), RED, "reddish", rank=3, signs="apart", **SETTINGS)


def nnls(rows, dictionary):
    return np.stack([scipy.optimize.nnls(dictionary.T.astype(np.float64), row)[0] for row in rows.astype(np.float64)])


def test_concepts_have_signs_and_codes_have_none(explanation):
    assert explanation.provenance.settings.solver.startswith("SemiNMF(")
    assert explanation.dictionary.min() < 0
    assert min(explanation.codes.min(), explanation.crop_codes.min()) >= 0
    (note,) = [note for note in explanation.notes if "either sign" in note]
    share = (explanation.pictures.collected.maps < 0).mean()
    assert f"({share:.0%} of those in the photographs are below zero)" in note


def test_both_signs_become_channels_of_their_own_where_that_is_asked_for(apart, explanation):
    assert apart.provenance.settings.solver.startswith("ADMM(")
    assert apart.dictionary.shape == (3, 28)
    assert apart.dictionary.min() >= 0
    maps = explanation.pictures.collected.maps
    both = np.concatenate([np.maximum(maps, 0), np.maximum(-maps, 0)], axis=-1)
    np.testing.assert_allclose(apart.pictures.collected.maps, both, atol=1e-6)
    np.testing.assert_allclose(apart.pictures.collected.logits, explanation.pictures.collected.logits, atol=1e-5)
    # Put apart before they are averaged: an average hides signs.
    rows = apart.pictures.crop_activations
    np.testing.assert_allclose(rows[:, :14] - rows[:, 14:], explanation.pictures.crop_activations, atol=1e-5)
    assert (np.minimum(rows[:, :14], rows[:, 14:]) > 0.01).any()
    (note,) = [note for note in apart.notes if "channels of their own" in note]
    assert note.startswith(f"{(maps < 0).mean():.0%} of the activations of layer patches")
    same = fj.explain(fj.signs_apart(signed_model()), RED, "reddish", rank=3, **SETTINGS)
    np.testing.assert_array_equal(same.dictionary, apart.dictionary)
    assert same.notes == apart.notes
    assert same.model.fingerprint == apart.model.fingerprint


def test_ways_that_contradict_each_other_are_refused():
    model = signed_model()
    with pytest.raises(ValueError, match="signs='both' is neither 'apart' nor 'mixed'"):
        fj.explain(model, RED, signs="both", **SETTINGS)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"signs='apart'.*solver=SemiNMF\(\) finds concepts of either sign"):
        fj.explain(model, RED, signs="apart", solver=fj.SemiNMF(), **SETTINGS)
    with pytest.raises(ValueError, match=r"signs='mixed'.*has its signs apart already"):
        fj.explain(fj.signs_apart(model), RED, signs="mixed", **SETTINGS)


def test_a_non_negative_solver_and_its_penalties_are_taken_with_both_signs_apart():
    given = {"solver": fj.HALS(), "objective": fj.SquaredError(l1_dictionary=1e-3, l1_codes=1e-3)}
    found = fj.explain(signed_model(), RED, "reddish", rank=3, signs="apart", **given, **SETTINGS)
    assert found.dictionary.shape == (3, 28)
    assert found.dictionary.min() >= 0
    for name, value in given.items():
        assert getattr(found.provenance.settings, name) == repr(value)


def test_activations_below_zero_in_crops_alone_are_put_apart_too():
    limit = signed_model().preprocess(RED)[..., 0].mean((1, 2)).max()

    def features(images):
        # Crops that are redder than any photograph.
        return colour_features(images) - jnp.where(images[..., 0].mean((1, 2)) > limit, 0.3, 0.0)[:, None, None, None]

    for lowest in (None, 0.0):
        model = colour_model(features=features, fingerprint="colours-crops", lowest=lowest)
        found = fj.explain(model, RED, "reddish", rank=3, signs="apart", **SETTINGS)
        assert not found.pictures.collected.maps[..., 14:].any()
        assert found.pictures.crop_activations[:, 14:].max() > 0.1
        assert found.dictionary.min() >= 0


def test_a_layer_that_is_never_below_zero_here_is_left_as_it_is():
    model = colour_model(lowest=-0.1)
    found = fj.explain(model, RED, "reddish", rank=3, signs="apart", **SETTINGS)
    assert found.dictionary.shape == (3, 14)
    assert found.model is model
    assert not any("channels of their own" in note for note in found.notes)


def test_scores_and_codes_are_those_of_plain_least_squares(explanation):
    held_out = explanation.pictures.collected[explanation.pictures.held_out]
    rows = held_out.maps.mean((1, 2))
    rebuilt = nnls(rows, explanation.dictionary) @ explanation.dictionary
    expected = ((rows - rebuilt) ** 2).sum() / (rows**2).sum()
    assert explanation.scores.own.relative_error == pytest.approx(expected, rel=1e-3)
    places = explanation.pictures.collected.maps[0].reshape(-1, 14)
    np.testing.assert_allclose(
        explanation.codes[0].reshape(-1, 3), nnls(places, explanation.dictionary), atol=1e-4 * np.abs(places).max()
    )


def test_controls_are_of_the_same_kind(explanation):
    from face_jax.pipeline.controls import control_banks
    from face_jax.pipeline.fitting import Fitted
    from face_jax.pipeline.material import keys_of

    rows = explanation.pictures.crop_activations
    solution = fj.factorize(rows, 3, solver=fj.SemiNMF(max_steps=2), start=fj.NNDSVD())
    fitted = Fitted(rows, fj.SquaredError(), fj.SemiNMF(), fj.NNDSVD(), solution, explanation.crop_codes, path=None)
    banks = control_banks(fitted, 3, keys_of(jax.random.key(0)))
    assert all(bank.min() < 0 for bank in banks.values())
    mean = rows.mean(0) / np.linalg.norm(rows.mean(0))
    np.testing.assert_allclose(banks["mean activation and noise"][0], mean, atol=1e-5)
    assert abs(banks["random directions"].mean()) < 0.15, "signs are even"
    # The better half of the first singular pair's codes, and its direction as it is.
    first = np.linalg.svd(rows, full_matrices=False)[2][0]
    assert abs(banks["NNDSVD start, no steps taken"][0] @ first) == pytest.approx(1, abs=1e-3)


def test_saved_loaded_drawn_and_written(explanation, tmp_path):
    loaded = fj.load(fj.save(explanation, tmp_path / "kept"), signed_model())
    np.testing.assert_array_equal(loaded.dictionary, explanation.dictionary)
    np.testing.assert_array_equal(loaded.pictures.collected.maps, explanation.pictures.collected.maps)
    fj.write_report(explanation, tmp_path)
    assert "concepts are directions whose entries have either sign" in (tmp_path / "report.html").read_text()
    fj.picture(explanation, RED[0], tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 1000


@pytest.mark.parametrize("lowest", [None, -0.3], ids=["unknown", "known"])
@pytest.mark.parametrize("solver", [fj.ADMM(), fj.HALS(), fj.PaperAdam()], ids=["ADMM", "HALS", "PaperAdam"])
def test_a_non_negative_solver_is_refused_before_the_work(lowest, solver):
    calls = []

    def features(images):
        calls.append(1)
        return signed_features(images)

    model = colour_model(features=features, lowest=lowest, non_negative_layers=lambda: ("relu3", "relu4"))
    said = r"'patches' of colours.*below zero.*leave solver out, or give SemiNMF.*or signs='apart'.*relu3, relu4"
    with pytest.raises(SignedActivationsError, match=said):
        fj.explain(model, RED, "reddish", rank=3, solver=solver, **SETTINGS)
    assert len(calls) == (1 if lowest is None else 0)


def test_kept_activations_are_refused_like_new_ones(tmp_path):
    from face_jax.pipeline.selection import Activator
    from face_jax.support.progress import Stopwatch, silent

    cache, photographs = fj.ArrayCache(tmp_path), fj.photographs(RED[:3])
    Activator(signed_model(), 8, cache, silent, Stopwatch()).survey(photographs, None)
    strict = Activator(signed_model(), 8, cache, silent, Stopwatch(), fj.HALS())
    with pytest.raises(SignedActivationsError, match=r"HALS\(\)"):
        strict.survey(photographs, None)


@pytest.mark.parametrize(("signs", "solver"), [("apart", "ADMM("), ("mixed", "SemiNMF(")])
def test_ranks_and_faithfulness_are_chosen_where_only_places_are_below_zero(signs, solver, monkeypatch):
    monkeypatch.setattr(checks, "RANKS", (2, 4))

    # As behind a hard-swish: every crop's average is above zero.
    def features(images):
        maps = colour_features(images)
        return jnp.where(maps < 0.05, -0.02, maps)

    model = colour_model(features=features, fingerprint="colours-hard")
    found = fj.explain(model, RED, "reddish", rank="auto", signs=signs, **{**SETTINGS, "faithfulness": "auto"})
    assert (found.pictures.collected.maps.min() < 0) == (signs == "mixed")
    assert found.provenance.settings.solver.startswith(solver)
    assert found.fit.rank_scan is not None
    assert found.fit.path is not None
    assert len(found.dictionary) == found.fit.rank_scan.suggested


def test_signs_decide_the_solver_of_a_path_and_of_a_scan():
    rows = jnp.asarray(signed_features(jnp.asarray(RED[:12, :16, :16] / 255)).reshape(-1, 14)[::8])
    term = fj.Faithfulness(signed_model().head)
    path = fj.faithfulness_path(rows[:16], 3, term, rows[16:], weights=[0.0, 1.0])
    assert path.solution is not None
    assert path.solution.dictionary.min() < 0
    assert fj.certify(term, rows[:16], path.solution).fitted.kl.shape == (16,)
    # Signs that only the images held out have count too.
    path = fj.faithfulness_path(jnp.abs(rows[:16]), 3, term, rows[16:], weights=[1.0])
    assert path.solution.dictionary.min() < 0
    scan = fj.rank_scan(rows, (2, 3), starts=2, folds=2)
    assert (scan.fitted < 1).all()
    with pytest.raises(ValueError, match="below zero"):
        fj.rank_scan(rows, (2, 3), solver=fj.HALS())


@pytest.mark.parametrize("signs", ["apart", "mixed"])
def test_what_forgets_is_explained_by_the_same_rule(signs, apart, explanation, monkeypatch):
    used = []

    def noting(rows, rank, *, solver, **how):
        used.append((type(solver), rows.shape[1]))
        return fj.factorize(rows, rank, solver=solver, **how)

    monkeypatch.setattr(refit, "factorize", noting)

    def forgot(images):
        # Never below zero, which the explanation is.
        return jnp.flip(colour_features(images), -1)

    explained = explanation if signs == "mixed" else apart
    stages = [("as trained", signed_model()), ("forgot", dataclasses.replace(signed_model(), features=forgot))]
    check = fj.sanity_check(explained, stages, pictures=2, batch=8, key=0)
    assert check.stages[0].logit_agreement == 1
    assert used == [(fj.SemiNMF, 14) if signs == "mixed" else (fj.ADMM, 28)] * 2
    if signs == "mixed":
        # Another start may find others of the concepts that fit alike.
        with pytest.raises(SignedActivationsError, match="ADMM"):
            fj.sanity_check(explained, stages, solver=fj.ADMM(), batch=8)
    else:
        assert check.stages[0].dictionary > 0.99 > check.stages[1].dictionary
        ready = fj.sanity_check(explained, [("as trained", explained.model)], pictures=2, batch=8, key=0)
        assert ready.stages[0].dictionary == check.stages[0].dictionary


def earlier_model(**changes):
    kernel = jnp.zeros((14, 3)).at[:3].set(8 * jnp.eye(3))
    head = Disguised(Affine(kernel.astype(jnp.float32), jnp.asarray([0.0, 0.1, 0.0], jnp.float32)))
    return signed_model(head=head, **{"layer": "earlier", **changes})


def test_concepts_are_taken_apart_at_a_signed_layer(explanation):
    earlier = earlier_model()
    (division,) = fj.recurse(explanation, earlier, concepts=[0], rank=2, batch=8, key=0).recursion.divisions
    assert division.dictionary.shape == (2, 14)
    assert division.dictionary.min() < 0 <= division.codes.min()
    assert np.isfinite(division.coherence)
    with pytest.raises(SignedActivationsError, match="HALS"):
        fj.recurse(explanation, earlier, concepts=[0], rank=2, solver=fj.HALS(), batch=8)


# Known to have activations below zero, unknown, and told so by a trial that met none.
@pytest.mark.parametrize("lowest", [-0.3, None, 0.0])
def test_concepts_are_taken_apart_at_a_layer_with_both_signs_apart(apart, lowest, tmp_path):
    earlier = earlier_model(lowest=lowest)
    found = fj.recurse(apart, earlier, concepts=[0], rank=2, batch=8, key=0)
    (division,) = found.recursion.divisions
    assert division.dictionary.shape == (2, 28)
    assert division.dictionary.min() >= 0
    assert division.fingerprint == fj.signs_apart(earlier).fingerprint
    ready = fj.recurse(apart, fj.signs_apart(earlier), concepts=[0], rank=2, batch=8, key=0)
    np.testing.assert_array_equal(ready.recursion.divisions[0].dictionary, division.dictionary)
    if lowest is None:
        mixed = fj.recurse(apart, earlier, concepts=[0], rank=2, signs="mixed", batch=8, key=0).recursion
        assert mixed.divisions[0].dictionary.shape == (2, 14)
        assert mixed.divisions[0].dictionary.min() < 0
        again = fj.load(fj.save(found, tmp_path / "kept"), signed_model())
        np.testing.assert_array_equal(again.recursion.divisions[0].dictionary, division.dictionary)
        fj.write_report(found, tmp_path)
        fj.recurse(apart, earlier, concepts=[0], rank=2, solver=fj.HALS(), batch=8)
        with pytest.raises(SignedActivationsError, match="HALS"):
            fj.recurse(apart, earlier, concepts=[0], rank=2, solver=fj.HALS(), signs="mixed", batch=8)


def test_parts_at_a_layer_without_activations_below_zero_are_in_its_own_channels(apart):
    # The same logits from features that are never below zero.
    kernel = jnp.zeros((14, 3)).at[:3].set(8 * jnp.eye(3)).astype(jnp.float32)
    head = Disguised(Affine(kernel, jnp.asarray([-2.4, -2.3, -2.4], jnp.float32)))
    for lowest in (None, 0.0):
        earlier = colour_model(head=head, layer="earlier", fingerprint="colours-earlier", lowest=lowest)
        (division,) = fj.recurse(apart, earlier, concepts=[0], rank=2, batch=8, key=0).recursion.divisions
        assert division.dictionary.shape == (2, 14)
        assert division.fingerprint == "colours-earlier"


def test_both_signs_apart_leave_logits_and_derivatives_as_they_are():
    model, images = signed_model(), jnp.asarray(RED[:2, :16, :16] / 255, jnp.float32)
    apart = fj.signs_apart(model)
    maps = model.features(images)
    both, pull = forward_with_pullback(apart, images)
    assert float(both.min()) >= 0
    np.testing.assert_array_equal(both[..., :14] - both[..., 14:], maps)
    assert apart.head.affine
    np.testing.assert_allclose(apart.head(both), model.head(maps), atol=1e-5)
    # Each part moves where the activation has its sign.
    cotangent = jnp.asarray(np.random.default_rng(0).normal(size=both.shape), both.dtype)
    plain = forward_with_pullback(model, images)[1]
    expected = plain(jnp.where(maps > 0, cotangent[..., :14], -cotangent[..., 14:]))
    np.testing.assert_allclose(pull(cotangent), expected, atol=1e-6)
    other = fj.signs_apart(signed_model(head=Squared(model.head.kernel)))
    assert isinstance(other.head, Difference)
    assert not other.head.affine
    np.testing.assert_allclose(other.head(both), Squared(model.head.kernel)(maps), atol=1e-6)
    with pytest.raises(ValueError, match="signs apart already"):
        fj.signs_apart(apart)
    with pytest.raises(ValueError, match="aren't two halves"):
        other.head(maps[..., :13])


def test_features_with_a_pullback_of_their_own_keep_it():
    class Own:
        def __call__(self, images):
            return signed_features(images)

        def vjp(self, images):
            maps, pull = jax.vjp(signed_features, images)
            return maps, lambda cotangent: pull(cotangent)[0]

    images = jnp.asarray(RED[:2, :16, :16] / 255, jnp.float32)
    own, plain = (fj.signs_apart(colour_model(features=each)) for each in (Own(), signed_features))
    cotangent = jnp.ones_like(plain.features(images))
    np.testing.assert_allclose(
        own.features.vjp(images)[1](cotangent),  # pyright: ignore[reportFunctionMemberAccess]
        forward_with_pullback(plain, images)[1](cotangent),
        atol=1e-6,
    )


def test_an_explanation_with_signs_apart_is_loaded_by_either_model(apart, tmp_path):
    ready, found = fj.signs_apart(signed_model()), apart
    assert found.provenance.settings.solver.startswith("ADMM(")
    assert found.dictionary.shape == (3, 28)
    assert found.dictionary.min() >= 0
    assert any("channels of their own" in note for note in found.notes)
    maps = signed_features(jnp.asarray(ready.preprocess(RED)))
    np.testing.assert_allclose(found.pictures.collected.maps, parts_of(maps), atol=1e-6)
    folder = fj.save(found, tmp_path / "apart")
    for model in (signed_model(), ready):
        loaded = fj.load(folder, model)
        np.testing.assert_array_equal(loaded.dictionary, found.dictionary)
        np.testing.assert_allclose(loaded.encode(RED[:2]), found.codes[:2], atol=1e-5)
    with pytest.raises(fj.WrongModelError):
        fj.load(folder, colour_model())
    assert CLASSES[found.target.index] == "reddish"


def test_concepts_of_either_sign_are_found_at_all_places_with_a_price_on_codes(explanation, tmp_path):
    maps = explanation.pictures.collected.maps[explanation.pictures.fitted]
    rows = maps.reshape(-1, maps.shape[-1])
    objective = usual_objective(rows, 3, signed=True)
    assert explanation.fit.of_places
    assert explanation.provenance.settings.objective == repr(objective)
    start_key = keys_of(jax.random.wrap_key_data(jnp.asarray(explanation.provenance.settings.key, jnp.uint32)))["start"]
    again = fj.factorize(
        jnp.asarray(rows), 3, objective=objective, solver=fj.SemiNMF(), start=fj.NNDSVD(), key=start_key
    )
    assert matched(explanation.dictionary, np.asarray(again.dictionary))[1] > 1 - 1e-5
    assert any("with a price on how much of them is there" in note for note in explanation.notes)
    assert "At all places of" in fj.write_report(explanation, tmp_path / "page").read_text()
    assert fj.load(fj.save(explanation, tmp_path / "kept"), signed_model()).fit == explanation.fit


def test_what_is_minimized_otherwise_is_found_in_crops_as_it_says():
    own = fj.explain(signed_model(), RED, "reddish", rank=3, objective=fj.SquaredError(), **SETTINGS)
    assert not own.fit.of_places
    assert own.provenance.settings.objective == repr(fj.SquaredError())
    assert any("any mixture" not in note and "found again more often" in note for note in own.notes)


def test_of_very_many_places_some_are_taken(monkeypatch):
    monkeypatch.setattr("face_jax.pipeline.material._MOST_PLACES", 10)
    maps = [np.arange(24.0).reshape(2, 2, 2, 3), np.arange(24.0, 84).reshape(5, 2, 2, 3)]
    rows = some_places(maps)
    every = np.arange(84.0).reshape(-1, 3)
    assert rows.shape == (10, 3)
    assert {tuple(row) for row in rows} <= {tuple(row) for row in every}
    np.testing.assert_array_equal(rows[[0, -1]], every[[0, -1]])

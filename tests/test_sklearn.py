"""The estimator keeps scikit-learn's promises and isn't above scikit-learn's own error."""

import pickle
import sys
import types
import warnings
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import sklearn.decomposition
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from face_jax.nmf import HALS, Random, SemiNMF
from face_jax.sklearn import NMF, MiniBatchNMF, base, fitting, non_negative_factorization, one_penalty_of_entries


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(
    [NMF(n_components=3, max_iter=2000)],
    expected_failed_checks=lambda estimator: {
        f"check_sample_weight_equivalence_on_{kind}_data": "other rows are another start, and components may come in "
        "another order; from one start they are the same, as a test below says"
        for kind in ("dense", "sparse")
    },
)
def test_keeps_scikit_learns_promises(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


def test_error_is_not_above_scikit_learns(digits):
    X = digits[0][:400]
    ours = NMF(n_components=8).fit(X)
    peer = sklearn.decomposition.NMF(n_components=8, init="nndsvda", max_iter=2000).fit(X)
    assert ours.reconstruction_err_ <= peer.reconstruction_err_ * (1 + 1e-3)
    assert ours.reconstruction_err_ == pytest.approx(np.linalg.norm(X - ours.inverse_transform(ours.transform(X))))


def test_works_in_a_pipeline_and_survives_copies(digits):
    X, y = digits[0][:400], digits[1][:400]
    # Codes have the digits' scale, at which the regression is so ill-conditioned that rounding decides how many
    # hundreds of steps it takes; scaled, it takes two dozen.
    pipeline = make_pipeline(NMF(n_components=8, solver=HALS(), tol=1e-3), StandardScaler(), LogisticRegression())
    assert pipeline.fit(X, y).score(X, y) > 0.8
    fitted = pipeline[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(X), fitted.transform(X))
    assert clone(fitted).get_params()["solver"] == HALS()
    assert list(fitted.get_feature_names_out()) == [f"nmf{k}" for k in range(8)]


def test_set_output_names_the_columns(digits):
    pandas = pytest.importorskip("pandas", reason="set_output(transform='pandas') needs pandas")
    frame = NMF(n_components=8, tol=1e-3).set_output(transform="pandas").fit_transform(digits[0][:400])
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == [f"nmf{k}" for k in range(8)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_kept_and_transform_repeats_fit_transform(digits, dtype):
    X = digits[0][:400].astype(dtype)
    model = NMF(n_components=8, tol=1e-3)
    codes = model.fit_transform(X)
    assert codes.dtype == model.components_.dtype == dtype
    np.testing.assert_allclose(model.transform(X), codes, atol=1e-5)


def test_penalties_mean_what_they_mean_in_scikit_learn(digits):
    X = digits[0][:400]
    settings = {"n_components": 8, "alpha_W": 0.01, "alpha_H": 0.02, "l1_ratio": 0.5}
    ours = NMF(**settings, tol=1e-5).fit(X)
    codes = ours.transform(X)
    peer = sklearn.decomposition.NMF(**settings, init="nndsvda", max_iter=3000, tol=1e-6)
    other = peer.fit_transform(X)

    def value(W, H):
        l1, l2 = 0.5, 0.25
        codes_part = X.shape[1] * 0.01 * (l1 * W.sum() + l2 * (W**2).sum())
        return ((X - W @ H) ** 2).sum() / 2 + codes_part + X.shape[0] * 0.02 * (l1 * H.sum() + l2 * (H**2).sum())

    assert value(codes, ours.components_) <= value(other, peer.components_) * (1 + 1e-3)


@pytest.mark.parametrize(
    "words",
    [
        {"init": "nndsvda", "solver": "cd", "beta_loss": "frobenius", "shuffle": False},
        {"init": "nndsvdar", "solver": "mu", "beta_loss": 2},
        {"init": "random", "solver": "cd", "alpha_W": 0.01, "l1_ratio": 0.3},
        {"init": "nndsvd", "solver": "cd", "alpha_W": 0.02, "alpha_H": 0.01, "l1_ratio": 1.0},
    ],
)
def test_scikit_learns_words_mean_the_same_problem(words):
    X = np.random.default_rng(0).random((30, 8)) @ np.random.default_rng(1).random((8, 12))
    settings = {"n_components": 3, "random_state": 0, "tol": 1e-6, "max_iter": 3000} | words
    found, peer = NMF(**settings), sklearn.decomposition.NMF(**settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        codes = found.fit_transform(X)
        other = peer.fit_transform(X)

    def value(W, H):
        # scikit-learn's documented objective, written out.
        alpha_w, ratio = settings.get("alpha_W", 0), settings.get("l1_ratio", 0)
        alpha_h = settings.get("alpha_H", alpha_w)
        return (
            0.5 * ((X - W @ H) ** 2).sum()
            + alpha_w * ratio * X.shape[1] * np.abs(W).sum()
            + alpha_h * ratio * X.shape[0] * np.abs(H).sum()
            + 0.5 * alpha_w * (1 - ratio) * X.shape[1] * (W**2).sum()
            + 0.5 * alpha_h * (1 - ratio) * X.shape[0] * (H**2).sum()
        )

    # Both end in local minima, which aren't always the same one.
    assert value(codes, found.components_) == pytest.approx(value(other, peer.components_), rel=0.05)


def test_custom_factors_are_where_it_starts():
    generator = np.random.default_rng(0)
    W, H = generator.random((20, 2)), generator.random((2, 6))
    # From anywhere else one pass isn't enough, and a warning would be an error here.
    for method in ("fit", "fit_transform"):
        found = NMF(init="custom", max_iter=1)
        getattr(found, method)(W @ H, W=W, H=H)
        assert found.n_components_ == 2
        assert found.reconstruction_err_ < 1e-6
        np.testing.assert_allclose(found.components_, H / np.linalg.norm(H, axis=1, keepdims=True), rtol=1e-6)


def test_keywords_that_are_not_heeded_are_refused():
    X = np.random.default_rng(0).random((20, 6))
    for method in (NMF(2).fit, NMF(2).fit_transform):
        with pytest.raises(TypeError, match="unexpected keyword argument 'H_init'"):
            method(X, H_init=np.ones((2, 6)))  # pyright: ignore[reportCallIssue]
        with pytest.warns(RuntimeWarning, match="provided W or H are ignored"):
            method(X, W=np.ones((20, 2)), H=np.ones((2, 6)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"init": "svd"}, "init='svd' is unknown; give 'random' or 'nndsvd' or 'nndsvda' or 'nndsvdar' or 'custom'"),
        ({"init": "custom"}, "give both to fit or fit_transform"),
        ({"init": "random", "start": Random()}, "both given"),
        ({"start": "random"}, r"start='random' isn't valid; give an object such as Random\(\)"),
        ({"solver": "hals"}, "solver='hals' is unknown; give 'cd' or 'mu'"),
        ({"solver": HALS}, "solver=the class HALS isn't valid"),
        ({"beta_loss": "hamming"}, "beta_loss='hamming' is unknown"),
        ({"beta_loss": np.nan}, "beta_loss=nan isn't a loss"),
        (
            {"shuffle": True, "solver": "cd", "alpha_W": 0.1, "alpha_H": 0},
            "shuffle=True isn't offered beside a penalty",
        ),
        ({"n_components": "cross-validated", "beta_loss": 1}, "compares squared errors, and beta_loss=1 isn't"),
        ({"missing": "drop"}, "missing='drop' is unknown"),
        ({"beta_loss": 1, "solver": "cd"}, "solver 'cd' does not handle beta_loss = 1"),
        ({"shuffle": 1}, "shuffle=1 is neither True nor False"),
        ({"init": "nndsvd", "n_components": 7}, "can only be used when n_components <= min"),
        ({"n_init": 0}, "n_init=0"),
        ({"n_components": "all"}, "n_components='all' is unknown"),
        ({"alpha_W": -0.1}, "alpha_W=-0.1"),
        ({"alpha_H": "both"}, "alpha_H='both'"),
        ({"alpha_W": 0.1, "l1_ratio": 2}, "l1_ratio=2 isn't a share"),
        ({"tol": -1}, "tol=-1"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"n_components": 2.5}, r"n_components=2\.5"),
        ({"verbose": -1}, "verbose=-1"),
        ({"random_state": "x", "init": "custom"}, "random_state='x' isn't a seed"),
        ({"start": Random(), "n_init": "x"}, "n_init='x'"),
    ],
)
def test_settings_that_are_not_valid_are_refused_by_name(settings, words):
    with pytest.raises(ValueError, match=words):
        NMF(**({"n_components": 2} | settings)).fit(np.random.default_rng(0).random((20, 6)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"solver": "hals"}, "solver='hals' is unknown"),
        ({"solver": "cd", "beta_loss": 1}, "solver 'cd' does not handle beta_loss = 1"),
        ({"init": "svd"}, "init='svd' is unknown"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"shuffle": "x"}, "shuffle='x'"),
    ],
)
def test_settings_are_checked_where_components_are_given_too(settings, words):
    X = np.random.default_rng(0).random((20, 6))
    with pytest.raises(ValueError, match=words):
        non_negative_factorization(X, H=X[:2], n_components=2, update_H=False, **settings)


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"W": np.ones((19, 2)), "H": np.ones((2, 6))}, r"W has shape \(19, 2\); X and n_components=2 need \(20, 2\)"),
        ({"W": np.ones((20, 2)), "H": np.ones((3, 6))}, r"H has shape \(3, 6\)"),
        ({"W": np.ones((20, 2)), "H": np.full((2, 6), np.nan)}, "H contains NaN"),
        ({"W": -np.ones((20, 2)), "H": np.ones((2, 6))}, r"Negative values .*input W"),
        ({"W": np.ones((20, 2))}, "give both"),
        ({"W": np.ones((20, 2)), "H": np.zeros((2, 6))}, r"Array passed to NMF \(input H\) is full of zeros"),
    ],
)
def test_custom_factors_that_do_not_fit_are_refused(factors, words):
    with pytest.raises(ValueError, match=words):
        NMF(2, init="custom").fit(np.random.default_rng(0).random((20, 6)), **factors)


@pytest.mark.parametrize("unit", [2.0**-66, 2.0**66])
def test_the_error_has_the_samples_unit(unit):
    X = np.random.default_rng(0).random((20, 6)).astype(np.float32)
    found, expected = (NMF(2, max_iter=20, random_state=0).fit(x) for x in (X * np.float32(unit), X))
    np.testing.assert_allclose(found.components_, expected.components_, atol=1e-4)
    assert found.reconstruction_err_ / unit == pytest.approx(expected.reconstruction_err_, rel=1e-3)


def test_masked_entries_are_refused_and_a_mask_of_nothing_is_not():
    X = np.abs(np.random.default_rng(0).normal(size=(20, 6)))
    masked = np.ma.masked_greater(X, 1)
    with pytest.raises(ValueError, match="X has masked entries"):
        NMF(2).fit(masked)
    fitted = NMF(2).fit(np.ma.masked_array(X))
    with pytest.raises(ValueError, match="X has masked entries"):
        fitted.transform(masked)


def test_semi_nmf_takes_either_sign_and_nothing_else_does(digits):
    X = digits[0][:100] - digits[0][:100].mean(0)
    estimator = NMF(n_components=5, solver=SemiNMF(), max_iter=2000, tol=1e-3)
    codes = estimator.fit_transform(X)
    assert codes.min() >= 0 > estimator.components_.min()
    expected = np.stack([scipy.optimize.nnls(estimator.components_.T, row)[0] for row in X[:10]])
    np.testing.assert_allclose(estimator.transform(X[:10]), expected, atol=1e-6 * expected.max())
    assert not estimator.__sklearn_tags__().input_tags.positive_only
    assert NMF().__sklearn_tags__().input_tags.positive_only
    start = np.ones((100, 5)), np.random.default_rng(0).normal(size=(5, 64))
    custom = NMF(n_components=5, init="custom", solver=SemiNMF(), max_iter=2, tol=1.0).fit(X, W=start[0], H=start[1])
    assert np.isfinite(custom.components_).all()
    with pytest.raises(ValueError, match="Negative values"):
        NMF(n_components=5, init="custom", solver=SemiNMF()).fit(X, W=-start[0], H=start[1])
    with pytest.raises(ValueError, match="Negative values"):
        NMF(n_components=5).fit(X)


def test_a_weight_of_two_is_a_sample_that_is_there_twice():
    generator = np.random.default_rng(0)
    X, weights = generator.random((20, 6)), np.tile([0, 1, 2, 3], 5)
    W, H = generator.random((20, 2)), generator.random((2, 6))
    settings = {"init": "custom", "tol": 1e-10, "max_iter": 5000}
    weighted = NMF(2, **settings).fit(X, W=W, H=H, sample_weight=weights)
    repeated = NMF(2, **settings).fit(np.repeat(X, weights, axis=0), W=np.repeat(W, weights, axis=0), H=H)
    np.testing.assert_allclose(weighted.components_, repeated.components_, rtol=1e-6)
    np.testing.assert_allclose(weighted.transform(X), repeated.transform(X), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("weights", [np.zeros(20), -np.ones(20), np.ones(19), np.full(20, np.nan)])
def test_weights_that_are_not_valid_are_refused(weights):
    with pytest.raises(ValueError, match=r"sample_weight|Sample weights|Input sample_weight"):
        NMF(2).fit(np.ones((20, 6)), sample_weight=weights)


@pytest.mark.parametrize("l1_ratio", [0.0, 1.0])
def test_a_penalty_on_one_factor_has_a_minimum_as_the_other_ones_components_have_unit_length(l1_ratio):
    X = np.random.default_rng(0).random((20, 6))
    settings = {"l1_ratio": l1_ratio, "tol": 1e-9, "max_iter": 5000, "random_state": 0}
    found = NMF(2, alpha_W=0.01, alpha_H=0.0, **settings).fit(X)
    np.testing.assert_allclose(np.linalg.norm(found.components_, axis=1), 1, rtol=1e-12)
    amount = 0.01 * 6
    # A square penalty is further equations, whose best solution SciPy finds; no step of a component helps either.
    matrix = np.vstack([found.components_.T, np.sqrt(amount * (1 - l1_ratio)) * np.eye(2)])
    codes = found.transform(X)
    for row, mine in zip(X, codes, strict=True):
        longer = np.concatenate([row, np.zeros(2)])

        def value(u, longer=longer):
            return ((matrix @ u - longer) ** 2).sum() / 2 + amount * l1_ratio * u.sum()

        best = scipy.optimize.minimize(value, mine + 0.01, bounds=[(0, None)] * 2, tol=1e-14).fun
        assert value(mine) <= best * (1 + 1e-6)
    rest = X - codes @ found.components_
    for code, component in zip(codes.T, found.components_, strict=True):
        towards = np.maximum(code @ (rest + np.outer(code, component)), 0)
        np.testing.assert_allclose(component, towards / np.linalg.norm(towards), atol=1e-6)
    # Penalizing components is the same of the transposed matrix.
    mirrored = NMF(2, alpha_W=0.0, alpha_H=0.01, **settings).fit(X.T)
    order = [np.argsort(each.sum(0)) for each in (codes, mirrored.components_.T)]
    np.testing.assert_allclose(mirrored.components_.T[:, order[1]], codes[:, order[0]], atol=1e-5)


@pytest.mark.parametrize(("beta_loss", "kind"), [("kullback-leibler", "whole"), (2, "holes"), (0.5, "unstored")])
@pytest.mark.parametrize("solver", [None, "mu"])
def test_a_penalty_on_one_factor_has_a_minimum_for_every_loss_and_with_missing_values(beta_loss, kind, solver):
    drawn = np.random.default_rng(0)
    X = drawn.random((20, 2)) @ drawn.random((2, 6)) + 0.1 * drawn.random((20, 6)) + 0.05
    seen = (drawn.random(X.shape) < 0.8) | (kind == "whole")
    given, missing = {
        "whole": (X, None),
        "holes": (np.where(seen, X, np.nan), "ignore"),
        "unstored": (scipy.sparse.csr_array(np.where(seen, X, 0)), "unstored"),
    }[kind]
    settings = {"beta_loss": beta_loss, "missing": missing, "solver": solver, "random_state": 0, "l1_ratio": 0.5}
    settings |= {"tol": 1e-6 if solver is None else 1e-3, "max_iter": 3000}
    found = NMF(2, alpha_W=0.02, alpha_H=0.0, **settings)
    codes = found.fit_transform(given)
    np.testing.assert_allclose(np.linalg.norm(found.components_, axis=1), 1, rtol=1e-12)
    beta = {"kullback-leibler": 1.0}.get(beta_loss, beta_loss)

    def value(W, H):
        # Whatever its length: codes are measured where components have unit length.
        lengths = np.linalg.norm(H, axis=1)
        W, Y = W * lengths, np.where(seen, W @ H, 1)
        Z = np.where(seen, X, 1)
        loss = (Z * np.log(Z / Y) - Z + Y).sum() if beta == 1 else (
            (Z**beta + (beta - 1) * Y**beta - beta * Z * Y ** (beta - 1)).sum() / (beta * (beta - 1))
        )  # fmt: skip
        return loss + 6 * 0.02 * (W.sum() / 2 + (W**2).sum() / 4)

    reached = value(codes, found.components_)
    # From there SciPy finds nothing lower.
    start = np.concatenate([codes.ravel(), found.components_.ravel()])
    best = scipy.optimize.minimize(
        lambda x: value(x[:40].reshape(20, 2), x[40:].reshape(2, 6)), start, bounds=[(1e-9, None)] * len(start),
        method="L-BFGS-B", options={"maxiter": 30},
    )  # fmt: skip
    assert best.fun >= reached * (1 - (1e-6 if solver is None else 1e-2))
    if solver is None and kind == "whole":
        mirrored = NMF(2, alpha_W=0.0, alpha_H=0.02, **settings).fit(given.T)
        order = [np.argsort(each.sum(0)) for each in (codes, mirrored.components_.T)]
        np.testing.assert_allclose(mirrored.components_.T[:, order[1]], codes[:, order[0]], atol=1e-2)
        with pytest.raises(ValueError, match="sample_weight beside a penalty on components alone"):
            mirrored.fit(given, sample_weight=np.arange(20.0))


@pytest.mark.parametrize(("beta_loss", "kind"), [(0, np.asarray), (-1.2, np.asarray), (0.5, scipy.sparse.csr_array)])
def test_codes_of_a_fit_are_never_above_its_objective_and_the_best_start_is_by_them(beta_loss, kind):
    drawn = np.random.default_rng(1)
    X = np.abs(drawn.normal(size=(20, 15))) + 1e-3
    given = kind(X * (drawn.random(X.shape) < 0.6 if kind is not np.asarray else 1))
    settings = {"solver": "mu", "init": "random", "beta_loss": beta_loss, "max_iter": 40, "tol": 0, "random_state": 0}
    settings |= {"missing": None if kind is np.asarray else "unstored", "alpha_W": 1e-3, "l1_ratio": 0.5}
    found = NMF(10, **settings)
    codes = found.fit_transform(given)
    penalties = 15 * 1e-3 * (codes.sum() / 2 + (codes**2).sum() / 4)
    penalties += 20 * 1e-3 * (found.components_.sum() / 2 + (found.components_**2).sum() / 4)
    reached = found.reconstruction_err_**2 / 2 + penalties
    assert reached <= float(found.stats_.final_objective) * (1 + 1e-9)
    several = NMF(10, **settings, n_init=3)
    codes = several.fit_transform(given)
    penalties = 15 * 1e-3 * (codes.sum() / 2 + (codes**2).sum() / 4)
    penalties += 20 * 1e-3 * (several.components_.sum() / 2 + (several.components_**2).sum() / 4)
    assert several.reconstruction_err_**2 / 2 + penalties <= reached * (1 + 1e-9)


def test_shuffled_coordinates_find_the_same_error_by_another_way():
    X = np.random.default_rng(0).random((30, 8)) @ np.random.default_rng(1).random((8, 12))
    settings = {"n_components": 3, "solver": "cd", "init": "random", "tol": 1e-7, "max_iter": 3000, "random_state": 0}
    ordered, shuffled, again = (NMF(**settings, shuffle=shuffle).fit(X) for shuffle in (False, True, True))
    assert shuffled.reconstruction_err_ == pytest.approx(ordered.reconstruction_err_, rel=1e-2)
    np.testing.assert_array_equal(shuffled.components_, again.components_)
    assert not np.array_equal(shuffled.stats_.objective, ordered.stats_.objective)


@pytest.mark.parametrize(
    ("solver", "words"), [("cd", "violation: "), ("mu", "Epoch 10 reached after"), (None, "violation: ")]
)
def test_verbose_prints_what_scikit_learn_prints(capsys, solver, words):
    X = np.random.default_rng(0).random((20, 6))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        NMF(2, init="nndsvda", solver=solver, verbose=1, max_iter=15, tol=1e-12).fit(X)
        assert words in capsys.readouterr().out
        NMF(2, init="nndsvda", solver=solver, max_iter=15, tol=1e-12).fit(X)
    assert capsys.readouterr().out == ""


def test_the_best_of_many_starts_is_kept_and_their_agreement_told():
    generator = np.random.default_rng(0)
    X = generator.random((60, 3)) @ generator.random((3, 12))
    found = NMF(3, n_init=4, random_state=0, max_iter=3000).fit(X)
    single = NMF(3, random_state=0, max_iter=3000).fit(X)
    assert found.reconstruction_err_ <= single.reconstruction_err_ * (1 + 1e-12)
    assert 0 < found.stability_ <= 1 + 1e-6
    assert not hasattr(single, "stability_")


def test_the_number_of_components_may_be_cross_validated():
    generator = np.random.default_rng(0)
    X = generator.gamma(0.4, size=(60, 2)) @ generator.gamma(0.4, size=(2, 5)) + 1e-2 * generator.random((60, 5))
    found = NMF("cross-validated", random_state=0).fit(X)
    assert list(found.rank_scan_.ranks) == [2, 3, 4]
    assert found.n_components_ == len(found.components_) == found.rank_scan_.suggested
    with pytest.warns(UserWarning, match="'cross-validated' leaves the penalties out"):
        NMF("cross-validated", random_state=0, alpha_W=1e-4).fit(X)
    with pytest.warns(UserWarning, match="'cross-validated' counts each sample once"):
        NMF("cross-validated", random_state=0).fit(X, sample_weight=np.full(60, 2.0))
    # The solver's own rank: that of a dictionary of either sign, though X is at least 0.
    signed = NMF("cross-validated", random_state=0, solver=SemiNMF(), tol=1e-3).fit(X)
    assert not np.array_equal(signed.rank_scan_.held_out, found.rank_scan_.held_out)


def test_an_array_goes_out_as_it_came():
    import jax
    import jax.numpy as jnp

    X = np.random.default_rng(0).random((20, 6)).astype(np.float32)
    expected = NMF(2, random_state=0).fit_transform(X)
    found = NMF(2, random_state=0).fit(jnp.asarray(X))
    codes = found.transform(jnp.asarray(X))
    assert isinstance(codes, jax.Array)
    assert codes.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(codes), expected)
    assert isinstance(found.inverse_transform(codes), jax.Array)
    with pytest.raises(ValueError, match="X is traced"):
        jax.jit(found.transform)(X)
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    tensor = torch.tensor(X, requires_grad=True)
    codes = found.fit_transform(tensor)
    assert isinstance(codes, torch.Tensor)
    assert codes.dtype == torch.float32
    np.testing.assert_array_equal(codes.numpy(), expected)
    assert isinstance(found.inverse_transform(codes), torch.Tensor)


def test_an_array_of_cupy_goes_out_as_it_came(monkeypatch):
    # A stand-in with what is asked of CuPy: DLPack, in rows that lie one after another, and back.
    class ndarray:  # noqa: N801 (CuPy's name)
        def __init__(self, values):
            self.values, self.dtype, self.shape = values, values.dtype, values.shape

        def get(self):
            return pytest.fail("brought to the host")

        __array__ = get

        def __dlpack__(self, **kwargs):
            return self.values.__dlpack__(**kwargs)

        def __dlpack_device__(self):
            return self.values.__dlpack_device__()

    ndarray.__module__ = "cupy"
    cupy: Any = types.ModuleType("cupy")
    cupy.ndarray, cupy.asarray = ndarray, lambda x: pytest.fail("brought from the host")
    cupy.ascontiguousarray, cupy.from_dlpack = lambda x: x, lambda x: ndarray(np.from_dlpack(x))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    X = np.random.default_rng(0).random((20, 6)).astype(np.float32)
    found = NMF(2, random_state=0)
    codes = found.fit_transform(ndarray(X))
    assert isinstance(codes, ndarray)
    np.testing.assert_array_equal(codes.values, NMF(2, random_state=0).fit_transform(X))
    codes = found.transform(ndarray(X))
    assert isinstance(codes, ndarray)
    codes.values = codes.values.copy()  # NumPy's DLPack gives nothing that can't be written to
    assert isinstance(found.inverse_transform(codes), ndarray)
    # Where JAX doesn't have the device, numbers go by the host.
    monkeypatch.setattr(ndarray, "__dlpack_device__", lambda self: (2, 0))
    monkeypatch.setattr(ndarray, "get", lambda self: self.values)
    cupy.asarray = ndarray
    np.testing.assert_array_equal(found.transform(ndarray(X)).values, codes.values)


@pytest.mark.parametrize("settings", [{"missing": "ignore"}, {"alpha_W": 0.01, "alpha_H": 0.0},
                                      {"alpha_W": 0.01, "alpha_H": 0.0, "beta_loss": 1}, {"n_init": 2}])  # fmt: skip
def test_tensors_share_their_memory_with_what_is_fitted(settings, monkeypatch):
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    import jax

    X = np.random.default_rng(0).random((20, 6))
    if "missing" in settings:
        X[3, 2] = np.nan
    expected = NMF(2, random_state=0, **settings)
    codes, tensor, given = expected.fit_transform(X), torch.tensor(X), []

    def recorded(function):
        def call(rows, *args, **named):
            given.append(rows)
            return function(rows, *args, **named)

        return call

    for module, name in ((base, "encode"), (fitting, "factorize"), (fitting, "factorize_many"), (fitting, "products"),
                         (one_penalty_of_entries, "solve")):  # fmt: skip
        monkeypatch.setattr(module, name, recorded(getattr(module, name)))
    for way in ("numpy", "cpu", "tolist", "__array__"):
        monkeypatch.setattr(torch.Tensor, way, lambda self, *a, **k: pytest.fail("brought to the host"))
    found = NMF(2, random_state=0, **settings)
    told = found.fit_transform(tensor)
    assert len(given) >= 2
    assert all(isinstance(rows, jax.Array) for rows in given)
    assert {rows.unsafe_buffer_pointer() for rows in given} == {tensor.data_ptr()}
    monkeypatch.undo()
    assert told.dtype == torch.float64
    np.testing.assert_allclose(told.numpy(), codes, atol=1e-12)
    np.testing.assert_allclose(found.reconstruction_err_, expected.reconstruction_err_, rtol=1e-9)
    told += 1  # it's the caller's own
    np.testing.assert_allclose(found.transform(tensor).numpy(), expected.transform(X), atol=1e-12)


@pytest.mark.parametrize(("kind", "expected"), [("bfloat16", "float32"), ("int64", "float64")])
def test_tensors_of_other_types_are_computed_in_what_holds_them(kind, expected):
    torch = pytest.importorskip("torch", reason="torch isn't installed")
    X = torch.arange(120).reshape(6, 20).to(getattr(torch, kind)).T  # which isn't row by row
    assert NMF(2, random_state=0).fit_transform(X).dtype == getattr(torch, expected)


def test_arrays_on_a_device_are_checked_there_as_those_of_numpy_are():
    import jax.numpy as jnp

    good = np.random.default_rng(0).random((20, 6))
    known = NMF(2, random_state=0).fit(good)
    for change in (-1.0, np.nan, np.inf, "shape", "columns"):
        wrong = good.copy()
        if change == "shape":
            wrong = wrong[0]
        elif change == "columns":
            wrong = wrong[:, :5]
        else:
            wrong[3, 2] = change
        with pytest.raises(ValueError, match=r"\w") as theirs:
            known.transform(wrong)
        with pytest.raises(ValueError, match=r"\w") as ours:
            known.transform(jnp.asarray(wrong))
        assert str(ours.value) == str(theirs.value)


@pytest.mark.parametrize("change", ["whole numbers", "Fortran order", "read-only map", "zero row", "zero column"])
def test_unusual_input_is_the_same_numbers(change, tmp_path):
    X = np.random.default_rng(0).integers(0, 9, size=(20, 6)).astype(np.float64)
    if "zero" in change:
        X[(3, slice(None)) if "row" in change else (slice(None), 3)] = 0
    given = X
    if change == "whole numbers":
        given = X.astype(np.int32)
    elif change == "Fortran order":
        given = np.asfortranarray(X)
    elif change == "read-only map":
        np.save(tmp_path / "X.npy", X)
        given = np.load(tmp_path / "X.npy", mmap_mode="r")
    settings = {"n_components": 3, "random_state": 0, "tol": 1e-6, "max_iter": 5000}
    found, expected = NMF(**settings).fit(given), NMF(**settings).fit(X)
    np.testing.assert_array_equal(found.components_, expected.components_)
    codes = found.transform(given)
    assert codes.dtype == np.float64
    assert np.isfinite(codes).all()
    if change == "zero row":
        assert not codes[3].any()
    if change == "zero column":
        assert not found.components_[:, 3].any()


def test_more_components_than_features_and_matrices_of_nothing():
    X = np.random.default_rng(0).random((20, 6))
    found = NMF(9, random_state=0, max_iter=3000).fit(X)
    assert found.components_.shape == (9, 6)
    assert found.reconstruction_err_ < 1e-2
    for empty in (np.empty((0, 6)), np.empty((20, 0))):
        with pytest.raises(ValueError, match=r"0 sample|0 feature"):
            NMF(2).fit(empty)
    nothing = NMF(2).fit(np.zeros((20, 6)))
    assert nothing.reconstruction_err_ == 0
    assert not nothing.transform(np.zeros((2, 6))).any()


# Of Kullback and Leibler's the number is compared below, where counts are in a sparse matrix.
@pytest.mark.parametrize("beta_loss", ["itakura-saito", 1.5])
def test_every_loss_is_scikit_learns(beta_loss):
    X = np.random.default_rng(0).random((20, 6)) + 0.05
    settings = {"n_components": 2, "beta_loss": beta_loss, "random_state": 0}
    found = NMF(**settings, max_iter=3000).fit(X)
    peer = sklearn.decomposition.NMF(**settings, solver="mu", init="nndsvda", max_iter=5000, tol=1e-9).fit(X)
    # Both end in local minima, which aren't always the same one.
    assert found.reconstruction_err_ <= peer.reconstruction_err_ * 1.05
    # The number itself is scikit-learn's own.
    value = sklearn.decomposition._nmf._beta_divergence(X, found.transform(X), found.components_, beta_loss, True)
    assert found.reconstruction_err_ == pytest.approx(value, rel=1e-6)


def test_zeros_are_refused_where_the_loss_is_infinite():
    X = np.random.default_rng(0).integers(0, 3, size=(20, 6)).astype(float)
    with pytest.raises(ValueError, match="When beta_loss <= 0 and X contains zeros"):
        NMF(2, beta_loss=0).fit(X)
    between = {"beta_loss": 0.5, "random_state": 0}
    found = NMF(2, **between, max_iter=2000).fit(X)
    peer = sklearn.decomposition.NMF(2, **between, solver="mu", init="random", max_iter=2000).fit(X)
    assert found.reconstruction_err_ <= peer.reconstruction_err_ * 1.05
    sparse = scipy.sparse.random_array((50, 40), density=0.05, rng=0)
    with pytest.raises(ValueError, match="takes each unstored zero of a sparse X by itself"):
        NMF(2, beta_loss=0).fit(sparse)
    with pytest.raises(ValueError, match="takes each unstored zero of a sparse X by itself"):
        NMF(2, beta_loss=1.5).fit(sparse)


def test_missing_values_have_no_part_and_are_filled_in():
    generator = np.random.default_rng(0)
    X = generator.random((20, 2)) @ generator.random((2, 6))
    holes = X.copy()
    holes[generator.random(X.shape) < 0.2] = np.nan
    settings = {"tol": 1e-9, "max_iter": 5000, "random_state": 0}
    found = NMF(2, missing="ignore", **settings).fit(holes)
    assert found.reconstruction_err_ < 1e-4
    np.testing.assert_allclose(found.inverse_transform(found.transform(holes)), X, atol=1e-3)
    whole = NMF(2, missing="ignore", **settings).fit(X)
    np.testing.assert_array_equal(whole.components_, NMF(2, **settings).fit(X).components_)
    nothing = holes.copy()
    nothing[3] = np.nan
    assert not found.transform(nothing)[3].any()
    for wrong, words in ((np.where(np.arange(6) == 4, np.nan, X), "1 features without any value, the first 4"),
                         (np.where(np.arange(6) == 4, -1, holes), "Negative values"),
                         (np.where(np.arange(6) == 4, np.inf, holes), "infinity")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            NMF(2, missing="ignore").fit(wrong)
    for model in (NMF(2), MiniBatchNMF(2)):
        with pytest.raises(ValueError, match=r"Input X contains NaN, \d+ of 120 entries; give missing='ignore'"):
            model.fit(holes)
    shuffled = {"solver": "cd", "shuffle": True, "missing": "ignore", "max_iter": 3000}
    with pytest.raises(ValueError, match="shuffle=True isn't offered beside missing values"):
        NMF(2, **shuffled).fit(holes)
    assert NMF(2, **shuffled).fit(X).reconstruction_err_ < 0.1
    assert NMF("cross-validated", missing="ignore", random_state=0).fit(holes).n_components_ == 2


def test_sparse_rows_stay_sparse_and_are_the_same_numbers():
    sparse = scipy.sparse.random_array((90, 40), density=0.1, rng=np.random.default_rng(0)).tocsr()
    settings = {"n_components": 3, "init": "random", "solver": "cd", "random_state": 0}
    expected = NMF(**settings).fit(sparse.toarray())
    for given in (sparse, sparse.tocsc(), scipy.sparse.csr_matrix(sparse)):
        found = NMF(**settings)
        codes = found.fit_transform(given)
        np.testing.assert_allclose(codes, expected.transform(sparse.toarray()), atol=1e-8)
        np.testing.assert_allclose(found.components_, expected.components_, atol=1e-8)
        assert found.reconstruction_err_ == pytest.approx(expected.reconstruction_err_, rel=1e-9)
    one_sided = [NMF(**settings, alpha_W=0.01, alpha_H=0.0).fit(x).components_ for x in (sparse, sparse.toarray())]
    np.testing.assert_allclose(one_sided[0], one_sided[1], atol=1e-5)


def test_counts_in_a_sparse_matrix_are_the_same_counts():
    drawn = np.random.default_rng(0)
    X = drawn.poisson(drawn.gamma(0.4, 1, (60, 3)) @ drawn.gamma(0.4, 1, (3, 25))).astype(float)
    X = X[:, X.any(axis=0)]
    settings = {"n_components": 3, "init": "random", "beta_loss": "kullback-leibler", "random_state": 0}
    sparse, dense = NMF(**settings).fit(scipy.sparse.csr_array(X)), NMF(**settings).fit(X)
    np.testing.assert_allclose(sparse.components_, dense.components_, atol=1e-5)
    np.testing.assert_allclose(sparse.transform(scipy.sparse.csc_array(X)), dense.transform(X), atol=1e-4)
    value = sklearn.decomposition._nmf._beta_divergence(X, sparse.transform(X), sparse.components_, 1, True)
    assert sparse.reconstruction_err_ == pytest.approx(value, rel=1e-9)


# A loss that goes by Gram matrices, and one that doesn't; of all others `nmf/test_stored_entries.py` says the same.
@pytest.mark.parametrize("beta_loss", ["frobenius", "itakura-saito"])
def test_what_is_not_stored_may_be_what_was_not_observed(beta_loss):
    drawn = np.random.default_rng(1)
    X = drawn.random((40, 2)) @ drawn.random((2, 20)) + 0.1
    known = drawn.random(X.shape) < 0.5
    settings = {"n_components": 2, "init": "random", "beta_loss": beta_loss, "random_state": 0}
    found = NMF(**settings, missing="unstored").fit(scipy.sparse.csr_array(np.where(known, X, 0)))
    expected = NMF(**settings, missing="ignore").fit(np.where(known, X, np.nan))
    np.testing.assert_allclose(found.components_, expected.components_, atol=1e-4)
    assert found.reconstruction_err_ == pytest.approx(expected.reconstruction_err_, rel=1e-4)
    filled = found.inverse_transform(found.transform(scipy.sparse.coo_array(np.where(known, X, 0))))
    assert np.abs(filled - X).mean() < 0.1 * np.abs(X.mean(axis=0) - X).mean() + 0.02
    empty = found.transform(scipy.sparse.csr_array((3, 20)))
    assert not empty.any()


def test_stored_values_that_are_not_numbers_are_missing_beside_zeros():
    drawn = np.random.default_rng(2)
    X = scipy.sparse.random_array((40, 20), density=0.2, rng=drawn).tocsr()
    X.data[::3] = np.nan
    for beta_loss in ("frobenius", "kullback-leibler"):
        settings = {"n_components": 2, "init": "random", "beta_loss": beta_loss, "random_state": 0, "missing": "ignore"}
        found, expected = NMF(**settings).fit(X), NMF(**settings).fit(X.toarray())
        np.testing.assert_allclose(found.components_, expected.components_, atol=1e-5)
        np.testing.assert_allclose(found.transform(X), expected.transform(X.toarray()), atol=1e-4)


def test_missing_values_that_can_not_be_told_are_refused():
    X = scipy.sparse.random_array((40, 20), density=0.2, rng=np.random.default_rng(3)).tolil()
    X[:, 4] = 0
    with pytest.raises(ValueError, match="1 features without any value, the first 4"):
        NMF(2, missing="unstored").fit(X.tocsr())
    with pytest.raises(ValueError, match="is for sparse X, and this one is dense"):
        NMF(2, missing="unstored").fit(X.toarray())
    with pytest.raises(ValueError, match="missing='nan'"):
        NMF(2, missing="nan").fit(X.tocsr())
    X[:, 4] = np.nan
    with pytest.raises(ValueError, match="1 features without any value, the first 4"):
        NMF(2, missing="ignore").fit(X.tocsr())
    with pytest.raises(ValueError, match="NaN"):
        NMF(2, missing="unstored").fit(X.tocsr())

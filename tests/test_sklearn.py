"""The estimator keeps scikit-learn's promises and isn't above scikit-learn's own error."""

import pickle
import warnings

import numpy as np
import pytest
import scipy.optimize
import sklearn.decomposition
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from face_jax.nmf import HALS, Random, SemiNMF
from face_jax.sklearn import NMF


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks([NMF(n_components=3, max_iter=2000)])
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
            method(X, H_init=np.ones((2, 6)))
        with pytest.raises(ValueError, match='W and H are where init="custom" starts'):
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
        ({"beta_loss": "kullback-leibler"}, "beta_loss='kullback-leibler' isn't offered here"),
        ({"beta_loss": 1}, "beta_loss=1 isn't offered here"),
        ({"shuffle": True}, "shuffle=True isn't offered here"),
        ({"alpha_W": 0.1, "alpha_H": 0}, "alpha_W=0.1 and alpha_H=0 penalize one factor alone"),
        ({"alpha_W": -0.1}, "alpha_W=-0.1"),
        ({"alpha_H": "both"}, "alpha_H='both'"),
        ({"alpha_W": 0.1, "l1_ratio": 2}, "l1_ratio=2 isn't a share"),
        ({"tol": -1}, "tol=-1"),
        ({"max_iter": 0}, "max_iter=0"),
        ({"n_components": 2.5}, r"n_components=2\.5"),
    ],
)
def test_settings_that_are_not_valid_are_refused_by_name(settings, words):
    with pytest.raises(ValueError, match=words):
        NMF(**({"n_components": 2} | settings)).fit(np.random.default_rng(0).random((20, 6)))


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({"W": np.ones((19, 2)), "H": np.ones((2, 6))}, r"W has shape \(19, 2\); X and n_components=2 need \(20, 2\)"),
        ({"W": np.ones((20, 2)), "H": np.ones((3, 6))}, r"H has shape \(3, 6\)"),
        ({"W": np.ones((20, 2)), "H": np.full((2, 6), np.nan)}, "H contains NaN"),
        ({"W": -np.ones((20, 2)), "H": np.ones((2, 6))}, r"Negative values .*input W"),
        ({"W": np.ones((20, 2))}, "give both"),
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

"""The estimator keeps scikit-learn's promises and isn't above scikit-learn's own error."""

import pickle

import numpy as np
import pytest
import sklearn.decomposition
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from face_jax.factorize import HALS
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


@pytest.mark.parametrize("unit", [2.0**-66, 2.0**66])
def test_the_error_has_the_samples_unit(unit):
    X = np.random.default_rng(0).random((20, 6)).astype(np.float32)
    found, expected = (NMF(2, max_iter=20, random_state=0).fit(x) for x in (X * np.float32(unit), X))
    np.testing.assert_allclose(found.components_, expected.components_, atol=1e-4)
    assert found.reconstruction_err_ / unit == pytest.approx(expected.reconstruction_err_, rel=1e-3)

"""The mini-batch estimator keeps scikit-learn's promises, and isn't above scikit-learn's own error."""

import pickle
import warnings

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
import sklearn.decomposition
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from face_jax.sklearn import NMF, MiniBatchNMF

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module")
def digits():
    return load_digits().data[:600]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([MiniBatchNMF(n_components=3, batch_size=10, max_iter=30)])
def test_keeps_scikit_learns_promises(estimator, check):
    check(estimator)


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_error_is_not_above_scikit_learns(digits, beta_loss):
    settings = {"n_components": 6, "batch_size": 100, "beta_loss": beta_loss, "random_state": 0}
    found, peer = MiniBatchNMF(**settings).fit(digits), sklearn.decomposition.MiniBatchNMF(**settings).fit(digits)
    assert found.reconstruction_err_ <= peer.reconstruction_err_ * 1.005


def test_codes_are_least_squares_and_repeat_those_of_the_fit(digits):
    found = MiniBatchNMF(6, batch_size=100, random_state=0, max_iter=5, tol=0, max_no_improvement=None)
    codes = found.fit_transform(digits)
    np.testing.assert_allclose(found.transform(digits), codes, atol=1e-9)
    expected = np.stack([scipy.optimize.nnls(found.components_.T, row)[0] for row in digits[:10]])
    np.testing.assert_allclose(codes[:10], expected, atol=1e-8)
    assert found.n_steps_ == 5 * 6
    assert found.n_iter_ == 5
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(found)).transform(digits[:10]), codes[:10])


def test_sparse_batches_are_the_same_numbers():
    rows = scipy.sparse.random_array((300, 40), density=0.1, rng=np.random.default_rng(0)).tocsr()
    settings = {"n_components": 3, "batch_size": 50, "init": "custom", "tol": 0, "max_iter": 3}
    generator = np.random.default_rng(1)
    start = {"W": generator.random((300, 3)), "H": generator.random((3, 40))}
    for penalty in ({}, {"alpha_W": 0.01, "l1_ratio": 0.5}):
        found, expected = (MiniBatchNMF(**settings, **penalty).fit(x, **start) for x in (rows, rows.toarray()))
        np.testing.assert_allclose(found.components_, expected.components_, atol=1e-9)


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler", 0.5])
def test_batches_given_one_after_another_are_the_batches_of_a_fit(beta_loss):
    X = np.random.default_rng(0).random((100, 5)) + 0.05
    generator = np.random.default_rng(1)
    start = {"W": generator.random((100, 3)), "H": generator.random((3, 5))}
    settings = {"n_components": 3, "init": "custom", "beta_loss": beta_loss, "fresh_restarts": True}
    whole = MiniBatchNMF(**settings, batch_size=10, max_iter=2, tol=0, max_no_improvement=None, forget_factor=0.7).fit(
        X, **start
    )
    # What a whole pass later counts of a batch is given for a pass; a part counts for a part of it.
    parts = MiniBatchNMF(**settings, forget_factor=0.7 ** (10 / 100))
    for _ in range(2):
        for at in range(0, 100, 10):
            batch = {"W": start["W"][at : at + 10], "H": start["H"]}
            parts.partial_fit(X[at : at + 10], **batch)
    assert whole.n_steps_ == parts.n_steps_ == 20
    np.testing.assert_allclose(whole.components_, parts.components_, rtol=1e-9)
    assert parts.transform(X).shape == (100, 3)


def test_one_batch_of_everything_is_the_whole_factorization():
    X = np.random.default_rng(0).random((30, 5))
    settings = {"n_components": 2, "random_state": 0, "tol": 1e-3}
    found = MiniBatchNMF(**settings, batch_size=30, forget_factor=0.0).fit(X)
    np.testing.assert_array_equal(found.components_, NMF(**settings, solver="mu", max_iter=200).fit(X).components_)


def test_verbose_prints_what_scikit_learn_prints(digits, capsys):
    MiniBatchNMF(3, batch_size=200, verbose=1, random_state=0).fit(digits)
    words = capsys.readouterr().out
    assert words.startswith("Minibatch step 1/600: mean batch cost: ")
    assert ", ewa cost: " in words
    assert "Converged (" in words
    MiniBatchNMF(3, batch_size=200, random_state=0).fit(digits)
    assert capsys.readouterr().out == ""


def test_too_few_passes_are_told(digits):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        with pytest.raises(ConvergenceWarning, match="Maximum number of iterations 1 reached"):
            MiniBatchNMF(3, batch_size=200, max_iter=1).fit(digits)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"forget_factor": 1.5}, "forget_factor=1.5"),
        ({"max_no_improvement": 0}, "max_no_improvement=0"),
        ({"fresh_restarts": 1}, "fresh_restarts=1 is neither"),
        ({"fresh_restarts_max_iter": 0}, "fresh_restarts_max_iter=0"),
        ({"beta_loss": 0}, "When beta_loss <= 0 and X contains zeros"),
        ({"init": "custom"}, "give both to fit"),
        ({"tol": -1}, "tol=-1"),
    ],
)
def test_settings_that_are_not_valid_are_refused_by_name(digits, settings, words):
    with pytest.raises(ValueError, match=words):
        MiniBatchNMF(3, **settings).fit(digits)

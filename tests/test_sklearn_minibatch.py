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
@parametrize_with_checks(
    [MiniBatchNMF(n_components=3, batch_size=10, max_iter=30)],
    expected_failed_checks=lambda estimator: {
        f"check_sample_weight_equivalence_on_{kind}_data": "other rows are other batches; one batch is the same, as a "
        "test below says"
        for kind in ("dense", "sparse")
    },
)
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


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
def test_batches_behind_a_fit_go_on_from_that_fit_alone(beta_loss):
    X = np.random.default_rng(0).random((30, 5)) + 0.05
    whole = {"batch_size": 30, "forget_factor": 0.0}
    settings = {"n_components": 2, "random_state": 0, "beta_loss": beta_loss, "max_iter": 2}
    alone = MiniBatchNMF(**settings, **whole).fit(X)
    # An ordinary fit of other numbers, of another count of features, leaves nothing behind.
    twice = MiniBatchNMF(**settings, batch_size=10).fit(X[:, :4]).set_params(**whole).fit(X)
    for model in (alone, twice):
        model.partial_fit(X[:10])
        assert model.n_steps_ == 3
    np.testing.assert_array_equal(alone.components_, twice.components_)
    again, first = MiniBatchNMF(**settings, batch_size=10), MiniBatchNMF(**settings, batch_size=10).fit(X)
    again.fit(X + 1).fit(X).partial_fit(X[:10].astype(np.float32))
    np.testing.assert_array_equal(again.components_, first.partial_fit(X[:10].astype(np.float32)).components_)
    assert again.components_.dtype == np.float32


@pytest.mark.parametrize(("batch_size", "beta_loss"), [(5, 2), (4, 1), (1024, 2)])
def test_batches_given_count_the_ones_before_as_scikit_learn_does(batch_size, beta_loss):
    X, power = counts()[:, :5] + 0.5, 0.3
    settings = {"n_components": 3, "init": "custom", "beta_loss": beta_loss, "batch_size": batch_size}
    found = MiniBatchNMF(**settings, forget_factor=power)
    # By its words: what the first samples given are, not those behind them.
    expected = MiniBatchNMF(**(settings | {"batch_size": 40}), forget_factor=power ** (min(batch_size, 20) / 20))
    peer = sklearn.decomposition.MiniBatchNMF(**settings, forget_factor=power)
    start = {"W": START["W"][:20], "H": START["H"][:, :5]}
    for rows in (X[:20], X[20:30], X[30:]):
        for model in (found, expected):
            model.partial_fit(rows, **start)
        peer.partial_fit(rows, W=start["W"], H=start["H"].copy())
    np.testing.assert_allclose(found.components_, expected.components_, rtol=1e-12)
    assert found._rho == pytest.approx(peer._rho, rel=1e-15)


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
        ({"transform_max_iter": "x"}, "transform_max_iter='x'"),
        ({"verbose": "x"}, "verbose='x'"),
        ({"random_state": "x", "init": "custom"}, "random_state='x' isn't a seed"),
        ({"init": "svd", "batch_size": 1024, "forget_factor": 0}, "init='svd' is unknown"),
    ],
)
def test_settings_that_are_not_valid_are_refused_by_name(digits, settings, words):
    with pytest.raises(ValueError, match=words):
        MiniBatchNMF(3, **settings).fit(digits)


START = {"W": np.random.default_rng(1).random((40, 3)) + 0.1, "H": np.random.default_rng(2).random((3, 8)) + 0.1}


def counts():
    return np.random.default_rng(0).poisson(1.5, (40, 8)).astype(float)


@pytest.mark.parametrize("beta_loss", ["frobenius", "kullback-leibler"])
@pytest.mark.parametrize("kind", [np.asarray, scipy.sparse.csr_array])
def test_a_weight_of_two_is_a_sample_that_is_there_twice(beta_loss, kind):
    X, weights = counts() * (np.arange(8) > 0), np.where(np.arange(40) % 3, 1.0, 2.0)
    X[X < 3] = 0
    X[:, 0] = 3
    settings = {"n_components": 3, "init": "custom", "beta_loss": beta_loss}
    found = MiniBatchNMF(**settings).partial_fit(kind(X), **START, sample_weight=weights)
    twice = np.repeat(np.arange(40), weights.astype(int))
    expected = MiniBatchNMF(**settings).partial_fit(kind(X[twice]), W=START["W"][twice], H=START["H"])
    np.testing.assert_allclose(found.components_, expected.components_, rtol=1e-9)
    left_out = np.where(np.arange(40) < 30, 1.0, 0.0)
    found = MiniBatchNMF(**settings).partial_fit(kind(X), **START, sample_weight=left_out)
    expected = MiniBatchNMF(**settings).partial_fit(kind(X[:30]), W=START["W"][:30], H=START["H"])
    np.testing.assert_allclose(found.components_, expected.components_, rtol=1e-9)


def test_weights_count_in_a_fit_and_are_checked(digits):
    weights = np.where(np.arange(len(digits)) < 100, 1.0, 0.0)
    settings = {"n_components": 4, "batch_size": 100, "random_state": 0, "tol": 1e-3}
    found = MiniBatchNMF(**settings).fit(digits, sample_weight=weights)
    plain = MiniBatchNMF(**settings).fit(digits)
    # Left to themselves, the samples that count are fitted better.
    errors = [
        np.linalg.norm(digits[:100] - one.inverse_transform(one.transform(digits[:100]))) for one in (found, plain)
    ]
    assert errors[0] < errors[1]
    with pytest.raises(ValueError, match=r"at least one non-zero|is 0 everywhere"):
        MiniBatchNMF(3).fit(digits, sample_weight=np.zeros(len(digits)))
    with pytest.raises(ValueError, match="Negative values"):
        MiniBatchNMF(3).partial_fit(digits, sample_weight=-weights)


@pytest.mark.parametrize("beta_loss", [2, 1, 0.5])
def test_values_that_were_not_observed_have_no_part_in_a_batch(beta_loss):
    X = counts() + 0.5
    seen = np.random.default_rng(3).random(X.shape) < 0.7
    seen[4] = False
    holed = np.where(seen, X, np.nan)
    settings = {"n_components": 3, "init": "custom", "beta_loss": beta_loss, "fresh_restarts_max_iter": 4}
    found = MiniBatchNMF(**settings, missing="ignore").partial_fit(holed, **START)
    # Févotte & Idier's updates, written out.
    power = 1 / (2 - beta_loss) if beta_loss < 1 else 1.0
    W = np.full((40, 3), np.sqrt(np.nanmean(holed) / 3))
    H = START["H"]
    for _ in range(4):
        Y = np.maximum(W @ H, np.finfo(float).eps)
        up, down = (seen * np.nan_to_num(holed) * Y ** (beta_loss - 2)) @ H.T, (seen * Y ** (beta_loss - 1)) @ H.T
        W = W * (up / np.maximum(down, np.finfo(float).eps)) ** power
    Y = np.maximum(W @ H, np.finfo(float).eps)
    up, down = W.T @ (seen * np.nan_to_num(holed) * Y ** (beta_loss - 2)), W.T @ (seen * Y ** (beta_loss - 1))
    # The first batch is added to what there is before: the components over ones.
    above, below = 0.7 * H + up * H ** (1 / power), 0.7 + down
    np.testing.assert_allclose(found.components_, (above / below) ** power, rtol=1e-8)
    sparse = MiniBatchNMF(**settings, missing="unstored")
    sparse.partial_fit(scipy.sparse.csr_array(np.where(seen, X, 0)), **START)
    np.testing.assert_allclose(sparse.components_, found.components_, rtol=1e-8)
    assert not found.transform(holed)[4].any()


def test_missing_values_are_filled_in_by_batches():
    drawn = np.random.default_rng(4)
    X = drawn.random((300, 2)) @ drawn.random((2, 12)) + 0.05
    holed = np.where(drawn.random(X.shape) < 0.7, X, np.nan)
    settings = {"n_components": 2, "batch_size": 50, "random_state": 0, "max_iter": 300, "tol": 1e-6}
    for missing, given in (("ignore", holed), ("unstored", scipy.sparse.csr_array(np.nan_to_num(holed)))):
        found = MiniBatchNMF(**settings, missing=missing, max_no_improvement=None).fit(given)
        filled = found.inverse_transform(found.transform(given))
        assert np.abs(filled - X)[np.isnan(holed)].mean() < 0.2 * np.abs(X - X.mean(axis=0))[np.isnan(holed)].mean()
    nothing = np.where(np.arange(12) == 3, np.nan, holed)
    with pytest.raises(ValueError, match="1 features without any value, the first 3"):
        MiniBatchNMF(2, missing="ignore").fit(nothing)
    # A batch of a stream may have none of a feature.
    assert np.isfinite(MiniBatchNMF(2, missing="ignore").partial_fit(nothing).components_).all()


def test_counts_in_a_sparse_matrix_are_the_same_counts():
    X = counts()
    settings = {"n_components": 3, "init": "custom", "beta_loss": "kullback-leibler", "batch_size": 20, "max_iter": 3}
    found = MiniBatchNMF(**settings, tol=0).fit(scipy.sparse.csr_array(X), **START)
    expected = MiniBatchNMF(**settings, tol=0).fit(X, **START)
    np.testing.assert_allclose(found.components_, expected.components_, rtol=1e-8)
    assert found.reconstruction_err_ == pytest.approx(expected.reconstruction_err_, rel=1e-8)

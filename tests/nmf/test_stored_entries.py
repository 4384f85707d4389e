"""Sparse rows by β-divergences, or of which some entries weren't observed: as the same numbers in a dense array."""

import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from compiling import compiled_as_here
from sklearn.decomposition._nmf import _beta_divergence

import face_jax as fj
from face_jax.linalg.sparse_rows import FilledRows
from face_jax.linalg.stored_places import Places
from face_jax.nmf import divergence, stored_steps

ROWS, CHANNELS, RANK = 60, 25, 3
BETAS = (2, 1.5, 1, 0.5, 0, -0.5, 3)
# What steps and codes tell apart: Gram matrices, codes of their own problem or of a neighbour's, products that must not
# fall to zero. Beyond that β is in the formulas alone, of which a test below has all.
WAYS = (2, 1, 0.5, 3)


@pytest.fixture(scope="module")
def counts():
    drawn = np.random.default_rng(0)
    found = drawn.poisson(drawn.gamma(0.4, 1, (ROWS, RANK)) @ drawn.gamma(0.4, 1, (RANK, CHANNELS))).astype(float)
    found[7], found[:, 5] = 0, 0
    return found


@pytest.fixture(scope="module")
def mask():
    drawn = np.random.default_rng(1).random((ROWS, CHANNELS)) < 0.5
    drawn[9] = False
    return drawn


def penalized(beta, rows=None):
    return fj.BetaDivergence(beta, None, rows, l1_codes=0.1, l2_codes=0.2, l1_dictionary=0.3, l2_dictionary=0.05)


@pytest.mark.parametrize("solver", [fj.ADMM(), fj.HALS(), fj.MultiplicativeUpdate(max_steps=20)])
@pytest.mark.parametrize("weighed", [False, True])
def test_kullback_leibler_takes_the_steps_that_it_takes_in_a_dense_array(counts, solver, weighed):
    rows = jnp.asarray(np.random.default_rng(2).random(ROWS))
    objective = penalized(1, rows) if weighed else fj.BetaDivergence(1)
    settings = {"objective": objective, "solver": solver, "start": fj.Random()}
    found = fj.factorize(scipy.sparse.csr_array(counts), RANK, **settings)
    expected = fj.factorize(counts, RANK, **settings)
    assert int(found.stats.steps) == int(expected.stats.steps)
    assert found.result == expected.result
    np.testing.assert_allclose(found.stats.objective[:10], expected.stats.objective[:10], rtol=1e-9)
    np.testing.assert_allclose(found.stats.final_residual, expected.stats.final_residual, rtol=1e-3, atol=1e-8)
    np.testing.assert_allclose(found.dictionary, expected.dictionary, atol=1e-6)
    np.testing.assert_allclose(found.codes, expected.codes, atol=1e-5)


def test_its_objective_is_scikit_learns(counts):
    found = fj.factorize(scipy.sparse.csr_array(counts), RANK, objective=fj.BetaDivergence(1))
    theirs = _beta_divergence(counts, np.asarray(found.codes), np.asarray(found.dictionary), 1)
    np.testing.assert_allclose(found.stats.final_objective, theirs, rtol=1e-6)


@pytest.mark.parametrize("beta", WAYS)
def test_what_was_observed_is_fitted_as_in_a_dense_array(counts, mask, beta):
    full = counts if beta >= 1 else counts + 0.1
    settings = {"objective": fj.BetaDivergence(beta), "solver": fj.HALS(), "start": fj.Random()}
    found = fj.factorize(scipy.sparse.csr_array(full), RANK, observed=scipy.sparse.csr_array(mask), **settings)
    expected = fj.factorize(full, RANK, observed=mask, **settings)
    assert int(found.stats.steps) == int(expected.stats.steps)
    np.testing.assert_allclose(found.stats.objective[:10], expected.stats.objective[:10], rtol=1e-9)
    np.testing.assert_allclose(found.dictionary, expected.dictionary, atol=1e-6)
    assert not np.asarray(found.codes[9]).any()


@pytest.mark.parametrize("beta", [1, 2])
def test_not_a_number_was_not_observed_and_what_is_not_stored_is_zero(counts, beta):
    matrix = scipy.sparse.csr_array(counts)
    matrix.data[np.random.default_rng(3).random(matrix.nnz) < 0.3] = np.nan
    settings = {"objective": fj.BetaDivergence(beta), "start": fj.Random(), "observed": "numbers"}
    found, expected = (fj.factorize(x, RANK, **settings) for x in (matrix, matrix.toarray()))
    np.testing.assert_allclose(found.stats.objective[:10], expected.stats.objective[:10], rtol=1e-9)
    np.testing.assert_allclose(found.dictionary, expected.dictionary, atol=1e-6)
    known = ~np.isnan(matrix.toarray())
    same = fj.factorize(matrix.toarray(), RANK, **{**settings, "observed": known})
    np.testing.assert_array_equal(same.dictionary, expected.dictionary)


def test_stored_entries_alone_were_observed_where_that_is_said(counts, mask):
    holed = np.where(mask, counts + 1, 0)
    holed[holed == 2] = 0
    matrix = scipy.sparse.csr_array(np.where(mask, counts + 1, 0))
    matrix.data[matrix.data == 2] = 0  # stored zeros were observed
    found = fj.factorize(matrix, RANK, observed="stored", start=fj.Random())
    expected = fj.factorize(holed, RANK, observed=mask, start=fj.Random(), objective=fj.SquaredError())
    np.testing.assert_allclose(found.stats.objective[:10], expected.stats.objective[:10], rtol=1e-9)
    np.testing.assert_allclose(found.dictionary, expected.dictionary, atol=1e-6)


@pytest.mark.parametrize("beta", WAYS)
def test_codes_are_those_of_the_dense_array(counts, mask, beta):
    full = counts if beta >= 1 else counts + 0.1
    dictionary = np.random.default_rng(4).random((RANK, CHANNELS)) * (np.arange(CHANNELS) != 3)
    objective = fj.BetaDivergence(beta, l1_codes=0.1, l2_codes=0.05)
    found = fj.encode(
        scipy.sparse.csr_array(full), dictionary, objective=objective, observed=scipy.sparse.csr_array(mask)
    )
    expected = fj.encode(full, dictionary, objective=objective, observed=mask)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    if beta in (1, 2):
        found = fj.encode(scipy.sparse.csr_array(full), dictionary, objective=objective)
        np.testing.assert_allclose(found, fj.encode(full, dictionary, objective=objective), atol=1e-10)


def test_codes_of_what_was_observed_are_scipys_least_squares(counts, mask):
    dictionary = np.random.default_rng(5).random((RANK, CHANNELS))
    found = fj.encode(scipy.sparse.csr_array(counts), dictionary, observed=scipy.sparse.csr_array(mask))
    for row, seen, codes in zip(counts, mask, np.asarray(found), strict=True):
        np.testing.assert_allclose(codes, scipy.optimize.nnls(dictionary[:, seen].T, row[seen])[0], atol=1e-10)


def test_codes_do_not_depend_on_the_rows_beside_them(counts, monkeypatch):
    dictionary = np.random.default_rng(6).random((RANK, CHANNELS))
    whole = fj.encode(scipy.sparse.csr_array(counts), dictionary, objective=fj.BetaDivergence(1))
    monkeypatch.setattr(stored_steps, "_MATRICES", 1)  # 32 items at a time
    some = fj.encode(scipy.sparse.csr_array(counts[5:58]), dictionary, objective=fj.BetaDivergence(1))
    np.testing.assert_allclose(whole[5:58], some, atol=1e-12)


@pytest.mark.parametrize("start", [fj.Warmup(), fj.NNDSVDa(), fj.MiniBatch(rows=40), fj.Random()])
def test_every_start_leads_to_what_was_observed(mask, start):
    drawn = np.random.default_rng(7)
    exact = drawn.random((ROWS, RANK)) @ drawn.random((RANK, CHANNELS))
    known = mask | (np.arange(ROWS) == 3)[:, None]
    matrix = scipy.sparse.csr_array(np.where(known, exact, 0))
    found = fj.factorize(matrix, RANK, observed="stored", start=start, solver=fj.ADMM(rtol=1e-6, max_steps=3000))
    rest = np.where(known, exact - np.asarray(found.codes @ found.dictionary), 0)
    assert np.linalg.norm(rest) < 0.02 * np.linalg.norm(np.where(known, exact, 0))


def test_given_factors_are_where_it_starts(counts):
    matrix, objective = scipy.sparse.csr_array(counts), fj.BetaDivergence(1)
    known = fj.factorize(matrix, RANK, objective=objective, solver=fj.ADMM(rtol=1e-7, max_steps=3000))
    again = fj.factorize(matrix, RANK, objective=objective, start=fj.Given(known.codes, known.dictionary))
    assert int(again.stats.steps) == 0
    np.testing.assert_allclose(again.codes, known.codes, rtol=1e-9)


@pytest.mark.parametrize("beta", [1, 2, 0.5])
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_any_unit_will_do(counts, beta, unit):
    matrix = scipy.sparse.csr_array((counts + 0.1 * (counts > 0)).astype(np.float32))
    matrix = matrix[:, [channel for channel in range(CHANNELS) if channel != 5]]
    settings = {"objective": fj.BetaDivergence(beta), "observed": "stored", "solver": fj.ADMM(max_steps=40)}
    expected, found = (fj.factorize(matrix * np.float32(by), RANK, **settings) for by in (1, unit))
    assert found.codes.dtype == jnp.float32
    np.testing.assert_allclose(found.codes / np.float32(unit), expected.codes, atol=0.05 * expected.codes.max())
    codes = fj.encode(
        matrix * np.float32(unit), found.dictionary, **{k: settings[k] for k in ("objective", "observed")}
    )
    assert np.isfinite(np.asarray(codes)).all()
    assert np.asarray(codes).any()


def test_matrices_of_nothing_and_rows_of_nothing():
    empty = scipy.sparse.csr_array((ROWS, CHANNELS))
    found = fj.factorize(empty, RANK, objective=fj.BetaDivergence(1))
    assert not np.asarray(found.codes @ found.dictionary).any()
    codes = fj.encode(empty, np.ones((RANK, CHANNELS)), objective=fj.BetaDivergence(1))
    assert not np.asarray(codes).any()
    assert not np.asarray(fj.encode(empty, np.ones((RANK, CHANNELS)), observed="stored")).any()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"objective": fj.BetaDivergence(0)}, "infinite at 0; give β = 1 or 2, or observed='stored'"),
        ({"objective": fj.BetaDivergence(1.5)}, "takes each entry's product"),
        ({"objective": fj.BetaDivergence(1, jnp.ones((ROWS, CHANNELS)))}, "weights of entries, and activations are"),
        ({"objective": fj.BetaDivergence(1), "solver": fj.SemiNMF()}, "use solver=ADMM"),
        ({"objective": fj.BetaDivergence(1), "solver": fj.PaperAdam()}, "use solver=ADMM"),
        ({"objective": fj.BetaDivergence(1), "adjoint": fj.UnrolledAdjoint()}, "leave it out"),
        ({"observed": "stored", "solver": fj.SemiNMF()}, "use solver=ADMM"),
        ({"observed": "stored"}, "1 channels without any entry, the first 5"),
        ({"observed": "unstored"}, "isn't known; give 'stored'"),
        ({"observed": np.ones((ROWS, CHANNELS), bool)}, "isn't sparse"),
        ({"observed": scipy.sparse.csr_array(np.ones((ROWS, 3), bool))}, "give one value an entry"),
        ({"observed": scipy.sparse.csr_array(np.ones((ROWS, CHANNELS)))}, "observed has dtype float64"),
        ({"objective": fj.BetaDivergence(0), "observed": scipy.sparse.csr_array(np.ones((ROWS, CHANNELS), bool))},
         "observed entries of 0, whose divergence"),
        ({"objective": fj.BetaDivergence(1, l1_codes=1.0)}, "the codes have a penalty"),
        ({"objective": fj.BetaDivergence(1), "checkpoint": "folder"}, "aren't there for sparse"),
    ],
)  # fmt: skip
def test_what_can_not_be_had_is_refused(counts, given, words):
    with pytest.raises(ValueError, match=words):
        fj.factorize(scipy.sparse.csr_array(counts), RANK, **given)


def test_numbers_that_are_not_valid_are_refused(counts):
    matrix = scipy.sparse.csr_array(counts)
    matrix.data[3] = np.nan
    with pytest.raises(ValueError, match=r"1 entries that are NaN or infinite.*observed='numbers'"):
        fj.factorize(matrix, RANK, objective=fj.BetaDivergence(1))
    with pytest.raises(ValueError, match="leave them out of what is observed"):
        fj.encode(matrix, np.ones((RANK, CHANNELS)), observed="stored")
    matrix.data[3] = -1
    with pytest.raises(ValueError, match=r"1 of .* stored entries below zero"):
        fj.encode(matrix, np.ones((RANK, CHANNELS)), objective=fj.BetaDivergence(1))
    with pytest.raises(ValueError, match="non-negative products"):
        fj.encode(abs(matrix), -np.ones((RANK, CHANNELS)), objective=fj.BetaDivergence(1))
    with pytest.raises(ValueError, match="'stored' is for sparse activations"):
        fj.factorize(counts, RANK, observed="stored")


def test_derivatives_are_refused_by_name(counts):
    matrix = scipy.sparse.csr_array(counts)
    with pytest.raises(ValueError, match="only the squared error of all entries"):
        jax.grad(lambda d: jnp.sum(fj.encode(matrix, d, objective=fj.BetaDivergence(1))))(jnp.ones((RANK, CHANNELS)))


@pytest.mark.parametrize("beta", BETAS)
def test_arrays_of_numpy_have_the_divergences_of_arrays_of_jax(beta):
    drawn = np.random.default_rng(8)
    x, y = drawn.gamma(1, size=(2, 50))
    move = y * drawn.uniform(-1, 1, 50)
    if beta > 1:
        x[:5], y[5:8], move[3], move[4] = 0, 0, -y[3], -y[4] * (1 + 1e-15)  # below 0 by rounding
        move[5:8] = 0.1
    floor = divergence.floor_of(x)
    for function, given in (
        (divergence.slope, (x, y)), (divergence.curvature, (x, y)), (divergence.second, (x, y)),
        (divergence.deviation, (x, y)), (divergence.change, (x, y, move)),
    ):  # fmt: skip
        expected = function(float(beta), *map(jnp.asarray, given), jnp.asarray(floor))  # pyright: ignore[reportCallIssue]
        with np.errstate(all="ignore"):
            found = function(float(beta), *given, floor)  # pyright: ignore[reportCallIssue]
        assert isinstance(found, np.ndarray)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
        assert np.isfinite(found).all()


def test_a_filled_matrix_has_the_products_of_the_whole():
    drawn = np.random.default_rng(9)
    sparse = scipy.sparse.random_array((20, 12), density=0.3, rng=drawn)
    left, right = drawn.random(20), drawn.random(12)
    rows, whole = FilledRows(sparse, np.float64, left, right), sparse.toarray() + np.outer(left, right)
    np.testing.assert_allclose(rows.times(whole.T), whole @ whole.T)
    np.testing.assert_allclose(rows.T.times(whole), whole.T @ whole)
    np.testing.assert_allclose(rows.transposed_times(whole), whole.T @ whole)
    np.testing.assert_allclose(rows.squares(), (whole**2).sum(axis=1))
    np.testing.assert_allclose(rows.taken(np.asarray([3, 5])).times(np.eye(12)), whole[[3, 5]])
    np.testing.assert_allclose(rows.divided(2.0).mean(), whole.mean() / 2)
    np.testing.assert_allclose(np.concatenate([block for _, _, block in rows.blocks()]), whole)


def test_places_keep_their_order_both_ways():
    matrix = scipy.sparse.random_array((9, 7), density=0.4, format="csr", rng=np.random.default_rng(10))
    places = Places.of(matrix)
    across, order = places.transposed
    np.testing.assert_array_equal(across.matrix(matrix.data[order]).toarray(), matrix.toarray().T)
    some, which = places.taken(np.asarray([4, 0, 8]))
    np.testing.assert_array_equal(some.matrix(matrix.data[which]).toarray(), matrix.toarray()[[4, 0, 8]])


def test_room_goes_with_the_entries():
    # 20,000 × 31,000 in single precision are 2.5 GB; 50,000 entries and both factors are 1 MB.
    script = """
        import resource, numpy as np, scipy.sparse, face_jax as fj
        drawn = np.random.default_rng(0)
        places = drawn.integers(0, 20_000, 50_000), drawn.integers(0, 50_000, 50_000)
        A = scipy.sparse.coo_array((np.ones(50_000, np.float32), places), shape=(20_000, 50_000)).tocsr()
        A = A[:, np.unique(A.indices)]
        small = A[:500][:, np.unique(A[:500].indices)]
        def run(A, **given):
            found = fj.factorize(A, 4, solver=fj.ADMM(max_steps=2), **given)
            given.pop("start", None)
            fj.encode(A, found.dictionary, **given)
        cases = {"objective": fj.BetaDivergence(1)}, {"observed": "stored"}
        for case in cases:
            run(small, **case)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for case in cases:
            run(A, **case)
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=compiled_as_here())
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 600, done.stdout

"""Sparse rows are factorized and encoded as the same numbers are in a dense array, without ever making one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
import scipy.sparse
from jax.experimental import sparse as of_jax

import face_jax as fj
from face_jax.linalg import sparse_rows
from face_jax.nmf import sparse, sparse_starts

ROWS, CHANNELS, RANK = 120, 40, 3


@pytest.fixture(scope="module")
def matrix():
    generator = np.random.default_rng(0)
    low = (generator.gamma(0.3, size=(ROWS, RANK)) @ generator.gamma(0.3, size=(RANK, CHANNELS))) + 0.05
    found = np.where(generator.random(low.shape) < 0.2, low, 0)
    found[7], found[:, 5] = 0, 0
    return found


FORMATS = {
    "csr": scipy.sparse.csr_array, "csc": scipy.sparse.csc_array, "coo": scipy.sparse.coo_array,
    "csr_matrix": scipy.sparse.csr_matrix, "lil": scipy.sparse.lil_array, "bcoo": of_jax.BCOO.fromdense,
    "bcsr": of_jax.BCSR.fromdense,
}  # fmt: skip


@pytest.mark.parametrize("format_", FORMATS)
def test_every_format_is_the_same_matrix(matrix, format_):
    expected = fj.factorize(matrix, RANK, solver=fj.HALS(), start=fj.Random())
    found = fj.factorize(FORMATS[format_](matrix), RANK, solver=fj.HALS(), start=fj.Random())
    np.testing.assert_allclose(found.dictionary, expected.dictionary, atol=1e-10)
    np.testing.assert_allclose(found.codes, expected.codes, atol=1e-10)
    np.testing.assert_allclose(found.stats.final_objective, expected.stats.final_objective, rtol=1e-12)
    assert int(found.stats.steps) == int(expected.stats.steps)
    assert isinstance(found.codes, jax.Array)


def test_entries_that_are_there_twice_are_added_up(matrix):
    twice = scipy.sparse.coo_array(matrix)
    rows, columns = np.tile(twice.row, 2), np.tile(twice.col, 2)
    doubled = scipy.sparse.coo_array((np.tile(twice.data, 2), (rows, columns)), shape=matrix.shape)
    settings = {"solver": fj.HALS(), "start": fj.Random()}
    found, expected = fj.factorize(doubled, RANK, **settings), fj.factorize(2 * matrix, RANK, **settings)
    np.testing.assert_allclose(found.dictionary, expected.dictionary, atol=1e-10)
    padded = of_jax.BCOO.fromdense(jnp.asarray(matrix), nse=int(np.count_nonzero(matrix)) + 9)
    np.testing.assert_array_equal(sparse.sparse_rows("x", padded).matrix.toarray(), matrix)


@pytest.mark.parametrize("solver", [fj.ADMM(), fj.MultiplicativeUpdate(max_steps=30), fj.SemiNMF()])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_solver_takes_the_steps_that_it_takes_in_a_dense_array(matrix, solver, weighted):
    objective = fj.SquaredError(l1_codes=0.1, l2_codes=0.05, l2_dictionary=0.2)
    if weighted:
        weights = jnp.asarray(np.random.default_rng(1).random(ROWS))
        objective = fj.SquaredError(row_weights=weights, l1_codes=0.1, l2_codes=0.05, l2_dictionary=0.2)
    settings = {"solver": solver, "start": fj.Random(), "objective": objective}
    found = fj.factorize(scipy.sparse.csr_array(matrix), RANK, **settings)
    expected = fj.factorize(matrix, RANK, **settings)
    assert int(found.stats.steps) == int(expected.stats.steps)
    np.testing.assert_allclose(found.stats.final_objective, expected.stats.final_objective, rtol=1e-9)
    np.testing.assert_allclose(found.dictionary, expected.dictionary, atol=1e-6)


@pytest.mark.parametrize(
    "start",
    [fj.Warmup(), fj.Warmup(stages=((1 / 2, 4), (3 / 4, 2))), fj.NNDSVD(), fj.NNDSVDa(),
     fj.NNDSVDar(), fj.MiniBatch(rows=90)],
)  # fmt: skip
def test_every_start_leads_to_as_low_an_objective(matrix, start):
    found = fj.factorize(scipy.sparse.csr_array(matrix), RANK, start=start)
    expected = fj.factorize(matrix, RANK, start=start)
    np.testing.assert_allclose(found.stats.final_objective, expected.stats.final_objective, rtol=0.02)


def test_given_factors_are_where_it_starts(matrix):
    known = fj.factorize(matrix, RANK, solver=fj.ADMM(rtol=1e-9, max_steps=3000))
    again = fj.factorize(scipy.sparse.csr_array(matrix), RANK, start=fj.Given(known.codes, known.dictionary))
    assert int(again.stats.steps) == 0
    np.testing.assert_allclose(again.codes, known.codes, rtol=1e-9)


@pytest.mark.parametrize("shape", [(60, 25), (25, 60)])
def test_singular_values_are_lapacks(shape):
    dense = np.where(np.random.default_rng(0).random(shape) < 0.3, np.random.default_rng(1).random(shape), 0)
    rows = sparse_rows.SparseRows(scipy.sparse.csr_array(dense), np.float64)
    left, values, right = sparse_starts.singular_triplets(rows, 25, 2, jax.random.key(0))
    np.testing.assert_allclose(values, np.linalg.svd(dense)[1], atol=1e-10)
    np.testing.assert_allclose((left * values) @ right, dense, atol=1e-10)


def test_codes_are_least_squares_whatever_the_dictionary_is(matrix):
    generator = np.random.default_rng(2)
    concepts = generator.random((4, CHANNELS))
    for dictionary in (concepts, np.vstack([concepts, concepts[:2], np.zeros((1, CHANNELS))]), concepts - 0.5):
        found = fj.encode(scipy.sparse.csr_array(matrix), dictionary)
        expected = [scipy.optimize.nnls(dictionary.T, row)[1] for row in matrix]
        np.testing.assert_allclose(np.linalg.norm(matrix - found @ dictionary, axis=1), expected, atol=1e-10)
    penalized = fj.SquaredError(l1_codes=0.1, l2_codes=0.3)
    np.testing.assert_allclose(
        fj.encode(scipy.sparse.csc_array(matrix), concepts, objective=penalized),
        fj.encode(matrix, concepts, objective=penalized),
        atol=1e-10,
    )


def test_more_concepts_than_channels_have_codes(matrix):
    wide = np.random.default_rng(3).random((CHANNELS + 5, CHANNELS))
    found = fj.encode(scipy.sparse.csr_array(matrix), wide)
    expected = [scipy.optimize.nnls(wide.T, row, maxiter=10_000)[1] for row in matrix[:20]]
    np.testing.assert_allclose(np.linalg.norm(matrix[:20] - found[:20] @ wide, axis=1), expected, atol=1e-8)


def test_nothing_is_made_dense_but_a_few_rows(matrix, monkeypatch):
    largest = []
    dense = scipy.sparse.csr_array.toarray
    monkeypatch.setattr(sparse_rows, "_DENSE_BYTES", 8 * CHANNELS * 10)
    for kind in (scipy.sparse.csr_array, scipy.sparse.csc_array, scipy.sparse.coo_array):
        monkeypatch.setattr(kind, "toarray", lambda self, *a, **k: largest.append(self.shape[0]) or dense(self.tocsr()))
        monkeypatch.setattr(kind, "todense", lambda self, *a, **k: pytest.fail("made dense"))
    exact = np.zeros((ROWS, CHANNELS))
    exact[:, :6] = np.random.default_rng(4).random((ROWS, 2)) @ np.random.default_rng(5).random((2, 6))
    rows = scipy.sparse.csr_array(exact)
    found = fj.factorize(rows, 2, solver=fj.ADMM(rtol=1e-9, max_steps=3000))
    fj.encode(rows, found.dictionary)
    # A fit that is nearly exact is measured by its differences, which products would have no digits for.
    assert max(largest) == 10
    rest = exact - np.asarray(found.codes) @ np.asarray(found.dictionary)
    np.testing.assert_allclose(found.stats.final_objective, (rest**2).sum() / 2, rtol=1e-6)


@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_any_unit_will_do(matrix, unit):
    small = matrix.astype(np.float32)
    expected = fj.factorize(scipy.sparse.csr_array(small), RANK)
    found = fj.factorize(scipy.sparse.csr_array(small * np.float32(unit)), RANK)
    assert found.codes.dtype == jnp.float32
    np.testing.assert_allclose(found.codes / unit, expected.codes, atol=2e-2 * float(expected.codes.max()))


def test_whole_numbers_and_matrices_of_nothing(matrix):
    counts = scipy.sparse.csr_array(np.ceil(matrix).astype(np.int64))
    settings = {"solver": fj.HALS(), "start": fj.Random()}
    found, expected = (fj.factorize(x, RANK, **settings) for x in (counts, counts.toarray()))
    np.testing.assert_allclose(found.dictionary, expected.dictionary, atol=1e-10)
    nothing = fj.factorize(scipy.sparse.csr_array((ROWS, CHANNELS)), RANK)
    assert not np.asarray(nothing.codes).any()
    assert not np.asarray(fj.encode(scipy.sparse.csr_array((5, CHANNELS)), found.dictionary)).any()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"solver": fj.PaperAdam()}, "takes gradients of all entries"),
        ({"objective": fj.SquaredError(weights=np.ones((ROWS, CHANNELS)))}, "weights of entries needs all entries"),
        ({"objective": fj.SquaredError(l1_codes=1.0)}, "the codes have a penalty and the dictionary none"),
        ({"objective": fj.BetaDivergence(1.5)}, "takes each entry's product; give β = 1 or 2"),
        ({"observed": np.ones((ROWS, CHANNELS), bool)}, "isn't sparse"),
        ({"objective": fj.SquaredError(row_weights=jnp.ones(3))}, r"row_weights has shape \(3,\)"),
        ({"adjoint": fj.UnrolledAdjoint()}, "UnrolledAdjoint"),
        ({"codes": "codes.npy"}, "aren't there for sparse activations"),
        ({"start": fj.Given(jnp.ones((3, RANK)), jnp.ones((RANK, CHANNELS)))}, r"start.codes has shape \(3, 3\)"),
        ({"start": fj.Given(jnp.ones((ROWS, RANK)), jnp.ones((RANK, 7)))}, r"start.dictionary has shape \(3, 7\)"),
        ({"rank": 0}, "rank=0 leaves no concept"),
    ],
)
def test_what_needs_all_entries_is_refused(matrix, given, words):
    with pytest.raises(ValueError, match=words):
        fj.factorize(scipy.sparse.csr_array(matrix), **({"rank": RANK} | given))


def test_numbers_that_are_not_valid_are_refused(matrix):
    for change, words in (
        (-1.0, "stored entries below zero"),
        (np.nan, "NaN or infinite"),
        (np.inf, "NaN or infinite"),
    ):
        wrong = scipy.sparse.csr_array(matrix)
        wrong.data[3] = change
        with pytest.raises(ValueError, match=words):
            fj.factorize(wrong, RANK)
    fj.factorize(scipy.sparse.csr_array(-matrix), RANK, solver=fj.SemiNMF(max_steps=2))
    for wrong, words in (
        (scipy.sparse.csr_array(matrix.astype(complex)), "dtype complex128"),
        (scipy.sparse.csr_array((0, CHANNELS)), "has shape"),
        (of_jax.BCOO.fromdense(jnp.asarray(matrix), n_batch=1), "axes of batches"),
    ):
        with pytest.raises(ValueError, match=words):
            fj.factorize(wrong, RANK)
    with pytest.raises(ValueError, match="dictionary has 7 channels"):
        fj.encode(scipy.sparse.csr_array(matrix), np.ones((2, 7)))
    with pytest.raises(ValueError, match="sparse and traced"):
        jax.jit(lambda x: fj.factorize(x, RANK).codes)(of_jax.BCOO.fromdense(jnp.asarray(matrix)))


def test_products_by_stored_entries_are_scipys(matrix, monkeypatch):
    rows = sparse_rows.SparseRows(scipy.sparse.csr_array(matrix), np.float64)
    right, left = np.random.default_rng(6).random((CHANNELS, 5)), np.random.default_rng(7).random((ROWS, 5))
    expected = rows.times(right), rows.transposed_times(left)
    other = sparse_rows.SparseRows(rows.matrix, np.float64)
    # As on an accelerator, and as if two columns' terms were all that finds room.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(sparse_rows, "_TERMS", 2 * rows.matrix.nnz)
    assert isinstance(other.times(right), jax.Array)
    np.testing.assert_allclose(other.times(right), expected[0], rtol=1e-12)
    np.testing.assert_allclose(other.transposed_times(left), expected[1], rtol=1e-12)

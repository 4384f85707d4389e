"""Exact non-negative least squares: known primal and dual pairs, SciPy, degenerate dictionaries, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from face_jax import nmf as ff
from face_jax.nmf import encoding
from face_jax.nmf.nnls.block_pivoting import nnls
from face_jax.nmf.nnls.masked_systems import masked_cholesky, masked_solve

ROWS, CHANNELS, CONCEPTS = 40, 12, 5


def problem(seed=0, dtype=np.float64, signed=True):
    generator = np.random.default_rng(seed)
    dictionary = generator.random((CONCEPTS, CHANNELS))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    A = generator.standard_normal((ROWS, CHANNELS)) if signed else generator.random((ROWS, CHANNELS))
    return A.astype(dtype), dictionary.astype(dtype)


def violation(A, dictionary, codes):
    """The largest projected gradient, relative to the row's largest product with the dictionary, in float64."""
    A, dictionary, codes = (np.asarray(x, np.float64) for x in (A, dictionary, codes))
    cross = A @ dictionary.T
    slope = codes @ (dictionary @ dictionary.T) - cross
    projected = np.where(codes > 0, np.abs(slope), np.maximum(-slope, 0))
    return (projected / np.abs(cross).max(axis=1, keepdims=True)).max()


@pytest.mark.parametrize("seed", range(4))
def test_planted_primal_and_dual_pair_is_found(seed):
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((CONCEPTS, CONCEPTS + 2))
    gram = root @ root.T
    positive = generator.random((CONCEPTS, ROWS)) > 0.5
    x = np.where(positive, generator.uniform(0.1, 1, positive.shape), 0)
    dual = np.where(positive, 0, generator.uniform(0.1, 1, positive.shape))
    found = np.asarray(nnls(jnp.asarray(gram), jnp.asarray(gram @ x - dual)))
    np.testing.assert_allclose(found, x, atol=1e-12 * np.linalg.cond(gram))
    np.testing.assert_array_equal(found > 0, positive)


def test_what_only_dependent_concepts_need_is_compiled_for_them_alone(monkeypatch):
    A, dictionary = problem(seed=5)
    dependent = np.concatenate([dictionary, dictionary[:2].sum(axis=0, keepdims=True)])
    taken = []
    usual = encoding._codes_of
    monkeypatch.setattr(
        encoding, "_codes_of", lambda *given, finished: taken.append(finished) or usual(*given, finished=finished)
    )
    for concepts, programs in ((dictionary, [False]), (dependent, [False, True])):
        taken.clear()
        found = ff.encode(A, concepts)
        assert taken == programs
        assert violation(A, concepts, found) < 1e-12
        # One program with both, as inside others.
        np.testing.assert_allclose(found, jax.jit(lambda A, W: ff.encode(A, W))(A, concepts), atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_degenerate_support_is_solved(seed):
    generator = np.random.default_rng(seed)
    root = generator.standard_normal((CONCEPTS, CONCEPTS + 2))
    gram = root @ root.T
    x = np.where(generator.random((CONCEPTS, ROWS)) > 0.5, generator.uniform(0.1, 1, (CONCEPTS, ROWS)), 0)
    # Zero codes with zero multipliers everywhere.
    found = np.asarray(nnls(jnp.asarray(gram), jnp.asarray(gram @ x)))
    np.testing.assert_allclose(found, x, atol=1e-12 * np.linalg.cond(gram))


@pytest.mark.parametrize(("dtype", "bound"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("signed", [True, False])
def test_agrees_with_scipy_and_meets_the_conditions(dtype, bound, signed):
    A, dictionary = problem(dtype=dtype, signed=signed)
    codes = ff.encode(A, dictionary)
    assert codes.dtype == dtype
    assert violation(A, dictionary, codes) <= bound
    expected = np.stack([scipy.optimize.nnls(dictionary.T.astype(np.float64), row.astype(np.float64))[0] for row in A])
    np.testing.assert_allclose(codes, expected, atol=bound * np.linalg.cond(dictionary @ dictionary.T) * 10)


def test_more_rows_than_a_block_and_an_ill_conditioned_dictionary():
    generator = np.random.default_rng(0)
    dictionary = 1 + 0.05 * generator.random((25, 60))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    assert np.linalg.cond(dictionary @ dictionary.T) > 1e4
    A = generator.random((1500, 60))
    codes = ff.encode(A, dictionary)
    assert violation(A, dictionary, codes) <= 1e-12
    single = ff.encode(A.astype(np.float32), dictionary.astype(np.float32))
    assert violation(A.astype(np.float32), dictionary.astype(np.float32), single) <= 3e-6


@pytest.mark.parametrize("spoil", ["duplicate", "dead", "combination"])
def test_rank_deficient_dictionaries_are_solved(spoil):
    A, dictionary = problem()
    if spoil == "duplicate":
        dictionary[3] = dictionary[1]
    elif spoil == "dead":
        dictionary[3] = 0
    else:
        dictionary[3] = (dictionary[1] + dictionary[2]) / 2
    codes = np.asarray(ff.encode(A, dictionary))
    assert violation(A, dictionary, codes) <= 1e-12
    expected = [scipy.optimize.nnls(dictionary.T, row)[1] for row in A]
    np.testing.assert_allclose(np.linalg.norm(A - codes @ dictionary, axis=1), expected, rtol=1e-10)
    loss = lambda A, W: jnp.sum(ff.encode(A, W) ** 2)  # noqa: E731
    gradient = jax.grad(loss, argnums=(0, 1))(jnp.asarray(A), jnp.asarray(dictionary))
    assert all(bool(jnp.all(jnp.isfinite(part))) for part in gradient)


def test_zero_rows_one_row_one_channel_one_concept():
    A, dictionary = problem()
    A[3] = 0
    np.testing.assert_array_equal(ff.encode(A, dictionary)[3], 0)
    np.testing.assert_allclose(ff.encode(A[:1], dictionary), ff.encode(A, dictionary)[:1], atol=1e-12)
    np.testing.assert_allclose(ff.encode(A[:, :1], np.ones((1, 1))), np.maximum(A[:, :1], 0), atol=1e-15)
    unit = dictionary[:1]
    np.testing.assert_allclose(ff.encode(A, unit), np.maximum(A @ unit.T, 0), atol=1e-14)


def test_documented_example_of_another_library():
    codes = ff.encode(np.array([[5.0, 6.0]]), np.array([[1.0, 3.0], [2.0, 4.0]]))
    np.testing.assert_allclose(codes, [[0, 1.7]], atol=1e-12)


def test_entry_weights_equal_scaled_rows_solved_one_by_one():
    A, dictionary = problem()
    weights = np.random.default_rng(1).random(A.shape)
    weights[:, 2] = 0
    codes = ff.encode(A, dictionary, objective=ff.SquaredError(weights=jnp.asarray(weights)))
    roots = np.sqrt(weights)
    expected = [scipy.optimize.nnls((root * dictionary).T, root * row)[0] for root, row in zip(roots, A, strict=True)]
    np.testing.assert_allclose(codes, np.stack(expected), atol=1e-10)


def test_penalties_are_part_of_the_problem():
    A, dictionary = problem()
    l1, l2 = 0.05, 0.3
    codes = np.asarray(ff.encode(A, dictionary, objective=ff.SquaredError(l1_codes=l1, l2_codes=l2)))
    slope = codes @ (dictionary @ dictionary.T) - A @ dictionary.T + l1 + l2 * codes
    np.testing.assert_allclose(np.where(codes > 0, slope, np.minimum(slope, 0)), 0, atol=1e-12)


def test_masked_factor_solves_on_the_support_only():
    _, dictionary = problem()
    gram = dictionary @ dictionary.T
    support = np.random.default_rng(0).random((CONCEPTS, ROWS)) > 0.4
    right = np.where(support, np.random.default_rng(1).standard_normal(support.shape), 0)
    found = np.asarray(masked_solve(masked_cholesky(jnp.asarray(gram), jnp.asarray(support)), jnp.asarray(right)))
    for item in range(ROWS):
        on = support[:, item]
        np.testing.assert_allclose(found[on, item], np.linalg.solve(gram[np.ix_(on, on)], right[on, item]), rtol=1e-9)
        assert not found[~on, item].any()


@pytest.mark.parametrize("weighted", [False, True])
def test_derivative_agrees_with_differences_and_its_transpose(weighted):
    A, dictionary = (jnp.asarray(x) for x in problem(seed=3))
    generator = np.random.default_rng(5)
    weights = jnp.asarray(generator.uniform(0.2, 1, A.shape))
    dA, dW = (jnp.asarray(generator.standard_normal(x.shape)) for x in (A, dictionary))

    def run(A, W):
        return ff.encode(A, W, objective=ff.SquaredError(weights=weights if weighted else None))

    codes = run(A, dictionary)
    entries = weights if weighted else jnp.ones_like(A)
    slope = (entries * (codes @ dictionary - A)) @ dictionary.T
    gap = jnp.min(jnp.where(codes > 0, codes, slope))
    assert float(gap) > 1e-4  # away from the kink, or differences mean nothing
    assert 0 < int((codes > 0).sum()) < codes.size
    forward = jax.jvp(run, (A, dictionary), (dA, dW))[1]
    h = 1e-6
    difference = (run(A + h * dA, dictionary + h * dW) - run(A - h * dA, dictionary - h * dW)) / (2 * h)
    assert float(jnp.linalg.norm(difference)) > 0.1
    np.testing.assert_allclose(forward, difference, atol=1e-7 * float(jnp.abs(difference).max()))
    cotangent = jnp.asarray(generator.standard_normal(codes.shape))
    back = jax.vjp(run, A, dictionary)[1](cotangent)
    inner = jnp.sum(back[0] * dA) + jnp.sum(back[1] * dW)
    assert float(inner) == pytest.approx(float(jnp.sum(cotangent * forward)), rel=1e-10)
    traced = jax.jit(jax.vmap(lambda A: jax.grad(lambda A: jnp.sum(cotangent * run(A, dictionary)))(A)))(A[None])[0]
    np.testing.assert_allclose(traced, back[0], rtol=1e-9, atol=1e-11)


def test_derivative_of_codes_that_are_all_positive_is_least_squares():
    generator = np.random.default_rng(0)
    _, dictionary = problem()
    A = jnp.asarray(generator.uniform(1, 2, (ROWS, CONCEPTS)) @ dictionary)
    jacobian = jax.jacobian(lambda row: ff.encode(row[None], jnp.asarray(dictionary))[0])(A[0])
    np.testing.assert_allclose(jacobian, np.linalg.pinv(dictionary).T, atol=1e-10)

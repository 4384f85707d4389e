"""Encoding's derivative: closed forms, central differences, modes, and what's left where there is none."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax.nmf import SquaredError, encode

ROWS, CHANNELS, RANK = 20, 12, 4
STEP = 1e-6

rng = np.random.default_rng(0)
W = jnp.asarray(rng.random((RANK, CHANNELS)) * (rng.random((RANK, CHANNELS)) < 0.7))
A = jnp.asarray(rng.random((ROWS, RANK)) * (rng.random((ROWS, RANK)) < 0.6)) @ W + jnp.asarray(
    0.2 * rng.standard_normal((ROWS, CHANNELS))
)
DA, DW = jnp.asarray(rng.standard_normal(A.shape)), jnp.asarray(rng.standard_normal(W.shape))
C = jnp.asarray(rng.standard_normal((ROWS, RANK)))
WEIGHTS = jnp.asarray(0.5 + rng.random(A.shape)).at[2, :3].set(0.0)
OBJECTIVES = {
    "plain": SquaredError(),
    "penalties": SquaredError(l1_codes=jnp.asarray(0.05), l2_codes=jnp.asarray(0.1)),
    "weights": SquaredError(weights=WEIGHTS, l1_codes=jnp.asarray(0.05)),
}


@pytest.fixture(params=OBJECTIVES, name="objective")
def _objective(request):
    return OBJECTIVES[request.param]


def gap(activations, dictionary, objective):
    """The smallest positive code or multiplier."""
    m = jnp.ones_like(activations) if objective.weights is None else objective.weights
    codes = encode(activations, dictionary, objective=objective)
    slope = (m * (codes @ dictionary - activations)) @ dictionary.T + objective.l1_codes + objective.l2_codes * codes
    return jnp.min(jnp.where(codes > 0, codes, slope))


def test_the_problem_is_a_test(objective):
    codes = encode(A, W, objective=objective)
    assert gap(A, W, objective) > 1e-4
    assert jnp.any(codes == 0)
    assert jnp.any(codes > 0)


def test_central_differences(objective):
    ways = jax.tree.map(lambda x: jnp.where(jnp.asarray(x) > 0, 0.3 * jnp.ones_like(jnp.asarray(x)), 0), objective)
    whole = jax.tree.map(jnp.asarray, objective)

    def at(step):
        there = jax.tree.map(lambda x, way: x + step * way, whole, ways)
        return encode(A + step * DA, W + step * DW, objective=there)

    expected = (at(STEP) - at(-STEP)) / (2 * STEP)
    found = jax.jvp(lambda *x: encode(x[0], x[1], objective=x[2]), (A, W, whole), (DA, DW, ways))[1]
    assert jnp.max(jnp.abs(expected)) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-7 * float(jnp.max(jnp.abs(expected))))


def test_modes_agree(objective):
    f = lambda a, w: jnp.sum(C * encode(a, w, objective=objective))  # noqa: E731
    forward = jax.jvp(f, (A, W), (DA, DW))[1]
    backward = jax.grad(f, (0, 1))(A, W)
    assert abs(forward - jnp.sum(backward[0] * DA) - jnp.sum(backward[1] * DW)) <= 1e-10 * abs(forward)


def test_all_codes_positive_is_plain_least_squares():
    positive = jnp.asarray(0.5 + np.random.default_rng(1).random((ROWS, RANK))) @ W
    assert jnp.all(encode(positive, W) > 0)
    expected = jax.jvp(lambda a, w: a @ jnp.linalg.pinv(w), (positive, W), (DA, DW))[1]
    np.testing.assert_allclose(jax.jvp(encode, (positive, W), (DA, DW))[1], expected, rtol=1e-9, atol=1e-11)


def test_on_the_support_the_jacobian_is_the_pseudo_inverse_of_its_concepts():
    jacobian = jax.jit(jax.jacobian(lambda row: encode(row[None], W)[0]))
    for row, code in zip(A, encode(A, W), strict=True):
        support = np.asarray(code) > 0
        expected = np.zeros((RANK, CHANNELS))
        expected[support] = np.linalg.pinv(np.asarray(W)[support]).T
        np.testing.assert_allclose(jacobian(row), expected, rtol=1e-9, atol=1e-11)


def test_one_concept_is_a_quotient():
    w = W[:1] + 0.1
    expected = jax.jvp(lambda a, w: jnp.maximum(a @ w.T, 0) / jnp.sum(w**2), (A, w), (DA, DW[:1]))[1]
    np.testing.assert_allclose(jax.jvp(encode, (A, w), (DA, DW[:1]))[1], expected, rtol=1e-10, atol=1e-13)


def test_ill_conditioned_concepts():
    # 25 concepts with a common part: there an unrolled solver that's stopped by a tolerance is percents off.
    rng = np.random.default_rng(3)
    concepts = rng.random((1, 64)) + rng.random((25, 64)) * (rng.random((25, 64)) < 0.4)
    concepts = concepts / np.linalg.norm(concepts, axis=1, keepdims=True)
    gram = concepts @ concepts.T
    assert np.linalg.cond(gram) > 100
    data = (rng.random((49, 25)) * (rng.random((49, 25)) < 0.5)) @ concepts + 0.01 * rng.random((49, 64))
    weights = rng.standard_normal((49, 25))
    found = jax.grad(lambda a: jnp.sum(jnp.asarray(weights) * encode(a, jnp.asarray(concepts))))(jnp.asarray(data))
    support = np.asarray(encode(jnp.asarray(data), jnp.asarray(concepts))) > 0
    assert 0 < support.mean() < 1
    expected = [v[s] @ np.linalg.solve(gram[np.ix_(s, s)], concepts[s]) for v, s in zip(weights, support, strict=True)]
    assert np.linalg.norm(found - np.stack(expected)) <= 1e-6 * np.linalg.norm(expected)


def test_many_rows_are_solved_in_blocks():
    many = jnp.tile(A, (60, 1))
    weights = jnp.tile(C, (60, 1))
    found = jax.grad(lambda a: jnp.sum(weights * encode(a, W)))(many)
    expected = jax.grad(lambda a: jnp.sum(C * encode(a, W)))(A)
    np.testing.assert_allclose(found, jnp.tile(expected, (60, 1)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("way", ["jit", "vmap", "checkpoint", "linearize", "float32"])
def test_transformations(way):
    f = lambda a: jnp.sum(C.astype(a.dtype) * encode(a, W.astype(a.dtype)))  # noqa: E731
    expected = jax.grad(f)(A)
    tolerance = 1e-11
    if way == "jit":
        found = jax.jit(jax.grad(f))(A)
    elif way == "vmap":
        found = jax.vmap(jax.grad(f))(jnp.stack([A, 2 * A]))[0]
    elif way == "checkpoint":
        found = jax.grad(jax.checkpoint(f))(A)
    elif way == "linearize":
        found = jax.linear_transpose(jax.linearize(f, A)[1], A)(jnp.ones(()))[0]
    else:
        found, tolerance = jax.grad(f)(A.astype(jnp.float32)), 1e-4
        assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def test_duplicated_dead_and_degenerate():
    bad = W.at[1].set(W[0]).at[2].set(0.0)
    exact = jnp.zeros((ROWS, RANK)).at[:, 3].set(1.0) @ bad
    gradients = jax.grad(lambda a, w: jnp.sum(C * encode(a, w)), (0, 1))(exact, bad)
    assert all(bool(jnp.all(jnp.isfinite(x))) for x in gradients)
    # Codes of zero whose multipliers are zero stay zero: only the fourth concept moves.
    moved = jax.jvp(lambda a: encode(a, bad), (exact,), (DA,))[1]
    assert not jnp.any(moved[:, 1:3])


def test_importing_says_nothing_of_the_root_finder(tmp_path):
    code = "import warnings; warnings.simplefilter('error', DeprecationWarning); import face_jax.nmf"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]

"""Factors and codes of sparse activations have the derivatives of the same numbers in a dense array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import sparse as of_jax

import face_jax as fj
from face_jax.linalg.stored_matrix import Difference, StoredMatrix

ROWS, CHANNELS, RANK = 40, 20, 3


@pytest.fixture(scope="module")
def stored():
    """Places and values: one is there twice, and what fills the matrix up lies outside."""
    drawn = np.random.default_rng(0)
    low = drawn.gamma(0.3, size=(ROWS, RANK)) @ drawn.gamma(0.3, size=(RANK, CHANNELS)) + 0.05
    found = np.where(drawn.random(low.shape) < 0.4, low, 0)
    found[7], found[:, 5] = 0, 0
    places = np.argwhere(found)
    values = np.append(found[tuple(places.T)], [0.3, 9.0])
    places = np.concatenate([places, places[:1], [[ROWS, CHANNELS]]])
    order = drawn.permutation(len(values))
    return jnp.asarray(places[order]), jnp.asarray(values[order])


def matrix(places, values):
    return of_jax.BCOO((values, places), shape=(ROWS, CHANNELS))


def weighed(codes, dictionary):
    drawn = np.random.default_rng(1)
    return jnp.sum(codes * drawn.normal(size=codes.shape)) + jnp.sum(dictionary * drawn.normal(size=dictionary.shape))


def test_factors_have_the_derivative_of_a_dense_array(stored):
    places, values = stored
    counts = jnp.asarray(np.random.default_rng(2).uniform(0.5, 2, ROWS))
    plain = fj.factorize(matrix(places, values), RANK, objective=fj.SquaredError(row_weights=counts))
    settings = {"solver": fj.HALS(rtol=1e-11, max_steps=3000), "start": fj.Given(plain.codes, plain.dictionary)}

    def loss(values, counts, dense=False):
        given = matrix(places, values)
        objective = fj.SquaredError(row_weights=counts)
        found = fj.factorize(given.todense() if dense else given, RANK, objective=objective, **settings)
        return weighed(found.codes, found.dictionary)

    value, found = jax.value_and_grad(loss, argnums=(0, 1))(values, counts)
    expected = jax.grad(loss, argnums=(0, 1))(values, counts, dense=True)
    np.testing.assert_allclose(value, loss(values, counts), rtol=1e-8)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(one, other, atol=1e-7 * np.abs(other).max())
    step = jnp.asarray(np.random.default_rng(3).normal(size=len(values)) * np.asarray(values) * 1e-5)
    moved = (loss(values + step, counts) - loss(values - step, counts)) / 2
    np.testing.assert_allclose(found[0] @ step, moved, rtol=1e-5)
    tangent = jax.jvp(loss, (values, counts), (step, jnp.zeros_like(counts)))[1]
    np.testing.assert_allclose(tangent, found[0] @ step, rtol=1e-7)


@pytest.mark.parametrize("unit", [1.0, 1e-30])
def test_codes_have_the_derivative_of_a_dense_array(stored, unit):
    places, values = stored
    dictionary = jnp.asarray(unit * np.random.default_rng(4).random((4, CHANNELS)))

    def loss(values, dictionary, l2, dense=False):
        given = matrix(places, values)
        objective = fj.SquaredError(l1_codes=0.05 * unit, l2_codes=l2 * unit**2)
        return weighed(fj.encode(given.todense() if dense else given, dictionary, objective=objective), dictionary)

    given = values, dictionary, jnp.asarray(0.1)
    found = jax.grad(loss, argnums=(0, 1, 2))(*given)
    expected = jax.grad(loss, argnums=(0, 1, 2))(*given, dense=True)
    for one, other in zip(found, expected, strict=True):
        assert np.abs(other).max() > 0.1
        np.testing.assert_allclose(one, other, atol=1e-10 * np.abs(other).max())
    assert jax.value_and_grad(loss)(*given)[0] == loss(*given)


def test_the_derivative_is_the_adjoints(stored):
    places, values = stored

    def loss(values, adjoint):
        return jnp.sum(fj.factorize(matrix(places, values), RANK, adjoint=adjoint).dictionary)

    assert not np.asarray(jax.grad(loss)(values, fj.StopGradient())).any()
    with pytest.raises(ValueError, match="UnrolledAdjoint"):
        jax.grad(loss)(values, fj.UnrolledAdjoint())


def test_what_is_not_differentiated_is_refused_by_name(stored):
    places, values = stored
    dictionary = jnp.ones((RANK, CHANNELS))
    for function, words in (
        (lambda x: fj.factorize(matrix(places, x), RANK, objective=fj.BetaDivergence(1)).codes, "squared error of all"),
        (lambda x: fj.factorize(matrix(places, x), RANK, observed="stored").codes, "squared error of all"),
        (lambda x: fj.encode(matrix(places, x), dictionary, observed="stored"), "squared error of all"),
        (jax.jit(lambda x: fj.encode(matrix(places, x), dictionary)), "outside of jit and vmap"),
        (lambda x: jax.jit(lambda w: fj.encode(matrix(places, values), w))(x[:CHANNELS][None]), "dictionary is traced"),
        (
            lambda x: jax.jit(
                lambda c: fj.factorize(matrix(places, values), RANK, objective=fj.SquaredError(row_weights=c)).codes
            )(x[:ROWS]),
            "objective is traced",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            jax.grad(lambda x, function=function: jnp.sum(function(x)))(values)


def test_a_stored_matrix_multiplies_as_an_array_does():
    drawn = np.random.default_rng(5)
    dense = np.where(drawn.random((6, 4)) < 0.5, drawn.random((6, 4)), 0)
    rows, columns = np.nonzero(dense)
    found = StoredMatrix(jnp.asarray(dense[rows, columns]), jnp.asarray(rows), jnp.asarray(columns), (6, 4))
    left, right, factor = (jnp.asarray(drawn.random(shape)) for shape in ((3, 6), (3, 4), (6, 2)))
    np.testing.assert_allclose(left @ found, left @ dense)
    np.testing.assert_allclose(right @ found.T, right @ dense.T)
    difference = Difference(factor, factor[:2].T[:, :1] @ right[:1], found)
    np.testing.assert_allclose(left @ difference, left @ (difference.left @ difference.right - dense))
    np.testing.assert_allclose(right @ difference.T, right @ (difference.left @ difference.right - dense).T)
    np.testing.assert_allclose(found.squares(jnp.arange(6.0)), np.arange(6.0) @ (dense**2).sum(axis=1))
    np.testing.assert_allclose(right @ (found / 2).T, right @ dense.T / 2)

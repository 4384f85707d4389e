"""The price on codes of concepts of either sign: with it, planted concepts are found; without, any mixture of them."""

import jax.numpy as jnp
import numpy as np

import face_jax as fj
from face_jax.nmf.matching import matched
from face_jax.nmf.settings import usual_objective

RANDOM = np.random.Generator(np.random.PCG64(5))
PLANTED = fj.metrics.unit_length(RANDOM.normal(size=(6, 40)))
CODES = np.where(RANDOM.random((400, 6)) < 0.35, RANDOM.gamma(3, size=(400, 6)), 0)
ROWS = CODES @ PLANTED + 0.02 * RANDOM.normal(size=(400, 40))


def found(rows, objective):
    solution = fj.factorize(jnp.asarray(rows), 6, objective=objective, solver=fj.SemiNMF(), start=fj.NNDSVD())
    return np.asarray(solution.dictionary)


def test_planted_concepts_of_either_sign_are_found_by_it_and_not_without():
    assert matched(PLANTED, found(ROWS, usual_objective(ROWS, 6, signed=True)))[1] > 0.97
    assert matched(PLANTED, found(ROWS, fj.SquaredError()))[1] < 0.9


def test_it_follows_the_size_of_activations_and_the_number_of_rows():
    one = usual_objective(ROWS, 6, signed=True)
    size = np.sqrt((ROWS**2).sum(1).mean())
    np.testing.assert_allclose(one.l1_codes, 0.02 * size, rtol=5e-3)
    np.testing.assert_allclose(one.l2_dictionary, 0.02 * size**2 * 400 / 6, rtol=5e-3)
    larger = usual_objective(8 * ROWS, 6, signed=True)
    np.testing.assert_allclose(
        np.asarray([larger.l1_codes, larger.l2_dictionary]),
        np.asarray([8 * one.l1_codes, 64 * one.l2_dictionary]),
        rtol=1e-2,
    )
    np.testing.assert_allclose(found(8 * ROWS, larger), found(ROWS, one), atol=0.02)
    # Rows of zeros count for nothing.
    assert usual_objective(np.concatenate([ROWS, np.zeros((100, 40))]), 6, signed=True) == one


def test_non_negative_concepts_and_no_activations_have_no_price():
    assert usual_objective(ROWS, 6, signed=False) == fj.SquaredError()
    assert usual_objective(np.zeros((5, 3)), 2, signed=True) == fj.SquaredError()

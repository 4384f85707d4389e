"""The derivative at the defaults: factors are refined first; those that aren't unique have none, and that is said."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax.nmf import (
    HALS,
    RESULTS,
    FactorizationError,
    ImplicitAdjoint,
    SquaredError,
    StopGradient,
    factorize,
    implicit_vjp,
    kkt_residual,
)

ROWS, CHANNELS, RANK = 60, 24, 3
SPARSE, DENSE = (0, 1, 2), (0, 1)


def planted(seed, share):
    """Factors of which a share is positive, multiplied, and a little more."""
    rng = np.random.default_rng(seed)
    codes, concepts = (rng.random(s) * (rng.random(s) < share) for s in ((ROWS, RANK + 1), (RANK + 1, CHANNELS)))
    return jnp.asarray(codes @ concepts + 0.1 * rng.random((ROWS, CHANNELS)))


DIRECTION = jnp.asarray(np.random.default_rng(9).standard_normal((ROWS, CHANNELS)))


@jax.jit
def squares(activations):
    return jnp.sum(factorize(activations, RANK).codes ** 2)


gradient = jax.grad(lambda activations: jnp.sum(factorize(activations, RANK).codes ** 2))
compiled = jax.jit(gradient)


def coordinate_descent(activations, codes, dictionary):
    """A witness that shares no line with the package: one entry's optimum after another, until nothing moves."""
    a, u, w = (np.array(x, np.float64) for x in (activations, codes, dictionary))
    for _ in range(4000):
        before = u.copy()
        for k in range(RANK):
            u[:, k] = np.maximum(u[:, k] + (a @ w[k] - u @ (w @ w[k])) / (w[k] @ w[k]), 0)
        for k in range(RANK):
            w[k] = np.maximum(w[k] + (u[:, k] @ a - (u[:, k] @ u) @ w) / (u[:, k] @ u[:, k]), 0)
        if np.abs(u - before).max() <= 1e-15 * u.max():
            break
    return u, w


@pytest.mark.parametrize("seed", SPARSE)
def test_it_is_that_of_a_solution_without_tolerance(seed):
    activations = planted(seed, 0.5)
    solution = factorize(activations, RANK)
    u, w = coordinate_descent(activations, solution.codes, solution.dictionary)

    def value(step):
        codes, dictionary = coordinate_descent(activations + step * DIRECTION, u, w)
        return np.sum((codes * np.linalg.norm(dictionary, axis=1)) ** 2)

    expected = (value(1e-6) - value(-1e-6)) / 2e-6
    found = gradient(activations)
    # The linear system is solved to the solver's 1e-4; unrefined factors are some percent off.
    assert abs(float(jnp.sum(found * DIRECTION)) - expected) <= 1e-3 * float(jnp.linalg.norm(found))
    push = jax.jvp(lambda a: jnp.sum(factorize(a, RANK).codes ** 2), (activations,), (DIRECTION,))[1]
    assert abs(float(push) - expected) <= 1e-3 * float(jnp.linalg.norm(found))


@pytest.mark.parametrize("seed", SPARSE)
def test_float32_comes_to_the_same(seed):
    activations = planted(seed, 0.5)
    expected, found = compiled(activations), compiled(activations.astype(jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-3 * float(jnp.linalg.norm(expected)))


def test_values_agree_to_the_solvers_tolerance_and_are_refined_under_differentiation():
    activations = planted(0, 0.5)
    plain = factorize(activations, RANK)
    (codes, dictionary), _ = jax.vjp(lambda a: (lambda s: (s.codes, s.dictionary))(factorize(a, RANK)), activations)
    assert kkt_residual(activations, codes, dictionary).scaled < 1e-9
    assert plain.stats.final_residual > 1e-6, "the solver leaves something to refine"
    np.testing.assert_allclose(codes, plain.codes, atol=0.02 * float(jnp.max(plain.codes)))
    error = [jnp.sum((activations - u @ w) ** 2) for u, w in ((codes, dictionary), (plain.codes, plain.dictionary))]
    assert error[0] <= error[1]
    np.testing.assert_allclose(factorize(activations, RANK, adjoint=StopGradient()).codes, plain.codes, rtol=1e-13)


def test_refinement_can_be_left_out():
    activations = planted(0, 0.5)
    adjoint = ImplicitAdjoint(refinements=0)
    codes, _ = jax.vjp(lambda a: factorize(a, RANK, adjoint=adjoint).codes, activations)
    np.testing.assert_allclose(codes, factorize(activations, RANK).codes, rtol=1e-13)


@pytest.mark.parametrize("seed", DENSE)
def test_the_hessian_has_more_null_directions_than_lengths(seed):
    # The witness: the second derivatives of the objective written out, at a solution found by coordinate descent.
    activations = planted(seed, 1.0)
    solution = factorize(activations, RANK, solver=HALS(rtol=1e-13, max_steps=20000))
    found = jnp.concatenate([solution.codes.ravel(), solution.dictionary.ravel()])
    free = np.flatnonzero(np.asarray(found) > 0)

    def value(values):
        whole = jnp.zeros_like(found).at[free].set(values)
        u, w = whole[: ROWS * RANK].reshape(ROWS, RANK), whole[ROWS * RANK :].reshape(RANK, CHANNELS)
        return jnp.sum((activations - u @ w) ** 2) / 2

    curvatures = np.linalg.eigvalsh(np.asarray(jax.jit(jax.hessian(value))(found[free])))
    assert curvatures[RANK] < 1e-9 * curvatures[-1]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("seed", DENSE)
class TestConceptsThatCanBeMixed:
    def test_are_refused_in_a_few_words(self, seed, dtype):
        activations = planted(seed, 1.0).astype(dtype)
        for run in (
            lambda: gradient(activations),
            lambda: jax.jvp(lambda a: factorize(a, RANK).codes, (activations,), (DIRECTION.astype(dtype),)),
        ):
            with pytest.raises(FactorizationError, match="aren't unique") as raised:
                run()
            assert len(str(raised.value)) < 400
            assert str(raised.value).startswith("Use l1 penalties")
        with pytest.raises(Exception, match="aren't unique"):
            jax.block_until_ready(compiled(activations))

    def test_what_their_product_decides_has_a_derivative(self, seed, dtype):
        activations = planted(seed, 1.0).astype(dtype)
        cotangent = DIRECTION.astype(dtype)

        def product(activations):
            found = factorize(activations, RANK)
            return jnp.sum(cotangent * (found.codes @ found.dictionary))

        found = jnp.sum(jax.grad(product)(activations) * cotangent)
        solution = factorize(activations, RANK)
        u, w = coordinate_descent(activations, solution.codes, solution.dictionary)

        def value(step):
            return np.sum(
                DIRECTION * np.matmul(*coordinate_descent(np.asarray(activations, float) + step * DIRECTION, u, w))
            )

        expected = (value(1e-5) - value(-1e-5)) / 2e-5
        np.testing.assert_allclose(found, expected, rtol=1e-3)

    def test_the_account_tells(self, seed, dtype):
        activations = planted(seed, 1.0).astype(dtype)
        solution = factorize(activations, RANK)
        cotangents = (2 * solution.codes, jnp.zeros_like(solution.dictionary))
        (found, _), stats = implicit_vjp(activations, solution, cotangents, adjoint=ImplicitAdjoint(rtol=1e-4))
        assert stats.result == RESULTS.derivative_undefined
        assert jnp.all(jnp.isfinite(found))


def test_penalties_make_them_unique():
    activations = planted(0, 1.0)
    objective = SquaredError(l1_codes=0.3, l1_dictionary=0.3)
    found = jax.grad(lambda a: jnp.sum(factorize(a, RANK, objective=objective).codes ** 2))(activations)
    assert jnp.all(jnp.isfinite(found))
    assert jnp.any(found != 0)


@pytest.mark.parametrize(
    "code", [RESULTS.derivative_inexact, RESULTS.derivative_undefined, RESULTS.derivative_unsettled]
)
def test_messages_are_short_and_begin_with_the_remedy(code):
    assert len(code.message) < 360
    assert code.message.startswith("Use ")


def test_one_of_a_batch_that_has_none():
    batch = jnp.stack([planted(0, 0.5), planted(0, 1.0)])
    with pytest.raises(FactorizationError, match="aren't unique"):
        jax.vmap(gradient)(batch)

"""The factorization's derivative against independent witnesses, away from kinks and in float64."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from both_modes import both_modes

from face_jax.nmf import (
    ADMM,
    HALS,
    RESULTS,
    FactorizationError,
    Given,
    ImplicitAdjoint,
    SemiNMF,
    SquaredError,
    StopGradient,
    UnrolledAdjoint,
    derivative_stats,
    factorize,
    implicit_vjp,
    kkt_residual,
    vector_products,
)
from face_jax.nmf.derivative import hessian
from face_jax.nmf.derivative.conditions import Conditions

ROWS, CHANNELS, RANK = 16, 12, 3
STEP = 1e-6
SOLVER = HALS(rtol=1e-15, max_steps=4000)


def problem(seed):
    """Activations near a sparse factorization, weights of entries, and weights of rows, one of them zero."""
    rng = np.random.Generator(np.random.PCG64(seed))
    codes = rng.random((ROWS, RANK)) * (rng.random((ROWS, RANK)) < 0.5)
    concepts = rng.random((RANK, CHANNELS)) * (rng.random((RANK, CHANNELS)) < 0.5)
    noise = 0.1 * rng.random((ROWS, CHANNELS))
    weights = (rng.random((ROWS, CHANNELS)) > 0.1) * (0.5 + rng.random((ROWS, CHANNELS)))
    rows = 0.5 + rng.random(ROWS)
    return jnp.asarray(codes @ concepts + noise), jnp.asarray(weights), jnp.asarray(rows).at[3].set(0.0)


# The seeds are such that the factors are unique and no entry is near its kink, or there would be no derivative: other
# seeds for the tests leave them as they are, and `test_the_problem_is_a_test` makes sure of it.
A = problem(103)[0]
PLAIN = SquaredError()
EXACT = ImplicitAdjoint(rtol=1e-13)
CASES = {
    "plain": (103, lambda weights, rows: PLAIN),
    "l1": (1, lambda weights, rows: SquaredError(l1_codes=0.02, l1_dictionary=0.05)),
    "l2": (0, lambda weights, rows: SquaredError(l2_codes=0.03, l2_dictionary=0.05)),
    "row weights": (6, lambda weights, rows: SquaredError(row_weights=rows)),
    "row weights, penalties": (
        1,
        lambda _, rows: SquaredError(row_weights=rows, l1_codes=0.02, l2_dictionary=0.05),
    ),
    "weights": (10, lambda weights, rows: SquaredError(weights=weights)),
    "all": (28, lambda weights, rows: SquaredError(weights, 0.5 + rows, 0.02, 0.03, 0.01, 0.05)),
}
rng = np.random.default_rng(0)
DIRECTION = jnp.asarray(rng.standard_normal((ROWS, CHANNELS)))
CODES, DICTIONARY = jnp.asarray(rng.standard_normal((ROWS, RANK))), jnp.asarray(rng.standard_normal((RANK, CHANNELS)))


def raw(solution):
    """The factors where the objective was measured, to start from again."""
    return Given(solution.codes / solution.scale[None], solution.dictionary * solution.scale[:, None])


def coordinate_descent(activations, objective, start, sweeps=4000):
    """A witness that shares no line with the package: HALS with weights of entries, one entry's optimum after another.

    With these weights the package's own loop stops where it can't tell a fall of the objective from rounding.
    """
    a, m = np.asarray(activations), np.asarray(objective.weights)
    rows = np.ones(len(a)) if objective.row_weights is None else np.asarray(objective.row_weights)
    names = ("l1_codes", "l2_codes", "l1_dictionary", "l2_dictionary")
    l1_u, l2_u, l1_w, l2_w = (float(getattr(objective, name)) for name in names)
    u, w = np.array(start.codes), np.array(start.dictionary)
    for _ in range(sweeps):
        for k in range(u.shape[1]):
            rest = m * (a - u @ w + np.outer(u[:, k], w[k]))
            u[:, k] = np.maximum((rest @ w[k] - l1_u) / (m @ w[k] ** 2 + l2_u), 0)
        for k in range(u.shape[1]):
            rest = rows[:, None] * m * (a - u @ w + np.outer(u[:, k], w[k]))
            w[k] = np.maximum((u[:, k] @ rest - l1_w) / ((rows * u[:, k] ** 2) @ m + l2_w), 0)
    length = np.linalg.norm(w, axis=1)
    return jnp.asarray(u * length), jnp.asarray(w / length[:, None]), jnp.asarray(length)


@pytest.fixture(scope="module", params=CASES, name="case")
def _case(request):
    seed, make = CASES[request.param]
    activations, weights, rows = problem(seed)
    objective = make(weights, rows)
    solution = factorize(activations, RANK, objective=objective, solver=SOLVER)
    if objective.weights is not None:
        codes, dictionary, scale = coordinate_descent(activations, objective, raw(solution))
        solution = dataclasses.replace(solution, codes=codes, dictionary=dictionary, scale=scale)
    return activations, objective, solution


@partial(jax.jit, static_argnames=("solver", "adjoint"))
def loss_of(activations, objective, solver, start, adjoint):
    """One program for all tests."""
    found = factorize(activations, RANK, objective=objective, solver=solver, start=start, adjoint=adjoint)
    return jnp.sum(CODES * found.codes) + jnp.sum(DICTIONARY * found.dictionary)


def loss_from(solution, solver: Any = SOLVER, adjoint: ImplicitAdjoint | UnrolledAdjoint | StopGradient = EXACT):
    start = raw(solution)
    return lambda activations, objective: loss_of(activations, objective, solver, start, adjoint)


_both_modes = both_modes(lambda *given: loss_of(given[0], given[1], SOLVER, given[2], EXACT))


def derivatives(solution, activations, objective=PLAIN):
    """The loss's derivative along `DIRECTION` and `directions`, and its gradients: by one program for all tests."""
    start, objective = raw(solution), jax.tree.map(jnp.asarray, objective)
    ways = DIRECTION, directions(objective), jax.tree.map(jnp.zeros_like, start)
    _, forward, gradients = _both_modes((activations, objective, start), ways)
    return forward, gradients[:2]


def directions(objective):
    """A direction for every number of an objective."""
    leaves, tree = jax.tree.flatten(jax.tree.map(jnp.asarray, objective))
    made = [jnp.asarray(np.random.default_rng(i).standard_normal(leaf.shape)) for i, leaf in enumerate(leaves)]
    # What's zero stays zero: it has a bound there.
    made = [jnp.where(leaf == 0, 0, way * jnp.where(leaf > 0, leaf, 1)) for leaf, way in zip(leaves, made, strict=True)]
    return jax.tree.unflatten(tree, made)


def moved(tree, way, step):
    return jax.tree.map(lambda x, d: x + step * d, jax.tree.map(jnp.asarray, tree), way)


def dot(a, b):
    return sum(jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def central(loss, activations, objective, way, step=STEP):
    above, below = moved(objective, way, step), moved(objective, way, -step)
    return (loss(activations + step * DIRECTION, above) - loss(activations - step * DIRECTION, below)) / (2 * step)


def test_the_problem_is_a_test(case):
    activations, objective, solution = case
    stats = derivative_stats(activations, solution, objective=objective)
    assert stats.gap > 1e-3, "a finite difference could cross a kink"
    assert stats.degenerate_codes == stats.degenerate_dictionary == 0
    for factor in (solution.codes, solution.dictionary):
        assert jnp.any(factor == 0)
        assert jnp.any(factor > 0)
    residual = kkt_residual(activations, solution.codes, solution.dictionary, objective=objective, scale=solution.scale)
    assert residual.scaled < 1e-13


def test_central_differences(case):
    activations, objective, solution = case
    loss, way = loss_from(solution), directions(objective)

    def witness(activations, objective):
        if objective.weights is None:
            return loss(activations, objective)
        codes, dictionary, _ = coordinate_descent(activations, objective, raw(solution), sweeps=1500)
        return jnp.sum(CODES * codes) + jnp.sum(DICTIONARY * dictionary)

    expected = central(witness, activations, objective, way)
    found, _ = derivatives(solution, activations, objective)
    assert abs(expected) > 0.1
    assert abs(found - expected) <= 1e-7 * abs(expected)


def test_modes_agree(case):
    activations, objective, solution = case
    forward, backward = derivatives(solution, activations, objective)
    assert abs(forward - dot(backward, (DIRECTION, directions(objective)))) <= 1e-10 * abs(forward)


def test_every_entry_of_the_gradient():
    solution = factorize(A, RANK, solver=SOLVER)
    loss, (_, (found, _)) = loss_from(solution), derivatives(solution, A)
    for i, j in ((0, 0), (7, 3), (12, 11), (15, 9)):
        way = jnp.zeros_like(A).at[i, j].set(1.0)
        expected = (loss(A + STEP * way, SquaredError()) - loss(A - STEP * way, SquaredError())) / (2 * STEP)
        # One entry's own derivative may be small: the error is measured against the largest.
        assert abs(found[i, j] - expected) <= 1e-7 * jnp.max(jnp.abs(found))


def _without_residual(self, x):
    mixed = x @ self.dictionary.T
    return jnp.where(self.masks[0].T, mixed.T @ self.codes, 0)


def _all_free(self, factors):
    return tuple(jnp.ones_like(factor, bool) for factor in factors)


@pytest.mark.parametrize("wrong", [None, "no cross term", "no active set"])
def test_wrong_derivatives_are_caught(monkeypatch, wrong):
    if wrong == "no cross term":
        monkeypatch.setattr(hessian.Reduced, "to_codes", _without_residual)
    if wrong == "no active set":
        monkeypatch.setattr(Conditions, "free", _all_free)
    solution = factorize(A, RANK, solver=SOLVER)
    # A function of its own: `jit` would know the right derivative of the other one from before.
    by_hand = jax.jit(lambda *arrays: vector_products._implicit_vjp.__wrapped__(200, *arrays))  # pyright: ignore[reportAttributeAccessIssue]
    (gradient, _), _ = by_hand(Conditions(A, PLAIN, jnp.asarray(1e-13)), solution, (CODES, DICTIONARY))
    expected = central(loss_from(solution), A, PLAIN, directions(PLAIN))
    error = abs(jnp.sum(gradient * DIRECTION) - expected) / abs(expected)
    assert error <= 1e-7 if wrong is None else error > 1e-3


def test_a_row_of_weight_zero_still_has_codes_that_follow():
    activations, _, rows = problem(6)
    objective = SquaredError(row_weights=rows)
    solution = factorize(activations, RANK, objective=objective, solver=SOLVER)
    start = raw(solution)

    def code(activations):
        return factorize(activations, RANK, objective=objective, solver=SOLVER, start=start).codes[3]

    way = jnp.zeros_like(DIRECTION).at[3].set(DIRECTION[3])
    found = jax.jvp(jax.jit(code), (activations,), (way,))[1]
    support = solution.codes[3] > 0
    free = solution.dictionary[support]
    expected = jnp.zeros(RANK).at[support].set(jnp.linalg.solve(free @ free.T, free @ way[3]))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert jnp.any(found != 0)


def test_implicit_against_unrolled():
    # From somewhere else, so that the steps that are differentiated do the work.
    solution = factorize(A, RANK, solver=SOLVER)
    start = Given(raw(solution).codes + 0.05, raw(solution).dictionary + 0.05)
    solver = HALS(rtol=1e-15, max_steps=500)

    def gradient(adjoint):
        def loss(activations):
            found = factorize(activations, RANK, solver=solver, start=start, adjoint=adjoint)
            return jnp.sum(CODES * found.codes) + jnp.sum(DICTIONARY * found.dictionary)

        return jax.jit(jax.grad(loss))(A)

    implicit, unrolled = gradient(ImplicitAdjoint(rtol=1e-13)), gradient(UnrolledAdjoint())
    np.testing.assert_allclose(implicit, unrolled, atol=1e-8 * float(jnp.max(jnp.abs(implicit))))


def test_one_concept_has_a_closed_form():
    # Rank one of a positive matrix is the leading singular pair: W = v, U = A v = σ u.
    def dictionary(activations):
        return factorize(activations, 1, solver=HALS(rtol=1e-15, max_steps=4000)).dictionary[0]

    def singular(activations):
        return jnp.abs(jnp.linalg.svd(activations, full_matrices=False)[2][0])

    positive = A + 0.1
    found, expected = (jax.jvp(jax.jit(f), (positive,), (DIRECTION,))[1] for f in (dictionary, singular))
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_a_free_dictionary():
    # With penalties: without them a free dictionary can be turned as long as no code gets in the way.
    rng = np.random.Generator(np.random.PCG64(0))  # no entry is near its kink
    sparse = rng.random((ROWS, RANK)) * (rng.random((ROWS, RANK)) < 0.5)
    signed = sparse @ rng.standard_normal((RANK, CHANNELS)) + 0.05 * rng.standard_normal((ROWS, CHANNELS))
    signed = jnp.asarray(signed)
    objective, solver = SquaredError(l1_codes=0.1, l2_dictionary=0.1), SemiNMF(HALS(), rtol=1e-15, max_steps=8000)
    solution = factorize(signed, RANK, objective=objective, solver=solver)
    assert derivative_stats(signed, solution, objective=objective, signed_dictionary=True).gap > 1e-3
    assert jnp.any(solution.codes == 0)
    start = raw(solution)

    def loss(activations):
        found = factorize(activations, RANK, objective=objective, solver=solver, start=start, adjoint=EXACT)
        return jnp.sum(CODES * found.codes) + jnp.sum(DICTIONARY * found.dictionary)

    loss = jax.jit(loss)
    expected = (loss(signed + STEP * DIRECTION) - loss(signed - STEP * DIRECTION)) / (2 * STEP)
    found = jax.jvp(loss, (signed,), (DIRECTION,))[1]
    assert abs(expected) > 1
    assert abs(found - expected) <= 1e-7 * abs(expected)


def test_solvers_have_one_derivative():
    solution = factorize(A, RANK, solver=SOLVER)
    way = directions(SquaredError())
    ours = loss_from(solution, ADMM(rtol=1e-14, max_steps=4000))
    expected = central(loss_from(solution), A, PLAIN, way)
    assert abs(jax.jvp(lambda a: ours(a, SquaredError()), (A,), (DIRECTION,))[1] - expected) <= 1e-7 * abs(expected)


def test_second_derivatives_agree_with_differences_of_the_first():
    solution = factorize(A, RANK, solver=SOLVER)
    gradient = jax.jit(jax.grad(loss_from(solution)))
    found = jax.jvp(lambda a: gradient(a, SquaredError()), (A,), (DIRECTION,))[1]
    above, below = (gradient(A + s * STEP * DIRECTION, SquaredError()) for s in (1, -1))
    expected = (above - below) / (2 * STEP)
    np.testing.assert_allclose(found, expected, atol=1e-6 * float(jnp.max(jnp.abs(expected))))


def test_float32_agrees_with_float64():
    single = A.astype(jnp.float32)
    solution = factorize(A, RANK, solver=SOLVER)
    _, (expected, _) = derivatives(solution, A)
    narrow = jax.tree.map(lambda x: x.astype(jnp.float32), raw(solution))

    def loss(activations):
        found = factorize(activations, RANK, solver=HALS(rtol=1e-6, max_steps=500), start=narrow)
        codes, dictionary = CODES.astype(jnp.float32), DICTIONARY.astype(jnp.float32)
        return jnp.sum(codes * found.codes) + jnp.sum(dictionary * found.dictionary)

    found = jax.jit(jax.grad(loss))(single)
    assert found.dtype == jnp.float32
    # The system is solved to 1000 times float32's resolution.
    np.testing.assert_allclose(found, expected, atol=2e-3 * float(jnp.max(jnp.abs(expected))))


@pytest.mark.parametrize("way", ["jit", "checkpoint", "vmap", "linearize"])
def test_transformations(way):
    solution = factorize(A, RANK, solver=SOLVER)
    loss = loss_from(solution)
    value = lambda a: loss(a, SquaredError())  # noqa: E731
    _, (expected, _) = derivatives(solution, A)
    if way == "jit":
        found = jax.jit(jax.grad(value))(A)
    elif way == "checkpoint":
        found = jax.grad(jax.checkpoint(value))(A)
    elif way == "vmap":
        batch = jnp.stack([A, A + STEP * DIRECTION])
        found = jax.vmap(jax.grad(value))(batch)
        np.testing.assert_allclose(found[1], derivatives(solution, batch[1])[1][0], rtol=1e-7, atol=1e-9)
        found = found[0]
    else:
        push = jax.linearize(value, A)[1]
        np.testing.assert_allclose(push(DIRECTION), jnp.sum(expected * DIRECTION), rtol=1e-9)
        found = jax.linear_transpose(push, A)(jnp.ones(()))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def test_stopping_gradients():
    solution = factorize(A, RANK, solver=SOLVER)
    loss = loss_from(solution, adjoint=StopGradient())
    assert not jnp.any(jax.grad(loss)(A, SquaredError()))


def test_forward_values_do_not_depend_on_the_adjoint():
    found = [factorize(A, RANK, adjoint=adjoint) for adjoint in (ImplicitAdjoint(), StopGradient())]
    np.testing.assert_allclose(found[0].codes, found[1].codes, rtol=1e-13)
    np.testing.assert_allclose(found[0].dictionary, found[1].dictionary, rtol=1e-13)


def test_unrolling_is_refused_where_there_is_nothing_to_unroll():
    from face_jax.nmf import PaperAdam

    with pytest.raises(ValueError, match="UnrolledAdjoint"):
        factorize(A, RANK, solver=PaperAdam(), adjoint=UnrolledAdjoint())


class TestWhereThereIsNoDerivative:
    def finite(self, activations, solution, **options):
        gradients, stats = implicit_vjp(activations, solution, (CODES, DICTIONARY), **options)
        assert all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(gradients))
        return gradients, stats

    def test_dead_concepts_stand_still(self):
        solution = factorize(A, RANK, solver=SOLVER)
        dead = dataclasses.replace(solution, codes=solution.codes.at[:, 1].set(0))
        _, stats = self.finite(A, dead)
        assert int(stats.still) == int(jnp.sum(solution.dictionary[1] > 0))

    def test_duplicated_concepts(self):
        solution = factorize(A, RANK, solver=SOLVER)
        half = solution.codes[:, 0] / 2
        codes = solution.codes.at[:, 0].set(half).at[:, 1].set(half)
        twice = dataclasses.replace(
            solution,
            codes=codes,
            dictionary=solution.dictionary.at[1].set(solution.dictionary[0]),
            scale=jnp.ones(RANK),
        )
        _, stats = self.finite(A, twice)
        assert int(stats.still) >= int(jnp.sum(half > 0))

    def test_a_kink_is_counted(self):
        # The second concept is used by the first row alone, and its last channel is at the kink: A there is zero.
        codes = jnp.zeros((ROWS, RANK)).at[:, 0].set(1.0).at[0, 1].set(2.0)
        dictionary = jnp.zeros((RANK, CHANNELS)).at[0, :6].set(1.0).at[1, 6:11].set(1.0)
        solution = factorize(A, RANK, solver=SOLVER)
        exact = dataclasses.replace(solution, codes=codes, dictionary=dictionary, scale=jnp.ones(RANK))
        _, stats = self.finite(codes @ dictionary, exact)
        assert stats.gap == 0
        assert stats.degenerate_dictionary > 0

    def test_activations_of_zero(self):
        zero = jnp.zeros_like(A)
        found = jax.jit(jax.grad(lambda a: jnp.sum(CODES * factorize(a, RANK).codes)))(zero)
        assert not jnp.any(jnp.isnan(found))

    def test_more_concepts_than_the_data_has(self):
        rng = np.random.default_rng(2)
        low = jnp.asarray(rng.random((ROWS, RANK)) @ rng.random((RANK, CHANNELS)))
        wide = jnp.asarray(np.random.default_rng(1).standard_normal((ROWS, 2 * RANK)))

        def loss(a):
            found = factorize(a, 2 * RANK, solver=SOLVER, adjoint=ImplicitAdjoint(throw=False))
            return jnp.sum(wide * found.codes)

        assert jnp.all(jnp.isfinite(jax.jit(jax.grad(loss))(low)))


class TestASystemThatIsNotSolved:
    HURRIED = ImplicitAdjoint(rtol=1e-13, max_steps=2)

    def test_raises(self):
        loss = loss_from(factorize(A, RANK, solver=SOLVER), adjoint=self.HURRIED)
        with pytest.raises(Exception, match="linear system of the derivative") as raised:
            jax.block_until_ready(jax.grad(loss)(A, SquaredError()))
        assert FactorizationError.__name__ in str(raised.value)

    def test_or_tells(self):
        solution = factorize(A, RANK, solver=SOLVER)
        (gradient, _), stats = implicit_vjp(A, solution, (CODES, DICTIONARY), adjoint=self.HURRIED)
        assert stats.result == RESULTS.derivative_inexact
        assert "derivative" in stats.result.message
        assert stats.residual > 1e-13
        loss = loss_from(solution, adjoint=dataclasses.replace(self.HURRIED, throw=False))
        np.testing.assert_allclose(jax.grad(loss)(A, SquaredError()), gradient, rtol=1e-9, atol=1e-12)

    def test_by_hand_is_the_same_when_solved(self):
        solution = factorize(A, RANK, solver=SOLVER)
        adjoint = ImplicitAdjoint(rtol=1e-13)
        (gradient, _), stats = implicit_vjp(A, solution, (CODES, DICTIONARY), adjoint=adjoint)
        assert stats.result == RESULTS.successful
        assert not stats.indefinite
        assert 0 < stats.steps < 100
        found = jax.grad(loss_from(solution))(A, SquaredError())
        np.testing.assert_allclose(gradient, found, rtol=1e-8, atol=1e-10)

    def test_cotangents_have_to_fit(self):
        solution = factorize(A, RANK, solver=SOLVER)
        with pytest.raises(ValueError, match="cotangents have shapes"):
            implicit_vjp(A, solution, (CODES, DICTIONARY[:2]))

"""The derivative of a factorization whose objective has a further term: also by λ and the head's parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax.faithfulness import Faithfulness
from face_jax.heads import Affine
from face_jax.nmf import ADMM, Given, ImplicitAdjoint, Solution, SquaredError, factorize, implicit_vjp

ROWS, CHANNELS, RANK = 16, 12, 3


SOLVER = ADMM(rtol=1e-13, max_steps=3000)


def objective_of(weight, kernel):
    return SquaredError() + weight * Faithfulness(Affine(kernel, jnp.zeros(4)))


@dataclasses.dataclass(frozen=True)
class Problem:
    at: tuple  # activations, weight, the head's kernel
    ways: tuple  # a direction for each
    of_codes: jax.Array
    of_dictionary: jax.Array
    solution: Solution


@pytest.fixture(scope="module")
def problem():
    # No entry is near its kink, whatever seed the tests have.
    rng = np.random.Generator(np.random.PCG64(103))
    sparse = [rng.random(shape) * (rng.random(shape) < 0.5) for shape in ((ROWS, RANK), (RANK, CHANNELS))]
    activations = jnp.asarray(sparse[0] @ sparse[1] + 0.1 * rng.random((ROWS, CHANNELS)))
    rng = np.random.default_rng(0)
    kernel, weight = jnp.asarray(rng.standard_normal((CHANNELS, 4))), jnp.asarray(0.3)
    of_codes, of_dictionary = (jnp.asarray(rng.standard_normal(s)) for s in ((ROWS, RANK), (RANK, CHANNELS)))
    ways = (jnp.asarray(rng.standard_normal(activations.shape)), jnp.asarray(0.5),
            jnp.asarray(rng.standard_normal(kernel.shape)))  # fmt: skip
    solution = factorize(activations, RANK, objective=objective_of(weight, kernel), solver=SOLVER)
    assert solution.stats.final_residual < 1e-8
    return Problem((activations, weight, kernel), ways, of_codes, of_dictionary, solution)


def test_central_differences_by_activations_weight_and_head(problem):
    at, ways = problem.at, problem.ways
    start = Given(problem.solution.codes, problem.solution.dictionary)

    def loss(activations, weight, kernel):
        found = factorize(activations, RANK, objective=objective_of(weight, kernel), solver=SOLVER, start=start)
        return jnp.sum(problem.of_codes * found.codes) + jnp.sum(problem.of_dictionary * found.dictionary)

    step = 1e-4
    above, below = ([x + s * way for x, way in zip(at, ways, strict=True)] for s in (step, -step))
    both = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    expected = (both(*above)[0] - both(*below)[0]) / (2 * step)
    gradients = both(*at)[1]
    parts = [float(jnp.sum(g * way)) for g, way in zip(gradients, ways, strict=True)]
    assert all(abs(part) > 0.01 for part in parts), "activations, weight and head all matter"
    # The loop's residual of some 1e-9, divided by the step, bounds what the difference can tell.
    assert abs(sum(parts) - expected) <= 1e-4 * abs(expected)


def test_a_root_by_newtons_method_moves_as_the_derivative_says(problem):
    # The witness shares nothing with the solver or its derivative: the objective is written out, its Hessian is
    # jax.hessian's, and the root is exact to rounding, so that a short step tells eight digits.
    at, ways, solution = problem.at, problem.ways, problem.solution
    shapes, size = ((ROWS, RANK), (RANK, CHANNELS)), ROWS * RANK
    found = jnp.concatenate([solution.codes.ravel(), solution.dictionary.ravel()])
    free = np.flatnonzero(np.asarray(found) > 0)
    assert 0 < len(free) < len(found)

    def factors(values):
        whole = jnp.zeros_like(found).at[free].set(values)
        return whole[:size].reshape(shapes[0]), whole[size:].reshape(shapes[1])

    def value(values, activations, weight, kernel):
        codes, dictionary = factors(values)
        rebuilt = codes @ dictionary
        log_p, log_q = jax.nn.log_softmax(activations @ kernel), jax.nn.log_softmax(rebuilt @ kernel)
        error = jnp.sum((activations - rebuilt) ** 2) / 2
        return error + weight * jnp.sum(jnp.exp(log_p) * (log_p - log_q))

    slope, curvature = jax.jit(jax.grad(value)), jax.jit(jax.hessian(value))
    least = jax.jit(lambda matrix, rhs: jnp.linalg.lstsq(matrix, rhs, rcond=1e-10)[0])

    def root(*at):
        values = found[free]
        for _ in range(8):
            # Least squares leaves the scales of the concepts, which the objective doesn't see, where they are.
            values = values - least(curvature(values, *at), slope(values, *at))
        assert float(jnp.max(jnp.abs(slope(values, *at)))) < 1e-13
        assert float(jnp.min(values)) > 0, "no entry crosses its bound"
        return values

    @jax.jit
    def read(values):
        codes, dictionary = factors(values)
        length = jnp.linalg.norm(dictionary, axis=1)
        return jnp.sum(problem.of_codes * codes * length[None]) + jnp.sum(
            problem.of_dictionary * dictionary / length[:, None]
        )

    codes, dictionary = factors(root(*at))
    length = jnp.linalg.norm(dictionary, axis=1)
    exact = dataclasses.replace(solution, codes=codes * length[None], dictionary=dictionary / length[:, None])
    (by_activations, by_objective), stats = implicit_vjp(
        at[0],
        exact,
        (problem.of_codes, problem.of_dictionary),
        objective=objective_of(*at[1:]),
        adjoint=ImplicitAdjoint(rtol=1e-13),
    )
    assert bool(stats.result.successful)
    (term,) = by_objective.terms
    assert isinstance(term.term, Faithfulness)
    gradients = (by_activations, term.weight, term.term.head.kernel)
    parts = [float(jnp.sum(g * way)) for g, way in zip(gradients, ways, strict=True)]
    assert all(abs(part) > 0.01 for part in parts), "activations, weight and head all matter"
    step = 1e-5
    for number, part in enumerate(parts):
        above, below = (
            read(
                root(*(x + (s if n == number else 0.0) * way for n, (x, way) in enumerate(zip(at, ways, strict=True))))
            )
            for s in (step, -step)
        )
        difference = float(above - below) / (2 * step)
        assert abs(part - difference) <= 1e-7 * abs(difference), (number, part, difference)

"""The derivative of a factorization whose objective has a further term: also by λ and the head's parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from face_jax.factorize import ADMM, Given, SquaredError, factorize
from face_jax.faithfulness import Faithfulness
from face_jax.heads import Affine

ROWS, CHANNELS, RANK = 16, 12, 3


def test_central_differences_by_activations_weight_and_head():
    rng = np.random.default_rng(103)
    sparse = [rng.random(shape) * (rng.random(shape) < 0.5) for shape in ((ROWS, RANK), (RANK, CHANNELS))]
    activations = jnp.asarray(sparse[0] @ sparse[1] + 0.1 * rng.random((ROWS, CHANNELS)))
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.standard_normal((CHANNELS, 4)))
    of_codes, of_dictionary = (jnp.asarray(rng.standard_normal(s)) for s in ((ROWS, RANK), (RANK, CHANNELS)))
    solver = ADMM(rtol=1e-13, max_steps=3000)

    def objective(weight, kernel):
        return SquaredError() + weight * Faithfulness(Affine(kernel, jnp.zeros(4)))

    weight = jnp.asarray(0.3)
    solution = factorize(activations, RANK, objective=objective(weight, kernel), solver=solver)
    assert solution.stats.final_residual < 1e-8
    start = Given(solution.codes, solution.dictionary)

    @jax.jit
    def loss(activations, weight, kernel):
        found = factorize(activations, RANK, objective=objective(weight, kernel), solver=solver, start=start)
        return jnp.sum(of_codes * found.codes) + jnp.sum(of_dictionary * found.dictionary)

    at = (activations, weight, kernel)
    ways = (jnp.asarray(rng.standard_normal(activations.shape)), jnp.asarray(0.5),
            jnp.asarray(rng.standard_normal(kernel.shape)))  # fmt: skip
    step = 1e-4
    above, below = ([x + s * way for x, way in zip(at, ways, strict=True)] for s in (step, -step))
    expected = (loss(*above) - loss(*below)) / (2 * step)
    gradients = jax.grad(loss, (0, 1, 2))(*at)
    parts = [float(jnp.sum(g * way)) for g, way in zip(gradients, ways, strict=True)]
    assert all(abs(part) > 0.01 for part in parts), "activations, weight and head all matter"
    # The loop's residual of some 1e-9, divided by the step, bounds what the difference can tell.
    assert abs(sum(parts) - expected) <= 1e-4 * abs(expected)

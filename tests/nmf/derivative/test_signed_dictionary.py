"""Derivatives where the dictionary may be negative, in both modes, against differences of exact roots."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from both_modes import both_modes

from face_jax.faithfulness import Faithfulness
from face_jax.heads import Affine
from face_jax.nmf import Given, ImplicitAdjoint, SemiNMF, SquaredError, encode, factorize

ROWS, CHANNELS, RANK = 16, 12, 3
SHAPES, SIZE = ((ROWS, RANK), (RANK, CHANNELS)), ROWS * RANK
EXACT = ImplicitAdjoint(rtol=1e-13)
STEP = 1e-5
# No entry is near its kink, whatever seed the tests have.
RNG = np.random.Generator(np.random.PCG64(0))
SPARSE = RNG.random((ROWS, RANK)) * (RNG.random((ROWS, RANK)) < 0.5)
A = jnp.asarray(SPARSE @ RNG.standard_normal((RANK, CHANNELS)) + 0.05 * RNG.standard_normal((ROWS, CHANNELS)))
KERNEL = jnp.asarray(RNG.standard_normal((CHANNELS, 4)))
OF_CODES, OF_DICTIONARY = (jnp.asarray(RNG.standard_normal(shape)) for shape in SHAPES)
# Activations, weights of rows, ℓ1 of codes, ℓ2 of the dictionary, λ; without penalties a free dictionary can be turned.
AT = (A, jnp.asarray(0.5 + RNG.random(ROWS)), jnp.asarray(0.1), jnp.asarray(0.1), jnp.asarray(0.3))
WAYS = (jnp.asarray(RNG.standard_normal(A.shape)), jnp.asarray(RNG.standard_normal(ROWS)), *(jnp.asarray(1.0),) * 3)
NAMES = ("activations", "row weights", "l1", "l2", "λ")


def objective_of(rows, l1, l2, weight, *, term):
    quadratic = SquaredError(row_weights=rows, l1_codes=l1, l2_dictionary=l2)
    return quadratic + weight * Faithfulness(Affine(KERNEL, jnp.zeros(4))) if term else quadratic


def value(codes, dictionary, activations, rows, l1, l2, weight, *, term):
    """The objective, written out."""
    rebuilt = codes @ dictionary
    log_p, log_q = jax.nn.log_softmax(activations @ KERNEL), jax.nn.log_softmax(rebuilt @ KERNEL)
    error = jnp.sum(rows[:, None] * ((activations - rebuilt) ** 2 / 2)) + l1 * jnp.sum(rows[:, None] * codes)
    divergence = weight * jnp.sum(jnp.exp(log_p) * (log_p - log_q)) if term else 0.0
    return error + l2 / 2 * jnp.sum(dictionary**2) + divergence


def read(codes, dictionary):
    length = jnp.linalg.norm(dictionary, axis=1)
    return jnp.sum(OF_CODES * codes * length[None]) + jnp.sum(OF_DICTIONARY * dictionary / length[:, None])


@pytest.mark.parametrize("term", [False, True], ids=["plain", "with the KL term"])
def test_both_modes_agree_with_differences_of_exact_roots(term):
    solver = SemiNMF(rtol=1e-12, max_steps=4000)
    solution = factorize(A, RANK, objective=objective_of(*AT[1:], term=term), solver=solver)
    raw = Given(solution.codes / solution.scale[None], solution.dictionary * solution.scale[:, None])
    found = jnp.concatenate([raw.codes.ravel(), raw.dictionary.ravel()])
    free = np.flatnonzero(np.concatenate([np.asarray(raw.codes).ravel() > 0, np.full(RANK * CHANNELS, True)]))
    assert len(free) < len(found), "some codes are zero"
    assert (raw.dictionary < 0).any()

    def factors(values):
        whole = jnp.zeros_like(found).at[free].set(values)
        return whole[:SIZE].reshape(SHAPES[0]), whole[SIZE:].reshape(SHAPES[1])

    def at_free(values, *at):
        return value(*factors(values), *at, term=term)

    slope, curvature = jax.jit(jax.grad(at_free)), jax.jit(jax.hessian(at_free))

    solve, measure = jax.jit(jnp.linalg.solve), jax.jit(lambda values: read(*factors(values)))

    def root(*at):
        values = found[free]
        for _ in range(8):
            values = values - solve(curvature(values, *at), slope(values, *at))
        assert float(jnp.max(jnp.abs(slope(values, *at)))) < 1e-12
        return values

    def loss(*at):
        objective = objective_of(*at[1:], term=term)
        one = factorize(at[0], RANK, objective=objective, solver=solver, start=raw, adjoint=EXACT)
        return jnp.sum(OF_CODES * one.codes) + jnp.sum(OF_DICTIONARY * one.dictionary)

    both = both_modes(loss)
    for number, name in enumerate(NAMES[: 5 if term else 4]):
        above, below = (
            measure(root(*(x + s * way if n == number else x for n, (x, way) in enumerate(zip(AT, WAYS, strict=True)))))
            for s in (STEP, -STEP)
        )
        expected = float(above - below) / (2 * STEP)
        alone = tuple(way if n == number else jnp.zeros_like(way) for n, way in enumerate(WAYS))
        _, forward, gradients = both(AT, alone)
        for mode, one in (("reverse", jnp.sum(gradients[number] * WAYS[number])), ("forward", forward)):
            assert abs(float(one) - expected) <= 1e-7 * max(abs(expected), 0.1), (name, mode)


def test_encoding_with_a_signed_dictionary_is_differentiated_by_both_arguments():
    dictionary = jnp.asarray(RNG.standard_normal((RANK, CHANNELS)))

    def loss(activations, dictionary):
        return jnp.sum(OF_CODES * encode(activations, dictionary))

    codes = encode(A, dictionary)
    assert 0 < int((codes == 0).sum()) < codes.size
    both = both_modes(loss)
    for number, way in enumerate((WAYS[0], jnp.asarray(RNG.standard_normal(dictionary.shape)))):
        moved = [
            tuple(x + (s * way if n == number else 0) for n, x in enumerate((A, dictionary))) for s in (1e-6, -1e-6)
        ]
        alone = tuple(way if n == number else jnp.zeros_like(x) for n, x in enumerate((A, dictionary)))
        expected = float(both(moved[0], alone)[0] - both(moved[1], alone)[0]) / 2e-6
        _, forward, gradients = both((A, dictionary), alone)
        for found in (jnp.sum(gradients[number] * way), forward):
            assert abs(float(found) - expected) <= 1e-7 * max(abs(expected), 0.1)

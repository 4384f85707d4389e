"""That a refused derivative doesn't exist, and one that's given is right: the Hessian written out with NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax.nmf import RESULTS, ImplicitAdjoint, SquaredError, factorize, implicit_vjp
from face_jax.nmf.derivative.conditions import Conditions
from face_jax.nmf.derivative.root import Root

ROWS, CHANNELS, RANK = 40, 20, 5
# Planted factors with zeros can't be mixed, those without can.
CASES = [(seed, share) for share in (0.5, 1.0) for seed in (0, 1, 2)]
COTANGENT = np.random.default_rng(9).standard_normal((ROWS, RANK))


def planted(seed, share):
    # Of these seeds it is known which have mixtures.
    rng = np.random.Generator(np.random.PCG64(seed))
    codes, concepts = (rng.random(s) * (rng.random(s) < share) for s in ((ROWS, RANK), (RANK, CHANNELS)))
    return codes @ concepts + 0.1 * rng.random((ROWS, CHANNELS))


@functools.cache
def solved(seed, share):
    """Activations and a solution, whose conditions hold to the last digits."""
    activations = planted(seed, share)
    adjoint = ImplicitAdjoint(rtol=1e-8, throw=False)
    solution, _ = jax.vjp(lambda a: factorize(a, RANK, adjoint=adjoint), jnp.asarray(activations))
    u, w = np.asarray(solution.codes), np.asarray(solution.dictionary)
    for x, slope in zip((u, w), slopes(activations, u, w), strict=True):
        assert np.all(np.abs(slope[x > 0]) < 1e-10)
        assert np.all(slope[x == 0] > -1e-10)
    return activations, solution


def slopes(activations, u, w):
    return (u @ w - activations) @ w.T, u.T @ (u @ w - activations)


def hessian(activations, solution):
    """Of the squared error by all entries that no multiplier holds at zero, codes first; and which these are."""
    u, w = np.asarray(solution.codes), np.asarray(solution.dictionary)
    misfit = u @ w - activations
    of_codes = np.einsum("ni,kl->nkil", np.eye(ROWS), w @ w.T)
    of_concepts = np.einsum("kl,pq->kplq", u.T @ u, np.eye(CHANNELS))
    # d²/du_nk dw_lp = [k = l] misfit_np + u_nl w_kp
    cross = np.einsum("kl,np->nklp", np.eye(RANK), misfit) + np.einsum("nl,kp->nklp", u, w)
    size = u.size
    whole = np.zeros((size + w.size,) * 2)
    whole[:size, :size] = of_codes.reshape(size, size)
    whole[size:, size:] = of_concepts.reshape(w.size, w.size)
    whole[:size, size:] = cross.reshape(size, w.size)
    whole[size:, :size] = whole[:size, size:].T
    free = np.concatenate(
        [(x > 0).ravel() | (s < 1e-10).ravel() for x, s in zip((u, w), slopes(activations, u, w), strict=True)]
    )
    return whole[np.ix_(free, free)], free


@pytest.mark.parametrize(("seed", "share"), CASES)
def test_null_directions_are_lengths_and_open_mixtures(seed, share):
    activations, solution = solved(seed, share)
    values = np.linalg.eigvalsh(hessian(activations, solution)[0])
    null = int(np.sum(np.abs(values) < 1e-11 * values[-1]))
    root = Root(Conditions(jnp.asarray(activations), SquaredError()), (solution.codes, solution.dictionary))
    assert null - RANK == int(root.mixtures.count)
    assert (null > RANK) == (share == 1.0), "both kinds are here"


@pytest.mark.parametrize(("seed", "share"), CASES)
def test_derivatives_are_refused_where_there_are_more(seed, share):
    activations, solution = solved(seed, share)
    cotangents, adjoint = (jnp.asarray(COTANGENT), jnp.zeros((RANK, CHANNELS))), ImplicitAdjoint(1e-10, refinements=0)
    (found, _), stats = implicit_vjp(jnp.asarray(activations), solution, cotangents, adjoint=adjoint)
    if share == 1.0:
        assert stats.result == RESULTS.derivative_undefined
        return
    assert stats.result == RESULTS.successful
    matrix, free = hessian(activations, solution)
    u, w = np.asarray(solution.codes), np.asarray(solution.dictionary)
    # Codes are seen times the dictionary's lengths, which are 1 here.
    right = np.concatenate([COTANGENT.ravel(), (np.sum(COTANGENT * u, axis=0)[:, None] * w).ravel()])[free]
    moved = np.zeros(free.size)
    moved[free] = np.linalg.lstsq(matrix, right, rcond=1e-11)[0]
    # The equations' derivative by the activations is −dA Wᵀ and −Uᵀ dA.
    expected = moved[: u.size].reshape(u.shape) @ w + u @ moved[u.size :].reshape(w.shape)
    np.testing.assert_allclose(found, expected, atol=1e-6 * np.abs(expected).max())

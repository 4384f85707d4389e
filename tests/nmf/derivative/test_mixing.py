"""Which factorizations aren't unique: both searches for mixtures against linear algebra written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax.nmf import FactorizationError, Given, factorize
from face_jax.nmf.derivative.mixing_search import at_once, matrix_free

ROWS, CHANNELS, CONCEPTS = 40, 30, 6


def zeros_and_full(full_codes, full_dictionary):
    """Random sparse factors, but for concepts that every row uses and concepts that have every channel."""
    rng = np.random.default_rng(0)
    codes, dictionary = (rng.random(s) * (rng.random(s) < 0.7) for s in ((ROWS, CONCEPTS), (CONCEPTS, CHANNELS)))
    codes[:, full_codes] = rng.random((ROWS, len(full_codes)))
    dictionary[full_dictionary] = rng.random((len(full_dictionary), CHANNELS))
    return codes / np.linalg.norm(codes, axis=0), dictionary / np.linalg.norm(dictionary, axis=1)[:, None]


def open_by_hand(codes, dictionary):
    """An orthonormal basis of the mixing matrices without diagonal that move no zero of either factor."""
    conditions = [np.diag(np.eye(CONCEPTS).ravel())[np.eye(CONCEPTS).ravel() > 0]]
    for row, concept in np.argwhere(codes == 0):
        matrix = np.zeros((CONCEPTS, CONCEPTS))
        matrix[:, concept] = codes[row]
        conditions.append(matrix.ravel()[None])
    for concept, channel in np.argwhere(dictionary == 0):
        matrix = np.zeros((CONCEPTS, CONCEPTS))
        matrix[concept] = dictionary[:, channel]
        conditions.append(matrix.ravel()[None])
    _, sizes, basis = np.linalg.svd(np.concatenate(conditions))
    return basis[np.sum(sizes > 1e-9 * sizes[0]) :]


# Pairs of a concept that every row uses and another one that has every channel.
FULL = {
    "no": ([], [], 0),
    "codes only": ([0], [], 0),
    "one": ([0], [1], 1),
    "the same concept": ([2], [2], 0),
    "several": ([0, 1], [1, 2, 3], 5),
    "all": (list(range(CONCEPTS)), list(range(CONCEPTS)), 30),
}


@pytest.mark.parametrize("case", FULL)
@pytest.mark.parametrize("search", [at_once, matrix_free])
def test_both_searches_find_what_is_open(search, case):
    codes, dictionary = zeros_and_full(*FULL[case][:2])
    basis = open_by_hand(codes, dictionary)
    assert len(basis) == FULL[case][2]
    items = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (codes, dictionary.T)]
    count, found = jax.jit(search)(
        (jnp.asarray(codes.T == 0), jnp.asarray(dictionary == 0)),
        (jnp.asarray(items[0]), jnp.asarray(items[1])),
        jnp.ones(CONCEPTS, bool),
        jnp.ones((CONCEPTS, CONCEPTS)),
        jnp.asarray(True),
        jnp.asarray(False),
    )
    assert int(count) == (len(basis) if search is at_once else min(len(basis), 1))
    matrix = np.random.default_rng(1).standard_normal((CONCEPTS, CONCEPTS))
    expected = (basis.T @ (basis @ matrix.ravel())).reshape(matrix.shape)
    np.testing.assert_allclose(found.project(jnp.asarray(matrix)), expected, atol=1e-9)


@pytest.mark.parametrize("search", [at_once, matrix_free])
def test_penalties_on_squares_leave_turns_open(search):
    codes, dictionary = zeros_and_full([0, 1, 2], [0, 1, 2])
    lengths = jnp.asarray(np.random.default_rng(2).random((CONCEPTS, CONCEPTS)) + 0.5)
    items = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (codes, dictionary.T)]
    count, found = jax.jit(search)(
        (jnp.asarray(codes.T == 0), jnp.asarray(dictionary == 0)),
        (jnp.asarray(items[0]), jnp.asarray(items[1])),
        jnp.ones(CONCEPTS, bool),
        lengths,
        jnp.asarray(True),
        jnp.asarray(True),
    )
    assert int(count) == (3 if search is at_once else 1), "a turn for each pair of the three"
    mixture = found.project(jnp.asarray(np.random.default_rng(1).standard_normal((CONCEPTS, CONCEPTS)))) / lengths
    assert float(jnp.max(jnp.abs(mixture))) > 0.01
    np.testing.assert_allclose(mixture, -mixture.T, atol=1e-9)


class TestManyConcepts:
    """More than are looked at all at once."""

    RANK, SHAPE = 40, (70, 60)

    def factors(self):
        rng = np.random.default_rng(3)
        return 0.1 + rng.random((self.SHAPE[0], self.RANK)), 0.1 + rng.random((self.RANK, self.SHAPE[1]))

    def found(self, activations):
        codes, dictionary = self.factors()
        return factorize(activations, self.RANK, start=Given(jnp.asarray(codes), jnp.asarray(dictionary)))

    def test_that_can_be_mixed_are_refused(self):
        activations = jnp.asarray(np.matmul(*self.factors()))
        with pytest.raises(FactorizationError, match="aren't unique"):
            jax.jvp(lambda a: self.found(a).codes, (activations,), (jnp.ones_like(activations),))
        with pytest.raises(FactorizationError, match="aren't unique"):
            jax.grad(lambda a: jnp.sum(self.found(a).codes ** 2))(activations)

    def test_their_product_has_a_derivative(self):
        codes, dictionary = self.factors()
        cotangent = np.random.default_rng(4).standard_normal(self.SHAPE)

        def loss(activations):
            found = self.found(activations)
            return jnp.sum(cotangent * (found.codes @ found.dictionary))

        gradient = jax.grad(loss)(jnp.asarray(codes @ dictionary))
        # No entry is zero, so that the product is the nearest matrix of that rank.
        left = np.eye(self.SHAPE[0]) - codes @ np.linalg.pinv(codes)
        right = np.eye(self.SHAPE[1]) - np.linalg.pinv(dictionary) @ dictionary
        expected = cotangent - left @ cotangent @ right
        np.testing.assert_allclose(gradient, expected, atol=2e-3 * np.abs(expected).max())

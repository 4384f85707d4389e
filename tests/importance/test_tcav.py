"""TCAV and |gradient × code|: toy cases by hand, closed forms, and derivatives of heads that aren't affine."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from face_jax.heads import Affine
from face_jax.importance import contributions, exact_total_sobol, gradient_times_code, tcav

KEY = jax.random.key(11)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bent:
    """Two layers with a bend between them, over the mean of squares: not affine in any way."""

    first: jax.Array
    second: jax.Array
    affine = False

    def __call__(self, maps):
        return jnp.tanh(jnp.mean(maps**2, axis=(1, 2)) @ self.first) @ self.second


@pytest.fixture(scope="module")
def bent():
    keys = jax.random.split(KEY, 4)
    head = Bent(0.1 * jax.random.normal(keys[0], (8, 6)), jax.random.normal(keys[1], (6, 3)))
    codes = jnp.abs(jax.random.normal(keys[2], (20, 2, 3, 4)))
    return head, codes, jnp.abs(jax.random.normal(keys[3], (4, 8)))


def test_toy_cases_are_one_zero_zero_one():
    # One logit grows with the first channel and falls with the second, the other logit the other way round.
    head = Affine(jnp.asarray([[1.0, -1.0], [-1.0, 1.0]]), jnp.zeros(2))
    codes = jnp.abs(jax.random.normal(KEY, (7, 2, 2, 2)))
    scores = [tcav(head, codes, jnp.eye(2), target, key=KEY).per_class for target in (0, 1)]
    np.testing.assert_array_equal(scores, [[1, 0], [0, 1]])


def test_the_score_is_the_share_of_images():
    # d/dx of (x − 2)² in the only channel is positive where the code is above 2.
    @jax.tree_util.register_static
    class Parabola:
        affine = False

        def __call__(self, maps):
            return (maps[:, 0, 0, :] - 2) ** 2

    codes = jnp.asarray([0.0, 1.0, 3.0, 4.0, 5.0]).reshape(5, 1, 1, 1)
    found = tcav(Parabola(), codes, jnp.ones((1, 1)), 0, key=KEY)
    np.testing.assert_allclose(found.derivative[:, 0], [-4, -2, 2, 4, 6])
    np.testing.assert_array_equal(found.per_image[:, 0], [0, 0, 1, 1, 1])
    np.testing.assert_allclose(found.per_class, [0.6])
    # A random direction is up or down the only channel: 0.6 or 0.4.
    np.testing.assert_allclose(np.unique(found.random_scores), [0.4, 0.6])


def test_derivatives_are_central_differences(bent):
    head, codes, dictionary = bent
    found = tcav(head, codes, dictionary, 1, directions=10, key=KEY)
    for concept in range(4):
        step = 1e-5 * dictionary[concept][None, None, None, :]
        maps = codes @ dictionary
        difference = (head(maps + step) - head(maps - step))[:, 1] / 2e-5
        np.testing.assert_allclose(found.derivative[:, concept], difference, rtol=1e-6, atol=1e-9)
    assert (found.derivative > 0).any()
    assert (found.derivative < 0).any()


def test_significance_is_a_t_test_of_one_score_against_many(bent):
    head, codes, dictionary = bent
    found = tcav(head, codes, dictionary, 1, directions=40, key=KEY)
    mean, spread = found.random_scores.mean(), found.random_scores.std(ddof=1)
    for score, p_value in zip(found.per_class, found.p_value, strict=True):
        # The pooled two-sample test, in which a sample of one has no spread of its own.
        statistic = (score - mean) / np.sqrt(spread**2 * (1 / 1 + 1 / 40))
        assert p_value == pytest.approx(2 * scipy.stats.t.cdf(-abs(statistic), 39), rel=1e-10)
    assert found.significant(level=1.0).tolist() == (found.p_value < 0.25).tolist()


def test_random_directions_are_rarely_significant(bent):
    head, codes, _ = bent
    nobody = jax.random.normal(jax.random.key(5), (400, 8))
    found = tcav(head, jnp.ones((20, 2, 3, 400)) * codes[..., :1] / 400, nobody, 1, key=KEY)
    assert (found.p_value < 0.05).mean() < 0.1


def test_a_concept_that_every_image_wants_is_significant():
    @jax.tree_util.register_static
    class Mixed:
        """Each image wants other channels, and all of them the first."""

        affine = False

        def __call__(self, maps):
            pooled = jnp.mean(maps, axis=(1, 2))
            return jnp.stack([3 * pooled[:, 0] + jnp.sum(jnp.sin(9 * pooled[:, 1:]), axis=1)], axis=1)

    codes = 3 * jnp.abs(jax.random.normal(KEY, (200, 1, 1, 12)))
    found = tcav(Mixed(), codes, jnp.eye(12), 0, key=KEY)
    assert found.per_class[0] == 1
    assert found.p_value[0] < 0.01
    assert (found.p_value[1:] > 0.2).all()


def test_where_all_random_directions_agree_there_is_no_p_value():
    codes = jnp.ones((3, 1, 1, 2))
    found = tcav(Affine(jnp.zeros((2, 2)), jnp.zeros(2)), codes, jnp.eye(2), 0, key=KEY)
    assert np.isnan(found.p_value).all()
    np.testing.assert_array_equal(found.per_class, 0)
    assert not found.significant().any()


def test_too_few_directions():
    head = Affine(jnp.eye(2), jnp.zeros(2))
    with pytest.raises(ValueError, match="directions=1"):
        tcav(head, jnp.ones((1, 1, 1, 2)), jnp.eye(2), 0, directions=1, key=KEY)


def test_of_an_affine_head_gradient_times_code_is_the_contribution():
    keys = jax.random.split(KEY, 3)
    head = Affine(jax.random.normal(keys[0], (8, 3)), jnp.zeros(3))
    codes = jnp.abs(jax.random.normal(keys[1], (5, 2, 3, 4)))
    dictionary = jnp.abs(jax.random.normal(keys[2], (4, 8)))
    found = gradient_times_code(head, codes, dictionary, 1)
    exact = contributions(head, codes, dictionary, 1)
    np.testing.assert_allclose(found.contribution, exact, rtol=1e-10)
    np.testing.assert_allclose(found.per_image, np.abs(exact), rtol=1e-10)
    np.testing.assert_allclose(found.per_class, np.abs(exact).mean(0), rtol=1e-10)
    squares = found.per_image**2
    np.testing.assert_allclose(squares / squares.sum(1, keepdims=True), exact_total_sobol(exact), rtol=1e-10)


def test_gradient_times_code_is_the_masks_derivative(bent):
    head, codes, dictionary = bent
    found = gradient_times_code(head, codes, dictionary, 2)
    for concept in range(4):
        step = 1e-5 * jax.nn.one_hot(concept, 4)[None, None, None, :]
        more, less = (head((codes * (1 + sign * step)) @ dictionary)[:, 2] for sign in (1, -1))
        np.testing.assert_allclose(found.contribution[:, concept], (more - less) / 2e-5, rtol=1e-6, atol=1e-9)


def test_precision_is_kept(bent):
    head, codes, dictionary = (jax.tree.map(lambda leaf: leaf.astype(jnp.float32), part) for part in bent)
    found = tcav(head, codes, dictionary, 0, key=KEY)
    assert found.derivative.dtype == found.p_value.dtype == found.per_class.dtype == np.float32
    assert gradient_times_code(head, codes, dictionary, 0).per_class.dtype == np.float32

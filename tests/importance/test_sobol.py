"""Total Sobol indices: exact for affine heads, and estimates that agree with the closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import Disguised

from face_jax.heads import Affine
from face_jax.importance import contributions, exact_total_sobol, sampled_total_sobol, total_sobol

KEY = jax.random.key(3)
# Closed form for a = 7, b = 0.1; rounded, 0.5576, 0.4424, 0.2437.
_FIRST, _SECOND, _BOTH = (1 + np.pi**4 / 50) ** 2 / 2, 49 / 8, 8 * np.pi**8 / 22500
ISHIGAMI = np.array([_FIRST + _BOTH, _SECOND, _BOTH]) / (_FIRST + _SECOND + _BOTH)
WEIGHTS = jnp.asarray([3.0, 2.0, 1.0, 0.5, -0.2])


def ishigami(mask):
    x = (2 * mask - 1) * jnp.pi
    return (jnp.sin(x[0]) + 7 * jnp.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * jnp.sin(x[0]))[None]


def linear(mask):
    return (WEIGHTS @ mask)[None]


def test_ishigami():
    np.testing.assert_allclose(ISHIGAMI, [0.5576, 0.4424, 0.2437], atol=5e-5)
    found = sampled_total_sobol(ishigami, 3, designs=4096, scrambles=8, dtype=jnp.float64, key=KEY)
    assert not found.exact
    np.testing.assert_allclose(found.total[0], ISHIGAMI, atol=2e-3)
    assert (found.low < found.total).all()
    assert (found.total < found.high).all()


def test_linear_function():
    found = sampled_total_sobol(linear, 5, designs=1024, scrambles=4, dtype=jnp.float64, key=KEY)
    np.testing.assert_allclose(found.total[0], WEIGHTS**2 / jnp.sum(WEIGHTS**2), atol=2e-3)


@pytest.mark.parametrize(
    ("function", "truth"), [(ishigami, ISHIGAMI), (linear, np.asarray(WEIGHTS**2 / jnp.sum(WEIGHTS**2)))]
)
def test_the_interval_covers_the_truth_in_nine_of_ten_seeds(function, truth):
    covered, widths = [], []
    for seed in range(100):
        found = sampled_total_sobol(function, len(truth), designs=64, dtype=jnp.float64, key=jax.random.key(seed))
        covered.append((found.low[0] <= truth) & (truth <= found.high[0]))
        widths.append(found.high[0] - found.low[0])
    assert (np.mean(covered, axis=0) >= 0.9).all()
    # It isn't covered because it's as wide as the range of the indices.
    assert (np.mean(widths, axis=0) < 0.35).all()


def test_a_function_of_one_value_is_a_vector_of_one():
    found = sampled_total_sobol(lambda mask: WEIGHTS @ mask, 5, designs=64, dtype=jnp.float64, key=KEY)
    same = sampled_total_sobol(linear, 5, designs=64, dtype=jnp.float64, key=KEY)
    assert found.total.shape == (1, 5)
    np.testing.assert_allclose(found.total, same.total, rtol=1e-12)


def test_values_and_classes(affine):
    head, codes, dictionary = affine
    found = total_sobol(head, codes, dictionary, 2, key=KEY)
    np.testing.assert_array_equal(found.per_image, found.total)
    np.testing.assert_allclose(found.per_class, found.total.mean(0))


def test_it_is_compiled_once_for_all_arrays():
    traced = []

    def watched(scale, mask):
        traced.append(1)
        return (scale @ mask)[None]

    for scale in (WEIGHTS, 2 * WEIGHTS):
        sampled_total_sobol(jax.tree_util.Partial(watched, scale), 5, dtype=jnp.float64, key=KEY)
    assert len(traced) == 1


@pytest.fixture(scope="module")
def affine():
    keys = jax.random.split(KEY, 4)
    head = Affine(jax.random.normal(keys[0], (12, 5)), jax.random.normal(keys[1], (5,)))
    codes = jnp.abs(jax.random.normal(keys[2], (4, 3, 3, 6)))
    return head, codes, jnp.abs(jax.random.normal(keys[3], (6, 12)))


def test_affine_head_is_exact_and_sampling_agrees(affine):
    head, codes, dictionary = affine
    exact = total_sobol(head, codes, dictionary, 2, key=KEY)
    sampled = total_sobol(Disguised(head), codes, dictionary, 2, designs=512, scrambles=6, key=KEY)
    assert exact.exact
    np.testing.assert_allclose(exact.total.sum(-1), 1)
    np.testing.assert_allclose(sampled.total, exact.total, atol=0.03)


def test_any_head_that_says_it_is_affine_is_exact(affine):
    head, codes, dictionary = affine

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Honest(Disguised):
        affine = True

    found = total_sobol(Honest(head), codes, dictionary, 2, key=KEY)
    assert found.exact
    np.testing.assert_allclose(found.total, total_sobol(head, codes, dictionary, 2, key=KEY).total, atol=1e-6)
    added = contributions(Honest(head), codes, dictionary, 2)
    np.testing.assert_allclose(added, contributions(head, codes, dictionary, 2), rtol=1e-9)


def test_a_head_that_averages_first_is_sampled_on_averages(affine):
    _, codes, dictionary = affine
    shapes = []

    def places():
        # How many classes there are is asked with a single image.
        return {shape[1:3] for shape in shapes if shape[0] == len(codes)}

    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Averaging:
        affine = False
        pools_first = True

        def __call__(self, maps):
            shapes.append(maps.shape)
            return jnp.tanh(maps.mean((1, 2))) ** 2

    class Plain(Averaging):
        pools_first = False

    options = {"designs": 16, "scrambles": 2, "key": KEY}
    found = total_sobol(Averaging(), codes, dictionary, 2, **options)
    assert places() == {(1, 1)}
    plain = total_sobol(jax.tree_util.register_dataclass(Plain)(), codes, dictionary, 2, **options)
    assert places() == {(1, 1), codes.shape[1:3]}
    np.testing.assert_allclose(found.total, plain.total, atol=1e-5)
    assert float(found.total.max()) > 0.1


def test_closed_form_by_hand():
    np.testing.assert_allclose(exact_total_sobol(np.array([[3.0, -4.0], [0.0, 0.0]])), [[0.36, 0.64], [0.0, 0.0]])
    assert np.isnan(exact_total_sobol(np.array([[np.nan, 1.0]]))).all()


def test_a_logit_that_depends_on_nothing_has_zeros(affine):
    head, codes, dictionary = affine
    found = total_sobol(Disguised(head), jnp.zeros_like(codes), dictionary, 2, designs=64, scrambles=2, key=KEY)
    np.testing.assert_array_equal(found.total, 0)


@pytest.mark.parametrize(("wrong", "said"), [({"designs": 48}, "power of two"), ({"scrambles": 1}, "interval")])
def test_wrong_settings(affine, wrong, said):
    head, codes, dictionary = affine
    with pytest.raises(ValueError, match=said):
        total_sobol(Disguised(head), codes, dictionary, 2, key=KEY, **wrong)

"""Importance has no unit: huge and tiny logits give what ordinary ones give, or are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import Squared

from face_jax.heads import Affine
from face_jax.importance import exact_total_sobol, gradient_times_code, sampled_total_sobol, tcav, total_sobol

KEY = jax.random.key(0)
GENERATOR = np.random.default_rng(0)
CODES = jnp.asarray(GENERATOR.random((4, 2, 2, 3)).astype(np.float32))
DICTIONARY = jnp.asarray(GENERATOR.random((3, 5)).astype(np.float32))
KERNEL = jnp.asarray(GENERATOR.normal(size=(5, 2)).astype(np.float32))
UNITS = [2.0**-100, 2.0**-70, 2.0**70, 2.0**100]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("affine", [True, False])
def test_indices_and_scores_do_not_depend_on_the_unit_of_logits(affine, unit):
    def head(unit):
        kernel = KERNEL * jnp.float32(unit)
        return Affine(kernel, jnp.zeros(2, jnp.float32)) if affine else Squared(kernel)

    sobol = [total_sobol(head(u), CODES, DICTIONARY, 1, designs=16, scrambles=2, key=KEY) for u in (unit, 1.0)]
    for name in ("total", "low", "high"):
        np.testing.assert_allclose(getattr(sobol[0], name), getattr(sobol[1], name), rtol=1e-5, atol=1e-6)
    assert np.abs(sobol[1].total).sum() > 1
    times = [gradient_times_code(head(u), CODES, DICTIONARY, 1).contribution / u for u in (unit, 1.0)]
    np.testing.assert_allclose(*times, rtol=1e-5)
    found = [tcav(head(u), CODES, DICTIONARY, 1, directions=20, key=KEY) for u in (unit, 1.0)]
    np.testing.assert_allclose(found[0].per_class, found[1].per_class)
    np.testing.assert_allclose(found[0].random_scores, found[1].random_scores)


@pytest.mark.parametrize("unit", [2.0**-100, 2.0**100])
def test_indices_do_not_depend_on_the_unit_of_codes(unit):
    head = Affine(KERNEL, jnp.zeros(2, jnp.float32))
    found = total_sobol(head, CODES * jnp.float32(unit), DICTIONARY, 0, key=KEY)
    np.testing.assert_allclose(found.total, total_sobol(head, CODES, DICTIONARY, 0, key=KEY).total, rtol=1e-5)


def test_closed_forms_by_hand():
    for dtype, sizes in ((np.float32, (1e-30, 1e-22, 1e22, 5e37)), (np.float64, (1e-300, 1e300))):
        for size in sizes:
            found = exact_total_sobol(np.array([[3, -4, 0], [1, 0, 0]], dtype) * dtype(size))
            np.testing.assert_allclose(found, [[0.36, 0.64, 0], [1, 0, 0]], rtol=1e-4)
    np.testing.assert_array_equal(exact_total_sobol(np.zeros((1, 2))), 0)
    # Each output in a unit of its own.
    both = sampled_total_sobol(
        lambda mask: jnp.stack([mask[0] * 2.0**100, mask[1] * 2.0**-100]), 2, designs=512, scrambles=2, key=KEY
    )
    np.testing.assert_allclose(both.total, np.eye(2), atol=0.1)


def test_contributions_beyond_float32_are_found_and_those_beyond_any_number_refused():
    kernel = KERNEL * jnp.float32(2.0**125)
    head = Affine(kernel, jnp.zeros(2, jnp.float32))
    codes = CODES * jnp.float32(2.0**20)
    expected = total_sobol(Affine(KERNEL, jnp.zeros(2, jnp.float32)), CODES, DICTIONARY, 1, key=KEY).total
    np.testing.assert_allclose(total_sobol(head, codes, DICTIONARY, 1, key=KEY).total, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="NaN or infinity"):
        total_sobol(Squared(kernel), codes, DICTIONARY, 1, designs=4, scrambles=2, key=KEY)
    with pytest.raises(ValueError, match="beyond the largest float32"):
        gradient_times_code(head, codes, DICTIONARY, 1)

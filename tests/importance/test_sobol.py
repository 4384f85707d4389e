"""Total Sobol indices: exact for affine heads, and estimates that agree with the closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax.heads import Affine
from face_jax.importance import exact_total_sobol, total_sobol

KEY = jax.random.key(3)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ishigami:
    """The Ishigami function of three channels in 0…1, as a head of one class that isn't affine."""

    affine = False

    def __call__(self, maps):
        x = (2 * maps[:, 0, 0, :] - 1) * jnp.pi
        value = jnp.sin(x[:, 0]) + 7 * jnp.sin(x[:, 1]) ** 2 + 0.1 * x[:, 2] ** 4 * jnp.sin(x[:, 0])
        return value[:, None]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Disguised:
    """An affine head that doesn't say so."""

    inside: Affine
    affine = False

    def __call__(self, maps):
        return self.inside(maps)


def test_ishigami():
    found = total_sobol(Ishigami(), jnp.ones((1, 1, 1, 3)), jnp.eye(3), 0, designs=2048, scrambles=4, key=KEY)
    assert not found.exact
    np.testing.assert_allclose(found.total[0], [0.5576, 0.4424, 0.2437], atol=0.01)
    assert (found.low < found.total).all()
    assert (found.total < found.high).all()


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


def test_closed_form_by_hand():
    np.testing.assert_allclose(exact_total_sobol(np.array([[3.0, -4.0], [0.0, 0.0]])), [[0.36, 0.64], [0.0, 0.0]])


def test_a_logit_that_depends_on_nothing_has_zeros(affine):
    head, codes, dictionary = affine
    found = total_sobol(Disguised(head), jnp.zeros_like(codes), dictionary, 2, designs=64, scrambles=2, key=KEY)
    np.testing.assert_array_equal(found.total, 0)


@pytest.mark.parametrize(("wrong", "said"), [({"designs": 48}, "power of two"), ({"scrambles": 1}, "interval")])
def test_wrong_settings(affine, wrong, said):
    head, codes, dictionary = affine
    with pytest.raises(ValueError, match=said):
        total_sobol(Disguised(head), codes, dictionary, 2, key=KEY, **wrong)

"""What concepts add to the difference of two logits: sums, closed forms and Shapley values by all orders."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import Squared

from face_jax.heads import Affine
from face_jax.importance.differences import difference_parts

_RANDOM = np.random.Generator(np.random.PCG64(12))
KERNEL, BIAS = _RANDOM.normal(size=(6, 5)), _RANDOM.normal(size=5)
FEW = {"codes": _RANDOM.random((3, 4, 3)), "dictionary": _RANDOM.random((3, 6))}
MANY = {"codes": _RANDOM.random((3, 4, 14)), "dictionary": _RANDOM.random((14, 6))}
LEFT = 0.3 * _RANDOM.normal(size=(3, 4, 6))
OPTIONS = {"permutations": 64, "key": jax.random.key(1)}


def parts(head, codes, dictionary, left=LEFT):
    return difference_parts(head, codes @ dictionary + left, codes, dictionary, 4, 1, **OPTIONS)


def test_behind_an_affine_head_parts_are_exact():
    found = parts(Affine(jnp.asarray(KERNEL), jnp.asarray(BIAS)), **FEW)
    column = KERNEL[:, 4] - KERNEL[:, 1]
    amount = FEW["codes"].mean((0, 1))
    np.testing.assert_allclose(found.concepts, amount * (FEW["dictionary"] @ column), rtol=1e-12)
    assert found.left_out == pytest.approx(LEFT.mean((0, 1)) @ column, rel=1e-12)
    assert found.nothing == pytest.approx(BIAS[4] - BIAS[1])
    assert found.exact
    assert found.total == pytest.approx(found.difference, abs=1e-12)


def test_behind_another_head_they_are_the_average_over_all_orders():
    found = parts(Squared(jnp.asarray(KERNEL)), **FEW)
    pieces = [FEW["codes"][..., at, None] * FEW["dictionary"][at] for at in range(3)] + [LEFT]

    def value(some):
        maps = np.sum([pieces[at] for at in some], axis=0) if some else np.zeros_like(LEFT)
        return (maps**2).mean((0, 1)) @ (KERNEL[:, 4] - KERNEL[:, 1])

    expected = np.zeros(4)
    for order in itertools.permutations(range(4)):
        for at, part in enumerate(order):
            expected[part] += (value(order[: at + 1]) - value(order[:at])) / 24
    np.testing.assert_allclose([*found.concepts, found.left_out], expected, rtol=1e-10)
    assert found.exact
    assert not found.error.any()
    assert found.total == pytest.approx(found.difference, abs=1e-10)


def test_over_many_concepts_sampled_values_have_errors_and_add_up_exactly():
    found = parts(Squared(jnp.asarray(KERNEL)), **MANY)
    # Of squares of sums the value is each part's own square and half of what it has with each other one, twice.
    pieces = [MANY["codes"][..., at, None] * MANY["dictionary"][at] for at in range(14)]
    every = np.sum(pieces, axis=0) + LEFT
    expected = [(piece * every).mean((0, 1)) @ (KERNEL[:, 4] - KERNEL[:, 1]) for piece in pieces]
    assert not found.exact
    # An order and its reverse are exact for such a game, whose marginal gains are linear in what is there.
    np.testing.assert_allclose(found.concepts, expected, rtol=1e-9, atol=1e-10)
    assert found.total == pytest.approx(found.difference, abs=1e-10)


@jax.tree_util.register_static
class Cubed:
    affine = False

    def __call__(self, maps):
        return (maps.mean((1, 2)) ** 3) @ jnp.asarray(KERNEL)


def test_the_stated_error_is_that_of_the_samples():
    codes, dictionary = MANY["codes"], MANY["dictionary"]
    runs = [
        difference_parts(
            Cubed(), codes @ dictionary, codes, dictionary, 4, 1, permutations=32, key=jax.random.key(seed)
        )
        for seed in range(10)
    ]
    spread = np.std([run.concepts for run in runs], axis=0, ddof=1)
    stated = np.sqrt(np.mean([run.error[:-1] ** 2 for run in runs], axis=0))
    assert (stated > 0).all()
    assert 0.6 < (spread / stated).mean() < 1.6
    assert all(run.total == pytest.approx(run.difference, abs=1e-9) for run in runs)


def test_what_isnt_there_adds_nothing():
    codes = FEW["codes"] * np.asarray([1.0, 0.0, 1.0])
    found = parts(Squared(jnp.asarray(KERNEL)), codes, FEW["dictionary"], left=np.zeros_like(LEFT))
    assert found.concepts[1] == found.left_out == 0.0
    nothing = parts(Squared(jnp.asarray(KERNEL)), 0 * codes, FEW["dictionary"], left=np.zeros_like(LEFT))
    assert nothing.total == nothing.difference == 0.0

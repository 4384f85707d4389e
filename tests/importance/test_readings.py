"""What a head reads in a concept by itself."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_model import Squared

import face_jax as fj
from face_jax.heads import Affine, Beside
from face_jax.importance import class_readings
from face_jax.importance.readings import named

_RANDOM = np.random.Generator(np.random.PCG64(11))
KERNEL, BIAS = _RANDOM.normal(size=(6, 5)), _RANDOM.normal(size=5)
CODES, DICTIONARY = _RANDOM.random((7, 3, 4, 3)), _RANDOM.random((3, 6))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class WithTokens:
    """A head that multiplies averages with what stands beside them."""

    kernel: jax.Array
    affine = False

    def __call__(self, maps, tokens):
        return (maps.mean((1, 2)) * tokens[:, 0]) @ self.kernel


def test_behind_an_affine_head_it_is_the_product_with_the_kernel():
    found = class_readings(Affine(jnp.asarray(KERNEL), jnp.asarray(BIAS)), jnp.asarray(CODES), jnp.asarray(DICTIONARY))
    np.testing.assert_allclose(found, DICTIONARY @ KERNEL, rtol=1e-12)


def test_behind_another_head_it_is_the_head_on_the_concept_alone():
    found = class_readings(Squared(jnp.asarray(KERNEL)), jnp.asarray(CODES), jnp.asarray(DICTIONARY))
    for concept in range(3):
        most = np.argsort(-CODES.mean((1, 2))[:, concept])[:4]
        alone = CODES[most, :, :, concept, None] * DICTIONARY[concept]
        np.testing.assert_allclose(found[concept], ((alone**2).mean((1, 2)) @ KERNEL).mean(0), rtol=1e-12)


def test_each_picture_keeps_its_own_tokens():
    tokens = _RANDOM.normal(size=(7, 1, 6))
    head = Beside(WithTokens(jnp.asarray(KERNEL)), jnp.asarray(tokens))
    found = class_readings(head, jnp.asarray(CODES), jnp.asarray(DICTIONARY))
    most = np.argsort(-CODES.mean((1, 2))[:, 1])[:4]
    alone = CODES[most].mean((1, 2))[:, 1, None] * DICTIONARY[1]
    np.testing.assert_allclose(found[1], ((alone * tokens[most, 0]) @ KERNEL).mean(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("scores", "outputs", "speaks_for", "against"),
    [
        ([3.0, 1.0, 2.0, -1.0, 0.5, 7.0, 4.0], fj.MultiClass(), [5, 6, 0], [3, 4, 1]),
        ([0.0, 2.0], fj.Binary(), [1], [0]),
        ([1.0, 2.0], fj.MultiLabel(), [1], []),
        ([-1.0], fj.MultiLabel(), [], [0]),
        ([0.0, 0.0, 0.0, 0.0], fj.MultiClass(), [], []),
    ],
)
def test_classes_are_named_for_and_against(scores, outputs, speaks_for, against):
    found = named(np.asarray(scores), outputs)
    assert [[one.index for one in some] for some in found] == [speaks_for, against]
    assert all(one.score == scores[one.index] for some in found for one in some)

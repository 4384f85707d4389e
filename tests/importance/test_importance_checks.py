"""What measures of importance refuse: concepts of another head, classes that aren't there, and NaN."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax.heads import Affine
from face_jax.importance import contributions, gradient_times_code, sampled_total_sobol, tcav, total_sobol
from face_jax.importance.checks import check_asked
from face_jax.metrics import fidelity
from face_jax.support.classes import UnknownClassError

KEY = jax.random.key(0)
HEAD = Affine(jnp.ones((4, 3)), jnp.zeros(3))
CODES, DICTIONARY = jnp.ones((5, 2, 2, 2)), jnp.ones((2, 4))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Logarithm:
    """A head that is NaN for a mean activation below `least`, and isn't differentiable at it."""

    least: jax.Array
    affine = False

    def __call__(self, maps):
        return jnp.log(jnp.mean(maps, axis=(1, 2))[:, :3] - self.least)


SAMPLED = Logarithm(jnp.asarray(-1.0))
MEASURES = [
    pytest.param(functools.partial(total_sobol, HEAD, key=KEY), id="exact"),
    pytest.param(functools.partial(total_sobol, SAMPLED, key=KEY), id="sampled"),
    pytest.param(functools.partial(contributions, HEAD), id="contributions"),
    pytest.param(functools.partial(tcav, HEAD, key=KEY), id="tcav"),
    pytest.param(functools.partial(gradient_times_code, HEAD), id="gradient_times_code"),
    pytest.param(functools.partial(fidelity, HEAD, order=np.arange(2)), id="fidelity"),
]


@pytest.mark.parametrize("target", [-1, 3, 99])
@pytest.mark.parametrize("measure", MEASURES)
def test_classes_that_the_head_does_not_have(measure, target):
    with pytest.raises(UnknownClassError, match=rf"target={target} is out of range: the head has 3 classes \(0 to 2\)"):
        measure(CODES, DICTIONARY, target=target)


@pytest.mark.parametrize("measure", MEASURES)
def test_codes_that_are_not_finite(measure):
    with pytest.raises(ValueError, match="codes has 2 entries that are NaN or infinite"):
        measure(CODES.at[0, 0, 0].set(jnp.nan), DICTIONARY, target=0)


@pytest.mark.parametrize(
    ("codes", "dictionary", "said"),
    [
        (CODES[:, 0, 0], DICTIONARY, r"codes has shape \(5, 2\); give image × y × x × concept"),
        (CODES[:0], DICTIONARY, r"codes has shape \(0, 2, 2, 2\)"),
        (CODES[..., :1], DICTIONARY, "codes has 1 concepts and dictionary has 2"),
        (CODES, DICTIONARY[0], r"dictionary has shape \(4,\)"),
        (CODES, DICTIONARY.at[1, 1].set(jnp.inf), "dictionary has 1 entries"),
        (CODES, DICTIONARY[:, :3], r"head doesn't take activations of shape \(1, 2, 2, 3\).*the head takes 4"),
    ],
)
def test_concepts_that_do_not_fit(codes, dictionary, said):
    with pytest.raises(ValueError, match=said):
        check_asked(HEAD, codes, dictionary, 0)


def test_heads_that_give_no_logits():
    with pytest.raises(ValueError, match=r"head gives shape \(1, 2, 2, 4\)"):
        check_asked(jax.tree_util.Partial(lambda maps: maps), CODES, DICTIONARY, 0)


def test_functions_that_are_nan_for_some_masks_have_no_indices():
    with pytest.raises(ValueError, match=r"NaN or infinity for (?!0 )\d+ of 128 masks"):
        sampled_total_sobol(lambda mask: jnp.log(mask - 0.1), 2, key=KEY)
    with pytest.raises(ValueError, match=r"the head\) gives NaN or infinity for (?!0 )\d+ of 128 masks"):
        total_sobol(Logarithm(jnp.asarray(0.5)), CODES, DICTIONARY, 0, key=KEY)


def test_weights_that_are_nan_have_no_contributions():
    with pytest.raises(ValueError, match=r"head.kernel has NaN or infinity in class 1's column"):
        total_sobol(Affine(HEAD.kernel.at[2, 1].set(jnp.nan), HEAD.bias), CODES, DICTIONARY, 1, key=KEY)


@pytest.mark.parametrize("measure", [functools.partial(tcav, key=KEY), gradient_times_code])
def test_heads_without_a_derivative(measure):
    # The two images without concepts are where the logarithm is of nothing.
    codes = CODES.at[:2].set(0)
    with pytest.raises(ValueError, match="derivative of class 0's logit is NaN or infinite in 2 of 5 images"):
        measure(Logarithm(jnp.asarray(0.0)), codes, DICTIONARY, 0)


def test_curves_of_logits_that_are_nan():
    with pytest.raises(ValueError, match="NaN for images with 2 of 6 choices of concepts"):
        fidelity(Logarithm(jnp.asarray(0.5)), CODES, DICTIONARY, 0, np.arange(2))

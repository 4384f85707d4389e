"""Heads that a classifier can have, and those that it can't."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from toy_model import Squared, colour_model

from face_jax.model import check_head


class Plain:
    """Callable and affine, but nothing that JAX can pass to a program."""

    affine = True

    def __call__(self, maps):
        return jnp.mean(maps, axis=(1, 2))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Named(Squared):
    """A head with a field that isn't an array."""

    name: str = "squared"


class Module(nnx.Module):
    affine = False

    def __init__(self):
        self.last = nnx.Linear(14, 3, rngs=nnx.Rngs(0))

    def __call__(self, maps):
        return self.last(jnp.mean(maps, axis=(1, 2)))


KERNEL = jnp.ones((14, 3))


@pytest.mark.parametrize("head", [Squared(KERNEL), Module()], ids=lambda head: type(head).__name__)
def test_pytrees_are_heads(head):
    assert colour_model(head=head).head is head


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (Plain(), r"head is a Plain, which JAX can't pass to programs.*register_dataclass.*nnx.Module"),
        (Named(KERNEL), r"head is a Named, which JAX can't pass to programs"),
        (
            lambda maps: jnp.mean(maps, axis=(1, 2)),
            r"head is a function without the attribute affine.*register_dataclass",
        ),
        (KERNEL, r"can't be called"),
    ],
)
def test_other_heads_are_refused_before_any_work(head, said):
    with pytest.raises(ValueError, match=said):
        check_head(head)


def test_a_classifier_checks_its_head():
    with pytest.raises(ValueError, match="head is a Plain"):
        colour_model(head=Plain())

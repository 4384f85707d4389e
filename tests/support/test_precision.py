"""float32 is float32, also where JAX would round operands of products unless it's told otherwise."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import face_jax as fj
from face_jax.heads import Affine
from face_jax.support.precision import full_precision

HIGHEST = jax.lax.Precision.HIGHEST
RANDOM = np.random.default_rng(0)
A = jnp.asarray(RANDOM.gamma(0.5, size=(24, 6)), jnp.float32)
DICTIONARY = A[:3]
HEAD = Affine(jnp.asarray(RANDOM.normal(size=(6, 4)), jnp.float32), jnp.zeros(4, jnp.float32), places=1)
FAITHFUL = fj.SquaredError() + 1.0 * fj.Faithfulness(HEAD)


def precisions(function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Of all products and convolutions in a function's program."""
    found: list[Any] = []

    def look(jaxpr: Any) -> None:
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("dot_general", "conv_general_dilated"):
                found.append(equation.params["precision"])
            for inner in jax.tree.leaves(equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")):
                if hasattr(inner, "jaxpr") or hasattr(inner, "eqns"):
                    look(getattr(inner, "jaxpr", inner))

    look(jax.make_jaxpr(function)(*arguments).jaxpr)
    return found


def fitted(rows: Any) -> Any:
    return fj.factorize(rows, 3, solver=fj.ADMM(max_steps=3)).codes.sum()


def encoded(rows: Any, dictionary: Any) -> Any:
    return fj.encode(rows, dictionary).sum()


def faithful(rows: Any, dictionary: Any) -> Any:
    return fj.encode(rows, dictionary, objective=FAITHFUL).sum()


def by_divergence(rows: Any) -> Any:
    solver = fj.MultiplicativeUpdate(max_steps=3)
    adjoint = fj.ImplicitAdjoint(throw=False)
    return fj.factorize(rows, 3, objective=fj.BetaDivergence(1), solver=solver, adjoint=adjoint).codes.sum()


PROGRAMS = {
    "factorize": (fitted, A),
    "its gradient": (jax.grad(fitted), A),
    "the gradient of its program": (jax.grad(jax.jit(fitted)), A),
    "its second derivative": (jax.jacfwd(jax.grad(jax.jit(fitted))), A[:8]),
    "encode": (encoded, A, DICTIONARY),
    "the gradient of encode's program": (jax.grad(jax.jit(encoded), (0, 1)), A, DICTIONARY),
    "faithful codes": (faithful, A, DICTIONARY),
    "their gradient": (jax.grad(jax.jit(faithful), (0, 1)), A, DICTIONARY),
    "factorize by a divergence": (by_divergence, A),
    "its gradient, too": (jax.grad(jax.jit(by_divergence)), A),
    "a head": (HEAD, A[:, None, None]),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_products_take_all_digits_of_their_numbers(name: str) -> None:
    found = precisions(*PROGRAMS[name])
    assert found
    assert all(each in (HIGHEST, (HIGHEST, HIGHEST)) for each in found)


def test_a_precision_that_the_caller_chooses_is_taken() -> None:
    with jax.default_matmul_precision("bfloat16"):
        found = precisions(encoded, A, DICTIONARY)
    assert HIGHEST not in found
    assert (HIGHEST, HIGHEST) not in found


def test_functions_of_ones_own_are_called_with_all_digits() -> None:
    seen = []

    def function(masks: Any) -> Any:
        seen.append(jax.config.jax_default_matmul_precision)  # pyright: ignore[reportAttributeAccessIssue]
        return jnp.sum(masks)

    fj.sampled_total_sobol(function, 3, designs=4, scrambles=2)
    assert set(seen) == {"highest"}


def test_the_setting_is_as_before_afterwards_also_after_an_error() -> None:
    @full_precision
    def failing(wrong: bool) -> str:
        if wrong:
            raise ValueError("wrong")
        return str(jax.config.jax_default_matmul_precision)  # pyright: ignore[reportAttributeAccessIssue]

    assert failing(False) == "highest"
    with pytest.raises(ValueError, match="wrong"):
        failing(True)
    assert jax.config.jax_default_matmul_precision is None  # pyright: ignore[reportAttributeAccessIssue]
    assert failing.__name__ == "failing"

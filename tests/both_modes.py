"""Values with their derivatives in both modes, of one linearization that is compiled once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def both_modes(function: Callable[..., Any]) -> Callable[..., tuple]:
    """A program for `(at, ways, cotangent)`: the value, its derivative along the ways, and what the cotangent becomes.

    Compiled apart, `jvp` and `grad` would each have a factorization of their own in their program.

    **Arguments:**

    - `function`: an array of several arrays. Where it's a number no cotangent is needed, and its gradient is given.
    """

    @jax.jit
    def run(at: tuple, ways: tuple, cotangent: Any = 1.0) -> tuple:
        value, forward = jax.linearize(function, *at)
        return value, forward(*ways), jax.linear_transpose(forward, *at)(jnp.asarray(cotangent, value.dtype))

    return run

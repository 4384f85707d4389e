"""Products of float32 matrices in float32.

On GPUs and TPUs, JAX multiplies float32 matrices with numbers rounded to 10 or 7 bits unless it's told otherwise
(`jax.lax.Precision`). That is enough to apply a network and too little to solve equations: residuals that decide when
a solver is done would be rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """A function whose products of matrices, and convolutions, are computed in the precision of their numbers.

    Where the caller has chosen a precision (`jax.default_matmul_precision`), that one is taken. It holds for what is
    traced during the call: rules of derivatives, which are traced later, need it for themselves.

    **Arguments:**

    - `function`: any.

    **Returns:** the same, with its name and signature.
    """

    @functools.wraps(function)
    def precise(*args: P.args, **kwargs: P.kwargs) -> R:
        if jax.config.jax_default_matmul_precision is not None:  # pyright: ignore[reportAttributeAccessIssue]
            return function(*args, **kwargs)
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return precise

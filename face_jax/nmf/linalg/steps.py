"""Safe division, and the step of single entries to their own minimizers."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def positive(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x where it's above zero, else 1: a divisor for what has no say where x is 0, such as a concept of length zero."""
    return jnp.where(x > 0, x, 1)


def coordinate_step(x: Array, slope: Array, curvature: Array, *, signed: bool = False) -> Array:
    """Where each entry would be best, all others standing still: `x − slope / curvature`, not below 0 unless signed.

    **Arguments:**

    - `x`, `slope`: the entries, and the objective's gradient there.
    - `curvature`: the second derivative along each entry, broadcast to them; entries without curvature take 1.
    - `signed`: whether entries may be negative.
    """
    target = x - slope / positive(curvature)
    return target if signed else jnp.maximum(target, 0)


def share(moved: Float[Array, ""], size: Float[Array, ""]) -> Float[Array, ""]:
    """Squared moves as a share of a squared length: the scaled KKT residual."""
    return jnp.sqrt(moved / positive(size))

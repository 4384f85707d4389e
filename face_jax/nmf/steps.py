"""Small matrices and single entries: shifts and inverses, steps to an entry's own minimizer."""

from __future__ import annotations

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array

from ..linalg.control_flow import fori_loop
from ..support.scaling import positive
from .shapes import Columns, Gram, Grams, Number, Scalar


def ridged(gram: Gram, ridge: Scalar) -> Gram:
    """`G + ρI`."""
    return gram + ridge * jnp.eye(gram.shape[0], dtype=gram.dtype)


def damped_inverse(like: Gram, share: float) -> Gram:
    """A preconditioner: the inverse, its matrix damped by a share of the mean eigenvalue, as it may be singular."""
    damping = share * jnp.trace(like) / like.shape[0] + jnp.finfo(like.dtype).tiny
    return inverse(ridged(like, damping))


def inverse(matrix: Gram) -> Gram:
    """Of a symmetric positive definite matrix."""
    return jsl.cho_solve(jsl.cho_factor(matrix, lower=True), jnp.eye(matrix.shape[0], dtype=matrix.dtype))


def coordinate_step(x: Array, slope: Array, curvature: Array, *, signed: bool = False) -> Array:
    """Where each entry would be best, all others standing still: `x − slope / curvature`, not below 0 unless signed.

    **Arguments:**

    - `x`, `slope`: the entries, and the objective's gradient there.
    - `curvature`: the second derivative along each entry, broadcast to them; entries without curvature take 1.
    - `signed`: whether entries may be negative.
    """
    target = x - slope / positive(curvature)
    return target if signed else jnp.maximum(target, 0)


def promised(x: Array, slope: Array, curvature: Array) -> Array:
    """How much `x − target` along its slope comes to, the target being each entry's own best: 0 at a minimum alone.

    Where it's within the bound that's `curvature (x − target)²`; what ends at the bound counts by its slope, which is
    all that there is without curvature.
    """
    target = jnp.where(curvature > 0, coordinate_step(x, slope, curvature), jnp.where(slope > 0, 0, x))
    return (x - target) * slope


def sweep(x: Columns, gram: Grams, cross: Columns) -> Columns:
    """One exact pass over the concepts: each becomes its own minimizer while the others stand still (HALS).

    **Arguments:**

    - `x`: one problem `min ½⟨x, G x⟩ − ⟨c, x⟩, x ≥ 0` a column.
    - `gram`: G; one for all columns, or one for each.
    - `cross`: the c's.
    """
    diagonal = jnp.diagonal(gram) if gram.ndim == 2 else jnp.diagonal(gram).T
    # A concept of length zero has no say in the fit; dividing by 1 leaves its gradient, which is zero, alone.
    safe = positive(diagonal)

    def coordinate(k: int | Array, x: Columns) -> Columns:
        explained = gram[k] @ x if gram.ndim == 2 else jnp.sum(gram[k] * x, axis=0)
        return x.at[k].set(jnp.maximum(x[k] + (cross[k] - explained) / safe[k], 0))

    return fori_loop(0, x.shape[0], coordinate, x)


def share(moved: Number, size: Number) -> Number:
    """Squared moves as a share of a squared length: the scaled KKT residual."""
    return jnp.sqrt(moved / positive(size))

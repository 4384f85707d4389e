"""Small matrices and single entries: shifts and inverses, steps to an entry's own minimizer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array

from ..linalg.control_flow import fori_loop
from ..support.scaling import positive
from .shapes import Columns, Gram, Grams, Number, Scalar

_TOGETHER = 8  # concepts of a sweep that an accelerator takes in one step of its loop, at most


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
    return (_one_by_one if jax.default_backend() == "cpu" else _some_together)(x, gram, cross, safe)


def _one_by_one(x: Columns, gram: Grams, cross: Columns, safe: Array) -> Columns:
    """A step of the loop for each concept: a processor is as fast as its memory with that."""

    def coordinate(k: int | Array, x: Columns) -> Columns:
        explained = gram[k] @ x if gram.ndim == 2 else jnp.sum(gram[k] * x, axis=0)
        return x.at[k].set(jnp.maximum(x[k] + (cross[k] - explained) / safe[k], 0))

    return fori_loop(0, x.shape[0], coordinate, x)


def _some_together(x: Columns, gram: Grams, cross: Columns, safe: Array) -> Columns:
    """The same, several concepts in each step of the loop.

    On an accelerator a step takes the time of launching its programs, whatever these do. The slopes of some concepts
    are one product; what each one's move changes in those of the next is arithmetic within one column, one program.
    """
    concepts = x.shape[0]
    steps = -(-concepts // _TOGETHER)
    some = -(-concepts // steps)

    def several(step: int | Array, x: Columns) -> Columns:
        # The last of them overlap with those before, where the numbers don't divide; these have had their turn.
        start = jnp.minimum(step * some, concepts - some)
        mine = [jax.lax.dynamic_slice_in_dim(part, start, some) for part in (x, gram, cross, safe)]
        rows, grams, crosses, curvatures = mine
        among = jax.lax.dynamic_slice_in_dim(grams, start, some, axis=1)
        explained = grams @ x if gram.ndim == 2 else jnp.sum(grams * x[None], axis=1)
        left = list(crosses - explained)
        best = []
        for k in range(some):
            value = jnp.maximum(rows[k] + left[k] / curvatures[k], 0)
            if concepts % some:
                value = jnp.where(start + k >= step * some, value, rows[k])
            for later in range(k + 1, some):
                left[later] = left[later] - among[later, k] * (value - rows[k])
            best.append(value)
        return jax.lax.dynamic_update_slice_in_dim(x, jnp.stack(best), start, axis=0)

    return fori_loop(0, steps, several, x)


def share(moved: Number, size: Number) -> Number:
    """Squared moves as a share of a squared length: the scaled KKT residual."""
    return jnp.sqrt(moved / positive(size))

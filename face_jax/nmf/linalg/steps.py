"""Safe division, and the step of single entries to their own minimizers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Columns = Float[Array, "concept item"]
# one matrix for all columns, or one for each (with weighted entries), the columns last
Grams = Float[Array, "concept concept"] | Float[Array, "concept concept item"]


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

    return jax.lax.fori_loop(0, x.shape[0], coordinate, x)


def share(moved: Float[Array, ""], size: Float[Array, ""]) -> Float[Array, ""]:
    """Squared moves as a share of a squared length: the scaled KKT residual."""
    return jnp.sqrt(moved / positive(size))

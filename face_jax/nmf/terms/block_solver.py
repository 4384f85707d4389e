"""Solving one block's quadratic model with `X ≥ 0`: ADMM whose linear systems go to preconditioned conjugate gradients.

The model of a factor X around where it is, `⟨g, X − X₀⟩ + ½⟨X − X₀, H (X − X₀)⟩`, has a curvature H that is known
by its products only. What is independent of the rest (the rows of one image, in the codes) forms a group, and each
group has its own step lengths.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...linalg.conjugate_gradients import conjugate_gradient
from ...linalg.inner_products import RowGroups
from ...support.scaling import positive
from ..shapes import Gram
from ..steps import inverse, ridged
from .problem import Settings


def minimize_model(
    x: Array,
    slope: Array,
    product: Callable[[Array], Array],
    like: Gram,
    apply: Callable[[Gram, Array], Array],
    groups: RowGroups,
    *,
    settings: Settings,
    signed: bool = False,
) -> Array:
    """A feasible point that is close to the model's minimizer.

    **Arguments:**

    - `x`: where the model was made.
    - `slope`, `product`: its gradient there, and its curvature.
    - `like`: a `concept concept` matrix that resembles the curvature.
    - `apply`: multiplies a factor with such a matrix.
    - `groups`: what is independent of each other.
    - `settings`: how many ADMM iterations, and bounds of each conjugate gradient solve.
    - `signed`: whether entries may be negative; then one linear solve is all.

    **Returns:** the point; whether it is better than `x` is for a line search to see.
    """
    mean = positive(jnp.trace(like) / like.shape[0])
    rho = mean * (jnp.asarray(10 * jnp.finfo(like.dtype).eps, like.dtype) if signed else 1)
    preconditioner = inverse(ridged(like, rho))

    def solve(rhs: Array, x0: Array) -> Array:
        return conjugate_gradient(
            lambda v: product(v) + rho * v,
            rhs,
            inner=groups,
            rtol=settings.cg_rtol,
            max_steps=settings.steps,
            x0=x0,
            preconditioner=lambda v: apply(preconditioner, v),
        )

    if signed:
        return x + solve(-slope, jnp.zeros_like(x))

    def iterate(_: int | Array, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        copy, dual, move = carry
        move = solve(rho * (copy - dual - x) - slope, move)
        copy = jnp.maximum(x + move + dual, 0)
        return copy, dual + x + move - copy, move

    # The first dual is what complementarity asks for where the factor is zero already.
    first = jnp.where(x > 0, 0, -jnp.maximum(slope, 0) / rho)
    return jax.lax.fori_loop(0, settings.inner, iterate, (x, first, jnp.zeros_like(x)))[0]

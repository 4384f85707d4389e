"""Solving one block's quadratic model with `X ≥ 0`: ADMM whose linear systems go to preconditioned conjugate gradients.

The model of a factor X around where it is, `⟨g, X − X₀⟩ + ½⟨X − X₀, H (X − X₀)⟩`, has a curvature H that is known
by its products only. What is independent of the rest (the rows of one image, in the codes) forms a group, and each
group has its own step lengths.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

from ..linalg.conjugate_gradients import conjugate_gradient
from ..linalg.inner_products import RowGroups
from ..linalg.steps import positive

Product = Callable[[Array], Array]


def minimize_model(
    x: Array,
    slope: Array,
    product: Product,
    like: Float[Array, "concept concept"],
    apply: Callable[[Float[Array, "concept concept"], Array], Array],
    groups: RowGroups,
    *,
    signed: bool,
    inner: int,
    steps: int,
    rtol: float,
) -> Array:
    """A feasible point that is close to the model's minimizer.

    **Arguments:**

    - `x`: where the model was made.
    - `slope`, `product`: its gradient there, and its curvature.
    - `like`: a `concept concept` matrix that resembles the curvature.
    - `apply`: multiplies a factor with such a matrix.
    - `groups`: what is independent of each other.
    - `signed`: whether entries may be negative; then one linear solve is all.
    - `inner`: ADMM iterations.
    - `steps`, `rtol`: bounds of each conjugate gradient solve.

    **Returns:** the point; whether it is better than `x` is for a line search to see.
    """
    concepts = like.shape[0]
    eye = jnp.eye(concepts, dtype=like.dtype)
    mean = positive(jnp.trace(like) / concepts)
    rho = mean * (jnp.asarray(10 * jnp.finfo(like.dtype).eps, like.dtype) if signed else 1)
    inverse = jsl.cho_solve(jsl.cho_factor(like + rho * eye, lower=True), eye)

    def solve(rhs: Array, x0: Array) -> Array:
        return conjugate_gradient(
            lambda v: product(v) + rho * v,
            rhs,
            inner=groups,
            rtol=rtol,
            max_steps=steps,
            x0=x0,
            preconditioner=lambda v: apply(inverse, v),
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
    return jax.lax.fori_loop(0, inner, iterate, (x, first, jnp.zeros_like(x)))[0]

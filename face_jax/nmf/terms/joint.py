"""A step in both factors at once: projected Gauss–Newton, by conjugate gradients on the entries that are free.

Where a term weighs heavily, codes and dictionary can only move together (what one does to the predictions the other
has to take back), and blocks that take turns crawl. The squared error's curvature is taken without the residual's
share, so that it's positive semidefinite; nothing of the activations' size is formed.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

Factors = tuple[Float[Array, "row concept"], Float[Array, "concept channel"]]
Likes = tuple[Float[Array, "concept concept"], Float[Array, "concept concept"]]
Product = Callable[[Factors], Factors]


def newton_direction(
    factors: Factors, slopes: Factors, product: Product, likes: Likes, *, signed: bool, steps: int, rtol: float
) -> Factors:
    """The way to the model's minimizer on the free entries, as far as conjugate gradients get.

    **Arguments:**

    - `factors`: where the model was made.
    - `slopes`, `product`: its gradient, and its curvature's products.
    - `likes`: two `concept concept` matrices that resemble the curvature in the codes and in the dictionary.
    - `signed`: whether the dictionary may be negative.
    - `steps`, `rtol`: bounds of conjugate gradients.

    **Returns:** the direction; zero where an entry is zero and would become negative.
    """
    free = tuple((x > 0) | (slope < 0) for x, slope in zip(factors, slopes, strict=True))
    if signed:
        free = (free[0], jnp.ones_like(free[1]))
    inverses = []
    for like in likes:
        damping = 1e-3 * jnp.trace(like) / like.shape[0] + jnp.finfo(like.dtype).tiny
        eye = jnp.eye(like.shape[0], dtype=like.dtype)
        inverses.append(jsl.cho_solve(jsl.cho_factor(like + damping * eye, lower=True), eye))

    def masked(pair: Factors) -> Factors:
        return jnp.where(free[0], pair[0], 0), jnp.where(free[1], pair[1], 0)

    def easier(pair: Factors) -> Factors:
        return masked((pair[0] @ inverses[0], inverses[1] @ pair[1]))

    def going(carry: tuple[Factors, Factors, Factors, Array, Array]) -> Array:
        *_, square, count = carry
        return (count < steps) & (square > goal)

    def step(carry: tuple[Factors, Factors, Factors, Array, Array]) -> tuple[Factors, Factors, Factors, Array, Array]:
        x, residual, direction, square, count = carry
        image = masked(product(direction))
        curvature = dot(direction, image)
        length = jnp.where(curvature > 0, square / jnp.where(curvature > 0, curvature, 1), 0)
        x = _add(x, length, direction)
        residual = _add(residual, -length, image)
        helped = easier(residual)
        new = dot(residual, helped)
        direction = _add(helped, new / square, direction)
        return x, residual, direction, jnp.where(curvature > 0, new, 0), count + 1

    right = masked((-slopes[0], -slopes[1]))
    helped = easier(right)
    square = dot(right, helped)
    goal = rtol**2 * square
    nothing = (jnp.zeros_like(right[0]), jnp.zeros_like(right[1]))
    return jax.lax.while_loop(going, step, (nothing, right, helped, square, jnp.zeros((), jnp.int32)))[0]


def dot(x: Factors, y: Factors) -> Float[Array, ""]:
    """The inner product of both parts together."""
    return jnp.sum(x[0] * y[0]) + jnp.sum(x[1] * y[1])


def _add(x: Factors, length: Float[Array, ""], y: Factors) -> Factors:
    return x[0] + length * y[0], x[1] + length * y[1]

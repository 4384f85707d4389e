"""A step in both factors at once: projected Gauss–Newton, by conjugate gradients on the entries that are free.

Where a term weighs heavily, codes and dictionary can only move together (what one does to the predictions the other
has to take back), and blocks that take turns crawl. The squared error's curvature is taken without the residual's
share, so that it's positive semidefinite; nothing of the activations' size is formed.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

from ..linalg.conjugate_gradients import conjugate_gradient
from ..linalg.inner_products import Whole

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

    rhs = masked((-slopes[0], -slopes[1]))
    return conjugate_gradient(
        lambda pair: masked(product(pair)),
        rhs,
        inner=Whole(),
        rtol=rtol,
        max_steps=steps,
        preconditioner=lambda pair: masked((pair[0] @ inverses[0], inverses[1] @ pair[1])),
    )

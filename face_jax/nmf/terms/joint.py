"""A step in both factors at once: projected Gauss–Newton, by conjugate gradients on the entries that are free.

Where a term weighs heavily, codes and dictionary can only move together (what one does to the predictions the other
has to take back), and blocks that take turns crawl. The squared error's curvature is taken without the residual's
share, so that it's positive semidefinite; nothing of the activations' size is formed.
"""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from ...linalg.conjugate_gradients import conjugate_gradient
from ...linalg.inner_products import Whole
from ..derivative.conditions import on
from ..shapes import Factors, Gram
from ..steps import damped_inverse

Likes = tuple[Gram, Gram]
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
    of_codes, of_dictionary = ((x > 0) | (slope < 0) for x, slope in zip(factors, slopes, strict=True))
    free = of_codes, jnp.ones_like(of_dictionary) if signed else of_dictionary
    inverses = [damped_inverse(like, 1e-3) for like in likes]
    rhs = on(free, (-slopes[0], -slopes[1]))
    return conjugate_gradient(
        lambda pair: on(free, product(pair)),
        rhs,
        inner=Whole(),
        rtol=rtol,
        max_steps=steps,
        preconditioner=lambda pair: on(free, (pair[0] @ inverses[0], inverses[1] @ pair[1])),
    )

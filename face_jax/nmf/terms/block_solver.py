"""Solving one block's quadratic model with `X ≥ 0`: ADMM whose linear systems go to preconditioned conjugate gradients.

The model of a factor X around where it is, `⟨g, X − X₀⟩ + ½⟨X − X₀, H (X − X₀)⟩`, has a curvature H that is known
by its products only. What is independent of the rest (the rows of one image, in the codes) forms a group, and each
group has its own step lengths.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Bool, Float

Product = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Groups:
    """Which entries of a factor belong together: so many rows at a time, or all of it.

    **Arguments:**

    - `rows`: rows of a group.
    """

    rows: int

    def dot(self, x: Float[Array, "a b"], y: Float[Array, "a b"]) -> Float[Array, " group"]:
        """Inner product of each group."""
        return self.total(jnp.sum(x * y, axis=1))

    def total(self, x: Float[Array, " a"]) -> Float[Array, " group"]:
        """Sum over each group's rows."""
        return x if self.rows == 1 else jnp.sum(x.reshape(-1, self.rows), axis=1)

    def spread(self, x: Float[Array, " group"]) -> Float[Array, "a 1"]:
        """A number of each group, given to all its rows."""
        return (x if self.rows == 1 else jnp.repeat(x, self.rows))[:, None]

    def where(self, condition: Bool[Array, " group"], x: Float[Array, "a b"], y: Array) -> Float[Array, "a b"]:
        """x for the groups that the condition holds for, else y."""
        return jnp.where((condition if self.rows == 1 else jnp.repeat(condition, self.rows))[:, None], x, y)


def conjugate_gradient(
    product: Product,
    precondition: Product,
    right: Array,
    guess: Array,
    groups: Groups,
    *,
    steps: int,
    rtol: float | Float[Array, ""],
) -> Array:
    """Preconditioned conjugate gradients, each group on its own; all stop when the last one has arrived."""

    def going(carry: tuple[Array, Array, Array, Array, Array]) -> Array:
        *_, square, step = carry
        return (step < steps) & jnp.any(square > goal)

    def step(carry: tuple[Array, Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array, Array]:
        x, residual, direction, square, count = carry
        image = product(direction)
        curvature = groups.dot(direction, image)
        active = (square > goal) & (curvature > 0)
        length = groups.spread(jnp.where(active, square / jnp.where(active, curvature, 1), 0))
        x, residual = x + length * direction, residual - length * image
        easier = precondition(residual)
        new = groups.dot(residual, easier)
        growth = groups.spread(jnp.where(active, new / jnp.where(active, square, 1), 0))
        # A direction without curvature ends a group's search.
        square = jnp.where(active, new, jnp.where(curvature > 0, square, 0))
        return x, residual, easier + growth * direction, square, count + 1

    residual = right - product(guess)
    easier = precondition(residual)
    square = groups.dot(residual, easier)
    goal = rtol**2 * jnp.maximum(groups.dot(right, precondition(right)), jnp.finfo(right.dtype).tiny)
    return jax.lax.while_loop(going, step, (guess, residual, easier, square, jnp.zeros((), jnp.int32)))[0]


def minimize_model(
    x: Array,
    slope: Array,
    product: Product,
    like: Float[Array, "concept concept"],
    apply: Callable[[Float[Array, "concept concept"], Array], Array],
    groups: Groups,
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
    mean = jnp.trace(like) / concepts
    mean = jnp.where(mean > 0, mean, 1)
    rho = mean * (jnp.asarray(10 * jnp.finfo(like.dtype).eps, like.dtype) if signed else 1)
    inverse = jsl.cho_solve(jsl.cho_factor(like + rho * eye, lower=True), eye)

    def solve(right: Array, guess: Array) -> Array:
        return conjugate_gradient(
            lambda v: product(v) + rho * v,
            lambda v: apply(inverse, v),
            right,
            guess,
            groups,
            steps=steps,
            rtol=rtol,
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

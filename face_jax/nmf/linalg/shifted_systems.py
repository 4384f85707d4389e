"""Linear solvers for ADMM's `(G + ρI) X = R`: a Cholesky factor applied as one matrix, or conjugate gradients."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Float

Columns = Float[Array, "concept item"]


class LinearSolver(abc.ABC):
    """Solves with one small symmetric positive definite matrix and very many right-hand sides."""

    @abc.abstractmethod
    def prepare(self, matrix: Float[Array, "concept concept"]) -> Callable[[Columns, Columns], Columns]:
        """A function `(right-hand sides, first guess) → solutions`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cholesky(LinearSolver):
    """The inverse from a Cholesky factor, applied as one matrix product.

    That is 10–15 times faster on a CPU than triangular solves for many right-hand sides, and as accurate where
    it is used: ADMM's `G + ρI` has a condition number of about the rank.
    """

    def prepare(self, matrix: Float[Array, "concept concept"]) -> Callable[[Columns, Columns], Columns]:
        """Factor once."""
        factor = jsl.cho_factor(matrix, lower=True)
        inverse = jsl.cho_solve(factor, jnp.eye(matrix.shape[0], dtype=matrix.dtype))

        def solve(right: Columns, guess: Columns) -> Columns:
            del guess
            return inverse @ right

        return solve


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConjugateGradient(LinearSolver):
    """Matrix-free conjugate gradients from the last solution.

    **Arguments:**

    - `steps`: at most this many.
    - `rtol`: stop a right-hand side when its residual's length is below this share of its own.
    """

    steps: int = dataclasses.field(default=10, metadata={"static": True})
    rtol: float | Float[Array, ""] = 1e-6

    def prepare(self, matrix: Float[Array, "concept concept"]) -> Callable[[Columns, Columns], Columns]:
        """Nothing to prepare."""

        def solve(right: Columns, guess: Columns) -> Columns:
            return conjugate_gradient(lambda x: matrix @ x, right, guess, self.steps, self.rtol)

        return solve


def conjugate_gradient(
    product: Callable[[Columns], Columns], right: Columns, guess: Columns, steps: int, rtol: float | Float[Array, ""]
) -> Columns:
    """Conjugate gradients for each column on its own; a column that has arrived stands still."""
    goal = rtol**2 * jnp.sum(right**2, axis=0)

    def step(_: int | Array, carry: tuple[Columns, Columns, Columns, Array]) -> tuple[Columns, Columns, Columns, Array]:
        x, residual, direction, square = carry
        image = product(direction)
        curvature = jnp.sum(direction * image, axis=0)
        active = (square > goal) & (curvature > 0)
        length = jnp.where(active, square / jnp.where(active, curvature, 1), 0)
        x = x + length[None] * direction
        residual = residual - length[None] * image
        new = jnp.sum(residual**2, axis=0)
        direction = residual + jnp.where(active, new / jnp.where(active, square, 1), 0)[None] * direction
        return x, residual, direction, new

    residual = right - product(guess)
    start = (guess, residual, residual, jnp.sum(residual**2, axis=0))
    return jax.lax.fori_loop(0, steps, step, start)[0]

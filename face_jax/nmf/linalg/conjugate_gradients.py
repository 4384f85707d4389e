"""Preconditioned conjugate gradients for one symmetric system of any pytree, with statistics."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...support.scaling import usable_exponent

_ORDINARY = 16  # binary exponents up to which a right-hand side is left as it is
_PATIENCE = 100  # steps without a smaller residual before a run counts as stalled

Map = Callable[[Any], Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Account:
    """How a run went.

    **Arguments:**

    - `steps`: products with the matrix.
    - `residual`: what's left of the right-hand side, measured anew at the end; both in the preconditioner's norm.
    - `solved`: whether that is below the tolerance.
    - `indefinite`: whether a direction of negative curvature was met.
    - `defined`: whether there is one solution to speak of; for the caller to judge, who knows the matrix.
    """

    steps: Int[Array, ""]
    residual: Float[Array, ""]
    solved: Bool[Array, ""]
    indefinite: Bool[Array, ""]
    defined: Bool[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Run:
    x: Any
    residual: Any
    direction: Any
    square: Float[Array, ""]
    best: Any
    best_square: Float[Array, ""]
    waited: Int[Array, ""]
    step: Int[Array, ""]
    indefinite: Bool[Array, ""]
    broken: Bool[Array, ""]


def conjugate_gradients(
    product: Map, right: Any, *, precondition: Map, project: Map, rtol: Float[Array, ""], max_steps: int
) -> tuple[Any, Account]:
    """The least solution, in the preconditioner's norm, of a symmetric system that may be singular but is consistent.

    Directions of negative curvature are gone through like others: off a minimum the system still has its one
    solution. The point of the smallest residual is kept, so that a breakdown leaves something finite. Residuals
    by recurrence drift; so the true one is measured when a run ends, and the rest is solved for in further runs.

    **Arguments:**

    - `product`: the matrix.
    - `right`: the right-hand side.
    - `precondition`: a symmetric, positive semidefinite approximate inverse.
    - `project`: the orthogonal projection along the matrix's known null space.
    - `rtol`: the wanted residual, relative to the right-hand side.
    - `max_steps`: products in all runs together, but for those that measure the residual.

    **Returns:** the solution and the account.
    """
    # A power of two that brings the right-hand side to the order of 1: its squares may be out of range.
    size = jax.lax.stop_gradient(jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(right)])))
    exponent = usable_exponent(size)
    unit = jnp.ldexp(jnp.ones_like(size), jnp.where(jnp.abs(exponent) <= _ORDINARY, 0, exponent))
    right = project(jax.tree.map(lambda x: x / unit, right))
    smooth: Map = lambda x: project(precondition(x))  # noqa: E731
    size = _dot(right, smooth(right))
    goal = rtol**2 * size

    def going(carry: tuple[Any, Any, Array, Array, Array, Array]) -> Bool[Array, ""]:
        _, _, square, before, step, _ = carry
        # A run that hasn't even halved the residual has met the end of the dtype's accuracy.
        return (square > goal) & (square < before / 4) & (step < max_steps)

    def refine(carry: tuple[Any, Any, Array, Array, Array, Array]) -> tuple[Any, Any, Array, Array, Array, Array]:
        x, rest, before, _, step, indefinite = carry
        run = _run(product, rest, smooth, goal, max_steps - step)
        candidate = jax.tree.map(jnp.add, x, run.best)
        left = project(jax.tree.map(jnp.subtract, right, product(candidate)))
        square = _dot(left, smooth(left))
        better = square < before
        x, rest = _select(better, candidate, x), _select(better, left, rest)
        square = jnp.where(better, square, before)
        return x, rest, square, before, step + run.step, indefinite | run.indefinite

    zero = jax.tree.map(jnp.zeros_like, right)
    # In the first test `before` only has to be out of the way.
    far = jnp.full_like(size, jnp.finfo(size.dtype).max)
    start = (zero, right, size, far, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    x, _, square, _, steps, indefinite = jax.lax.while_loop(going, refine, start)
    residual = jnp.sqrt(jnp.maximum(square, 0) / jnp.where(size > 0, size, 1))
    account = Account(steps, residual, residual <= rtol, indefinite, jnp.ones((), bool))
    return jax.tree.map(lambda x: x * unit, x), account


def descend(
    product: Map, right: Any, *, precondition: Map, project: Map, rtol: Float[Array, ""], max_steps: int
) -> tuple[Any, Account]:
    """A direction of descent for one Newton step: conjugate gradients that end where the curvature isn't positive.

    There the point so far is returned (Steihaug 1983), at the first step the preconditioned right-hand side. The
    arguments, and what's returned, are those of `conjugate_gradients`; the residual is the recurrence's.
    """
    right = project(right)
    smooth: Map = lambda x: project(precondition(x))  # noqa: E731
    size = _dot(right, smooth(right))
    run = _run(product, right, smooth, rtol**2 * size, jnp.asarray(max_steps, jnp.int32), only_convex=True)
    x = _select(run.indefinite & (run.step == 1), smooth(right), run.x)
    residual = jnp.sqrt(jnp.maximum(run.square, 0) / jnp.where(size > 0, size, 1))
    return x, Account(run.step, residual, residual <= rtol, run.indefinite, jnp.ones((), bool))


def _run(
    product: Map,
    right: Any,
    smooth: Map,
    goal: Float[Array, ""],
    steps: Int[Array, ""],
    *,
    only_convex: bool = False,
) -> _Run:
    smoothed = smooth(right)
    zero = jax.tree.map(jnp.zeros_like, right)
    square = _dot(right, smoothed)
    false, none = jnp.zeros((), bool), jnp.zeros((), jnp.int32)
    start = _Run(zero, right, smoothed, square, zero, square, none, none, false, false)

    def going(run: _Run) -> Bool[Array, ""]:
        return (run.square > goal) & (run.step < steps) & (run.waited < _PATIENCE) & ~run.broken

    def step(run: _Run) -> _Run:
        image = product(run.direction)
        curvature = _dot(run.direction, image)
        broken = ~(jnp.isfinite(curvature) & ((curvature > 0) if only_convex else (curvature != 0)))
        length = jnp.where(broken, 0, run.square / jnp.where(broken, 1, curvature))
        x = _add(run.x, length, run.direction)
        residual = _add(run.residual, -length, image)
        smoothed = smooth(residual)
        square = _dot(residual, smoothed)
        direction = _add(smoothed, square / jnp.where(run.square > 0, run.square, 1), run.direction)
        better = (square < run.best_square) & ~broken
        return _Run(
            x=x,
            residual=residual,
            direction=direction,
            square=square,
            best=_select(better, x, run.best),
            best_square=jnp.where(better, square, run.best_square),
            waited=jnp.where(better, 0, run.waited + 1).astype(jnp.int32),
            step=run.step + 1,
            indefinite=run.indefinite | (curvature < 0),
            broken=broken,
        )

    return jax.lax.while_loop(going, step, start)


def _dot(x: Any, y: Any) -> Float[Array, ""]:
    return jax.tree.reduce(jnp.add, jax.tree.map(lambda a, b: jnp.sum(a * b), x, y))


def _add(x: Any, factor: Float[Array, ""], y: Any) -> Any:
    return jax.tree.map(lambda a, b: a + factor * b, x, y)


def _select(condition: Bool[Array, ""], x: Any, y: Any) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)

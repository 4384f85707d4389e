"""Preconditioned conjugate gradients: one loop for one system, for one a column, or for one a group of rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..support.scaling import positive, usable_exponent
from .control_flow import fori_loop, while_loop
from .inner_products import InnerProduct, Whole
from .line_search import select

_ORDINARY = 16  # binary exponents up to which a right-hand side is left as it is
_PATIENCE = 100  # steps without a smaller residual before a run counts as stalled

Map = Callable[[Any], Any]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CGStats:
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
class _State:
    """Where a run is; what only patient runs keep is None in others."""

    x: Any
    residual: Any
    direction: Any
    square: Float[Array, "*system"]
    open: Bool[Array, "*system"]
    step: Int[Array, ""]
    indefinite: Bool[Array, "*system"]
    best: Any = None
    best_square: Any = None
    waited: Any = None


def _init_state(
    rhs: Any, x0: Any, residual: Any, preconditioner: Map, inner: InnerProduct, goal: Any, patient: bool
) -> _State:
    direction = preconditioner(residual)
    square = inner.dot(residual, direction)
    none = jnp.zeros((), jnp.int32)
    state = _State(x0, residual, direction, square, square > goal, none, jnp.zeros(square.shape, bool))
    return dataclasses.replace(state, best=x0, best_square=square, waited=none) if patient else state


def _loop(
    product: Map,
    state: _State,
    *,
    preconditioner: Map,
    inner: InnerProduct,
    goal: Any,
    max_steps: int | Int[Array, ""],
    convex: bool = True,
    scanned: bool = False,
) -> _State:
    """The one loop; a system that has arrived, or met a direction that it can't use, stands still.

    **Arguments:**

    - `product`, `preconditioner`: the matrices, and approximate inverses of them.
    - `state`: where to begin.
    - `inner`: which entries are one system.
    - `goal`: squared residual at which a system has arrived.
    - `max_steps`: for all.
    - `convex`: whether a direction without positive curvature ends a system; else only one of none at all does.
    - `scanned`: a fixed number of steps, which can be differentiated in backward mode.
    """

    def going(state: _State) -> Bool[Array, ""]:
        more = jnp.any(state.open) & (state.step < max_steps)
        return more if state.waited is None else more & (state.waited < _PATIENCE)

    def step(state: _State) -> _State:
        image = product(state.direction)
        curvature = inner.dot(state.direction, image)
        usable = state.open & jnp.isfinite(curvature) & ((curvature > 0) if convex else (curvature != 0))
        length = jnp.where(usable, state.square / jnp.where(usable, curvature, 1), 0)
        x, residual = inner.add(state.x, length, state.direction), inner.add(state.residual, -length, image)
        smoothed = preconditioner(residual)
        square = inner.dot(residual, smoothed)
        # Not `positive`: a square that is all but zero would make the derivative of the quotient infinite.
        growth = jnp.where(usable, square / jnp.where(usable, state.square, 1), 0)
        new = dataclasses.replace(
            state,
            x=x,
            residual=residual,
            direction=inner.add(smoothed, growth, state.direction),
            square=jnp.where(usable, square, state.square),
            open=usable & (square > goal),
            step=state.step + 1,
            indefinite=state.indefinite | (curvature < 0),
        )
        if state.waited is None:
            return new
        better = (square < state.best_square) & usable
        return dataclasses.replace(
            new,
            best=select(better, x, state.best),
            best_square=jnp.where(better, square, state.best_square),
            waited=jnp.where(better, 0, state.waited + 1).astype(jnp.int32),
        )

    if scanned:
        return fori_loop(0, max_steps, lambda _, state: step(state), state)
    return while_loop(going, step, state)


def conjugate_gradient(
    product: Map,
    rhs: Any,
    *,
    inner: InnerProduct,
    rtol: float | Float[Array, ""],
    max_steps: int,
    x0: Any = None,
    preconditioner: Map = lambda x: x,
    scanned: bool = False,
) -> Any:
    """Solutions of positive semidefinite systems, each on its own; all stop when the last one has arrived.

    **Arguments:**

    - `product`: the matrices.
    - `rhs`: the right-hand sides.
    - `inner`: which entries are one system: `Whole()`, `Columns()` or `RowGroups(rows)`.
    - `rtol`: the wanted residual, relative to the right-hand side, in the preconditioner's norm.
    - `max_steps`: for all systems.
    - `x0`: where to start; zero if None.
    - `preconditioner`: approximate inverses.
    - `scanned`: a fixed number of steps, which can be differentiated in backward mode.
    """
    if x0 is None:
        x0, residual = jax.tree.map(jnp.zeros_like, rhs), rhs
    else:
        residual = jax.tree.map(jnp.subtract, rhs, product(x0))
    size = inner.dot(rhs, preconditioner(rhs))
    goal = rtol**2 * jnp.maximum(size, jnp.finfo(size.dtype).tiny)
    state = _init_state(rhs, x0, residual, preconditioner, inner, goal, patient=False)
    return _loop(
        product, state, preconditioner=preconditioner, inner=inner, goal=goal, max_steps=max_steps, scanned=scanned
    ).x


def conjugate_gradients(
    product: Map, rhs: Any, *, preconditioner: Map, project: Map, rtol: Float[Array, ""], max_steps: int
) -> tuple[Any, CGStats]:
    """The least solution, in the preconditioner's norm, of a symmetric system that may be singular but is consistent.

    Directions of negative curvature are gone through like others: off a minimum the system still has its one
    solution. The point of the smallest residual is kept, so that a breakdown leaves something finite. Residuals
    by recurrence drift; so the true one is measured when a run ends, and the rest is solved for in further runs.

    **Arguments:**

    - `product`: the matrix.
    - `rhs`: the right-hand side.
    - `preconditioner`: a symmetric, positive semidefinite approximate inverse.
    - `project`: the orthogonal projection along the matrix's known null space.
    - `rtol`: the wanted residual, relative to the right-hand side.
    - `max_steps`: products in all runs together, but for those that measure the residual.

    **Returns:** the solution and the statistics.
    """
    inner = Whole()
    # A power of two that brings the right-hand side to the order of 1: its squares may be out of range.
    size = jax.lax.stop_gradient(jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(rhs)])))
    exponent = usable_exponent(size)
    unit = jnp.ldexp(jnp.ones_like(size), jnp.where(jnp.abs(exponent) <= _ORDINARY, 0, exponent))
    rhs = project(jax.tree.map(lambda x: x / unit, rhs))
    smooth: Map = lambda x: project(preconditioner(x))  # noqa: E731
    size = inner.dot(rhs, smooth(rhs))
    goal = rtol**2 * size

    def going(carry: tuple[Any, Any, Array, Array, Array, Array]) -> Bool[Array, ""]:
        _, _, square, before, step, _ = carry
        # A run that hasn't even halved the residual has met the end of the dtype's accuracy.
        return (square > goal) & (square < before / 4) & (step < max_steps)

    def refine(carry: tuple[Any, Any, Array, Array, Array, Array]) -> tuple[Any, Any, Array, Array, Array, Array]:
        x, rest, before, _, step, indefinite = carry
        run = _patient(product, rest, smooth, goal, max_steps - step, convex=False)
        candidate = jax.tree.map(jnp.add, x, run.best)
        left = project(jax.tree.map(jnp.subtract, rhs, product(candidate)))
        square = inner.dot(left, smooth(left))
        better = square < before
        x, rest = select(better, candidate, x), select(better, left, rest)
        square = jnp.where(better, square, before)
        return x, rest, square, before, step + run.step, indefinite | run.indefinite

    zero = jax.tree.map(jnp.zeros_like, rhs)
    # In the first test `before` only has to be out of the way.
    far = jnp.full_like(size, jnp.finfo(size.dtype).max)
    start = (zero, rhs, size, far, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    x, _, square, _, steps, indefinite = while_loop(going, refine, start)
    residual = jnp.sqrt(jnp.maximum(square, 0) / positive(size))
    stats = CGStats(steps, residual, residual <= rtol, indefinite, jnp.ones((), bool))
    return jax.tree.map(lambda x: x * unit, x), stats


def descend(
    product: Map, rhs: Any, *, preconditioner: Map, project: Map, rtol: Float[Array, ""], max_steps: int
) -> tuple[Any, CGStats]:
    """A direction of descent for one Newton step: conjugate gradients that end where the curvature isn't positive.

    There the point so far is returned (Steihaug 1983), at the first step the preconditioned right-hand side. The
    arguments, and what's returned, are those of `conjugate_gradients`; the residual is the recurrence's.
    """
    rhs = project(rhs)
    smooth: Map = lambda x: project(preconditioner(x))  # noqa: E731
    size = Whole().dot(rhs, smooth(rhs))
    run = _patient(product, rhs, smooth, rtol**2 * size, jnp.asarray(max_steps, jnp.int32), convex=True)
    x = select(run.indefinite & (run.step == 1), smooth(rhs), run.x)
    residual = jnp.sqrt(jnp.maximum(run.square, 0) / positive(size))
    return x, CGStats(run.step, residual, residual <= rtol, run.indefinite, jnp.ones((), bool))


def _patient(
    product: Map, rhs: Any, smooth: Map, goal: Float[Array, ""], max_steps: Int[Array, ""], *, convex: bool
) -> _State:
    """A run for one system that remembers its smallest residual, and ends when that hasn't fallen for long."""
    inner = Whole()
    state = _init_state(rhs, jax.tree.map(jnp.zeros_like, rhs), rhs, smooth, inner, goal, patient=True)
    return _loop(product, state, preconditioner=smooth, inner=inner, goal=goal, max_steps=max_steps, convex=convex)

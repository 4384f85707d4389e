"""A backtracking line search: one step length for all, or one for each of many independent problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .control_flow import while_loop

DESCENT = 1e-4  # Armijo's share of the slope


def armijo(change: Array, expected: Array) -> Array:
    """Whether the objective fell by enough of what the slope promises (Armijo 1966); not for NaN."""
    return jnp.isfinite(change) & (change <= DESCENT * expected)


def shorter_by_parabola(t: Array, change: Array, slope: Array) -> Array:
    """The lowest point of the parabola through what is known at 0 and at t, between a tenth of t and half of it.

    **Arguments:**

    - `t`: the step that was too long.
    - `change`: of the objective at t.
    - `slope`: of the objective along the direction, at 0.
    """
    vertex = -slope * t**2 / (2 * jnp.maximum(change - slope * t, jnp.finfo(t.dtype).tiny))
    vertex = jnp.where(jnp.isfinite(vertex), vertex, 0)
    return jnp.clip(vertex, 0.1 * t, 0.5 * t)


def select(condition: Bool[Array, "..."], x: Any, y: Any) -> Any:
    """x where the condition holds, else y, through all of a pytree; several conditions, an entry each."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), x, y)


def backtrack(
    trial: Callable[[Array, Int[Array, ""]], tuple[Array, Array, Any]],
    otherwise: Any,
    looking: Bool[Array, "..."],
    *,
    trials: int,
    dtype: Any,
    first: float = 1.0,
    select: Callable[[Array, Any, Any], Any] = select,
) -> tuple[Float[Array, "..."], Any, Bool[Array, "..."]]:
    """Ever shorter steps, until they are good.

    **Arguments:**

    - `trial`: takes the step lengths and the number of the trial; gives whether each is good, the next shorter one,
        and what was found.
    - `otherwise`: what is found where no step is good.
    - `looking`: which problems look for a step; one truth value, or one for each problem.
    - `trials`: after so many, what still looks is given up.
    - `dtype`: of the step lengths.
    - `first`: the longest step.
    - `select`: puts what was found into the good ones' places; where problems are many, each has its own.

    **Returns:** the step lengths, what was found with them, and which problems found none (their length means nothing).
    """

    def going(carry: tuple[Array, Any, Array, Array]) -> Bool[Array, ""]:
        return jnp.any(carry[2]) & (carry[3] < trials)

    def once(carry: tuple[Array, Any, Array, Array]) -> tuple[Array, Any, Array, Array]:
        t, best, looking, count = carry
        good, shorter, found = trial(t, count)
        good = looking & good
        looking = looking & ~good
        return jnp.where(looking, shorter, t), select(good, found, best), looking, count + 1

    start = (jnp.full(looking.shape, first, dtype), otherwise, looking, jnp.zeros((), jnp.int32))
    t, best, looking, _ = while_loop(going, once, start)
    return t, best, looking

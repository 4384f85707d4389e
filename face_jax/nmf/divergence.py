"""β-divergences entry by entry: `d(x|y)`, its slope and curvature in y, and how it changes, to rounding.

    d_β(x|y) = x^β / (β(β − 1)) + y^β / β − x y^(β − 1) / (β − 1)

and its limits: `x log(x/y) − x + y` for β = 1, `x/y − log(x/y) − 1` for β = 0; β = 2 is `½(x − y)²`.
Of arrays of JAX and of NumPy, which stay what they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

if TYPE_CHECKING:
    Entries = Any  # what goes in comes out, of either package
else:
    Entries = Float[Array | np.ndarray, "*entries"]
Floor = Any  # a number, or an array that holds one
_WELL = 64  # floors that an activation is well above
_CONVEX = 0.25  # of the convex part's curvature: the least that a model has


def deviation(beta: float, x: Entries, y: Entries, floor: Floor) -> Entries:
    """`d_β(x|y)`; for β ≤ 1, where it's infinite at 0, a product below the floor is taken for it beside x > 0.

    It is at least 0: what rounding brings below 0 where x and y are nearly equal is 0; it keeps its derivative. Beside
    x = 0 it's `y^β / β`, which for 0 < β < 1 is 0 at y = 0 and has no finite slope there.
    """
    if beta == 2:
        return (x - y) ** 2 / 2
    found = _deviation(beta, x, y, floor)
    if _package(y) is np:
        return np.maximum(found, 0)
    return jnp.where(found < 0, found - jax.lax.stop_gradient(found), found)


def _deviation(beta: float, x: Entries, y: Entries, floor: Floor) -> Entries:
    """The formula; all but β = 1 with terms of the size of x and of y however near these are to each other."""
    xp = _package(y)
    safe = xp.maximum(y, floor)
    if beta == 1:
        near = (y >= floor) & (xp.abs(y - x) < x / 2)
        share = xp.where(near, y - x, 0) / xp.where(near, x, 1)
        far = xp.where(x > 0, x * xp.log(xp.where(x > 0, x, 1) / safe), 0) - x + y
        return xp.where(near, x * (share - xp.log1p(share)), far)
    if beta == 0:
        ratio = x / safe
        return ratio - xp.log(ratio) - 1
    once = power(safe, beta - 1)
    if beta > 1:
        once = xp.where(y >= floor, once, power(y, beta - 1))
    whole = once * (y if beta > 1 else safe)
    if 0 < beta < 1:
        some = xp.where(y > 0, y, 1)
        nothing = xp.where(y > 0, power(some, beta), 0)
        whole = xp.where(x > 0, whole, nothing)
    return (power(x, beta) + (beta - 1) * whole - beta * x * once) / (beta * (beta - 1))


def slope(beta: float, x: Entries, y: Entries, floor: Floor) -> Entries:
    """`∂d/∂y = y^(β − 2) (y − x)`, a product below the floor being taken for the floor where it divides."""
    xp = _package(y)
    if beta == 2:
        return y - x
    safe = xp.maximum(y, floor)
    if beta == 1:
        return 1 - x / safe
    # Where β < 1 and x = 0 the slope grows without bound towards 0: the floor's is the largest.
    return power(safe, beta - 2) * ((safe if beta < 1 else y) - x)


def curvature(beta: float, x: Entries, y: Entries, floor: Floor) -> Entries:
    """`∂²d/∂y²`, which is at least 0 for 1 ≤ β ≤ 2; elsewhere at least a share of its convex part's."""
    xp = _package(y)
    if beta == 2:
        return xp.ones_like(y)
    safe = xp.maximum(y, floor)
    if beta == 1:
        return x / (safe * safe)
    pulled, pushed = (2 - beta) * x, (beta - 1) * safe
    if beta < 1 or beta > 2:
        return power(safe, beta - 3) * xp.maximum(pulled + pushed, _CONVEX * xp.maximum(pulled, pushed))
    return power(safe, beta - 3) * (pulled + pushed)


def second(beta: float, x: Entries, y: Entries, floor: Floor) -> Entries:
    """`∂²d/∂y²` itself."""
    xp = _package(y)
    if 1 <= beta <= 2:
        return curvature(beta, x, y, floor)
    safe = xp.maximum(y, floor)
    return power(safe, beta - 3) * ((2 - beta) * x + (beta - 1) * safe)


def change(beta: float, x: Entries, y: Entries, move: Entries, floor: Floor) -> Entries:
    """`d(x|y + move) − d(x|y)` without the rounding of a difference of two values; y + move at least 0."""
    xp = _package(y)
    if beta == 2:
        return move * (y - x + move / 2)
    safe = xp.maximum(y, floor)
    inside = xp.maximum(y + move, floor) - safe
    # Where neither end is below the floor the move is known better than from the ends.
    whole = (y >= floor) & (y + move >= floor)
    ratio = xp.where(whole, move, inside) / safe
    log = xp.log1p(ratio)
    if beta == 1:
        return move - x * log
    if beta == 0:
        return log - (x / safe) * (ratio / (1 + ratio))
    found = power(safe, beta) * xp.expm1(beta * log) / beta
    found = found - x * power(safe, beta - 1) * xp.expm1((beta - 1) * log) / (beta - 1)
    if beta < 0:
        return found
    # A product that rounding brought below 0 has no power.
    ends = xp.maximum(y + move, 0), xp.maximum(y, 0)
    known = whole if beta > 1 else whole | (x > 0)
    return xp.where(known, found, deviation(beta, x, ends[0], floor) - deviation(beta, x, ends[1], floor))


def lost(beta: float, x: Entries, y: Entries, move: Entries, floor: Floor) -> Any:
    """Where a move ends below the floor, beside an x well above it, for which the divergence is infinite there.

    Slope and curvature below the floor are so large that no step would ever lead out again.
    """
    return (x > _WELL * floor) & (y >= floor) & (y + move < floor) if beta <= 1 else None


def size(beta: float, x: Entries) -> Entries:
    """`x^β`: what a deviation is measured against, in the same unit; 0 for x = 0."""
    xp = _package(x)
    if beta == 0:
        return xp.ones_like(x)
    return xp.where(x > 0, power(xp.where(x > 0, x, 1), beta), 0)


def floor_of(x: Entries) -> Floor:
    """The product below which nothing divides: the dtype's resolution beside the largest entry."""
    eps, tiny = float(jnp.finfo(x.dtype).eps), float(jnp.finfo(x.dtype).tiny)
    if isinstance(x, np.ndarray):
        return x.dtype.type(max(eps * float(x.max(initial=0)), tiny))
    return jax.lax.stop_gradient(jnp.maximum(eps * jnp.max(x), tiny))


def power(y: Entries, exponent: float) -> Entries:
    """`y^p` for y above 0; half powers by roots, which take a tenth of the time."""
    if isinstance(y, np.ndarray):
        halves = exponent != int(exponent) and 2 * exponent == int(2 * exponent)
        return np.sqrt(y) ** int(2 * exponent) if halves else y**exponent
    if exponent == int(exponent):
        return jax.lax.integer_pow(y, int(exponent))
    if 2 * exponent == int(2 * exponent):
        return jax.lax.integer_pow(jnp.sqrt(y), int(2 * exponent))
    return jnp.power(y, jnp.asarray(exponent, y.dtype))


def descent_exponent(beta: float) -> float:
    """γ(β), with which multiplicative updates never raise the divergence (Févotte & Idier 2011)."""
    if beta < 1:
        return 1 / (2 - beta)
    return 1.0 if beta <= 2 else 1 / (beta - 1)


def _package(x: Entries) -> Any:
    return np if isinstance(x, np.ndarray) else jnp

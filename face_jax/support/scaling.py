"""Safe division, and scaling by powers of two: exact, and without overflow on the way."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Three factors that are powers of two in the dtype's range make any change between two of its numbers. What each takes
# of what remains, in 32nds:
_SHARES = (11, 16, 32)


def positive(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """x where it's above zero, else 1: a divisor for what has no say where x is 0, such as a concept of length zero."""
    return jnp.where(x > 0, x, 1)


def exponent(size: Float[Array, "..."]) -> Int[Array, "..."]:
    """The e of `size / 2ᵉ` from ½ to below 1; 0 for zero. No derivative is taken through it."""
    kind = jnp.finfo(size.dtype)
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(jnp.abs(size)), f"int{kind.bits}") >> kind.nmant
    return jnp.where(bits > 0, bits - (kind.maxexp - 2), 0).astype(jnp.int32)


def shifted(x: Float[Array, "..."], by: Int[Array, "..."]) -> Float[Array, "..."]:
    """`x · 2^by`, exactly where the result is a normal number; linear in x."""
    kind = jnp.finfo(x.dtype)
    for step in range(len(_SHARES)):
        # About as much as a share of those that remain would be; dividing takes long to compile.
        part = (by * _SHARES[step]) >> 5
        by = by - part
        # Written into the bits: a power that's computed is not exact everywhere, and takes longer.
        biased = jnp.clip(part, kind.minexp, kind.maxexp - 1) + (kind.maxexp - 1)
        x = x * jax.lax.bitcast_convert_type(biased.astype(f"int{kind.bits}") << kind.nmant, x.dtype)
    return x


def usable_exponent(largest: Float[Array, "..."]) -> Int[Array, "..."]:
    """As `exponent`; 0 for infinity and NaN too, and never so far out that its power of two isn't a number."""
    usual = jnp.isfinite(largest) & (largest > 0)
    most = jnp.finfo(largest.dtype).maxexp - 2
    return jnp.clip(jnp.where(usual, jnp.frexp(jnp.where(usual, largest, 1))[1], 0), -most, most)


def of_order_one(values: np.ndarray, axis: int) -> np.ndarray:
    """NumPy's numbers with the largest along an axis between ½ and 1: their squares stay in range.

    Digits don't change; where the largest isn't finite, nothing is promised.
    """
    largest = np.abs(values).max(axis, keepdims=True)
    return np.ldexp(values, -np.frexp(np.where(np.isfinite(largest), largest, 1))[1])


def widest(dtype: jnp.dtype) -> int:
    """Sums of products stay precise for numbers between `2^−widest` and `2^widest`."""
    return 3 * int(jnp.finfo(dtype).maxexp) // 4


def bound(dtype: jnp.dtype) -> float:
    """Far beyond whatever matters beside numbers of about 1, and its square is still a number."""
    return 2.0 ** (int(jnp.finfo(dtype).maxexp) // 2 - 4)

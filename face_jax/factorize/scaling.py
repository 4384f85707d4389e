"""Powers of two: units are changed by them without a rounding, and without leaving the dtype's range on the way."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_STEPS = 3  # so many factors that are powers of two in the dtype's range make any change between two of its numbers


def exponent(size: Float[Array, "..."]) -> Int[Array, "..."]:
    """The e of `size / 2ᵉ` from ½ to below 1; 0 for zero. No derivative is taken through it."""
    kind = jnp.finfo(size.dtype)
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(jnp.abs(size)), f"int{kind.bits}") >> kind.nmant
    return jnp.where(bits > 0, bits - (kind.maxexp - 2), 0).astype(jnp.int32)


def shifted(x: Float[Array, "..."], by: Int[Array, "..."]) -> Float[Array, "..."]:
    """`x · 2^by`, exactly where the result is a normal number; linear in x."""
    kind = jnp.finfo(x.dtype)
    for step in range(_STEPS):
        part = by // (_STEPS - step)
        by = by - part
        # Written into the bits: a power that's computed is not exact everywhere, and takes longer.
        biased = jnp.clip(part, kind.minexp, kind.maxexp - 1) + (kind.maxexp - 1)
        x = x * jax.lax.bitcast_convert_type(biased.astype(f"int{kind.bits}") << kind.nmant, x.dtype)
    return x


def widest(dtype: jnp.dtype) -> int:
    """Sums of products stay precise for numbers between `2^−widest` and `2^widest`."""
    return 3 * int(jnp.finfo(dtype).maxexp) // 4


def bound(dtype: jnp.dtype) -> float:
    """Far beyond whatever matters beside numbers of about 1, and its square is still a number."""
    return 2.0 ** (int(jnp.finfo(dtype).maxexp) // 2 - 4)

"""Random numbers for a part of an array: the same that the whole array would have there."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key


def can_part(key: Key[Array, ""]) -> bool:
    """Whether this kind of key draws each entry by its place alone: JAX's usual kind does."""
    return str(jax.random.key_impl(key)) == "threefry2x32" and bool(
        getattr(jax.config, "jax_threefry_partitionable", False)
    )


def uniform_part(
    key: Key[Array, ""], shape: tuple[int, int], rows: slice, columns: slice, dtype: Any, *, least: float = 0.0
) -> Float[Array, "_ _"]:
    """`jax.random.uniform(key, shape, dtype, least)[rows, columns]`, without the rest.

    For a key of another kind, numbers of the same distribution, which depend on where the part begins.
    """
    (top, bottom, _), (left, right, _) = rows.indices(shape[0]), columns.indices(shape[1])
    part = (bottom - top, right - left)
    if not can_part(key):
        own = jax.random.fold_in(jax.random.fold_in(key, top), left)
        return jax.random.uniform(own, part, dtype, least)
    places = np.arange(top, bottom, dtype=np.uint64)[:, None] * np.uint64(shape[1])
    places = places + np.arange(left, right, dtype=np.uint64)[None]
    high, low = (places >> np.uint64(32)).astype(np.uint32), places.astype(np.uint32)
    return _drawn(jax.random.key_data(key), high, low, np.dtype(dtype).itemsize, least)


def normal_part(
    key: Key[Array, ""], shape: tuple[int, int], rows: slice, columns: slice, dtype: Any
) -> Float[Array, "_ _"]:
    """`jax.random.normal(key, shape, dtype)[rows, columns]`, without the rest."""
    least = float(np.nextafter(np.asarray(-1, dtype), np.asarray(0, dtype)))
    drawn = uniform_part(key, shape, rows, columns, dtype, least=least)
    return jnp.asarray(math.sqrt(2), dtype) * jax.lax.erf_inv(drawn)


@partial(jax.jit, static_argnums=(3, 4))
def _drawn(data: Array, high: Array, low: Array, size: int, least: float) -> Array:
    first, second = jax.extend.random.threefry2x32_p.bind(
        jnp.broadcast_to(data[0], high.shape), jnp.broadcast_to(data[1], high.shape), high, low
    )
    dtype, digits = (jnp.float32, 23) if size == 4 else (jnp.float64, 52)
    if size == 4:
        bits, one = first ^ second, jnp.uint32(0x3F800000)
        mantissa = jax.lax.shift_right_logical(bits, jnp.uint32(32 - digits))
    else:
        bits = (first.astype(jnp.uint64) << jnp.uint64(32)) | second.astype(jnp.uint64)
        one, mantissa = jnp.uint64(0x3FF0000000000000), jax.lax.shift_right_logical(bits, jnp.uint64(64 - digits))
    unit = jax.lax.bitcast_convert_type(mantissa | one, dtype) - 1
    lowest = jnp.asarray(least, dtype)
    return jnp.maximum(lowest, unit * (1 - lowest) + lowest)

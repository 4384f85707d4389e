"""torch's type promotion, spelt out, so that it also holds where JAX refuses to promote by itself."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .layout import ChannelsLast, is_array


def _category(dtype: Any) -> int:
    if dtype == jnp.bool_:
        return 0
    if jnp.issubdtype(dtype, jnp.integer):
        return 1
    return 2 if jnp.issubdtype(dtype, jnp.floating) else 3


def canonical(dtype: Any) -> np.dtype:
    """`dtype`, or its half-width sister where JAX has 64-bit types switched off."""
    return np.dtype(jax.dtypes.canonicalize_dtype(dtype))


def _joined(dtypes: list[Any]) -> Any:
    result = dtypes[0]
    for dtype in dtypes[1:]:
        if dtype != result:
            with jax.numpy_dtype_promotion("standard"):
                result = jnp.promote_types(result, dtype)
    return result


def result_type(*values: Any) -> np.dtype:
    """The type torch gives to an operation on these arrays and Python numbers.

    Arrays with axes outrank arrays without, and these outrank Python numbers; the lower rank only counts
    when its category (bool < integer < floating) is higher.
    """
    arrays = [value for value in values if is_array(value) or isinstance(value, ChannelsLast)]
    tiers = [[array.dtype for array in arrays if array.ndim], [array.dtype for array in arrays if not array.ndim]]
    numbers = [value for value in values if isinstance(value, bool | int | float)]
    result: Any = None
    for tier in tiers:
        if tier and (result is None or max(map(_category, tier)) > _category(result)):
            result = _joined(tier if result is None else [result, *tier])
    for number in numbers:
        category = 0 if isinstance(number, bool) else 1 if isinstance(number, int) else 2
        if result is None or category > _category(result):
            result = canonical((np.bool_, np.int64, np.float32)[category])
    return np.dtype(result)


def cast(value: Any, dtype: Any) -> Any:
    """An array, or a Python number that JAX lets follow the array beside it, as `dtype`."""
    if is_array(value):
        return value if value.dtype == dtype else value.astype(dtype)
    return (bool, int, float)[min(_category(dtype), 2)](value)


def promoted(*values: Any) -> tuple[Any, ...]:
    """The values in the type that torch would compute in."""
    dtype = result_type(*values)
    return tuple(cast(value, dtype) for value in values)


def floating(value: Any) -> Any:
    """Integers and truth values as float32, as torch's functions of real numbers take them."""
    return value if _category(value.dtype) >= 2 else value.astype(jnp.float32)


def widened(value: Any) -> tuple[Any, Any]:
    """Half-precision values as float32, in which torch accumulates them, and the type to go back to."""
    dtype = value.dtype
    return (value.astype(jnp.float32) if dtype in (jnp.float16, jnp.bfloat16) else value), dtype

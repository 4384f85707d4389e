"""Operators that make arrays out of nothing but a shape."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from .promotion import canonical, cast, result_type
from .table import operator


def _filled(size: tuple[int, ...], value: Any, dtype: Any) -> Any:
    dtype = canonical(dtype) if dtype is not None else result_type(value)
    return jnp.full(size, cast(value, dtype), dtype)


@operator("aten.full.default")
def _full(size: tuple[int, ...], fill_value: Any, dtype: Any = None, **_: Any) -> Any:
    return _filled(size, fill_value, dtype)


@operator("aten.zeros.default", "aten.empty.memory_format")
def _zeros(size: tuple[int, ...], dtype: Any = None, **_: Any) -> Any:
    return _filled(size, 0, dtype or np.float32)


@operator("aten.ones.default")
def _ones(size: tuple[int, ...], dtype: Any = None, **_: Any) -> Any:
    return _filled(size, 1, dtype or np.float32)


@operator("aten.scalar_tensor.default")
def _scalar_tensor(value: Any, dtype: Any = None, **_: Any) -> Any:
    return _filled((), value, dtype or np.float32)


@operator("aten.full_like.default", "aten.fill.Scalar")
def _full_like(x: Any, fill_value: Any, dtype: Any = None, **_: Any) -> Any:
    return _filled(x.shape, fill_value, dtype or x.dtype)


@operator("aten.zeros_like.default", "aten.zero.default")
def _zeros_like(x: Any, dtype: Any = None, **_: Any) -> Any:
    return _filled(x.shape, 0, dtype or x.dtype)


@operator("aten.ones_like.default")
def _ones_like(x: Any, dtype: Any = None, **_: Any) -> Any:
    return _filled(x.shape, 1, dtype or x.dtype)


@operator("aten.new_full.default")
def _new_full(x: Any, size: tuple[int, ...], fill_value: Any, dtype: Any = None, **_: Any) -> Any:
    return _filled(size, fill_value, dtype or x.dtype)


@operator("aten.new_zeros.default")
def _new_zeros(x: Any, size: tuple[int, ...], dtype: Any = None, **_: Any) -> Any:
    return _filled(size, 0, dtype or x.dtype)


@operator("aten.new_ones.default")
def _new_ones(x: Any, size: tuple[int, ...], dtype: Any = None, **_: Any) -> Any:
    return _filled(size, 1, dtype or x.dtype)


@operator("aten.arange.start_step")
def _arange(start: Any, end: Any, step: Any = 1, dtype: Any = None, **_: Any) -> Any:
    return jnp.arange(start, end, step, dtype=canonical(dtype) if dtype is not None else result_type(start, end, step))


@operator("aten.arange.default")
def _arange_end(end: Any, **options: Any) -> Any:
    return _arange(0, end, **options)


@operator("aten.arange.start")
def _arange_start(start: Any, end: Any, **options: Any) -> Any:
    return _arange(start, end, **options)

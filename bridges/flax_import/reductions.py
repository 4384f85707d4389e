"""Operators that sum up, over some axes or all."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .layout import ChannelsLast
from .promotion import canonical, cast, floating, widened
from .shapes import _STORED
from .table import layout_operator, operator


def _dims(x: Any, dim: Any) -> tuple[int, ...]:
    if dim is None or dim == ():
        return tuple(range(x.ndim))
    return tuple(axis % x.ndim for axis in ((dim,) if isinstance(dim, int) else dim))


@layout_operator("aten.mean.dim", "aten.mean.default")
def _mean(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    dims = _dims(x, dim)
    stored = isinstance(x, ChannelsLast)
    array = x.array if stored else x
    if dtype is not None:
        array = cast(array, canonical(dtype))
    array, kind = widened(array)
    mean = jnp.mean(array, tuple(_STORED[axis] for axis in dims) if stored else dims, keepdims=keepdim or stored)
    mean = mean.astype(kind)
    if not stored:
        return mean
    if keepdim:
        return ChannelsLast(mean)
    return jnp.squeeze(jnp.transpose(mean, (0, 3, 1, 2)), dims)


@operator("aten.sum.dim_IntList", "aten.sum.default")
def _sum(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    if dtype is not None:
        x = cast(x, canonical(dtype))
    x, kind = widened(x)
    total = jnp.sum(x, _dims(x, dim), keepdims=keepdim)
    return total.astype(kind) if jnp.issubdtype(kind, jnp.floating) else total


@operator("aten.amax.default", "aten.max.default")
def _amax(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    return jnp.max(x, _dims(x, dim), keepdims=keepdim)


@operator("aten.amin.default", "aten.min.default")
def _amin(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    return jnp.min(x, _dims(x, dim), keepdims=keepdim)


@operator("aten.any.dim", "aten.any.dims", "aten.any.default")
def _any(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return jnp.any(x, _dims(x, dim), keepdims=keepdim)


@operator("aten.prod.dim_int", "aten.prod.default")
def _prod(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    return jnp.prod(x, _dims(x, dim), keepdims=keepdim)


@operator("aten.var.correction")
def _var(x: Any, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Any:
    return jnp.var(x, _dims(x, dim), ddof=1 if correction is None else correction, keepdims=keepdim)


@operator("aten.var_mean.correction")
def _var_mean(x: Any, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> tuple[Any, Any]:
    return _var(x, dim, correction, keepdim), _mean(x, dim, keepdim)


@operator("aten.linalg_vector_norm.default")
def _vector_norm(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    if dtype is not None:
        x = cast(x, canonical(dtype))
    dims = _dims(x, dim)
    if ord == 1:
        return jnp.sum(jnp.abs(x), dims, keepdims=keepdim)
    if ord == float("inf"):
        return jnp.max(jnp.abs(x), dims, keepdims=keepdim)
    if ord != 2:
        return jnp.sum(jnp.abs(x) ** ord, dims, keepdims=keepdim) ** (1 / ord)
    # torch's derivative of the norm of a zero vector is 0, that of the square root is infinite
    squares = jnp.sum(x * x, dims, keepdims=keepdim)
    zero = squares == 0
    return jnp.where(zero, jnp.zeros((), x.dtype), jnp.sqrt(jnp.where(zero, jnp.ones((), x.dtype), squares)))


@operator("aten.cumsum.default")
def _cumsum(x: Any, dim: int, dtype: Any = None) -> Any:
    return jnp.cumsum(x, dim, dtype=None if dtype is None else canonical(dtype))


@operator("aten.logsumexp.default")
def _logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    return jax.nn.logsumexp(floating(x), _dims(x, dim), keepdims=keepdim)


def _normalized(function: Any, x: Any, dim: int, dtype: Any) -> Any:
    x = floating(x) if dtype is None else cast(x, canonical(dtype))
    wide, kind = widened(x)
    return function(wide, axis=dim).astype(kind)


@operator("aten.softmax.int")
def _softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    return _normalized(jax.nn.softmax, x, dim, dtype)


@operator("aten.log_softmax.int")
def _log_softmax(x: Any, dim: int, dtype: Any = None) -> Any:
    return _normalized(jax.nn.log_softmax, x, dim, dtype)


@operator("aten._softmax.default")
def _core_softmax(x: Any, dim: int, half_to_float: bool = False) -> Any:
    return _normalized(jax.nn.softmax, x, dim, jnp.float32 if half_to_float else None)


@operator("aten._log_softmax.default")
def _core_log_softmax(x: Any, dim: int, half_to_float: bool = False) -> Any:
    return _normalized(jax.nn.log_softmax, x, dim, jnp.float32 if half_to_float else None)

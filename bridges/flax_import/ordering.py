"""Operators that look for the largest and the smallest, and that sort."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import lax

from .table import operator


def _extreme(find: Callable[..., Any], x: Any, dim: int, keepdim: bool) -> tuple[Any, Any]:
    """Values and places; the first of equal values gets the whole derivative, as in torch."""
    places = find(x, axis=dim, keepdims=True)
    values = jnp.take_along_axis(x, places, axis=dim)
    return (values, places) if keepdim else (jnp.squeeze(values, dim), jnp.squeeze(places, dim))


@operator("aten.max.dim")
def _max(x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    return _extreme(jnp.argmax, x, dim, keepdim)


@operator("aten.min.dim")
def _min(x: Any, dim: int, keepdim: bool = False) -> tuple[Any, Any]:
    return _extreme(jnp.argmin, x, dim, keepdim)


@operator("aten.argmax.default")
def _argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    return jnp.argmax(x, dim, keepdims=keepdim)


@operator("aten.argmin.default")
def _argmin(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    return jnp.argmin(x, dim, keepdims=keepdim)


@operator("aten.sort.default")
def _sort(x: Any, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
    places = jnp.argsort(x, axis=dim, stable=True, descending=descending)
    return jnp.take_along_axis(x, places, axis=dim), places


@operator("aten.sort.stable")
def _sort_stable(x: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
    return _sort(x, dim, descending)


@operator("aten.topk.default")
def _topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> tuple[Any, Any]:
    values, places = _sort(x, dim, largest)
    return lax.slice_in_dim(values, 0, k, axis=dim), lax.slice_in_dim(places, 0, k, axis=dim)

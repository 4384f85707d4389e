"""Operators that read or write at places that are given by arrays."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from .promotion import cast
from .table import operator


def _places(index: Any) -> Any:
    return index if index is None or index.dtype == jnp.bool_ else index.astype(jnp.int32)


def _everywhere(indices: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else _places(index) for index in indices)


@operator("aten.index.Tensor", "aten._unsafe_index.Tensor")
def _index(x: Any, indices: tuple[Any, ...]) -> Any:
    return x[_everywhere(indices)]


@operator("aten.index_put.default")
def _index_put(x: Any, indices: tuple[Any, ...], values: Any, accumulate: bool = False) -> Any:
    values = cast(values, x.dtype)
    if any(index is not None and index.dtype == jnp.bool_ for index in indices):
        return _masked_put(x, indices, values, accumulate)
    at = x.at[_everywhere(indices)]
    return at.add(values) if accumulate else at.set(values)


def _masked_put(x: Any, indices: tuple[Any, ...], values: Any, accumulate: bool) -> Any:
    """Write where a mask is true; it is the only index, over some axes in a row."""
    first, *others = (axis for axis, index in enumerate(indices) if index is not None)
    mask = indices[first]
    rest = x.ndim - first - mask.ndim
    # torch's values have one axis for all places where the mask is true; how many there are is not known in advance
    shape, along = values.shape, values.ndim - rest - 1
    if others or (along >= 0 and shape[along] != 1):
        raise NotImplementedError(
            f"index_put with a mask is imported for one mask and values that are the same wherever it is true; these "
            f"have shape {shape}; write torch.where(mask, values, x)"
        )
    if along >= 0:
        values = values.reshape((*shape[:along], *(1,) * mask.ndim, *shape[along + 1 :]))
    values = jnp.broadcast_to(values, x.shape)
    mask = mask.reshape((1,) * first + mask.shape + (1,) * rest)
    return jnp.where(mask, x + values if accumulate else values, x)


@operator("aten.index_select.default")
def _index_select(x: Any, dim: int, index: Any) -> Any:
    return jnp.take(x, _places(index), axis=dim)


def _along(index: Any, dim: int) -> tuple[Any, ...]:
    """An index for each axis: `index` for `dim`, and every other place stays where it is."""
    spots = list(jnp.indices(index.shape, jnp.int32, sparse=True))
    spots[dim] = _places(index)
    return tuple(spots)


@operator("aten.gather.default")
def _gather(x: Any, dim: int, index: Any, sparse_grad: bool = False) -> Any:
    return x[_along(index, dim)]


@operator("aten.scatter.value")
def _scatter_value(x: Any, dim: int, index: Any, value: Any) -> Any:
    return x.at[_along(index, dim)].set(cast(value, x.dtype))


def _beside(src: Any, index: Any) -> Any:
    return src[tuple(slice(size) for size in index.shape)]


@operator("aten.scatter.src")
def _scatter(x: Any, dim: int, index: Any, src: Any) -> Any:
    return x.at[_along(index, dim)].set(_beside(src, index))


@operator("aten.scatter_add.default")
def _scatter_add(x: Any, dim: int, index: Any, src: Any) -> Any:
    return x.at[_along(index, dim)].add(_beside(src, index))


@operator("aten.diagonal.default")
def _diagonal(x: Any, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Any:
    return jnp.diagonal(x, offset, dim1, dim2)


@operator("aten.embedding.default")
def _embedding(weight: Any, indices: Any, *_: Any, **__: Any) -> Any:
    return jnp.take(weight, _places(indices), axis=0)

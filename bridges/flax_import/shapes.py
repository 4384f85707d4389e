"""Operators that only move values: views, permutations, joining, cutting, padding."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from .layout import TO_FIRST, ChannelsLast, in_last_order, in_torch_order, is_array
from .promotion import cast, result_type
from .table import layout_operator, operator

# Where torch's axes (image, channel, y, x) are in a channels-last array
_STORED = (0, 3, 1, 2)


@layout_operator("aten.permute.default")
def _permute(x: Any, dims: tuple[int, ...]) -> Any:
    dims = tuple(dim % x.ndim for dim in dims)
    if isinstance(x, ChannelsLast):
        # The permutation that torch modules use to get channels last costs nothing here
        stored = tuple(_STORED[dim] for dim in dims)
        if stored == (0, 3, 1, 2):
            return x
        return x.array if stored == (0, 1, 2, 3) else jnp.transpose(x.array, stored)
    if dims == TO_FIRST:
        return ChannelsLast(x)
    return jnp.transpose(x, dims)


@operator("aten.transpose.int", "aten.swapaxes.default", "aten.transpose_.default")
def _transpose(x: Any, dim0: int, dim1: int) -> Any:
    return jnp.swapaxes(x, dim0, dim1)


@operator("aten.t.default")
def _t(x: Any) -> Any:
    return x.T


@operator("aten.movedim.intlist", "aten.movedim.int")
def _movedim(x: Any, source: Any, destination: Any) -> Any:
    return jnp.moveaxis(x, source, destination)


@operator("aten.view.default", "aten.reshape.default", "aten._unsafe_view.default")
def _view(x: Any, size: tuple[int, ...]) -> Any:
    return jnp.reshape(x, size)


@operator("aten.expand_as.default", "aten.view_as.default")
def _expand_as(x: Any, other: Any) -> Any:
    return _expand(x, other.shape) if x.size != other.size else jnp.reshape(x, other.shape)


@layout_operator("aten.flatten.using_ints")
def _flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    if isinstance(x, ChannelsLast) and x.shape[2:] == (1, 1) and start_dim == 1 and end_dim in (-1, 3):
        return x.array[:, 0, 0, :]
    x = in_torch_order(x)
    if x.ndim == 0:
        return x.reshape(1)
    start, end = start_dim % x.ndim, end_dim % x.ndim
    return x.reshape((*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]))


@operator("aten.unflatten.int")
def _unflatten(x: Any, dim: int, sizes: tuple[int, ...]) -> Any:
    dim %= x.ndim
    if -1 in sizes:
        rest = x.shape[dim] // -math.prod(sizes)
        sizes = tuple(rest if size == -1 else size for size in sizes)
    return x.reshape((*x.shape[:dim], *sizes, *x.shape[dim + 1 :]))


@operator("aten.unsqueeze.default")
def _unsqueeze(x: Any, dim: int) -> Any:
    return jnp.expand_dims(x, dim)


@operator("aten.squeeze.dims", "aten.squeeze.dim", "aten.squeeze.default")
def _squeeze(x: Any, dims: Any = None) -> Any:
    if dims is None:
        dims = range(x.ndim)
    dims = (dims,) if isinstance(dims, int) else dims
    return jnp.squeeze(x, tuple(dim for dim in dims if x.ndim and x.shape[dim] == 1))


@operator("aten.expand.default")
def _expand(x: Any, size: tuple[int, ...], implicit: bool = False) -> Any:
    x = x.reshape((1,) * (len(size) - x.ndim) + x.shape)
    return jnp.broadcast_to(x, tuple(have if want == -1 else want for have, want in zip(x.shape, size, strict=True)))


@operator("aten.repeat.default")
def _repeat(x: Any, repeats: tuple[int, ...]) -> Any:
    return jnp.tile(x.reshape((1,) * (len(repeats) - x.ndim) + x.shape), repeats)


@layout_operator("aten.cat.default", "aten.concat.default")
def _cat(tensors: tuple[Any, ...], dim: int = 0) -> Any:
    dtype = result_type(*tensors)
    # torch lets an empty one-axis tensor join anything
    tensors = tuple(tensor for tensor in tensors if tensor.shape != (0,)) or tensors[:1]
    if any(isinstance(tensor, ChannelsLast) for tensor in tensors):
        arrays = [cast(in_last_order(tensor), dtype) for tensor in tensors]
        return ChannelsLast(jnp.concatenate(arrays, axis=_STORED[dim]))
    return jnp.concatenate([cast(tensor, dtype) for tensor in tensors], axis=dim)


@operator("aten.stack.default")
def _stack(tensors: tuple[Any, ...], dim: int = 0) -> Any:
    dtype = result_type(*tensors)
    return jnp.stack([cast(tensor, dtype) for tensor in tensors], axis=dim)


def _axis(x: Any, dim: int) -> tuple[Any, int]:
    """The stored array and the axis in it that torch calls `dim`."""
    return (x.array, _STORED[dim]) if isinstance(x, ChannelsLast) else (x, dim % x.ndim)


def _as(x: Any, array: Any) -> Any:
    return ChannelsLast(array) if isinstance(x, ChannelsLast) else array


@layout_operator("aten.split_with_sizes.default", "aten.split.sizes")
def _split_with_sizes(x: Any, split_sizes: tuple[int, ...], dim: int = 0) -> tuple[Any, ...]:
    array, axis = _axis(x, dim)
    return tuple(_as(x, part) for part in jnp.split(array, list(np.cumsum(split_sizes[:-1])), axis=axis))


@layout_operator("aten.split.Tensor")
def _split(x: Any, split_size: int, dim: int = 0) -> tuple[Any, ...]:
    array, axis = _axis(x, dim)
    edges = list(range(split_size, array.shape[axis], split_size))
    return tuple(_as(x, part) for part in jnp.split(array, edges, axis=axis))


@layout_operator("aten.chunk.default")
def _chunk(x: Any, chunks: int, dim: int = 0) -> tuple[Any, ...]:
    array, axis = _axis(x, dim)
    return _split(x, max(1, -(-array.shape[axis] // chunks)), dim)


@operator("aten.unbind.int")
def _unbind(x: Any, dim: int = 0) -> tuple[Any, ...]:
    return tuple(jnp.moveaxis(x, dim, 0))


def _clipped(index: int | None, length: int, otherwise: int) -> int:
    if index is None:
        return otherwise
    return min(max(index + length if index < 0 else index, 0), length)


@layout_operator("aten.slice.Tensor")
def _slice(x: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    array, axis = _axis(x, dim)
    length = array.shape[axis]
    start, end = _clipped(start, length, 0), _clipped(end, length, length)
    if (start, end, step) == (0, length, 1):
        return x
    return _as(x, lax.slice_in_dim(array, start, max(start, end), step, axis))


def _at(x: Any, dim: int, index: Any) -> tuple[Any, ...]:
    return (slice(None),) * (dim % x.ndim) + (index,)


@operator("aten.slice_scatter.default")
def _slice_scatter(
    x: Any, src: Any, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Any:
    length = x.shape[dim]
    start, end = _clipped(start, length, 0), _clipped(end, length, length)
    return x.at[_at(x, dim, slice(start, max(start, end), step))].set(cast(src, x.dtype))


@operator("aten.select.int")
def _select(x: Any, dim: int, index: int) -> Any:
    return lax.index_in_dim(x, index, dim, keepdims=False)


@operator("aten.select_scatter.default")
def _select_scatter(x: Any, src: Any, dim: int, index: int) -> Any:
    return x.at[_at(x, dim, index)].set(cast(src, x.dtype))


@layout_operator("aten.roll.default")
def _roll(x: Any, shifts: tuple[int, ...], dims: tuple[int, ...] = ()) -> Any:
    if not dims:
        x = in_torch_order(x)
        return jnp.roll(x.reshape(-1), shifts[0]).reshape(x.shape)
    axes = tuple(_axis(x, dim)[1] for dim in dims)
    return _as(x, jnp.roll(_axis(x, 0)[0], tuple(shifts), axes))


@operator("aten.flip.default")
def _flip(x: Any, dims: tuple[int, ...]) -> Any:
    return jnp.flip(x, dims)


@layout_operator("aten.constant_pad_nd.default")
def _constant_pad(x: Any, pad: tuple[int, ...], value: Any = 0) -> Any:
    # torch counts from the last axis; negative numbers cut
    if not any(pad):
        return x
    widths = [(0, 0, 0)] * x.ndim
    for place in range(len(pad) // 2):
        widths[_axis(x, x.ndim - 1 - place)[1]] = (pad[2 * place], pad[2 * place + 1], 0)
    array = _axis(x, 0)[0]
    return _as(x, lax.pad(array, jnp.asarray(cast(value, array.dtype), array.dtype), widths))


@layout_operator("aten.pad.default")
def _pad(x: Any, pad: tuple[int, ...], mode: str = "constant", value: Any = None) -> Any:
    if mode == "constant":
        return _constant_pad(x, pad, 0 if value is None else value)
    widths = [(0, 0)] * x.ndim
    for place in range(len(pad) // 2):
        widths[_axis(x, x.ndim - 1 - place)[1]] = (pad[2 * place], pad[2 * place + 1])
    name = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode]
    return _as(x, jnp.pad(_axis(x, 0)[0], widths, mode=name))


@operator("aten.copy.default")
def _copy(x: Any, src: Any, non_blocking: bool = False) -> Any:
    if not is_array(src):
        return jnp.full_like(x, src)
    return cast(_expand(src, x.shape), x.dtype)

"""Pooling: torch's rounding, padding and counting rules on channels-last pictures."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from .layout import ChannelsLast, in_last_order
from .promotion import widened
from .table import layout_operator, operator
from .windows import Pair, padded, pair, shifted

# Windows up to this many places are read as shifted slices; larger ones are reduced by XLA
_MANY_PLACES = 32


def _edges(length: int, window: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> Pair:
    """How much to pad (negative: to cut) before and after, so that exactly torch's windows fit."""
    reach = dilation * (window - 1) + 1
    free = length + 2 * padding - reach
    count = (-(-free // stride) if ceil_mode else free // stride) + 1
    if ceil_mode and (count - 1) * stride >= length + padding:
        # torch drops a last window that would start in the padding
        count -= 1
    return padding, (count - 1) * stride + reach - length - padding


def _max_pool(
    x: Any, kernel_size: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False
) -> ChannelsLast:
    window = pair(kernel_size)
    steps, pads, spread = pair(stride, window), pair(padding), pair(dilation)
    x = in_last_order(x)
    edges = tuple(
        _edges(x.shape[1 + axis], window[axis], steps[axis], pads[axis], spread[axis], ceil_mode) for axis in (0, 1)
    )
    lowest = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    x = padded(x, edges, lowest)
    if window[0] * window[1] > _MANY_PLACES:
        return ChannelsLast(
            lax.reduce_window(
                x, np.asarray(lowest, x.dtype), lax.max, (1, *window, 1), (1, *steps, 1), "VALID", None, (1, *spread, 1)
            )
        )
    # A later value wins only if it is greater, so that of equal values the first gets the gradient, as in torch
    parts = (part for _, _, part in shifted(x, window, steps, spread))
    return ChannelsLast(functools.reduce(lambda best, part: jnp.where(part > best, part, best), parts))


@layout_operator("aten.max_pool2d.default")
def _max_pool2d(x: Any, *arguments: Any, **options: Any) -> ChannelsLast:
    return _max_pool(x, *arguments, **options)


@layout_operator("aten.max_pool2d_with_indices.default")
def _max_pool2d_with_indices(x: Any, *arguments: Any, **options: Any) -> tuple[ChannelsLast, None]:
    return _max_pool(x, *arguments, **options), None


def _window_sums(x: Any, window: Pair, stride: Pair) -> Any:
    if window[0] * window[1] > _MANY_PLACES:
        return lax.reduce_window(x, np.asarray(0, x.dtype), lax.add, (1, *window, 1), (1, *stride, 1), "VALID")
    return functools.reduce(lambda total, part: total + part, (p for _, _, p in shifted(x, window, stride, (1, 1))))


def _counts(length: int, window: int, stride: int, padding: int, edges: Pair, count_include_pad: bool) -> np.ndarray:
    """How many places along one axis each window averages over."""
    starts = np.arange((length + sum(edges) - window) // stride + 1) * stride - padding
    # What ceil_mode adds beyond the padding never counts
    first, last = (-padding, length + padding) if count_include_pad else (0, length)
    return np.minimum(starts + window, last) - np.maximum(starts, first)


@layout_operator("aten.avg_pool2d.default")
def _avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> ChannelsLast:
    window = pair(kernel_size)
    steps, pads = pair(stride, window), pair(padding)
    x, kind = widened(in_last_order(x))
    lengths = x.shape[1:3]
    edges = tuple(_edges(lengths[a], window[a], steps[a], pads[a], 1, ceil_mode) for a in (0, 1))
    sums = _window_sums(padded(x, edges, 0), window, steps)
    if divisor_override is not None:
        return ChannelsLast((sums / divisor_override).astype(kind))
    rows, columns = (_counts(lengths[a], window[a], steps[a], pads[a], edges[a], count_include_pad) for a in (0, 1))
    counts = np.outer(rows, columns)[None, :, :, None].astype(sums.dtype)
    return ChannelsLast((sums / counts).astype(kind))


@operator("aten.avg_pool3d.default")
def _avg_pool3d(
    x: Any,
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...] = (),
    padding: tuple[int, ...] = (0, 0, 0),
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """What local response normalization is made of: channels as a third axis of places."""
    if any(padding) or ceil_mode:
        raise NotImplementedError("avg_pool3d is imported without padding and without ceil_mode only; pad before it")
    wide, kind = widened(x)
    steps = tuple(stride) or tuple(kernel_size)
    zero = np.asarray(0, wide.dtype)
    sums = lax.reduce_window(wide, zero, lax.add, (1, 1, *kernel_size), (1, 1, *steps), "VALID")
    return (sums / (divisor_override or math.prod(kernel_size))).astype(kind)


def _bins(length: int, bins: int) -> list[Pair]:
    """torch's adaptive windows: they overlap where `bins` does not divide `length`."""
    return [(i * length // bins, -(-(i + 1) * length // bins)) for i in range(bins)]


def _averaging(length: int, bins: int, dtype: Any) -> np.ndarray:
    matrix = np.zeros((bins, length))
    for row, (start, end) in enumerate(_bins(length, bins)):
        matrix[row, start:end] = 1 / (end - start)
    return matrix.astype(dtype)


def _sizes(x: Any, output_size: Any) -> Pair:
    """The output's height and width; None keeps the input's."""
    sizes = (output_size, output_size) if isinstance(output_size, int) else output_size
    rows, columns = (x.shape[1 + axis] if size is None else size for axis, size in enumerate(sizes))
    return rows, columns


@layout_operator("aten.adaptive_avg_pool2d.default", "aten._adaptive_avg_pool2d.default")
def _adaptive_avg_pool2d(x: Any, output_size: Any) -> ChannelsLast:
    x, kind = widened(in_last_order(x))
    image, height, width, channels = x.shape
    rows, columns = _sizes(x, output_size)
    if (rows, columns) == (height, width):
        pooled = x
    elif height % rows == 0 and width % columns == 0:
        pooled = jnp.mean(x.reshape((image, rows, height // rows, columns, width // columns, channels)), (2, 4))
    else:
        over_y, over_x = _averaging(height, rows, x.dtype), _averaging(width, columns, x.dtype)
        pooled = jnp.einsum("iyxc,py,qx->ipqc", x, over_y, over_x)
    return ChannelsLast(pooled.astype(kind))


@layout_operator("aten.adaptive_max_pool2d.default")
def _adaptive_max_pool2d(x: Any, output_size: Any) -> tuple[ChannelsLast, None]:
    x = in_last_order(x)
    rows, columns = _sizes(x, output_size)
    if x.shape[1] % rows == 0 and x.shape[2] % columns == 0:
        window = (x.shape[1] // rows, x.shape[2] // columns)
        return _max_pool(ChannelsLast(x), window), None
    pooled = [
        jnp.stack([jnp.max(x[:, top:bottom, left:right], (1, 2)) for left, right in _bins(x.shape[2], columns)], 1)
        for top, bottom in _bins(x.shape[1], rows)
    ]
    return ChannelsLast(jnp.stack(pooled, 1)), None

"""Normalization with stored statistics (batch) or an example's own (layer, group)."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax import lax

from .layout import ChannelsLast
from .promotion import widened
from .table import layout_operator, operator


def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, var: Any, eps: float) -> Any:
    array = x.array if isinstance(x, ChannelsLast) else x
    array, kind = widened(array)
    mean, var = widened(mean)[0], widened(var)[0]
    scale = lax.rsqrt(var + eps)
    if weight is not None:
        scale = scale * widened(weight)[0]
    shift = -mean * scale
    if bias is not None:
        shift = shift + widened(bias)[0]
    shape = (1,) * 3 + (-1,) if isinstance(x, ChannelsLast) else (1, -1) + (1,) * (array.ndim - 2)
    result = (array * scale.reshape(shape) + shift.reshape(shape)).astype(kind)
    return ChannelsLast(result) if isinstance(x, ChannelsLast) else result


@layout_operator("aten._native_batch_norm_legit_no_training.default")
def _native_batch_norm(
    x: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, momentum: float, eps: float
) -> tuple[Any, None, None]:
    return _batch_norm(x, weight, bias, running_mean, running_var, eps), None, None


def _standardized(array: Any, axes: tuple[int, ...], eps: float) -> Any:
    mean = jnp.mean(array, axes, keepdims=True)
    centred = array - mean
    return centred * lax.rsqrt(jnp.mean(centred * centred, axes, keepdims=True) + eps)


@operator("aten.layer_norm.default")
def _layer_norm(
    x: Any, normalized_shape: tuple[int, ...], weight: Any = None, bias: Any = None, eps: float = 1e-5, _: bool = True
) -> Any:
    wide, kind = widened(x)
    rank = x.ndim - len(normalized_shape)
    result = _standardized(wide, tuple(range(rank, x.ndim)), eps)
    if weight is not None:
        result = result * widened(weight)[0].reshape((1,) * rank + weight.shape)
    if bias is not None:
        result = result + widened(bias)[0].reshape((1,) * rank + bias.shape)
    return result.astype(kind)


@operator("aten.native_layer_norm.default")
def _native_layer_norm(
    x: Any, normalized_shape: tuple[int, ...], weight: Any, bias: Any, eps: float
) -> tuple[Any, None, None]:
    return _layer_norm(x, normalized_shape, weight, bias, eps), None, None


@operator("aten.group_norm.default")
def _group_norm(
    x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, _: bool = True
) -> Any:
    wide, kind = widened(x)
    grouped = wide.reshape((x.shape[0], num_groups, math.prod(x.shape[1:]) // num_groups))
    result = _standardized(grouped, (2,), eps).reshape(x.shape)
    shape = (1, -1) + (1,) * (x.ndim - 2)
    if weight is not None:
        result = result * widened(weight)[0].reshape(shape)
    if bias is not None:
        result = result + widened(bias)[0].reshape(shape)
    return result.astype(kind)


@operator("aten.instance_norm.default")
def _instance_norm(
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    if use_input_stats:
        return _group_norm(x, x.shape[1], weight, bias, eps)
    return _batch_norm(x, weight, bias, running_mean, running_var, eps)


@operator("aten.native_group_norm.default")
def _native_group_norm(
    x: Any, weight: Any, bias: Any, N: int, C: int, HxW: int, group: int, eps: float
) -> tuple[Any, None, None]:
    return _group_norm(x, group, weight, bias, eps), None, None

"""Convolutions, each in the form that XLA computes fastest."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import lax

from .layout import ChannelsLast, in_last_order
from .table import layout_operator
from .windows import Edges, Pair, on_cpu, padded, pair, shifted

# XLA takes so long for convolutions in groups on a processor that up to so many channels the product with zeros is as
# soon done, and sooner backward: 32 × 56 × 56 × 48 in six groups takes a quarter of the time, 208 channels are a draw.
_FEW_CHANNELS = 128


def _pointwise(x: Any, weight: Any, stride: Pair) -> Any:
    """A 1 × 1 convolution is a matrix product over channels."""
    if stride != (1, 1):
        x = x[:, :: stride[0], :: stride[1]]
    return lax.dot_general(x, weight[:, :, 0, 0], (((3,), (1,)), ((), ())))


def _patches(x: Any, weight: Any) -> Any:
    """Windows that touch but do not overlap: cut the picture into patches, then one matrix product."""
    _, channels, height, width = weight.shape
    image, y, x_, _ = x.shape
    x = x[:, : y // height * height, : x_ // width * width]
    x = x.reshape((image, y // height, height, x_ // width, width, channels))
    return jnp.einsum("iyhxwc,ochw->iyxo", x, weight)


def _depthwise(x: Any, weight: Any, stride: Pair, edges: Edges, dilation: Pair) -> Any:
    """Every channel by itself: shifted pictures times weights, added up."""
    total = None
    for i, j, part in shifted(padded(x, edges, 0), (weight.shape[2], weight.shape[3]), stride, dilation):
        term = part * weight[:, 0, i, j].reshape((1, 1, 1, -1))
        total = term if total is None else total + term
    return total


def _block_diagonal(weight: Any, groups: int) -> Any:
    """The weight of a convolution without groups that does the same: zeros between channels of different groups.

    Of finite numbers: infinity in one group makes NaN in the others, too.
    """
    outs, into, *window = weight.shape
    blocks = weight.reshape((groups, outs // groups, into, *window))
    whole = jnp.einsum("gochw,gk->gokchw", blocks, jnp.eye(groups, dtype=weight.dtype))
    return whole.reshape((outs, groups * into, *window))


def _general(
    x: Any, weight: Any, stride: Pair, edges: Edges, dilation: Pair, groups: int, lhs_dilation: Pair = (1, 1)
) -> Any:
    return lax.conv_general_dilated(
        x,
        weight,
        stride,
        edges,
        lhs_dilation=lhs_dilation,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "OIHW", "NHWC"),
        feature_group_count=groups,
    )


def _pictures(x: Any, weight: Any, stride: Pair, edges: Edges, dilation: Pair, groups: int) -> Any:
    window: Pair = (weight.shape[2], weight.shape[3])
    unpadded = not any(edges[0] + edges[1])
    if groups == 1 and window == (1, 1) and unpadded:
        return _pointwise(x, weight, stride)
    if groups == 1 and window == stride and unpadded and dilation == (1, 1):
        return _patches(x, weight)
    if on_cpu() and groups == x.shape[3] == weight.shape[0]:
        return _depthwise(x, weight, stride, edges, dilation)
    if on_cpu() and groups > 1 and x.shape[3] <= _FEW_CHANNELS:
        weight, groups = _block_diagonal(weight, groups), 1
    return _general(x, weight, stride, edges, dilation, groups)


def _transposed_weight(weight: Any, groups: int) -> Any:
    """From torch's (in, out / groups, …) to the plain convolution's (out, in / groups, …), flipped."""
    into, out, *window = weight.shape
    weight = weight.reshape((groups, into // groups, out, *window))
    weight = jnp.swapaxes(weight, 1, 2).reshape((groups * out, into // groups, *window))
    return jnp.flip(weight, tuple(range(2, weight.ndim)))


def _volumes(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Any:
    """Three axes of places, in torch's order."""

    def triple(value: Any) -> Any:
        return tuple(value) * (3 // len(value))

    stride, padding, dilation = triple(stride), triple(padding), triple(dilation)
    edges, spread = [(pad, pad) for pad in padding], (1, 1, 1)
    if transposed:
        reach = [step * (size - 1) for step, size in zip(dilation, weight.shape[2:], strict=True)]
        around = zip(reach, padding, triple(output_padding), strict=True)
        edges = [(far - pad, far - pad + extra) for far, pad, extra in around]
        weight, stride, spread = _transposed_weight(weight, groups), spread, stride
    result = lax.conv_general_dilated(
        x,
        weight,
        stride,
        edges,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=("NCDHW", "OIDHW", "NCDHW"),
        feature_group_count=groups,
    )
    return result if bias is None else result + bias.reshape((1, -1, 1, 1, 1))


def _convolve(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool = False,
    output_padding: Any = 0,
    groups: int = 1,
) -> Any:
    if weight.ndim == 3:
        # One axis of places: a picture one pixel high
        widen = [(1, pair(value)[0]) for value in (stride, dilation)]
        zero = [(0, pair(value)[0]) for value in (padding, output_padding)]
        x = jnp.expand_dims(x, 2)
        result = _convolve(
            x, jnp.expand_dims(weight, 2), bias, widen[0], zero[0], widen[1], transposed, zero[1], groups
        )
        return result.array[:, 0].swapaxes(1, 2)
    if weight.ndim == x.ndim == 5:
        return _volumes(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)
    if weight.ndim != 4 or x.ndim != 4:
        raise ValueError(
            f"a convolution takes an input with {x.ndim} axes and a weight with {weight.ndim}; "
            "only batches of volumes, pictures or sequences are imported"
        )
    stride, padding, dilation, extra = pair(stride), pair(padding), pair(dilation), pair(output_padding)
    array = in_last_order(x)
    if transposed:
        reach = [dilation[axis] * (weight.shape[2 + axis] - 1) for axis in (0, 1)]
        edges = tuple((reach[axis] - padding[axis], reach[axis] - padding[axis] + extra[axis]) for axis in (0, 1))
        result = _general(array, _transposed_weight(weight, groups), (1, 1), edges, dilation, groups, stride)
    else:
        edges = ((padding[0], padding[0]), (padding[1], padding[1]))
        result = _pictures(array, weight, stride, edges, dilation, groups)
    if bias is not None:
        result = result + bias.reshape((1, 1, 1, -1))
    return ChannelsLast(result)


@layout_operator("aten.convolution.default")
def _convolution(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Any:
    return _convolve(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)


@layout_operator("aten.conv2d.default", "aten.conv1d.default")
def _conv(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Any:
    return _convolve(x, weight, bias, stride, padding, dilation, groups=groups)


@layout_operator("aten.conv2d.padding")
def _conv_padding(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: str = "valid", dilation: Any = 1, groups: int = 1
) -> Any:
    array, step = in_last_order(x), pair(dilation)
    if padding == "same":
        # Where the kernel's reach is odd, the extra row and column are at the end
        reach = [step[axis] * (weight.shape[2 + axis] - 1) for axis in (0, 1)]
        edges = tuple((total // 2, total - total // 2) for total in reach)
    else:
        edges = ((0, 0), (0, 0))
    result = _pictures(array, weight, pair(stride), edges, step, groups)
    return ChannelsLast(result if bias is None else result + bias.reshape((1, 1, 1, -1)))

"""Which axis of each tensor in a network holds the channels."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import fx, nn

from .arrays import Layout
from .tracing import Traced

Shapes = dict[fx.Node, tuple[int, ...]]

_CHANNEL_SECOND = (
    "conv",
    "pool",
    "batch_norm",
    "batchnorm",
    "group_norm",
    "groupnorm",
    "instance",
    "upsample",
    "interpolate",
)
_CHANNEL_LAST = ("linear", "layernorm", "layer_norm", "addmm", "matmul", "multihead", "scaled_dot")
_RESHAPES = ("reshape", "view", "flatten", "squeeze", "unsqueeze", "unflatten", "unsafe_view")


def layouts(traced: Traced, shapes: Shapes) -> dict[fx.Node, Layout]:
    """The layout of every tensor that can be told as `image y x channel`.

    What makes a tensor decides: convolutions, pools and batch norms put channels second, linear layers and layer
    norms last; permutations carry the axis along; everything else inherits it from its argument. Shapes alone can't
    tell, because transformers on grids keep channels last in four axes as well.

    **Arguments:**

    - `traced`: the network.
    - `shapes`: its tensors' shapes, for one input.

    **Returns:** layouts; tensors with one axis or more than four are left out.
    """
    channel: dict[fx.Node, int] = {}
    for node in traced.nodes:
        if node in shapes:
            channel[node] = _channel(node, traced.root, shapes, channel) % max(1, len(shapes[node]))
    return {
        node: Layout(len(shapes[node]), axis) for node, axis in channel.items() if 2 <= len(shapes[node]) <= 4 and axis
    }


def _channel(node: fx.Node, root: nn.Module, shapes: Shapes, channel: dict[fx.Node, int]) -> int:
    axes = len(shapes[node])
    usual = 1 if axes == 4 else -1
    source = next((argument for argument in node.all_input_nodes if argument in shapes and argument in channel), None)
    if node.op == "call_module":
        name = type(root.get_submodule(str(node.target))).__name__.lower()
    else:
        name = getattr(node.target, "__name__", str(node.target)).split(".")[0].lower()
    if any(word in name for word in _CHANNEL_SECOND):
        return 1
    if any(word in name for word in _CHANNEL_LAST) or name in ("mm", "bmm"):
        return -1
    if source is None or (node.target is operator.getitem and node.args[0] not in shapes):
        return usual
    moved = _permutation(node, len(shapes[source]))
    if moved is not None:
        return moved.index(channel[source])
    if name in _RESHAPES:
        return _through_reshape(shapes[source], shapes[node], channel[source], usual)
    peers = [a for a in node.all_input_nodes if a in channel and len(shapes[a]) == axes and a.op != "get_attr"]
    return channel[peers[0]] if peers else usual


def _permutation(node: fx.Node, axes: int) -> list[int] | None:
    """The order of the argument's axes after an operation that permutes them."""
    name = getattr(node.target, "__name__", str(node.target)).split(".")[0]
    given = list(node.args[1:])
    if name == "permute":
        dims = node.kwargs.get("dims") or (given[0] if given and isinstance(given[0], (tuple, list)) else given)
        return [int(d) % axes for d in dims]  # pyright: ignore
    if name in ("transpose", "swapaxes"):
        first = node.kwargs.get("dim0", given[0] if given else 0)
        second = node.kwargs.get("dim1", given[-1] if given else 1)
        order = list(range(axes))
        a, b = int(first) % axes, int(second) % axes  # pyright: ignore
        order[a], order[b] = order[b], order[a]
        return order
    return None


def _through_reshape(before: tuple[int, ...], after: tuple[int, ...], axis: int, usual: int) -> int:
    """Where the channel axis is after a reshape: where as many elements lie on either side of an axis as long."""
    for place, length in enumerate(after):
        if length == before[axis] and math.prod(after[:place]) == math.prod(before[:axis]):
            return place
    return usual


def shape_of(value: Any) -> tuple[int, ...] | None:
    """The shape of a floating-point tensor, None for anything else."""
    return tuple(value.shape) if isinstance(value, torch.Tensor) and value.is_floating_point() else None

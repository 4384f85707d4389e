"""Which axis of each tensor in a network holds the channels, and which the images."""

from __future__ import annotations

import builtins
from typing import Any

import torch
from torch import fx
from torch.fx.node import map_arg

from ..arrays import Layout
from .tracing import Traced

CHANNEL_SECOND = (
    "conv",
    "pool",
    "batch_norm",
    "batchnorm",
    "group_norm",
    "groupnorm",
    "instance",
    "upsample",
    "interpolate",
    "grid_sample",
    "pixel",
    "im2col",
    "col2im",
)
_CHANNEL_LAST = ("multihead", "rnn", "lstm", "gru")
# Over the last axis: where the channels are elsewhere (a layer that mixes places), they stay.
_OVER_LAST = ("linear", "layernorm", "layer_norm", "rmsnorm", "rms_norm")
PRODUCTS = {"matmul": 0, "bmm": 0, "mm": 0, "addmm": 1, "baddbmm": 1}
_VIEWS = {"view", "unsafe_view"}
_MOVES = {
    *("reshape", "view_as", "reshape_as", "flatten", "unflatten", "ravel", "squeeze", "unsqueeze"),
    *("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis", "t", "adjoint", "rot90"),
    *("getitem", "select", "slice", "narrow", "index", "index_select", "roll", "flip", "unfold"),
    *("stack", "chunk", "split", "split_with_sizes", "tensor_split", "unsafe_split", "unsafe_chunk", "unbind"),
    *("expand", "expand_as", "broadcast_to", "repeat", "tile", "repeat_interleave"),
    # Numbers that are the same all over the reduced axes stay what they are.
    *("mean", "amax", "amin", "max", "min", "median"),
}
_LIKE_MEAN = {"sum", "logsumexp"}


class Marks:
    """The number of its channel, and of its image, beside every element of every tensor of a network.

    What only moves elements moves their numbers as well, whatever it is called and however it is written: each such
    operation is done once more, on the numbers. Convolutions, pools and linear layers make new channels, on the axis
    where these operations have them. The channels' axis is then the one along which the number varies. Shapes alone
    can't tell, because transformers on grids keep channels last in four axes as well.

    Numbers that are the same along an axis are kept once for it, so all this takes little memory and time.

    **Arguments:**

    - `traced`: the network.
    - `images`: how many images it is run on.
    """

    def __init__(self, traced: Traced, images: int) -> None:
        self.traced, self.count = traced, images
        self.channels: dict[fx.Node, Any] = {}
        self.images: dict[fx.Node, Any] = {}
        # Lengths, and tensors to index with.
        self.constants: dict[fx.Node, Any] = {}

    def watch(self, node: fx.Node, value: Any) -> None:
        """Number the elements of an operation's result, after those of everything before it."""
        if not numbered(value):
            if not (isinstance(value, torch.Tensor) and value.dtype == torch.bool):
                self.constants[node] = value
            return
        depends = node is self.traced.input or any(a in self.images for a in node.all_input_nodes)
        channels = self.moved(node, self.channels)
        self.channels[node] = each(value, lambda v: self._channels(node, v)) if channels is None else channels
        if depends:
            images = self.moved(node, self.images)
            self.images[node] = each(value, lambda v: self._images(node, v)) if images is None else images

    def layout(self, node: fx.Node) -> Layout | None:
        """How a tensor can be told as `image y x channel`.

        None with one axis or more than four, and where the first isn't the images' or no other is the channels' alone.
        """
        channels, images = self.channels.get(node), self.images.get(node)
        if not isinstance(channels, torch.Tensor) or not isinstance(images, torch.Tensor):
            return None
        varying = axes_of(channels)
        # A single channel's axis is where it usually is.
        axis = varying[0] if varying else (1 if channels.ndim == 4 else channels.ndim - 1)
        if not 2 <= channels.ndim <= 4 or len(varying) > 1 or axis == 0 or max(axes_of(images), default=0) > 0:
            return None
        of_rows = images[(slice(None), *[0] * (images.ndim - 1))]
        rows = torch.arange(self.count, dtype=images.dtype, device=images.device)
        return Layout(channels.ndim, axis) if torch.equal(of_rows, rows) else None

    def moved(self, node: fx.Node, marks: dict[fx.Node, Any], compact: Any = None) -> Any:
        """What an operation makes of numbers in place of values; None if it does more than move them."""
        name = name_of(node, self.traced)
        if name not in _MOVES | _VIEWS | _LIKE_MEAN and node.target is not builtins.getattr:
            return None
        if name == "unfold" and self.makes_columns(node):
            return None
        if any(a not in marks and a not in self.constants for a in node.all_input_nodes):
            return None

        def given(argument: fx.Node) -> Any:
            return marks[argument] if argument in marks else self.constants[argument]

        arguments: Any = map_arg((node.args, node.kwargs), given)
        args, kwargs = arguments
        if name in _VIEWS:
            moved = args[0].reshape(*args[1:])  # the numbers lie otherwise in memory
        elif name in _LIKE_MEAN:
            moved = args[0].mean(*args[1:], **kwargs)
        elif node.op == "call_module":
            moved = self.traced.root.get_submodule(str(node.target))(*args, **kwargs)
        elif node.op == "call_method":
            moved = getattr(args[0], str(node.target))(*args[1:], **kwargs)
        else:
            moved = node.target(*args, **kwargs)  # pyright: ignore[reportCallIssue]
        return each(moved, compact or _compact)

    def makes_columns(self, node: fx.Node) -> bool:
        """Whether an operation is torch's `Unfold`, not the tensor's method of the same name."""
        return node.op == "call_module" or node.target is torch.nn.functional.unfold

    def _channels(self, node: fx.Node, value: torch.Tensor) -> torch.Tensor:
        """Numbers of an operation's own channels, or those of its argument."""
        name, axes = name_of(node, self.traced), value.ndim
        usual = 1 if axes == 4 else -1
        if axes == 1 or node.op in ("placeholder", "get_attr"):
            return _along(value, usual)
        if any(word in name for word in CHANNEL_SECOND) or (name in ("unfold", "fold") and self.makes_columns(node)):
            return _along(value, 1)
        if any(word in name for word in _CHANNEL_LAST):
            return _along(value, -1)
        if name in PRODUCTS:
            return self._product(node, value, PRODUCTS[name])
        source = self._source(node, value)
        before = None if source is None else self.channels[source]
        varying = axes_of(before) if before is not None and before.ndim == axes and name != "einsum" else []
        if any(word in name for word in _OVER_LAST):
            return _along(value, varying[0] if len(varying) == 1 else -1)
        if before is None or (axes == 2 and len(varying) != 1):
            return _along(value, usual)
        if before.shape == value.shape and name != "einsum":
            return before
        if before.ndim == axes and len(varying) <= 1 and name != "einsum":
            return _along(value, *varying)
        # Neither a known operation nor one that leaves the axes as they are: any axis might be the channels' now.
        return _along(value, *range(axes))

    def _product(self, node: fx.Node, value: torch.Tensor, first: int) -> torch.Tensor:
        """Numbers of a matrix product's channels: the columns', unless channels are rows that the product keeps."""
        left, right = (a if isinstance(a, fx.Node) else None for a in node.args[first : first + 2])
        kept = right if right in self.images else left
        varying = axes_of(self.channels[kept]) if kept is not None and self.channels[kept].ndim == value.ndim else []
        rows = len(varying) == 1 and (kept is left or varying[0] == value.ndim - 2)
        return _along(value, varying[0] if rows else -1)

    def _images(self, node: fx.Node, value: torch.Tensor) -> torch.Tensor:
        """Numbers of the images as the operation's argument has them; along the first axis where that can't be."""
        source = self._source(node, value)
        before = self.images.get(source) if source is not None else None
        if before is None or before.ndim != value.ndim:
            return _along(value, 0)
        for axis, length in enumerate(value.shape):
            if before.shape[axis] != length:
                before = before.narrow(axis, 0, 1)
        return before.expand(value.shape)

    def _source(self, node: fx.Node, value: torch.Tensor) -> fx.Node | None:
        """The argument that a tensor is most like: made of the images, and of its shape, if one is."""
        found = [a for a in node.all_input_nodes if isinstance(self.channels.get(a), torch.Tensor)]
        found = [a for a in found if a in self.images] or found
        for likeness in ("shape", "ndim"):
            for argument in found:
                if getattr(self.channels[argument], likeness) == getattr(value, likeness):
                    return argument
        return found[0] if found else None


def name_of(node: fx.Node, traced: Traced) -> str:
    """What an operation is called, whether it's a module, a method or a function."""
    if node.op == "call_module":
        name = type(traced.root.get_submodule(str(node.target))).__name__
    else:
        name = getattr(node.target, "__name__", str(node.target)).split(".")[0]
    return name.lower().strip("_")


def numbered(value: Any) -> bool:
    """Whether a value is a floating-point tensor with axes, or has one among its parts."""
    if isinstance(value, (tuple, list)):
        return any(numbered(part) for part in value)
    return isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() > 0 and value.ndim > 0


def each(value: Any, number: Any) -> Any:
    """What `number` makes of a tensor, or of each tensor of several; None of anything else."""
    if isinstance(value, (tuple, list)):
        parts = [each(part, number) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    return number(value) if numbered(value) else None


def _along(value: torch.Tensor, *axes: int) -> torch.Tensor:
    """Numbers along some axes, as numbers of the shape of `value`."""
    lengths = [1] * value.ndim
    for axis in axes:
        lengths[axis] = value.shape[axis]
    numbers = torch.arange(torch.Size(lengths).numel(), dtype=torch.float32, device=value.device)
    return numbers.view(lengths).expand(value.shape)


def _compact(marks: torch.Tensor) -> torch.Tensor:
    """The same numbers, kept once for every axis along which they don't vary."""
    few = few_of(marks)
    # Averages of equal numbers may differ by rounding.
    varies = [bool((few - few.narrow(axis, 0, 1)).abs().gt(0.25).any()) for axis in range(marks.ndim)]
    return few[tuple(slice(None) if along else slice(1) for along in varies)].round().expand(marks.shape)


def axes_of(marks: torch.Tensor) -> list[int]:
    """The axes along which numbers vary, of numbers that are kept once for all others."""
    return [axis for axis, length in enumerate(marks.shape) if length > 1 and marks.stride(axis) != 0]


def few_of(marks: torch.Tensor) -> torch.Tensor:
    """What is kept of numbers: one for each axis along which they don't vary."""
    return marks[tuple(slice(None) if axis in axes_of(marks) else slice(1) for axis in range(marks.ndim))]

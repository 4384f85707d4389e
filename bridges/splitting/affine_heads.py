"""Telling whether a head is an affine map of averages, and which one."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import fx, nn

from face_jax.heads import Affine

from ..arrays import Layout, to_jax
from .tracing import Traced

# Operations that can be affine in their input, or only rearrange it. Whether they are is left to the measurement.
AFFINE = {
    *("adaptiveavgpool2d", "avgpool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "avg_pool2d", "mean"),
    *("adaptiveavgpool1d", "avgpool1d", "adaptive_avg_pool1d", "avg_pool1d"),  # of tokens in a row
    *("flatten", "view", "reshape", "squeeze", "permute", "transpose", "t", "contiguous", "clone", "identity"),
    *("unsqueeze", "unflatten", "swapaxes", "movedim", "expand", "to", "float"),
    *("dropout", "dropout1d", "dropout2d", "size", "sym_size", "getattr"),
    *("getitem", "select", "slice", "sum", "mul", "div", "truediv", "true_divide", "add", "sub", "neg"),
    *("cat", "concat", "zeros_like"),
}
WITH_WEIGHTS = {
    *("linear", "addmm", "matmul", "mm", "bmm", "einsum", "conv1d", "conv2d", "convolution"),
    *("batchnorm1d", "batchnorm2d", "batch_norm"),
}
AFFINE |= WITH_WEIGHTS


def affine_from(traced: Traced) -> int:
    """The position in `traced.nodes` from which on every operation might belong to an affine head."""
    doubtful = [
        position
        for position, node in enumerate(traced.nodes)
        if node.op not in ("placeholder", "output", "get_attr") and not _may_be_affine(node, traced.root)
    ]
    return doubtful[-1] if doubtful else 0


def affine_head(head: fx.GraphModule, layout: Layout, shape: tuple[int, int, int]) -> Affine | None:
    """The affine map of averaged activations that a head is, or None if it is something else.

    Operations that can't be affine rule it out; then candidates are compared with the head on random maps in
    float64, and refused if they differ by more than rounding. One linear layer gives its weights as they are; what is
    made of several affine operations (a batch norm before it, say) is read off by probing in float64.

    **Arguments:**

    - `head`: the part of the network behind the cut.
    - `layout`: the layout of the tensor at the cut.
    - `shape`: its `y x channel`.

    **Returns:** the head in JAX, with its own copy of the weights, or None.
    """
    nodes = [node for node in head.graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    names = [operation(node, head) for node in nodes]
    if (
        layout.prefix
        or not all(_may_be_affine(node, head) for node in nodes)
        or not any(name in WITH_WEIGHTS for name in names)
    ):
        return None
    # In 64 bits a map that only looks affine can't hide behind rounding, and with random weights it can't hide behind
    # zeros (some classifiers start with a last layer of zeros).
    exact = copy.deepcopy(head).double().eval()
    trial = copy.deepcopy(exact)
    random = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for parameter in trial.parameters():
                parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64, generator=random))
            maps = torch.randn(4, *shape, dtype=torch.float64, generator=random)
            read = next(
                (read for read in (_weights, _probed) if all(_agrees(read, e, layout, maps) for e in (trial, exact))),
                None,
            )
            found = read(exact, layout, shape) if read is not None else None
    except (RuntimeError, IndexError):
        return None  # such as a linear layer over all places: no map of averages
    if found is None:
        return None
    kernel, bias = found
    dtype = next((parameter.dtype for parameter in head.parameters()), torch.float32)
    # Cloned, so that training the torch model further can't change a JAX array.
    return Affine(kernel=to_jax(kernel.to(dtype).clone()), bias=to_jax(bias.to(dtype).clone()))


def _may_be_affine(node: fx.Node, root: nn.Module) -> bool:
    return operation(node, root) in AFFINE


def operation(node: fx.Node, root: nn.Module) -> str:
    """An operation's name: of its module's class, its method or its function, in small letters."""
    if node.op == "call_module":
        return type(root.get_submodule(str(node.target))).__name__.lower().removeprefix("parametrized")
    return getattr(node.target, "__name__", str(node.target)).split(".")[0].lower()


_Map = tuple[torch.Tensor, torch.Tensor]
_Shape = tuple[int, int, int]


def _agrees(
    read: Callable[[fx.GraphModule, Layout, _Shape], _Map | None],
    head: fx.GraphModule,
    layout: Layout,
    maps: torch.Tensor,
) -> bool:
    """Whether what is read off a head gives its logits of random maps."""
    y, x, channel = maps.shape[1:]
    found = read(head, layout, (y, x, channel))
    if found is None:
        return False
    kernel, bias = found
    maps = maps.to(kernel.device)
    expected = head(layout.from_maps(maps))
    if kernel.shape != (channel, expected.shape[-1]):
        return False
    given = maps.mean(dim=(1, 2)) @ kernel + bias
    scale = float(expected.abs().max())
    return expected.shape == given.shape and torch.allclose(given, expected, rtol=1e-10, atol=1e-10 * scale)


def _weights(head: fx.GraphModule, layout: Layout, shape: _Shape) -> _Map | None:
    """The weights of the only linear layer, if that is all that a head does with averages."""
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    if len(linear) != 1 or linear[0]._forward_pre_hooks:
        return None  # hooks may compute the weight from others, just before it's used
    bias = linear[0].bias
    return linear[0].weight.t(), bias if bias is not None else linear[0].weight.new_zeros(linear[0].out_features)


def _probed(head: fx.GraphModule, layout: Layout, shape: _Shape) -> _Map:
    """The answers to one channel at a time."""

    def logits(rows: torch.Tensor) -> torch.Tensor:
        return head(layout.from_maps(rows[:, None, None, :].expand(-1, *shape[:2], -1)))

    device = next((parameter.device for parameter in head.parameters()), torch.device("cpu"))
    unit = torch.eye(shape[-1], dtype=torch.float64, device=device)
    bias = logits(torch.zeros_like(unit[:1]))[0]
    return torch.cat([logits(rows) - bias for rows in unit.split(64)]), bias

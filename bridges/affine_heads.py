"""Telling whether a head is an affine map of averages, and which one."""

from __future__ import annotations

import builtins
import copy
import operator

import torch
from torch import fx, nn

from face_jax.heads import Affine

from .arrays import Layout, to_jax
from .tracing import Traced

# Operations that are affine in their input, or only rearrange it. Whether they average is left to the measurement.
_AFFINE = {
    *("adaptiveavgpool2d", "avgpool2d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "avg_pool2d", "mean"),
    *("flatten", "view", "reshape", "squeeze", "permute", "transpose", "t", "contiguous", "clone", "identity"),
    *("dropout", "dropout1d", "dropout2d", "size", "sym_size", "getattr"),
    *("linear", "addmm", "conv2d", "convolution", "batchnorm1d", "batchnorm2d", "batch_norm"),
}
_WITH_WEIGHTS = {"linear", "addmm", "conv2d", "convolution", "batchnorm1d", "batchnorm2d", "batch_norm", "mul", "div"}


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

    Operations that can't be affine rule it out; then the candidate is compared with the head on random maps in
    float64, and refused if they differ by more than rounding. One linear layer gives its weights as they are; what is
    made of several affine operations (a batch norm before it, say) is read off by probing in float64.

    **Arguments:**

    - `head`: the part of the network behind the cut.
    - `layout`: the layout of the tensor at the cut.
    - `shape`: its `y x channel`.

    **Returns:** the head in JAX, with its own copy of the weights, or None.
    """
    nodes = [node for node in head.graph.nodes if node.op not in ("placeholder", "output", "get_attr")]
    names = [_operation(node, head) for node in nodes]
    if not all(_may_be_affine(node, head) for node in nodes) or not any(name in _WITH_WEIGHTS for name in names):
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
            for candidate in (trial, exact):
                kernel, bias = _read_off(candidate, names, layout, shape)
                maps = maps.to(kernel.device)
                expected, given = candidate(layout.from_maps(maps)), maps.mean(dim=(1, 2)) @ kernel + bias
                if expected.shape != given.shape or not torch.allclose(
                    given, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max())
                ):
                    return None
    except (RuntimeError, IndexError):
        return None  # such as a linear layer over all places: no map of averages
    dtype = next((parameter.dtype for parameter in head.parameters()), torch.float32)
    # Cloned, so that training the torch model further can't change a JAX array.
    return Affine(kernel=to_jax(kernel.to(dtype).clone()), bias=to_jax(bias.to(dtype).clone()))


def _may_be_affine(node: fx.Node, root: nn.Module) -> bool:
    if node.target is operator.getitem:
        # An item of a shape is harmless; an item of a tensor (a class token) is no average.
        source = node.args[0]
        return isinstance(source, fx.Node) and (source.target == "size" or source.target is builtins.getattr)
    return _operation(node, root) in _AFFINE


def _operation(node: fx.Node, root: nn.Module) -> str:
    if node.op == "call_module":
        return type(root.get_submodule(str(node.target))).__name__.lower()
    return getattr(node.target, "__name__", str(node.target)).split(".")[0].lower()


def _read_off(
    exact: fx.GraphModule, names: list[str], layout: Layout, shape: tuple[int, int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    linear = [module for module in exact.modules() if isinstance(module, nn.Linear)]
    if len(linear) == 1 and sum(name in _WITH_WEIGHTS for name in names) == 1:
        bias = linear[0].bias
        return linear[0].weight.t(), bias if bias is not None else linear[0].weight.new_zeros(linear[0].out_features)

    def logits(rows: torch.Tensor) -> torch.Tensor:
        return exact(layout.from_maps(rows[:, None, None, :].expand(-1, *shape[:2], -1)))

    device = next((parameter.device for parameter in exact.parameters()), torch.device("cpu"))
    unit = torch.eye(shape[-1], dtype=torch.float64, device=device)
    bias = logits(torch.zeros_like(unit[:1]))[0]
    return torch.cat([logits(rows) - bias for rows in unit.split(64)]), bias

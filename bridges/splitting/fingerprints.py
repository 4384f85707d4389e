"""A digest of what a torch classifier computes: of its tensors, and of the operations on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from .tracing import Traced


def fingerprint(model: nn.Module, traced: Traced, layer: str) -> str:
    """The sha256 digest of a model's tensors, of its operations and of a layer's name; the same in every process.

    Of tensors (parameters and buffers) it takes names, types, shapes and bytes; of operations what is done to what,
    their arguments, and settings of the modules that do them, such as a stride or a limit. Of a function that tracing
    doesn't follow (`torch.fx.wrap`) it knows the name only.

    **Arguments:**

    - `model`: the classifier.
    - `traced`: its operations.
    - `layer`: the layer's name.

    **Returns:** 64 hexadecimal digits.
    """
    # Buffers that a state_dict leaves out are computed with all the same.
    tensors = {**model.state_dict(), **dict(model.named_buffers())}
    digest = hashlib.sha256()
    for name, value in tensors.items():
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {_described(value, {})};".encode())
    for operation in _operations(traced.root, traced.nodes, tensors):
        digest.update(f"{operation};".encode())
    digest.update(layer.encode())
    return digest.hexdigest()


def _operations(root: nn.Module, nodes: Sequence[fx.Node], known: Mapping[str, Any]) -> Iterator[str]:
    numbers = {node: number for number, node in enumerate(nodes)}
    for node in nodes:
        target = _described(node.target, numbers)
        if node.op == "call_module":
            parts = root.get_submodule(str(node.target)).named_modules()
            target += "".join(f" {name} {_described(type(part), {})} {_settings(part)}" for name, part in parts)
        elif node.op == "get_attr" and node.target not in known:
            # A constant, or a part of the graph, which tracing has given a name that means nothing.
            value: Any = root
            for name in str(node.target).split("."):
                value = getattr(value, name)
            if isinstance(value, fx.GraphModule):
                target = "; ".join(_operations(value, tuple(value.graph.nodes), {}))
            else:
                target = _described(value, {})
        yield f"{node.op} {target} {_described((node.args, node.kwargs), numbers)}"


def _settings(module: nn.Module) -> str:
    """What a module was made with, such as sizes, limits and functions."""
    kept = {name: value for name, value in vars(module).items() if not name.startswith("_") and name != "training"}
    return _described(kept, {})


def _described(value: Any, numbers: Mapping[fx.Node, int]) -> str:
    """A value in words that have no address in them; operations by their numbers."""
    if isinstance(value, fx.Node):
        return f"%{numbers[value]}"
    if isinstance(value, torch.Tensor):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(content.data).hexdigest()}"
    if isinstance(value, Mapping):
        items = sorted((str(name), _described(item, numbers)) for name, item in value.items())
        return "{" + ", ".join(f"{name}: {item}" for name, item in items) + "}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(_described(item, numbers) for item in value) + ")"
    if isinstance(value, slice):
        return f"slice{_described((value.start, value.stop, value.step), numbers)}"
    if isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.memory_format | torch.layout):
        return repr(value)
    # A device says where it's computed, not what; None and others are known by their type.
    home = value if hasattr(value, "__name__") else type(value)
    return f"{getattr(home, '__module__', None)}.{home.__name__}"

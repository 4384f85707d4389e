"""Models inside of others' wrappers: the module that computes, and layers' names with and without the wrapper's."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

# By names, as some come from packages that need not be installed; the attribute is where the model is.
_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "DeepSpeedEngine": "module",
    "OptimizedModule": "_orig_mod",
}
_SHARDED = ("FullyShardedDataParallel", "FSDPModule")


def unwrapped(model: Any, argument: str = "model") -> Any:
    """A module without the wrappers around it, and around its parts, such as `DataParallel` and `torch.compile`'s.

    **Arguments:**

    - `model`: any module; anything else is passed on.
    - `argument`: what errors call it.

    **Returns:** the module itself if nothing in it is wrapped. Else what is wrapped, or a copy with parts taken out of
    their wrappers, which shares all parameters and statistics. Raises `ValueError` for what can't be used: scripted
    modules, parts of weights, weights without values, quantized and sparse ones.
    """
    if not isinstance(model, nn.Module):
        return model
    while (attribute := _wrapper(model) or _keeper(model)) is not None:
        model = getattr(model, attribute)
    _refuse(model, argument)
    wrapped = any(_wrapper(part) is not None for part in model.modules())
    return _bare(model, {}) if wrapped else model


def plain_name(model: Any, layer: Any) -> Any:
    """A layer's name in a wrapped model as `unwrapped(model)` has it: without `module.`, `_orig_mod.` and the like."""
    if not isinstance(model, nn.Module) or not isinstance(layer, str):
        return layer
    for path, inner in sorted(_wrapped(model), key=lambda pair: -len(pair[1])):
        if layer == inner:
            layer = path
        elif layer.startswith(f"{inner}."):
            layer = f"{path}.{layer.removeprefix(f'{inner}.')}".removeprefix(".")
    return layer


def _wrapped(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Where wrappers are, and where the module in each is."""
    for path, part in model.named_modules(remove_duplicate=False):
        if (attribute := _wrapper(part) or (_keeper(part) if part is model else None)) is not None:
            yield path, f"{path}.{attribute}".removeprefix(".")


def _wrapper(module: nn.Module) -> str | None:
    """The attribute that has the module in a wrapper; None for a module that isn't one."""
    for kind in type(module).__mro__:
        attribute = _WRAPPERS.get(kind.__name__)
        if attribute is not None and isinstance(module._modules.get(attribute), nn.Module):
            return attribute
    return None


def _keeper(module: nn.Module) -> str | None:
    """As `_wrapper`, of keepers of averages, which have no way to run of their own."""
    return "module" if _cannot_run(module) and list(module._modules) == ["module"] else None


def _cannot_run(module: nn.Module) -> bool:
    return getattr(type(module), "forward", None) is nn.Module.forward and "forward" not in vars(module)


def _bare(module: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    """A copy of the tree of modules, down to those that have no wrapper in them; tensors are the same ones."""
    while (attribute := _wrapper(module)) is not None:
        module = getattr(module, attribute)
    if not any(_wrapper(part) is not None for part in module.modules()):
        return module
    if id(module) not in done:
        done[id(module)] = shell = copy.copy(module)
        shell._modules = {name: None if part is None else _bare(part, done) for name, part in module._modules.items()}
    return done[id(module)]


def _refuse(model: nn.Module, argument: str) -> None:
    kind = type(model).__name__
    for path, part in model.named_modules():
        where = f"its part {path!r}" if path else "it"
        classes = [each.__name__ for each in type(part).__mro__]
        if isinstance(part, torch.jit.ScriptModule):
            raise ValueError(
                f"{argument}={kind}: {where} is a scripted or traced module, whose operations can't be followed; give "
                "the torch.nn.Module that it was made from"
            )
        if any(name in classes for name in _SHARDED):
            raise ValueError(
                f"{argument}={kind}: {where} has its weights in parts on several processes; load their full state dict "
                "into the module that was wrapped, and give that"
            )
        # Float models that can be quantized have FloatFunctional in them, of the same package.
        if "quantized" in type(part).__module__.split(".") and "FloatFunctional" not in type(part).__name__:
            raise ValueError(
                f"{argument}={kind}: {where} is quantized ({type(part).__name__}), which nothing can be differentiated "
                "through; give the model of real numbers that it was made from"
            )
    if _cannot_run(model):
        parts = ", ".join(f".{name}" for name in model._modules)
        raise ValueError(
            f"{argument}={kind} has no forward of its own; give the part of it that makes logits of images"
            + (f" (it has {parts})" if parts else "")
        )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, UninitializedBuffer | UninitializedParameter):
            raise ValueError(
                f"{argument}={kind}: {name} has no shape yet; run the model on a batch, then load its weights"
            )
        if tensor.device.type == "meta":
            raise ValueError(
                f"{argument}={kind}: {name} is on the meta device and has no values; build the model outside "
                "torch.device('meta'), or model.to_empty(device='cpu'), and load its weights"
            )
        if tensor.is_quantized or tensor.layout is not torch.strided:
            way = "dequantize()" if tensor.is_quantized else "to_dense()"
            raise ValueError(
                f"{argument}={kind}: {name} is {'quantized' if tensor.is_quantized else 'sparse'} "
                f"({tensor.dtype}, {tensor.layout}); put {name}.{way} in its place"
            )
        if type(tensor.detach()) not in (torch.Tensor, nn.Parameter, nn.Buffer):
            raise ValueError(
                f"{argument}={kind}: {name} is a {type(tensor.detach()).__name__}, which JAX can't share; give the "
                "model with plain tensors (of a distributed one: its full tensors)"
            )


def copied(module: nn.Module) -> nn.Module:
    """A copy with tensors of its own, also where hooks keep weights that they computed, which torch doesn't copy."""
    kept = [each for part in module.modules() for each in vars(part).values() if isinstance(each, torch.Tensor)]
    # They are computed anew at the next call.
    memo = {id(each): each.detach().clone() for each in kept if not each.is_leaf}
    return copy.deepcopy(module, memo)

"""Where a classifier's logits are in what it returns: alone, or in dictionaries, tuples and records."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn

# From what a model returns to its logits: keys, names of fields, and numbers of places. Empty where it returns them.
Path = tuple[str | int, ...]

_LOGITS = ("logits", "logit")
# Results that are never the logits, though they may have a row for each image.
_BESIDE = re.compile(r"aux|loss|hidden|state|feature|feat$|embed|pool|token", re.IGNORECASE)


def path_of_logits(result: Any, images: int) -> Path:
    """Where the logits are in what a model returned.

    What is called `logits` is taken; else the only tensor with a row for each image, those aside whose names say that
    they are features, hidden states, losses, or of auxiliary classifiers.

    **Arguments:**

    - `result`: a tensor, or dictionaries, tuples, lists and dataclasses of tensors.
    - `images`: how many images the model was given.

    **Returns:** the way to the logits. Raises `ValueError` with a remedy where several tensors may be the logits, or
    none.
    """
    leaves = dict(_tensors(result, (), set()))
    if () in leaves:
        return ()
    leaves = {path: tensor for path, tensor in leaves.items() if tensor.is_floating_point()}
    named = [path for path in leaves if _word(path) in _LOGITS]
    nearest = [path for path in named if len(path) == min(map(len, named))]
    rows = [
        path
        for path, tensor in leaves.items()
        if tensor.ndim == 2 and len(tensor) == images and not any(_BESIDE.search(str(step)) for step in path)
    ]
    likely = nearest or rows or [path for path in leaves if not _BESIDE.search(_word(path))]
    if len(likely) == 1:
        return likely[0]
    if not likely:
        raise ValueError(
            f"returns {described(result)}, in which no tensor is known for the logits; wrap it in a module that "
            "returns the logits alone"
        )
    told = " and ".join(f"{_shown(path)} (shape {tuple(leaves[path].shape)})" for path in likely[:4])
    raise ValueError(
        f"returns {described(result)}, in which {told} may be the logits; wrap it in a module that returns the logits "
        f"alone, such as one whose forward is return self.model(images){_access(result, likely[0])}"
    )


def at(result: Any, path: Path) -> Any:
    """What is at a path in a model's result, or in the result of its symbolic trace."""
    for step in path:
        if isinstance(result, fx.Node) and isinstance(result.target, type) and dataclasses.is_dataclass(result.target):
            names = [field.name for field in dataclasses.fields(result.target)]
            given: Any = dict(zip(names, result.args, strict=False)) | result.kwargs
            result = given[step]
        elif isinstance(result, Mapping) or isinstance(step, int):
            container: Any = result
            result = container[step]
        else:
            result = getattr(result, step)
    return result


@contextlib.contextmanager
def returning(model: nn.Module, path: Path) -> Iterator[None]:
    """Have a model return what is at a path of its result, for a while."""
    if not path:
        yield
        return
    forward, own = model.forward, "forward" in vars(model)

    @functools.wraps(forward)
    def alone(*args: Any, **kwargs: Any) -> Any:
        return at(forward(*args, **kwargs), path)

    model.forward = alone
    try:
        yield
    finally:
        if own:
            model.forward = forward
        else:
            del model.forward


def described(result: Any) -> str:
    """What a model returned, in words."""
    kind = type(result).__name__
    if result is None:
        return "None"
    if isinstance(result, Mapping):
        return f"a {kind} with {', '.join(map(repr, result))}"
    if hasattr(result, "_fields"):
        return f"a namedtuple {kind} with {', '.join(result._fields)}"
    if isinstance(result, tuple | list):
        return f"a {kind} of {len(result)}"
    if dataclasses.is_dataclass(result):
        return f"a {kind} with {', '.join(field.name for field in dataclasses.fields(result))}"
    return f"a {kind}"


def _parts(result: Any) -> list[tuple[Any, Any]]:
    """What is in a container, by the steps that lead there; nothing for anything else."""
    if isinstance(result, Mapping):
        return list(result.items())
    if isinstance(result, tuple | list):
        names = getattr(result, "_fields", range(len(result)))
        return list(zip(names, result, strict=True))
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        return [(field.name, getattr(result, field.name)) for field in dataclasses.fields(result)]
    logits = getattr(result, "logits", None)
    return [("logits", logits)] if isinstance(logits, torch.Tensor) else []


def _tensors(result: Any, path: Path, above: set[int]) -> Iterator[tuple[Path, torch.Tensor]]:
    if isinstance(result, torch.Tensor):
        yield path, result
    elif id(result) not in above:  # a container may be in itself
        for step, part in _parts(result):
            yield from _tensors(part, (*path, step), above | {id(result)})


def _word(path: Path) -> str:
    return str(path[-1]).lower() if path else ""


def _shown(path: Path) -> str:
    return (
        ".".join(map(str, path)) if all(isinstance(step, str) for step in path) else "".join(f"[{s!r}]" for s in path)
    )


def _access(result: Any, path: Path) -> str:
    """A path as Python's code."""
    code = ""
    for step in path:
        plain = isinstance(result, Mapping) or not isinstance(step, str)
        code += f"[{step!r}]" if plain else f".{step}"
        result = at(result, (step,))
    return code

"""A trained network that forgets: its weights drawn again, layer by layer from the top."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from face_jax.choices import check_count
from face_jax.classes import ClassNames, class_names
from face_jax.model import Preprocess, SplitModel

from .cutting import split
from .listing import example
from .tracing import evaluating


@runtime_checkable
class Fresh(Protocol):
    """What a module's trained weights are replaced by."""

    def __call__(self, module: nn.Module) -> None:
        """Replace the module's own parameters and buffers, not its children's, with torch's random numbers."""
        ...


@dataclasses.dataclass(frozen=True)
class Reinitialized:
    """As before training: each module's own `reset_parameters`, which also forgets a batch norm's statistics.

    Parameters of modules without one, and what else of real numbers they save (a frozen batch norm's statistics), are
    drawn from normal numbers with the mean and the spread that they have; a single number, or equal ones, with its own
    size for a spread. What has no number below zero, such as variances, gets none.
    """

    def __call__(self, module: nn.Module) -> None:
        """Start the module anew."""
        reset = getattr(module, "reset_parameters", None)
        if callable(reset):
            reset()
            return
        for tensor in _trained(module):
            _draw(tensor)


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """The trained values in random order, tensor by tensor: nothing learned is left but their distribution.

    Activations keep their scale, which they don't in a deep network that is reinitialized without being trained. A
    single number has no order, and is drawn as `Reinitialized` draws it.
    """

    def __call__(self, module: nn.Module) -> None:
        """Shuffle the module's parameters and statistics."""
        for tensor in _trained(module):
            if tensor.numel() == 1:
                _draw(tensor)
            else:
                order = torch.randperm(tensor.numel()).to(tensor.device)
                tensor.copy_(tensor.flatten()[order].reshape(tensor.shape))


def _trained(module: nn.Module) -> list[torch.Tensor]:
    """A module's own parameters, and its buffers that are saved with them: others are computed anew. Finite ones only,
    as masks of minus infinity are no weights."""
    saved = module.state_dict(keep_vars=True)
    buffers = [buffer for name, buffer in module.named_buffers(recurse=False) if name in saved]
    every = (*module.parameters(recurse=False), *buffers)
    return [each for each in every if each.is_floating_point() and each.numel() and bool(each.isfinite().all())]


def _draw(tensor: torch.Tensor) -> None:
    spread, mean = torch.std_mean(tensor, correction=0)
    lowest = tensor.min()
    tensor.copy_(torch.randn_like(tensor) * torch.where(spread > 0, spread, mean.abs()) + mean)
    if lowest >= 0:
        tensor.abs_()


def randomized(
    model: nn.Module,
    layer: str,
    *,
    steps: int = 6,
    fresh: Fresh | None = None,
    seed: int = 0,
    preprocess: Preprocess | None = None,
    classes: ClassNames | None = None,
    name: str | None = None,
    example_inputs: Any = None,
) -> Iterator[tuple[str, SplitModel]]:
    """A classifier as trained, then with more and more of its weights drawn again from the top, then with all at once.

    Use it with `face_jax.sanity_check`: an explanation that doesn't change with them doesn't explain the model
    (Adebayo et al. 2018). The first step takes the topmost module alone, the others equal numbers of modules in the
    order in which they run. Each step keeps what the earlier ones drew; the last stage draws everything once more.

    **Arguments:**

    - `model`: a torch module of one input, images to logits; it stays as it is.
    - `layer`: where it's split, as for `split`.
    - `steps`: from the top to the bottom; at least 1.
    - `fresh`: `Reinitialized()` by default, or `Shuffled()`.
    - `seed`: for the random numbers; torch's own stream is left alone.
    - `preprocess`, `classes`, `name`, `example_inputs`: as for `split`.

    **Returns:** names and split models, made one by one as they are asked for; each is a copy of its own.
    """
    steps = check_count("steps", steps, "steps")
    classes = None if classes is None else class_names(classes)
    fresh = fresh or Reinitialized()
    images = example(model, example_inputs, (preprocess or Preprocess()).size)
    names = _from_the_top(model, images)
    options = {"preprocess": preprocess, "classes": classes, "example_inputs": example_inputs}
    title = name or type(model).__name__
    return _stages(model, layer, _groups(names, steps), fresh, seed, title, options)


def _stages(
    model: nn.Module,
    layer: str,
    groups: list[list[str]],
    fresh: Fresh,
    seed: int,
    title: str,
    options: dict[str, Any],
) -> Iterator[tuple[str, SplitModel]]:
    yield "as trained", split(copy.deepcopy(model), layer, name=title, **options)
    current = copy.deepcopy(model)
    for group in groups:
        _redraw(current, group, fresh, seed)
        stage = f"down to {group[-1]}" if group[-1] else "down to the input"
        yield stage, split(copy.deepcopy(current), layer, name=f"{title}, random {stage}", **options)
    everything = copy.deepcopy(model)
    _redraw(everything, [name for group in groups for name in group], fresh, seed + 1)
    yield "all at once", split(everything, layer, name=f"{title}, random", **options)


def _groups(names: list[str], steps: int) -> list[list[str]]:
    """The topmost by itself, then groups of equal size."""
    top, rest = names[:1], names[1:]
    count = min(steps - 1, len(rest))
    if count < 1:
        return [names]
    edges = [round(number * len(rest) / count) for number in range(count + 1)]
    return [top, *(rest[start:stop] for start, stop in itertools.pairwise(edges))]


def _from_the_top(model: nn.Module, images: torch.Tensor) -> list[str]:
    """Names of the modules with parameters or statistics of their own, the last to run first.

    A module whose parameters are used without calling it runs where the nearest one around it does.
    """
    began: dict[str, int] = {}
    hooks = []
    for name, module in model.named_modules():

        def note(*_: Any, name: str = name) -> None:
            began.setdefault(name, len(began))

        hooks.append(module.register_forward_pre_hook(note))
    try:
        with torch.no_grad(), evaluating(model):
            model(images)
    finally:
        for hook in hooks:
            hook.remove()

    def place(name: str) -> int:
        while name and name not in began:
            name = name.rpartition(".")[0]
        return began.get(name, 0)

    own = [
        name
        for name, module in model.named_modules()
        if any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
    ]
    if not own:
        raise ValueError(f"model={type(model).__name__} has no weights, so there is nothing to draw again")
    return sorted(own, key=place, reverse=True)


def _redraw(model: nn.Module, names: list[str], fresh: Fresh, seed: int) -> None:
    for name in names:
        # A number of its own for each module, so that the order of drawing doesn't matter.
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(int.from_bytes(digest[:7], "big"))
            fresh(model.get_submodule(name))

"""Weight randomization from the top, layer by layer, for the sanity check (Adebayo et al. 2018)."""

from __future__ import annotations

import copy
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from face_jax.model import SplitModel
from face_jax.outputs import MultiLabelled
from face_jax.support.arguments import check_count
from face_jax.support.classes import ClassNames, class_names

from ..preprocessing import as_preprocess
from ..splitting.cutting import split
from ..splitting.first_run import reason
from ..splitting.surveying import example
from ..splitting.tracing import evaluating
from ..wrappers import plain_name, unwrapped
from .redrawing import Fresh, Reinitialized, named_trained, settle
from .redrawing import Shuffled as Shuffled


def randomized(
    model: nn.Module,
    layer: str,
    *,
    steps: int = 6,
    fresh: Fresh | None = None,
    seed: int = 0,
    preprocess: Any = None,
    classes: ClassNames | None = None,
    name: str | None = None,
    example_inputs: Any = None,
    multi_label: MultiLabelled = None,
) -> Iterator[tuple[str, SplitModel]]:
    """A classifier as trained, then with more and more of its weights drawn again from the top, then with all at once.

    Use it with `face_jax.sanity_check`: an explanation that doesn't change with them doesn't explain the model
    (Adebayo et al. 2018). The first step takes the topmost module alone, the others equal numbers of modules in the
    order in which they run. Each step keeps what the earlier ones drew; the last stage draws everything once more.
    Nothing may stay as trained: a parameter or statistic that does, and isn't the same number everywhere, is an error.

    **Arguments:**

    - `model`: a torch module of one input, images to logits; it stays as it is.
    - `layer`: where it's split, as for `split`.
    - `steps`: from the top to the bottom; at least 1.
    - `fresh`: `Reinitialized()` by default, or `Shuffled()`.
    - `seed`: for the random numbers; torch's own stream is left alone.
    - `preprocess`, `classes`, `name`, `example_inputs`, `multi_label`: as for `split`.

    **Returns:** names and split models, made one by one as they are asked for; each is a copy of its own. Raises
    `ValueError` for a model whose weights can't be found or drawn again, with the name of what can't.

    **Example:**

    >>> stages = bridges.randomized(network, "relu", steps=2, preprocess=fj.Preprocess(size=16, resize=16))
    >>> [name for name, model in stages][0]
    'as trained'
    """
    steps = check_count("steps", steps, "steps")
    if classes is not None and not isinstance(classes, str):
        # Once: an iterator has its names for the first stage only.
        classes = class_names(classes)
    fresh = fresh or Reinitialized()
    preprocess = as_preprocess(preprocess)
    layer, model = plain_name(model, layer), unwrapped(model)
    images = example(model, example_inputs, preprocess.size, preprocess.shape[2])
    _refuse_hidden(model)
    names = _from_the_top(model, images)
    options = {
        "preprocess": preprocess,
        "classes": classes,
        "example_inputs": example_inputs,
        "multi_label": multi_label,
    }
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
        module = model.get_submodule(name)
        before = {part: tensor.clone() for part, tensor in named_trained(module).items()}
        # A number of its own for each module, so that the order of drawing doesn't matter.
        digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(int.from_bytes(digest[:7], "big"))
            try:
                fresh(module)
            except Exception as error:
                raise ValueError(
                    f"the weights of {name or 'the model itself'} ({type(module).__name__}) can't be drawn again by "
                    f"{fresh!r} ({reason(error)}); give another rule as fresh, such as Shuffled()"
                ) from error
        _refuse_unchanged(name, module, before, fresh)
    for path, module in model.named_modules():
        if any(name == path or name.startswith(f"{path}.parametrizations.".removeprefix(".")) for name in names):
            settle(module)


def _refuse_unchanged(name: str, module: nn.Module, before: dict[str, torch.Tensor], fresh: Fresh) -> None:
    after = named_trained(module)
    left = [
        part
        for part, old in before.items()
        # Equal numbers everywhere are what a start from zero or one gives; nothing was learned in them.
        if part in after and torch.equal(after[part], old) and bool((old != old.flatten()[0]).any())
    ]
    if left and not (isinstance(fresh, Reinitialized) and _resets_to(module, before, left)):
        raise ValueError(
            f"fresh={fresh!r} left {', '.join(f'{name}.{part}'.removeprefix('.') for part in left)} as trained; an "
            "explanation that doesn't change then shows nothing: draw or shuffle them too"
        )


def _resets_to(module: nn.Module, before: dict[str, torch.Tensor], parts: list[str]) -> bool:
    """Whether a module's own reset gives these very numbers from any others, as it does with fixed tables."""
    other = copy.deepcopy(module)
    named = named_trained(other)
    with torch.random.fork_rng(), torch.no_grad():
        for part in parts:
            named[part].fill_(0)
        other.reset_parameters()  # pyright: ignore[reportCallIssue]
    return all(torch.equal(named[part], before[part]) for part in parts)


def _refuse_hidden(model: nn.Module) -> None:
    """Weights in lists and dictionaries of Python's, which no torch function finds."""
    known = {id(part) for part in (*model.modules(), *model.parameters(), *model.buffers())}
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            held = value if isinstance(value, list | tuple) else value.values() if isinstance(value, dict) else ()
            if any(isinstance(each, nn.Module | nn.Parameter) and id(each) not in known for each in held):
                raise ValueError(
                    f"{f'{name}.{attribute}'.removeprefix('.')} of the model holds modules or parameters in a "
                    f"{type(value).__name__}, where their weights can't be found; put them into a torch.nn.ModuleList, "
                    "ModuleDict, ParameterList or ParameterDict"
                )

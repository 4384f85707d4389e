"""The first forward pass of a classifier: what it takes and returns, in words where torch has errors."""

from __future__ import annotations

import contextlib
import functools
from typing import Any

import torch
from torch import nn

from face_jax.pictures.crop_and_resize import pair_of

from .outputs import Path, at, path_of_logits
from .tracing import UnsuitableModelError, evaluating


def colours_of(
    model: nn.Module, size: int | tuple[int, int], *, device: torch.device, dtype: torch.dtype, likely: int = 3
) -> tuple[int, str]:
    """How many colours a network takes, by its first convolution to run, and that one's name.

    **Arguments:**

    - `model`: images to logits.
    - `size`: height and width of images to try, or both in one number.
    - `device`, `dtype`: what it computes with.
    - `likely`: how many it takes where nothing says so.

    **Returns:** the number, and the convolution's name; of a network without any the first number that it takes of
    `likely`, 3, 1 and 4, and no name.
    """
    height, width = pair_of(size)
    found: list[tuple[int, str]] = []

    class _StopError(Exception):
        pass

    def note(name: str, module: Any, given: Any) -> None:
        channels = given[0].shape[1] if given and isinstance(given[0], torch.Tensor) and given[0].ndim == 4 else 3
        # Colours may be spread over more channels, or places folded into them, before the first convolution.
        found.append((max(1, 3 * module.in_channels // max(1, channels)), name))
        raise _StopError

    convolutions = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Conv2d)]
    hooks = [part.register_forward_pre_hook(functools.partial(note, name)) for name, part in convolutions]
    try:
        with torch.no_grad(), evaluating(model):
            model(torch.zeros(2, 3, height, width, device=device, dtype=dtype))
    except Exception as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        # Whatever else is wrong, the run that counts says so.
    finally:
        for hook in hooks:
            hook.remove()
    if not found and convolutions:
        found = [(convolutions[0][1].in_channels, convolutions[0][0])]
    if found:
        return found[0]
    for colours in dict.fromkeys((likely, 3, 1, 4)):
        # Whatever is wrong besides, the run that counts says so.
        with contextlib.suppress(RuntimeError, ValueError, IndexError, TypeError, AssertionError):
            with torch.no_grad(), evaluating(model):
                model(torch.zeros(2, colours, height, width, device=device, dtype=dtype))
            return colours, ""
    return likely, ""


def logits_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """A classifier's own logits of a batch, as `first_run` finds them."""
    return first_run(model, images)[0]


def first_run(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, Path]:
    """A classifier's own logits of a batch, and where they are in what it returns.

    **Arguments:**

    - `model`: images to logits; run in evaluation mode.
    - `images`: `image colour y x`.

    **Returns:** the logits, `image class` (where the model gives a single axis, one an image), and the way to them:
    empty for a model that returns them alone. Raises `UnsuitableModelError` where it isn't clear which tensor they are,
    and `ValueError` for a model that doesn't take such images, or whose logits have another shape or type.
    """
    name = type(model).__name__
    try:
        with torch.no_grad(), evaluating(model):
            result = model(images.clone())
    except torch.OutOfMemoryError:
        raise
    except AttributeError as error:
        raise ValueError(
            f"model={name} fails in its forward, whatever the pictures ({reason(error)}); if that reaches into a "
            "wrapper such as DataParallel or torch.compile's (self.part.module.x): wrappers are taken off here, so "
            "write it without .module or ._orig_mod"
        ) from error
    except Exception as error:
        height, width = images.shape[-2:]
        raise ValueError(
            f"model={name} doesn't take {height} × {width} pixels of {images.shape[1]} colours ({reason(error)}); give "
            "the size that it was made for: preprocess=face_jax.Preprocess(size=28, resize=28) for one of 28 pixels "
            "(size=28 where layers are listed), or example_inputs"
        ) from error
    try:
        path = path_of_logits(result, len(images))
    except ValueError as error:
        raise UnsuitableModelError(f"model={name} {error}") from error
    logits = at(result, path)
    if logits.ndim == 1:
        logits = logits[:, None]
    if logits.ndim != 2 or logits.shape[0] != len(images):
        raise ValueError(
            f"model={name} gives a tensor of shape {tuple(logits.shape)} for {len(images)} images; "
            "a classifier gives one row of logits an image"
        )
    if not logits.is_floating_point():
        raise ValueError(
            f"model={name} gives a tensor of {logits.dtype}; a classifier gives logits, which are real numbers: leave "
            "out an argmax or a comparison at its end"
        )
    return logits, path


def reason(error: Exception) -> str:
    """An error's type and the first line of what it says."""
    first = (str(error).strip().splitlines() or ["no message"])[0]
    return f"{type(error).__name__}: {first.rstrip('.')[:200]}"


def depends_on(result: torch.Tensor, leaf: torch.Tensor) -> bool:
    """Whether torch's graph of a result leads to a leaf, so that there is a derivative."""
    seen, waiting = set(), [result.grad_fn]
    while waiting:
        step = waiting.pop()
        if step is None or step in seen:
            continue
        if getattr(step, "variable", None) is leaf:
            return True
        seen.add(step)
        waiting += [before for before, _ in step.next_functions]
    return result is leaf

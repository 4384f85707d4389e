"""Weights by the names that they were published under, which timm and transformers bring under their modules' own."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from ..weights.files import WeightsError
from ..weights.names import behind_prefixes, fit
from .loaded import quietly

Attempt = Callable[[nn.Module, dict[str, torch.Tensor]], tuple[str, ...]]


def fit_published(
    model: nn.Module, found: dict[str, torch.Tensor], name: str, source: str, classes: int | None
) -> tuple[str, ...]:
    """`face_jax.bridges.weights.names.fit`, also for the names that timm or transformers read for this model.

    Arguments, what is returned and what is raised are as there.
    """

    def attempt(model: nn.Module, tensors: dict[str, torch.Tensor]) -> tuple[str, ...]:
        return fit(model, tensors, name, source, classes)

    try:
        return attempt(model, found)
    except WeightsError as unfit:
        if type(model).__module__.startswith("timm."):
            return _converted_by_timm(model, found, attempt, unfit)
        transformers = sys.modules.get("transformers")
        if transformers is not None and isinstance(model, transformers.PreTrainedModel):
            return _renamed_by_transformers(model, found, attempt, unfit)
        raise


def _converted_by_timm(
    model: nn.Module, found: dict[str, torch.Tensor], attempt: Attempt, unfit: WeightsError
) -> tuple[str, ...]:
    convert = getattr(importlib.import_module(type(model).__module__), "checkpoint_filter_fn", None)
    if convert is None:
        raise unfit
    for bare in behind_prefixes(found):
        converted: Any = None
        # It may well stumble over a file that is of another model.
        with contextlib.suppress(Exception):
            converted = quietly("timm", lambda bare=bare: convert(dict(bare), model))
        if isinstance(converted, dict) and converted.keys() != bare.keys():
            with contextlib.suppress(WeightsError):
                return attempt(model, converted)
    raise unfit


class _AsSaved(nn.Module):
    """A model of transformers under the names that its weights have in files."""

    def __init__(self, model: Any) -> None:
        from transformers.core_model_loading import revert_weight_conversion

        super().__init__()
        self.model = model
        self.saved: dict[str, torch.Tensor] = revert_weight_conversion(model, model.state_dict())

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.saved

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        del strict, assign  # what is missing was told by then
        whole = self.saved | state_dict
        loaded = type(self.model).from_pretrained(None, config=self.model.config, state_dict=whole)
        self.model.load_state_dict(loaded.state_dict())


def _renamed_by_transformers(
    model: nn.Module, found: dict[str, torch.Tensor], attempt: Attempt, unfit: WeightsError
) -> tuple[str, ...]:
    try:
        saved = _AsSaved(model)
    except ImportError:  # a transformers that has no such names
        raise unfit from None
    if saved.saved.keys() == model.state_dict().keys():
        raise unfit
    try:
        return attempt(saved, found)
    except WeightsError as other:
        # Whichever names are nearer to the file's tell more.
        sets = [inside.keys() for inside in behind_prefixes(found)]
        as_saved = max(len(inside & saved.saved.keys()) for inside in sets)
        as_modules = max(len(inside & model.state_dict().keys()) for inside in sets)
        raise (other if as_saved > as_modules else unfit) from None

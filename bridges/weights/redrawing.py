"""Redrawing of trained weights: where they are, and rules that draw them again."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn.utils import parametrize

# Of the power method, for a spectral norm.
_POWER_STEPS = 20
# Whole numbers of these types may be quantized weights; in buffers of longer ones are positions and counts.
_SHORT = (torch.int8, torch.uint8, torch.int16)


@runtime_checkable
class Fresh(Protocol):
    """What a module's trained weights are replaced by."""

    def __call__(self, module: nn.Module) -> None:
        """Replace the module's own parameters and buffers, not its children's, with torch's random numbers."""
        ...


@dataclasses.dataclass(frozen=True)
class Reinitialized:
    """As before training: each module's own `reset_parameters`, which also forgets a batch norm's statistics.

    Whatever that leaves alone, parameters of modules without one, and what else they save (a frozen batch norm's
    statistics), are drawn from normal numbers with the mean and the spread that they have; a single number, or equal
    ones, with its own size for a spread. What has no number below zero, such as variances, gets none. Masks of zeros
    and ones, and whole numbers (but positions and counts), are shuffled.
    """

    def __call__(self, module: nn.Module) -> None:
        """Start the module anew."""
        reset = getattr(module, "reset_parameters", None)
        trained = _trained(module)
        before = [tensor.clone() for tensor in trained]
        if callable(reset) and not _wants_arguments(reset):
            for tensor in trained:
                if not _whole(tensor):
                    tensor.fill_(torch.nan)
            reset()
        else:
            reset = None
        for tensor, old in zip(trained, before, strict=True):
            if _whole(tensor):
                # Some resets count from zero again; what they leave alone is shuffled.
                if reset is None or torch.equal(tensor, old):
                    _shuffle(tensor, old)
                continue
            # What a reset leaves alone (hooks compute the weight that it fills from others) is still not a number.
            untouched = tensor.isnan() if reset is not None else torch.ones_like(tensor, dtype=torch.bool)
            if bool(untouched.any()):
                tensor.copy_(torch.where(untouched, _drawn(old), tensor))


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """The trained values in random order, tensor by tensor: nothing learned is left but their distribution.

    Activations keep their scale, which they don't in a deep network that is reinitialized without being trained. A
    single number has no order, and is drawn as `Reinitialized` draws it.
    """

    def __call__(self, module: nn.Module) -> None:
        """Shuffle the module's parameters and statistics."""
        for tensor in _trained(module):
            if tensor.numel() == 1 and not _whole(tensor):
                tensor.copy_(_drawn(tensor))
            else:
                _shuffle(tensor, tensor.clone())


def _trained(module: nn.Module) -> list[torch.Tensor]:
    """A module's own parameters, and its buffers that are saved with them: others are computed anew. Finite ones only,
    as masks of minus infinity are no weights; of whole numbers no counters and indices."""
    return list(named_trained(module).values())


def named_trained(module: nn.Module) -> dict[str, torch.Tensor]:
    """A module's own trained numbers by their names; see `_trained`."""
    saved = module.state_dict(keep_vars=True)
    buffers = {name: each for name, each in module.named_buffers(recurse=False) if name in saved}
    # Longer whole numbers and truth values in buffers are positions, counts and masks of attention.
    buffers = {name: each for name, each in buffers.items() if not _whole(each) or each.dtype in _SHORT}
    own = {name: each for name, each in vars(module).items() if isinstance(each, torch.Tensor)}
    plain = {name: each for name, each in own.items() if each.is_leaf and each.requires_grad}
    every = {**dict(module.named_parameters(recurse=False)), **buffers, **plain}
    return {name: each.detach() for name, each in every.items() if each.numel() and bool(each.isfinite().all())}


def _whole(tensor: torch.Tensor) -> bool:
    """Whether it has whole numbers or truth values, which normal numbers are no likeness of."""
    return not (tensor.is_floating_point() or tensor.is_complex())


def _wants_arguments(reset: Any) -> bool:
    parameters = inspect.signature(reset).parameters.values()
    return any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def _shuffle(tensor: torch.Tensor, old: torch.Tensor) -> None:
    order = torch.randperm(old.numel()).to(old.device)
    mixed = old.flatten()[order]
    if torch.equal(mixed, old.flatten()):
        mixed = mixed.roll(1)  # among few or few different values, chance may leave all in place
    tensor.copy_(mixed.reshape(old.shape))


def _drawn(tensor: torch.Tensor) -> torch.Tensor:
    """Random numbers with the mean and the spread of a tensor's; zeros and ones, which are a mask, in another order."""
    if tensor.is_complex():
        return torch.complex(_drawn(tensor.real), _drawn(tensor.imag))
    if 0 < int((tensor == 1).sum()) < tensor.numel() and bool(((tensor == 0) | (tensor == 1)).all()):
        mixed = torch.empty_like(tensor)
        _shuffle(mixed, tensor)
        return mixed
    spread, mean = torch.std_mean(tensor, correction=0)
    drawn = torch.randn_like(tensor) * torch.where(spread > 0, spread, mean.abs()) + mean
    return drawn.abs() if tensor.min() >= 0 else drawn


@torch.no_grad()
def settle(module: nn.Module) -> None:
    """What a constraint needs beside numbers: vectors that say the new weight's spectral norm, orthogonal matrices."""
    training = module.training
    module.train()
    try:
        for hook in module._forward_pre_hooks.values():
            for _ in range(_POWER_STEPS if type(hook).__name__ == "SpectralNorm" else 0):
                hook(module, ())
        if parametrize.is_parametrized(module):
            for name, chain in module.parametrizations.items():  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
                kinds = {type(part).__name__ for part in chain}
                for _ in range(_POWER_STEPS if "_SpectralNorm" in kinds else 0):
                    getattr(module, name)
                if kinds == {"_Orthogonal"}:
                    left, _, right = torch.linalg.svd(getattr(module, name).flatten(1), full_matrices=False)
                    setattr(module, name, (left @ right).reshape(getattr(module, name).shape))
    finally:
        module.train(training)

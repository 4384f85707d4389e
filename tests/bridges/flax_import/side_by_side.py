"""Many small torch functions in one module, imported once, so that each can be compared by itself at little cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import torch
from face_jax.bridges.flax_import import to_flax
from face_jax.bridges.flax_import.check import relative_error, to_jax
from torch import nn


class Together(nn.Module):
    """Every part applied to the same input; the outputs by the parts' names."""

    def __init__(self, parts: Mapping[str, nn.Module | Callable[[torch.Tensor], torch.Tensor]]) -> None:
        super().__init__()
        self.names = list(parts)
        self.parts = nn.ModuleList([part for part in parts.values() if isinstance(part, nn.Module)])
        self.functions = {name: part for name, part in parts.items() if not isinstance(part, nn.Module)}

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        modules = iter(self.parts)
        return {name: self.functions[name](x) if name in self.functions else next(modules)(x) for name in self.names}


class SideBySide:
    """torch's and JAX's outputs and input gradients of each part, in float64."""

    def __init__(self, parts: Mapping[str, nn.Module | Callable[[torch.Tensor], torch.Tensor]], *shape: int) -> None:
        generator = torch.Generator().manual_seed(3)
        module = Together(parts).double()
        example = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
        network = to_flax(module, example, transpose_input=False, transpose_output=False, check=False)
        x = torch.randn(3, *shape, generator=generator, dtype=torch.float64, requires_grad=True)
        self.theirs: dict[str, Any] = module.eval()(x)
        self.cotangents = {
            name: torch.randn(out.shape, generator=generator, dtype=torch.float64) for name, out in self.theirs.items()
        }
        self.x, self.module, self.network = x, module, network
        self.ours, self._pull = jax.vjp(jax.jit(network), to_jax(x))
        self._pull = jax.jit(self._pull)
        single = x[1:2].detach()
        with torch.no_grad():
            self.single = module(single), jax.jit(network)(to_jax(single))

    def assert_same(self, name: str) -> None:
        """One part's values, for batches of three and one, and its input gradient."""
        theirs, cotangent = self.theirs[name], self.cotangents[name]
        assert relative_error(self.ours[name], theirs) <= 1e-10
        assert relative_error(self.single[1][name], self.single[0][name]) <= 1e-10

        (expected,) = torch.autograd.grad(theirs, self.x, cotangent, retain_graph=True)
        seeds = {key: jnp.zeros(value.shape, value.dtype) for key, value in self.ours.items()}
        (gradient,) = self._pull({**seeds, name: to_jax(cotangent)})
        assert expected.abs().max() > 0
        assert relative_error(gradient, expected) <= 1e-10

"""The second part of a split torch network, callable from JAX: slow, and for what can't be imported."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float
from torch import nn

from .arrays import Layout, to_torch
from .torch_features import home_of
from .tracing import evaluating


class TorchHead:
    """Activations to logits through torch, inside JAX programs. **Slow**: each call leaves the compiled program.

    Works under `jax.jit`, `jax.vmap` and `jax.grad` (reverse mode; `jax.jvp` isn't there). Every derivative runs the
    torch module forward once more and then backward. Where it can be imported, `face_jax.bridges.to_flax` gives the
    same head as a JAX program.

    **Arguments:**

    - `module`: the torch module behind the layer; it shares the classifier's parameters.
    - `layout`: where the layer's channels are in torch.
    - `grid`: height and width of the maps it was cut with.
    - `classes`: how many logits it gives.
    """

    def __init__(self, module: nn.Module, layout: Layout, *, grid: tuple[int, int], classes: int) -> None:
        self.module, self.layout, self.grid, self.classes = module, layout, grid, classes
        call = jax.custom_vjp(self._logits)
        call.defvjp(lambda maps: (self._logits(maps), maps), lambda maps, cotangent: (self._pullback(maps, cotangent),))
        self._call = call

    @property
    def affine(self) -> bool:
        """Never: affine heads are given as `face_jax.heads.Affine`."""
        return False

    def __call__(
        self, maps: Float[Array, "image y x channel"] | Float[Array, "row channel"]
    ) -> Float[Array, "image class"]:
        """Logits of feature maps, or of all their places as rows, image by image; in the maps' precision."""
        maps = jnp.asarray(maps)
        if maps.ndim == 2:
            places = math.prod(self.grid)
            if maps.shape[0] % places:
                raise ValueError(
                    f"maps has {maps.shape[0]} rows, which is no multiple of the {places} places of a map at this "
                    "layer; this head isn't affine, so give it all places of each image, not averages"
                )
            maps = maps.reshape(-1, *self.grid, maps.shape[-1])
        return self._call(maps)

    def _logits(self, maps: Array) -> Array:
        result = jax.ShapeDtypeStruct((maps.shape[0], self.classes), maps.dtype)
        return jax.pure_callback(self._run, result, maps, vmap_method="broadcast_all")

    def _pullback(self, maps: Array, cotangent: Array) -> Array:
        result = jax.ShapeDtypeStruct(maps.shape, maps.dtype)
        return jax.pure_callback(self._run_backward, result, maps, cotangent, vmap_method="broadcast_all")

    def _run(self, maps: Any) -> np.ndarray:
        with torch.no_grad(), evaluating(self.module):
            logits = self.module(self._tensor(maps))
        return _host(logits, maps.dtype).reshape(*maps.shape[:-3], self.classes)

    def _run_backward(self, maps: Any, cotangent: Any) -> np.ndarray:
        device, dtype = home_of(self.module)
        with torch.enable_grad(), evaluating(self.module):
            tensor = self._tensor(maps).requires_grad_()
            logits = self.module(tensor)
            given = to_torch(np.asarray(cotangent), device=device, dtype=dtype).reshape(-1, self.classes)
            (gradient,) = torch.autograd.grad(logits, tensor, given)
        return _host(self.layout.to_maps(gradient), maps.dtype).reshape(maps.shape)

    def _tensor(self, maps: Any) -> torch.Tensor:
        device, dtype = home_of(self.module)
        # `vmap` puts its axes in front of the image's.
        stacked = np.asarray(maps).reshape(-1, *maps.shape[-3:])
        return self.layout.from_maps(to_torch(stacked, device=device, dtype=dtype)).detach()

    def __repr__(self) -> str:
        return f"TorchHead({self.layout}, grid={self.grid}, classes={self.classes})"


def _host(tensor: torch.Tensor, dtype: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return np.ascontiguousarray(tensor.numpy()).astype(dtype, copy=False)

"""The second part of a split torch network, callable from JAX: slow, and for what can't be imported."""

from __future__ import annotations

import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float, Shaped
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .arrays import Layout, to_torch
from .splitting.tracing import evaluating
from .torch_features import home_of, result_of
from .torch_primitives import value_p


@jax.tree_util.register_static
class TorchHead:
    """Activations to logits through torch, inside JAX programs. **Slow**: each call leaves the compiled program.

    A pytree without leaves: its parameters stay in torch. Works under `jax.jit`, `jax.vmap` and first derivatives in
    both modes (`jax.grad`, `jax.jvp`, `jax.linearize`); each derivative runs the torch module forward once more.
    Where it can be imported, `face_jax.bridges.to_flax` gives the same head as a JAX program.

    **Arguments:**

    - `module`: the torch module behind the layer; it shares the classifier's parameters.
    - `layout`: where the layer's channels are in torch.
    - `grid`: height and width of the maps it was cut with, the tokens beside them left out.
    - `classes`: how many logits it gives.
    """

    def __init__(self, module: nn.Module, layout: Layout, *, grid: tuple[int, int], classes: int) -> None:
        self.module, self.layout, self.grid, self.classes = module, layout, grid, classes
        self._accepted: set[tuple[int, ...]] = set()

    @property
    def affine(self) -> bool:
        """Never: affine heads are given as `face_jax.heads.Affine`."""
        return False

    def __call__(
        self, maps: Shaped[Any, "..."], tokens: Shaped[Any, "image token channel"] | None = None
    ) -> Float[Array, "image class"]:
        """Logits of feature maps (`image y x channel`), or of all their places as rows (`row channel`), image by image.

        `tokens` are those beside the maps, where the layer has such. Logits are in the maps' precision. Raises
        `ValueError` for maps, or tokens, that aren't this layer's.
        """
        maps = jnp.asarray(maps)
        if not jnp.issubdtype(maps.dtype, jnp.floating):
            raise ValueError(f"maps has dtype {maps.dtype}, and so would the logits; give maps.astype('float32')")
        if maps.ndim == 2:
            places = math.prod(self.grid)
            if maps.shape[0] % places:
                raise ValueError(
                    f"maps has {maps.shape[0]} rows, which isn't a multiple of the {places} places of a map at this "
                    "layer; this head isn't affine, so give it all places of each image, not averages"
                )
            maps = maps.reshape(-1, *self.grid, maps.shape[-1])
        elif maps.ndim != 4:
            raise ValueError(f"maps has shape {maps.shape}; give image y x channel, or all places as row channel")
        if self.layout.prefix or tokens is not None:
            maps = self._beside(maps, tokens)
        self._check(maps.shape[1:])
        return value_p.bind(maps, runner=self)

    def _beside(self, maps: Array, tokens: Any) -> Array:
        """Tokens and maps in one column, as torch gets them."""
        expected = (maps.shape[0], self.layout.prefix, maps.shape[-1])
        if tokens is None or tuple(jnp.shape(tokens)) != expected or maps.shape[1:3] != self.grid:
            given = "no tokens" if tokens is None else f"tokens of shape {tuple(jnp.shape(tokens))}"
            raise ValueError(
                f"maps has shape {maps.shape} and there are {given}; this layer has maps of {self.grid[0]} × "
                f"{self.grid[1]} places and {self.layout.prefix} tokens beside them, such as a class token, which "
                "features.with_tokens gives: head(maps, tokens), or face_jax.heads.Beside(head, tokens)(maps)"
            )
        column = maps.reshape(maps.shape[0], -1, 1, maps.shape[-1])
        return jnp.concatenate([jnp.asarray(tokens).astype(maps.dtype)[:, :, None], column], axis=1)

    def run(self, maps: np.ndarray) -> np.ndarray:
        """Logits of NumPy maps."""
        with torch.no_grad(), evaluating(self.module):
            return _host(self._logits(self._tensor(maps)), maps)

    def run_pull(self, maps: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """The derivative's transpose at `maps`, applied to a cotangent `image class`."""
        with torch.inference_mode(False), torch.enable_grad(), evaluating(self.module):
            tensor = self._tensor(maps).requires_grad_()
            (gradient,) = torch.autograd.grad(self._logits(tensor), tensor, self._like(cotangent))
        return _host(self._given(gradient), maps)

    def run_push(self, maps: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """The derivative at `maps` along a tangent of the same shape.

        The pull is linear in its cotangent, and the push is that map's transpose: two backward passes, for which
        nearly every operation of torch's is equipped, where forward derivatives are missing for more. What can't be
        derived twice, such as a hard sigmoid, is derived forward.
        """
        try:
            return self._push_backward(maps, tangent)
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
            return self._push_forward(maps, tangent)

    def _push_backward(self, maps: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        with (
            torch.inference_mode(False),
            torch.enable_grad(),
            evaluating(self.module),
            sdpa_kernel(SDPBackend.MATH),
        ):
            tensor = self._tensor(maps).requires_grad_()
            logits = self._logits(tensor)
            cotangent = torch.zeros_like(logits).requires_grad_()
            (gradient,) = torch.autograd.grad(logits, tensor, cotangent, create_graph=True)
            (along,) = torch.autograd.grad(gradient, cotangent, self._tensor(tangent))
        return _host(along, maps)

    def _push_forward(self, maps: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            evaluating(self.module),
            sdpa_kernel(SDPBackend.MATH),
            warnings.catch_warnings(),
        ):
            # Torch warns of itself when it first derives anything forward.
            warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
            along = torch.func.jvp(self._logits, (self._tensor(maps),), (self._tensor(tangent),))[1]
        return _host(along, maps)

    def _check(self, shape: tuple[int, ...]) -> None:
        """Try a shape once, here where an error can be told, and not when the compiled program calls back."""
        if shape in self._accepted:
            return
        try:
            self.run(np.zeros((1, *shape), np.float32))
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"maps has shape {shape} for each image, which the network behind this layer doesn't take ({error}); "
                f"give activations of this layer: y × x = {self.grid[0]} × {self.grid[1]}, then channels"
            ) from error
        self._accepted.add(shape)

    def _logits(self, tensor: torch.Tensor) -> torch.Tensor:
        return result_of(self.module, tensor, axes=2).reshape(len(tensor), self.classes)

    def _like(self, array: np.ndarray) -> torch.Tensor:
        device, dtype = home_of(self.module)
        return to_torch(array, device=device, dtype=dtype)

    def _tensor(self, maps: np.ndarray) -> torch.Tensor:
        given, beside = self._like(maps), self.layout.prefix
        if beside:
            tokens, places = given[:, :beside, 0], given[:, beside:, 0]
            return self.layout.from_maps(places.unflatten(1, self.grid), tokens).detach()
        return self.layout.from_maps(given).detach()

    def _given(self, tensor: torch.Tensor) -> torch.Tensor:
        """What `_tensor` undoes: torch's tensor as this head is given it."""
        if not self.layout.prefix:
            return self.layout.to_maps(tensor)
        column = self.layout.to_maps(tensor).flatten(1, 2)
        return torch.cat([self.layout.to_prefix(tensor), column], dim=1)[:, :, None]

    def __repr__(self) -> str:
        return f"TorchHead({self.layout}, grid={self.grid}, classes={self.classes})"


def _host(tensor: torch.Tensor, like: np.ndarray) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return np.ascontiguousarray(tensor.numpy()).astype(like.dtype, copy=False)

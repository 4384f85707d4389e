"""The first part of a split torch network, as a function of JAX arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Array, Float
from torch import nn

from face_jax.model import SplitModel

from .arrays import Layout, to_jax, to_torch
from .splitting.first_run import depends_on, reason
from .splitting.tracing import evaluating


def home_of(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """The device and the floating-point type that a module computes with."""
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.is_floating_point():
            return tensor.device, tensor.dtype
    return torch.device("cpu"), torch.float32


def result_of(module: nn.Module, tensor: torch.Tensor, *, axes: int) -> torch.Tensor:
    """A module's result for a batch, which has `axes` axes; one image alone counts as a batch of one.

    Where the module takes that one for an axis too many (with `.squeeze()`), the image goes in twice.
    """
    result = module(tensor)
    if len(tensor) == 1 and result.ndim != axes:
        result = module(torch.cat([tensor, tensor]))[:1]
    return result


class _SignsApart(nn.Module):
    """A module, and behind it the positive and the negative parts of what it gives, one after the other."""

    def __init__(self, module: nn.Module, channel: int) -> None:
        super().__init__()
        self.module, self.channel = module, channel

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.module(images)
        return torch.cat([maps.relu(), (-maps).relu()], dim=self.channel)


class TorchFeatures:
    """Images to activations through torch: `image y x colour` in, `image y x channel` out.

    Arrays come and go without a copy where possible: pictures whose colours lie side by side are what torch calls
    channels-last, its convolutions keep that order (and are faster in it), and so the activations lie as JAX wants
    them. The module is in evaluation mode while it runs and in its own mode afterwards.

    **Arguments:**

    - `module`: the torch module up to the layer; it shares the classifier's parameters.
    - `layout`: where the layer's channels are in torch.
    """

    def __init__(self, module: nn.Module, layout: Layout) -> None:
        self.module, self.layout = module, layout

    @property
    def device(self) -> torch.device:
        """Where the module's parameters are now."""
        return home_of(self.module)[0]

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type that the module computes with."""
        return home_of(self.module)[1]

    def __call__(self, images: Any) -> Float[Array, "image y x channel"]:
        """Activations of preprocessed images (`image y x colour`, JAX or NumPy), in the module's precision.

        Half precision is returned as float32. Raises `TypeError` inside `jax.jit`: torch can't be compiled by JAX.
        """
        tensor = self._tensor(images)
        with torch.no_grad():
            try:
                maps = self.maps_of(tensor)
            except torch.OutOfMemoryError:
                raise
            except (RuntimeError, ValueError, IndexError, AssertionError) as error:
                height, width, colours = tensor.movedim(1, -1).shape[1:]
                raise ValueError(
                    f"the network doesn't take pictures of {height} × {width} pixels and {colours} colours "
                    f"({reason(error)}); split it with the Preprocess that it was made for, as many numbers in its "
                    "mean as the network takes channels, or put a module in front that makes these of photographs"
                ) from error
        return to_jax(maps)

    def with_tokens(self, images: Any) -> tuple[Float[Array, "image y x channel"], Float[Array, "image token channel"]]:
        """Activations, and the tokens beside them, from one pass. Raises `ValueError` for a layer that has none."""
        with torch.no_grad():
            tensor = self.tensor_of(self._tensor(images))
            return to_jax(self.layout.to_maps(tensor)), to_jax(self.layout.to_prefix(tensor))

    def vjp(self, images: Any) -> tuple[Float[Array, "image y x channel"], Callable[[Array], Array]]:
        """Activations, and the function that takes cotangents of them back to the images: one forward pass for many.

        The function may be called as often as one likes; it keeps the network's intermediate values alive. It works
        under `torch.inference_mode()` too.
        """
        with torch.inference_mode(False), torch.enable_grad():
            tensor = self._tensor(images).detach().requires_grad_()
            maps = self.maps_of(tensor)
        if not depends_on(maps, tensor):
            raise ValueError(
                "the network detaches its activations from the images (or rounds or compares), so that they have no "
                "derivative; take that out, or ask for maps from values alone, such as occlusion"
            )

        def pullback(cotangent: Array) -> Array:
            with torch.inference_mode(False):
                given = to_torch(cotangent, device=maps.device, dtype=maps.dtype)
                (gradient,) = torch.autograd.grad(maps, tensor, given, retain_graph=True)
                return to_jax(gradient.movedim(1, -1))

        return to_jax(maps.detach()), pullback

    def maps_of(self, images: torch.Tensor) -> Float[torch.Tensor, "image y x channel"]:
        """Activations of a torch tensor `image colour y x` of any device and type, inside torch's autograd."""
        return self.layout.to_maps(self.tensor_of(images))

    def tensor_of(self, images: torch.Tensor) -> torch.Tensor:
        """The layer's tensor as torch has it, as `maps_of`."""
        if images.ndim != 4:
            raise ValueError(f"images has shape {tuple(images.shape)}; give four axes: image colour y x")
        device, dtype = home_of(self.module)
        # Torch's convolutions are faster with colours side by side, and hand channels on as JAX wants them.
        images = images.to(device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        with evaluating(self.module):
            return result_of(self.module, images, axes=self.layout.axes)

    def signs_apart(self) -> TorchFeatures:
        """The same features with positive and negative activations as channels of their own, in this order."""
        return TorchFeatures(_SignsApart(self.module, self.layout.channel), self.layout)

    def _tensor(self, images: Any) -> torch.Tensor:
        if getattr(images, "ndim", 4) != 4:
            raise ValueError(f"images has shape {tuple(images.shape)}; give four axes: image y x colour")
        device, dtype = home_of(self.module)
        return to_torch(images, device=device, dtype=dtype).movedim(-1, 1)

    def __repr__(self) -> str:
        return f"TorchFeatures({self.layout}, device={str(self.device)!r}, dtype={self.dtype})"


def features_of(split: Any) -> TorchFeatures:
    """The torch features of a split model; anything else is refused."""
    if not isinstance(split, SplitModel):
        raise TypeError(f"split is a {type(split).__name__}; give a model from face_jax.bridges.split(model, layer)")
    if not isinstance(split.features, TorchFeatures):
        raise TypeError(
            f"split.features is a {type(split.features).__name__}; give a model from face_jax.bridges.split"
        )
    return split.features

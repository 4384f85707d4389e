"""Arrays between torch and JAX: the same memory where the layouts allow it, one copy where they don't."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.core import Tracer
from jaxtyping import Array


def to_torch(array: Any, *, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """A JAX or NumPy array as a torch tensor, without a copy where it lies on `device` in `dtype` already.

    The tensor shares the array's memory then, and nothing may be written to it.

    **Arguments:**

    - `array`: a concrete array; a tensor is passed on.
    - `device`, `dtype`: what the tensor shall have; None keeps the array's own type.

    **Returns:** the tensor.
    """
    if isinstance(array, Tracer):
        raise TypeError(
            "torch can't run inside jax.jit, jax.grad or jax.vmap; call this with concrete arrays, "
            "or bring the network to JAX with face_jax.bridges.to_flax"
        )
    if isinstance(array, torch.Tensor):
        tensor = array
    elif isinstance(array, jax.Array):
        tensor = torch.from_dlpack(array.block_until_ready())
    else:
        array = np.asarray(array)
        with warnings.catch_warnings():
            # torch warns that a read-only array could be written to; nothing here does.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            tensor = torch.from_numpy(array if all(stride >= 0 for stride in array.strides) else array.copy())
    return tensor.to(device=device, dtype=dtype or tensor.dtype)


def to_jax(tensor: torch.Tensor) -> Array:
    """A torch tensor's values as a JAX array in single or double precision.

    As `share_with_jax`, but half precision becomes float32: what JAX does with activations needs its digits.
    """
    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return share_with_jax(tensor.float() if half else tensor)


def share_with_jax(tensor: torch.Tensor) -> Array:
    """A torch tensor as a JAX array, without a copy where its elements lie in order.

    A tensor whose axes are permuted in memory is put in order by torch first: JAX could share it, but would
    compile every later function once more for the odd layout. float64 becomes float32 unless JAX has 64-bit
    numbers switched on.

    **Arguments:**

    - `tensor`: not written to afterwards.

    **Returns:** the array, on the tensor's device where JAX has it, else on the host.
    """
    tensor = tensor.detach()
    if tensor.dtype == torch.float64 and jnp.zeros((), float).dtype != jnp.float64:
        tensor = tensor.float()
    tensor = tensor.contiguous()
    if tensor.is_cuda and not _jax_has_cuda():
        tensor = tensor.cpu()
    return jax.dlpack.from_dlpack(tensor)


@functools.cache
def _jax_has_cuda() -> bool:
    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:
        return False


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which axis of a torch tensor is the channel's, so that its maps can be told as `image y x channel`.

    Tokens (`image token channel`) become maps with one column, pooled features maps of one place.

    **Arguments:**

    - `axes`: how many axes the tensor has; 2, 3 or 4, the first is the image's.
    - `channel`: the channel's axis.
    """

    axes: int
    channel: int

    def to_maps(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor seen as `image y x channel`; a view."""
        tensor = tensor.movedim(self.channel, -1)
        if self.axes == 3:
            return tensor.unsqueeze(2)
        return tensor[:, None, None, :] if self.axes == 2 else tensor

    def from_maps(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps `image y x channel` seen as the tensor that torch expects; a view."""
        if self.axes == 3:
            maps = maps.squeeze(2)
        elif self.axes == 2:
            maps = maps[:, 0, 0, :]
        return maps.movedim(-1, self.channel)

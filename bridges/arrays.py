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
        if array.dtype == jnp.bfloat16:
            # torch takes only NumPy's own types.
            return to_torch(array.view(np.int16), device=device).view(torch.bfloat16).to(dtype or torch.bfloat16)
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
    compile every later function once more for the odd layout. Unless JAX has 64-bit numbers switched on, float64
    becomes float32, and 64-bit integers become 32-bit ones, or raise `ValueError` where they don't fit.

    **Arguments:**

    - `tensor`: not written to afterwards.

    **Returns:** the array, on the tensor's device where JAX has it, else on the host.
    """
    refuse_unusual(tensor, "a tensor")
    # JAX knows no views that stand for conjugates or negatives.
    tensor = tensor.detach().resolve_conj().resolve_neg()
    if not _jax_has_64_bits():
        if tensor.dtype == torch.complex128:
            tensor = tensor.to(torch.complex64)
        tensor = tensor.float() if tensor.dtype == torch.float64 else narrow(tensor)
    tensor = tensor.contiguous()
    if tensor.device.type != "cpu" and not (tensor.is_cuda and _jax_has_cuda()):
        tensor = tensor.cpu()
    return jax.dlpack.from_dlpack(tensor)


def refuse_unusual(tensor: torch.Tensor, what: str) -> None:
    """Raises `TypeError` for a tensor whose values don't lie in memory one after another, with what to call on it."""
    if tensor.device.type == "meta":
        raise TypeError(f"{what} is on the meta device and has no values; give one that has")
    if tensor.is_nested:
        raise TypeError(f"{what} is nested; give tensor.to_padded_tensor(0), or its parts one by one")
    if tensor.is_quantized:
        raise TypeError(f"{what} is quantized ({tensor.dtype}); give tensor.dequantize()")
    if tensor.layout is not torch.strided:
        raise TypeError(f"{what} is sparse or in another layout ({tensor.layout}); give tensor.to_dense()")


def narrow(tensor: torch.Tensor) -> torch.Tensor:
    """64-bit integers in 32 bits where they fit; where they don't, as they are if JAX has 64-bit numbers, else refused.

    **Arguments:**

    - `tensor`: of any type; all but 64-bit integers are passed on.
    """
    shorter = {torch.int64: torch.int32, torch.uint64: torch.uint32}.get(tensor.dtype)
    if shorter is None:
        return tensor
    # By NumPy: torch has no minimum of unsigned numbers.
    values = tensor.detach().cpu().numpy()
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    if torch.iinfo(shorter).min <= low and high <= torch.iinfo(shorter).max:
        return tensor.to(shorter)
    if _jax_has_64_bits():
        return tensor
    raise ValueError(
        f"a tensor of {tensor.dtype} has values from {low} to {high}, and JAX's 64-bit types are off; call "
        'jax.config.update("jax_enable_x64", True) first, or give values that fit into 32 bits'
    )


def _jax_has_64_bits() -> bool:
    return jnp.zeros((), float).dtype == jnp.float64


@functools.cache
def _jax_has_cuda() -> bool:
    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:
        return False


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Which of a layer's tokens lie on the picture, and which don't.

    **Arguments:**

    - `grid`: height and width of the grid on the picture.
    - `places`: the numbers of the tokens on it, line by line.
    - `prefix`: the numbers of the others: class and distillation tokens, registers.
    - `lengths`: of the axes between the image's and the channel's, which are counted through line by line.
    """

    grid: tuple[int, int]
    places: tuple[int, ...]
    prefix: tuple[int, ...]
    lengths: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which axis of a torch tensor is the channel's, so that its maps can be told as `image y x channel`.

    Tokens (`image token channel`) lie on a grid, with others beside it. Where nothing is known of them they become maps
    with one column; pooled features become maps of one place.

    **Arguments:**

    - `axes`: how many axes the tensor has; 2, 3 or 4, the first is the image's.
    - `channel`: the channel's axis.
    - `tokens`: which of the places between these axes is where on the picture; None where the axes say it.
    """

    axes: int
    channel: int
    tokens: Tokens | None = None

    @property
    def told(self) -> bool:
        """Whether places on the picture are known: of a row of tokens that nothing is known of, they aren't."""
        return self.axes != 3 or self.tokens is not None

    @property
    def prefix(self) -> int:
        """How many tokens lie beside the maps."""
        return 0 if self.tokens is None else len(self.tokens.prefix)

    def map_shape(self, shape: tuple[int, ...]) -> tuple[int, int, int]:
        """`y x channel` of the maps of a tensor of this shape."""
        y, x, channel = self.to_maps(torch.empty(shape, device="meta")).shape[1:]
        return y, x, channel

    def to_maps(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor seen as `image y x channel`, without the tokens beside the maps; a view where that can be."""
        if self.tokens is not None:
            return _selected(self._flat(tensor), self.tokens.places).unflatten(1, self.tokens.grid)
        tensor = tensor.movedim(self.channel, -1)
        if self.axes == 3:
            return tensor.unsqueeze(2)
        return tensor[:, None, None, :] if self.axes == 2 else tensor

    def to_prefix(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tokens beside the maps, `image token channel`."""
        if self.tokens is None:
            raise ValueError("this layer has no tokens beside its maps")
        return _selected(self._flat(tensor), self.tokens.prefix)

    def from_maps(self, maps: torch.Tensor, prefix: torch.Tensor | None = None) -> torch.Tensor:
        """Maps `image y x channel`, and the tokens beside them, as the tensor that torch expects."""
        if self.tokens is not None:
            return self._together(maps, prefix, self.tokens)
        if maps.shape[self.axes - 1 : 3] != (1,) * (4 - self.axes):
            raise ValueError(f"maps have {maps.shape[1]} × {maps.shape[2]} places; one column of tokens, or one place")
        if self.axes == 3:
            maps = maps.squeeze(2)
        elif self.axes == 2:
            maps = maps[:, 0, 0, :]
        return maps.movedim(-1, self.channel)

    def _flat(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor as `image token channel`."""
        assert self.tokens is not None
        tensor = tensor.movedim(self.channel, -1)
        if tuple(tensor.shape[1:-1]) != self.tokens.lengths:
            raise ValueError(
                f"the layer has {' × '.join(map(str, tensor.shape[1:-1]))} tokens of these pictures, and had "
                f"{' × '.join(map(str, self.tokens.lengths))} of those that it was split for; give pictures of that "
                "size, or split the network for these, with their Preprocess or with example_inputs"
            )
        return tensor.flatten(1, -2)

    def _together(self, maps: torch.Tensor, prefix: torch.Tensor | None, tokens: Tokens) -> torch.Tensor:
        if tuple(maps.shape[1:3]) != tokens.grid:
            raise ValueError(
                f"maps have {maps.shape[1]} × {maps.shape[2]} places, and the layer has "
                f"{tokens.grid[0]} × {tokens.grid[1]}"
            )
        flat = maps.flatten(1, 2)
        if tokens.prefix:
            if prefix is None or prefix.shape[1:] != (len(tokens.prefix), maps.shape[-1]):
                given = "none" if prefix is None else f"an array of shape {tuple(prefix.shape)}"
                raise ValueError(f"the layer has {len(tokens.prefix)} tokens beside its maps; {given} given")
            flat = torch.cat([prefix, flat], dim=1)
        order = (*tokens.prefix, *tokens.places)
        if order != tuple(range(len(order))):
            flat = flat[:, torch.tensor(order, device=flat.device).argsort()]
        return flat.unflatten(1, tokens.lengths).movedim(-1, self.channel)


def _selected(tokens: torch.Tensor, numbers: tuple[int, ...]) -> torch.Tensor:
    """Some of the tokens `image token channel`; a view where they stand side by side."""
    start = numbers[0]
    if numbers == tuple(range(start, start + len(numbers))):
        return tokens[:, start : start + len(numbers)]
    return tokens[:, torch.tensor(numbers, device=tokens.device)]

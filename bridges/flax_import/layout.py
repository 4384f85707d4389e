"""Where a picture's channels lie in memory: torch counts them second, XLA is fast when they are last."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped

TO_LAST = (0, 2, 3, 1)
TO_FIRST = (0, 3, 1, 2)


@dataclasses.dataclass(frozen=True)
class ChannelsLast:
    """A four-axis torch value (`image channel y x`) that is stored as `image y x channel`.

    Operators that work in either order hand it on, so that a whole network of convolutions runs without a
    transposition; the others ask for `in_torch_order` and pay for one. Plain arrays are in torch's order.

    **Arguments:**

    - `array`: the values, `image y x channel`.
    """

    array: Shaped[Array, "image y x channel"]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that torch would report."""
        return tuple(self.array.shape[axis] for axis in TO_FIRST)

    @property
    def ndim(self) -> int:
        """Always four."""
        return 4

    @property
    def dtype(self) -> jnp.dtype:
        """The type of the values."""
        return self.array.dtype


def is_array(value: Any) -> bool:
    """Whether `value` is an array in torch's order (a tracer counts)."""
    return isinstance(value, jax.Array)


def in_torch_order(value: Any) -> Any:
    """The array as torch would lay it out; anything that is not `ChannelsLast` comes back as it is."""
    return jnp.transpose(value.array, TO_FIRST) if isinstance(value, ChannelsLast) else value


def in_last_order(value: Any) -> Array:
    """The array with channels last, whichever way it is stored."""
    return value.array if isinstance(value, ChannelsLast) else jnp.transpose(value, TO_LAST)


def torch_order_everywhere(value: Any) -> Any:
    """`in_torch_order` through nested tuples and dictionaries of arguments."""
    if isinstance(value, tuple):
        return tuple(torch_order_everywhere(part) for part in value)
    return in_torch_order(value)


def aligned(values: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
    """Arrays of one rank and one layout, ready to be broadcast against each other.

    **Arguments:**

    - `values`: an elementwise operator's arguments; what isn't an array passes through.

    **Returns:**

    The values, and whether they are channels-last now. Scalars (no axes) stay scalars.
    """
    arrays = [value for value in values if is_array(value) or isinstance(value, ChannelsLast)]
    rank = max((array.ndim for array in arrays), default=0)
    last = rank == 4 and any(isinstance(array, ChannelsLast) for array in arrays)

    def align(value: Any) -> Any:
        if isinstance(value, ChannelsLast) and last:
            return value.array
        value = in_torch_order(value)
        if not is_array(value) or value.ndim == 0:
            return value
        if value.ndim < rank:
            value = value.reshape((1,) * (rank - value.ndim) + value.shape)
        return jnp.transpose(value, TO_LAST) if last else value

    return tuple(align(value) for value in values), last

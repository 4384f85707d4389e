"""Whether what is done with activations in memory has room where they lie, before anything is copied."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.core import Tracer

from ..support.arguments import index_or_none
from ..support.memory import check_memory

_LARGE = 2**27  # bytes of activations below which nobody looks for room
_REMEDY = "have them read block by block: give fj.RowBlocks(activations), or the path of a file that holds them"
_SPREAD = "spread their rows over more devices"


def check_room(activations: Any, rank: Any, doing: str, *, wholes: float, codes: int) -> None:
    """Raises `NotEnoughMemoryError` for activations that can't be worked on in memory.

    Of rows on several devices each has its own; those of processors share this process's memory. What lies on an
    accelerator, or would be copied there, has to fit there.

    **Arguments:**

    - `activations`: as the user gave them; what isn't known yet, or is no matrix, is passed over.
    - `rank`: how many concepts.
    - `doing`: what is done, such as "factorizing".
    - `wholes`: how many times as large as the activations is what is made of them, beside a copy of what isn't
        JAX's, or has 16 bits.
    - `codes`: how many times codes of all rows are there.
    """
    number, each = index_or_none(rank), _itemsize(activations)
    if number is None or each is None:
        return
    shape, devices = _share(activations)
    if not devices:
        return
    whole = math.prod(shape) * each
    if whole * len(devices) < _LARGE:
        return
    copied = not isinstance(activations, jax.Array) or activations.dtype.itemsize < each
    needed = int(whole * (wholes + copied) + codes * shape[0] * number * each)
    rows, channels = activations.shape
    what, remedy = f"{doing} {rows:,} × {channels:,} activations in memory", _REMEDY
    if len(devices) > 1:
        remedy = f"{_SPREAD}, or {_REMEDY}"
    if devices[0].platform == "cpu":
        check_memory(needed * len(devices), what, remedy)
        return
    for device in devices:
        check_memory(needed, f"{what} of {device}", remedy, device)


def check_room_of_many(matrices: Sequence[Any]) -> None:
    """Raises `NotEnoughMemoryError` for matrices that can't all be copied into memory."""
    once = {id(matrix): matrix for matrix in matrices if not isinstance(matrix, jax.Array)}
    size = sum(math.prod(each.shape) * width for each in once.values() if (width := _itemsize(each)))
    if size >= _LARGE:
        check_memory(
            size,
            f"factorizing {len(once)} matrices in memory",
            "give fewer at a time, or have them read block by block: give fj.RowBlocks of each",
        )


def _itemsize(activations: Any) -> int | None:
    """Bytes of each number once it's JAX's; None where that isn't known, or it's no matrix."""
    shape, dtype = getattr(activations, "shape", ()), getattr(activations, "dtype", None)
    if len(shape) != 2 or dtype is None or isinstance(activations, Tracer):
        return None
    # Torch's types are none of NumPy's.
    return max(4, index_or_none(getattr(dtype, "itemsize", None)) or 4)


def _share(activations: Any) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of what each of this process's devices has, or will have, and these devices."""
    if isinstance(activations, jax.Array):
        sharding = activations.sharding
        return sharding.shard_shape(activations.shape), sorted(sharding.addressable_devices, key=lambda one: one.id)
    usual = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    return tuple(activations.shape), [usual if isinstance(usual, jax.Device) else jax.local_devices()[0]]

"""Activations of many pictures, in memory or in a store on disk that a stopped run goes on with."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from face_jax.model import SplitModel
from face_jax.progress import Progress, silent

from .stores import MemoryStore, Store, open_store
from .torch_features import TorchFeatures
from .tracing import evaluating

Picture = Any
"""A preprocessed picture `y x colour`, or a function without arguments that returns one (and may fail)."""


@dataclasses.dataclass(frozen=True)
class Pulled:
    """Activations, and which pictures they are of.

    **Arguments:**

    - `activations`: `image y x channel`, or `image channel` if pooled; in memory, or an array on disk.
    - `names`: the pictures' names, one a row.
    - `skipped`: the pictures that failed: name and reason.
    """

    activations: Any
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]


def pull(
    split: SplitModel,
    pictures: Iterable[tuple[str, Picture]],
    *,
    batch: int = 32,
    pooled: bool = False,
    store: str | pathlib.Path | None = None,
    progress: Progress = silent,
) -> Pulled:
    """Activations of many pictures.

    Use it where they may not fit into memory, or where the work may be stopped and taken up again. The next batch
    is read while the network works on this one; on a GPU it travels through pinned memory meanwhile. A picture that
    fails (its function raises `OSError` or `ValueError`, or its shape isn't the others') is left out and reported.

    **Arguments:**

    - `split`: from `face_jax.bridges.split`.
    - `pictures`: names, and preprocessed pictures `y x colour` or functions that return them.
    - `batch`: pictures that go through the network together.
    - `pooled`: keep each picture's average activations, which is a row a picture.
    - `store`: None for memory, else a path that ends in `.npy` (opened as a memory map) or `.zarr`. If it holds
        the beginning of the same work, that is kept and the rest is done.
    - `progress`: told how far it is.

    **Returns:** the activations with names, in the order of `pictures`. Raises `ValueError` if none could be read, or
    if `store` holds other work.
    """
    if batch < 1:
        raise ValueError(f"batch={batch}; give 1 or more")
    features = split.features
    if not isinstance(features, TorchFeatures):
        raise TypeError(f"split.features is a {type(features).__name__}; give a model from face_jax.bridges.split")
    pictures = list(pictures)
    if not pictures:
        raise ValueError("pictures is empty; give at least one")
    kept: Store = (
        MemoryStore(len(pictures))
        if store is None
        else open_store(pathlib.Path(store), split.fingerprint, tuple(name for name, _ in pictures), pooled)
    )
    forward = _Forward(features, pooled)
    with progress("Activations", len(pictures)) as advance:
        advance(kept.done)
        for stack, names, failed in _batches(pictures[kept.done :], batch, kept.picture_shape, forward.pin):
            values = forward(stack) if stack is not None else None
            picture_shape = None if stack is None else tuple(stack.shape[1:])
            kept.append(values, names, failed, picture_shape)
            advance(len(names) + len(failed))
    if not kept.names:
        raise ValueError(f"none of the {len(pictures)} pictures could be used; first: {': '.join(kept.skipped[0])}")
    return Pulled(kept.finish(), tuple(kept.names), tuple(kept.skipped))


class _Forward:
    """Batches through the network; on a GPU with copies that don't wait."""

    def __init__(self, features: TorchFeatures, pooled: bool) -> None:
        self.features, self.pooled = features, pooled
        self.cuda = features.device.type == "cuda"

    def pin(self, stack: Float[np.ndarray, "image y x colour"]) -> torch.Tensor:
        tensor = torch.from_numpy(stack)
        return tensor.pin_memory() if self.cuda else tensor

    def __call__(self, stack: torch.Tensor) -> Float[np.ndarray, "image ..."]:
        features = self.features
        with torch.no_grad(), evaluating(features.module):
            images = stack.to(features.device, non_blocking=self.cuda).to(features.dtype).movedim(-1, 1)
            maps = features.layout.to_maps(features.module(images))
            values = maps.mean(dim=(1, 2)) if self.pooled else maps
            if values.dtype in (torch.float16, torch.bfloat16):
                values = values.float()
            return values.cpu().numpy()


Batch = tuple[torch.Tensor | None, list[str], list[tuple[str, str]]]


def _batches(
    pictures: list[tuple[str, Picture]],
    batch: int,
    shape: tuple[int, ...] | None,
    pin: Callable[[np.ndarray], torch.Tensor],
) -> Iterator[Batch]:
    """Read batches one ahead, on another thread."""

    def read(start: int, shape: tuple[int, ...] | None) -> tuple[Batch, tuple[int, ...] | None]:
        arrays, names, failed = [], [], []
        for name, picture in pictures[start : start + batch]:
            try:
                array = np.asarray(picture() if callable(picture) else picture)
                if array.ndim != 3 or not np.issubdtype(array.dtype, np.floating):
                    raise ValueError(f"shape {array.shape} of {array.dtype}; expected real numbers y x colour")
                shape = shape or array.shape
                if array.shape != shape:
                    raise ValueError(f"shape {array.shape}, and the pictures before it have {shape}")
            except (OSError, ValueError) as error:
                failed.append((name, str(error)))
            else:
                arrays.append(array)
                names.append(name)
        return (pin(np.stack(arrays)) if arrays else None, names, failed), shape

    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, 0, shape)
        for start in range(0, len(pictures), batch):
            ready, shape = coming.result()
            if start + batch < len(pictures):
                coming = reader.submit(read, start + batch, shape)
            yield ready

"""Activations of many pictures, in memory or in a store on disk that a stopped run goes on with."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from face_jax.model import SplitModel
from face_jax.support.arguments import check_count, flag, native, path_of, shown
from face_jax.support.atomic_folder import claimed
from face_jax.support.freed_memory import freed_memory_kept
from face_jax.support.interrupts import interruptible
from face_jax.support.progress import silent
from face_jax.support.progress_line import Watched, progress_of

from .stores import MemoryStore, Store, in_step, open_store, tokens_path
from .torch_features import features_of

Picture = Any
"""A preprocessed picture `y x colour`, or a function without arguments that returns one (and may fail)."""


@dataclasses.dataclass(frozen=True)
class Pulled:
    """Activations, and which pictures they are of.

    **Arguments:**

    - `activations`: `image y x channel`, or `image channel` if pooled; in memory, or an array on disk.
    - `names`: the pictures' names, one a row.
    - `skipped`: the pictures that failed: name and reason.
    - `kept`: of a transformer's layer the tokens that lie on no place of the picture (class token, registers), for
        `split.head(activations, kept)`, in memory or on disk as the activations are; None where a layer has no such
        tokens, and beside averages.
    """

    activations: Any
    names: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    kept: Any = None


@interruptible()
def pull(
    split: SplitModel,
    pictures: Iterable[tuple[str | os.PathLike[str], Picture]],
    *,
    batch: int = 32,
    pooled: bool = False,
    store: str | pathlib.Path | None = None,
    progress: Watched = silent,
) -> Pulled:
    """Activations of many pictures.

    Use it where they may not fit into memory, or where the work may be stopped and taken up again. The next batch
    is read while the network works on this one; on a GPU it travels through pinned memory meanwhile. A picture that
    fails (its function raises an exception, or its shape isn't the others') is left out and reported. The others' shape
    is the most frequent one of the first batch that the network takes. Of a transformer's layer, activations are those
    of the patch tokens on their grid.

    **Arguments:**

    - `split`: from `face_jax.bridges.split`.
    - `pictures`: names, and preprocessed pictures `y x colour` or functions that return them.
    - `batch`: pictures that go through the network together.
    - `pooled`: keep each picture's average activations, which is a row a picture.
    - `store`: None for memory, else a path that ends in `.npy` (opened as a memory map) or `.zarr`. If it holds
        the beginning of the same work, that is kept and the rest is done; pictures that were left out stay so until
        you delete it. Tokens that lie on no place are in a second one, `…-tokens.npy` beside `….npy`.
    - `progress`: told how far it is, as by `face_jax.explain`; nobody by default.

    **Returns:** the activations with names, in the order of `pictures`. Raises `ValueError` if none could be read, if
    `store` holds other work, or while another run writes to it.

    **Example:**

    >>> half = bridges.split(network, "relu", preprocess=fj.Preprocess(size=16, resize=16))
    >>> pictures = zip(["first", "second"], half.preprocess(images[:2]))
    >>> pulled = bridges.pull(half, pictures, pooled=True)
    >>> pulled.activations.shape
    (2, 6)
    """
    batch, pooled, progress = check_count("batch", batch, "pictures"), flag("pooled", pooled), progress_of(progress)
    path = None if store is None else path_of("store", store, "a store, which ends in .npy or .zarr")
    forward = _Forward(split, pooled)
    named = _named(pictures)
    if not named:
        raise ValueError("pictures is empty; give at least one")
    with contextlib.nullcontext() if path is None else _claimed(path):
        kept, beside = _stores(path, split.fingerprint, tuple(name for name, _ in named), pooled, forward.keeps_tokens)
        forward.shape = kept.picture_shape
        with progress("Activations", len(named)) as advance, freed_memory_kept():
            advance(kept.done)
            for read in _batches(named[kept.done :], batch, forward.pin):
                values, tokens, places = forward.of_one_shape(read)
                failed = [(read.names[place], read.failed[place]) for place in sorted(read.failed)]
                names = [read.names[place] for place in places]
                if beside is not None:
                    beside.append(tokens, names, failed, forward.shape)
                kept.append(values, names, failed, forward.shape)
                advance(len(read.names))
        if not kept.names:
            raise ValueError(f"none of the {len(named)} pictures could be used; first: {': '.join(kept.skipped[0])}")
        tokens = None if beside is None else beside.finish()
        return Pulled(kept.finish(), tuple(kept.names), tuple(kept.skipped), tokens)


def _stores(
    path: pathlib.Path | None, fingerprint: str, names: tuple[str, ...], pooled: bool, tokens: bool
) -> tuple[Store, Store | None]:
    """Where maps are kept, and where the tokens beside them are, if there are any."""
    if path is None:
        return MemoryStore(len(names)), MemoryStore(len(names)) if tokens else None
    maps = open_store(path, fingerprint, names, pooled)
    if not tokens:
        return maps, None
    beside = open_store(tokens_path(path), fingerprint, names, pooled, tokens=True)
    in_step(maps, beside)
    return maps, beside


@contextlib.contextmanager
def _claimed(store: pathlib.Path) -> Iterator[None]:
    """Keeps other runs from writing to a store meanwhile; where nothing can be written, one that's done can be read."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(claimed(store.parent, store.name))
        yield


def _named(pictures: Iterable[Any]) -> list[tuple[str, Picture]]:
    named = []
    what = "names and pictures, for instance [('cat.jpg', array)]"
    if isinstance(pictures, dict):
        raise ValueError(f"pictures is a dict; give pairs of {what}, as pictures.items() does")
    if not isinstance(pictures, Iterable) or getattr(pictures, "shape", None) == ():
        raise ValueError(f"pictures={shown(pictures)} isn't a list; give pairs of {what}")
    for place, pair in enumerate(pictures):
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str | os.PathLike):
            raise TypeError(
                f"pictures[{place}] is a {type(pair).__name__}, not a name (a string or a path) and a picture; "
                "give for instance [('cat.jpg', array)]"
            )
        named.append((os.fspath(pair[0]), pair[1]))
    return named


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Pictures that were read: all their names; by places, what failed, and stacks of pictures of one shape each."""

    names: list[str]
    failed: dict[int, str]
    stacks: list[tuple[list[int], torch.Tensor]]


class _Forward:
    """Batches through the network; on a GPU with copies that don't wait.

    `shape` is the pictures', once the network has taken some.
    """

    def __init__(self, split: SplitModel, pooled: bool) -> None:
        self.features, self.pooled = features_of(split), pooled
        self.layout = self.features.layout
        self.keeps_tokens = bool(self.layout.prefix) and not pooled
        self.cuda = self.features.device.type == "cuda"
        self.own = split.preprocess.shape
        self.shape: tuple[int, ...] | None = None

    def pin(self, stack: Float[np.ndarray, "image y x colour"]) -> torch.Tensor:
        tensor = torch.from_numpy(stack)
        return tensor.pin_memory() if self.cuda else tensor

    def of_one_shape(self, batch: _Batch) -> tuple[np.ndarray | None, np.ndarray | None, list[int]]:
        """Activations and tokens of the pictures of the common shape, and their places.

        The others get a reason in `failed`.
        """
        values, tokens, kept = None, None, []
        # The sort is stable: among shapes that are as frequent, the network's own comes first, then the earliest.
        for places, stack in sorted(batch.stacks, key=lambda s: (len(s[0]), s[1].shape[1:] == self.own), reverse=True):
            shape = tuple(stack.shape[1:])
            if shape == (self.shape or self.own):
                # An error here is the network's or the machine's, not the pictures'.
                (values, tokens), kept = self(stack), places
            elif self.shape is not None:
                batch.failed.update(dict.fromkeys(places, f"shape {shape}, and the other pictures have {self.shape}"))
                continue
            else:
                try:
                    (values, tokens), kept = self(stack), places
                except torch.OutOfMemoryError:
                    raise
                except (RuntimeError, ValueError, IndexError) as error:
                    batch.failed.update(dict.fromkeys(places, f"shape {shape}, which the network refuses: {error}"))
                    continue
            self.shape = shape
        return values, tokens, kept

    def __call__(
        self, stack: torch.Tensor
    ) -> tuple[Float[np.ndarray, "image ..."], Float[np.ndarray, "image token channel"] | None]:
        """Activations and the tokens beside them."""
        with torch.no_grad():
            images = stack.to(self.features.device, non_blocking=self.cuda)
            images = images.movedim(-1, 1)
            if not self.keeps_tokens:
                maps = _with_digits(self.features.maps_of(images))
                return (maps.mean(dim=(1, 2)) if self.pooled else maps).cpu().numpy(), None
            tensor = _with_digits(self.features.tensor_of(images))
            return self.layout.to_maps(tensor).cpu().numpy(), self.layout.to_prefix(tensor).cpu().numpy()


def _with_digits(tensor: torch.Tensor) -> torch.Tensor:
    """Half precision as single: averages need the digits, and NumPy hasn't all of these types."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _batches(
    pictures: list[tuple[str, Picture]], batch: int, pin: Callable[[np.ndarray], torch.Tensor]
) -> Iterator[_Batch]:
    """Read batches one ahead, on another thread."""

    def read(start: int) -> _Batch:
        some = pictures[start : start + batch]
        failed: dict[int, str] = {}
        shapes: dict[tuple[int, ...], dict[int, np.ndarray]] = {}
        for place, (_, picture) in enumerate(some):
            try:
                array = _preprocessed(picture() if callable(picture) else picture)
            except Exception as error:
                # A reader may raise anything at a broken file (Pillow has SyntaxError, and exceptions of its own).
                failed[place] = _reason(error)
            else:
                shapes.setdefault(array.shape, {})[place] = array
        stacks = [(list(arrays), pin(np.stack(list(arrays.values())))) for arrays in shapes.values()]
        return _Batch([name for name, _ in some], failed, stacks)

    with concurrent.futures.ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, 0)
        for start in range(0, len(pictures), batch):
            ready = coming.result()
            if start + batch < len(pictures):
                coming = reader.submit(read, start + batch)
            yield ready


def _preprocessed(picture: Any) -> np.ndarray:
    array = np.asarray(native("the picture", picture))
    if array.dtype.name == "bfloat16":  # no number of NumPy's own
        array = array.astype(np.float32)
    if array.ndim != 3 or not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"shape {array.shape} of {array.dtype}; expected real numbers y x colour")
    if not np.isfinite(array).all():
        raise ValueError(f"{int((~np.isfinite(array)).sum())} of its values are NaN or infinite")
    return array


def _reason(error: Exception) -> str:
    said = str(error)
    return said if said and isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {said}"

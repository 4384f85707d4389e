"""The interface of attribution methods, and the checks that all of them share."""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..model import SplitModel, check_model
from ..nmf import FactorizationError
from ..support.arguments import Concepts, Seed, flag, float_or_none, index_or_none, key_of, real, shown
from ..support.concepts import concepts_of
from ..support.freed_memory import freed_memory_kept
from ..support.precision import full_precision
from ..support.progress import Progress
from ..support.progress_line import Watched, progress_of


@runtime_checkable
class Method(Protocol):
    """A way to show where concepts are: `(model, dictionary, images)` to one map a concept and image.

    What is explained is a concept's code in an image, `U_k(X)`: with `pooled` that of the image's average
    activations, else the sum of the codes at its places.
    """

    def __call__(
        self,
        model: SplitModel,
        dictionary: Any,
        images: Any,
        *,
        concepts: Concepts = None,
        pooled: bool = True,
        key: Seed = None,
        progress: Watched = None,
    ) -> Float[np.ndarray, "wanted image height width"]:
        """Maps of concepts in images.

        **Arguments:**

        - `model`: the split classifier; its features may be JAX's or come from another framework.
        - `dictionary`: the concepts, `concept channel`, JAX or NumPy.
        - `images`: network input, `image height width colour`, JAX or NumPy.
        - `concepts`: which concepts, counted from 0, in this order; all by default.
        - `pooled`: explain the code of the average activations, else the sum of the places' codes.
        - `key`: for what is random; the same key gives the same maps. `jax.random.key(0)` by default.
        - `progress`: told how far it is, by methods that look at many variants of each picture.

        **Returns:** the maps, in the size and the precision of the images.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a method was asked, checked.

    **Arguments:** as for `Method`; `concepts`, `key` and `progress` are what was given or stands for nothing given.
    """

    model: SplitModel
    dictionary: Any
    pictures: Float[Array, "image height width colour"]
    concepts: list[int]
    pooled: bool
    key: Key[Array, ""]
    progress: Progress


class CheckedMethod(abc.ABC):
    """A `Method` that finds what it was asked checked."""

    @full_precision
    def __call__(
        self,
        model: SplitModel,
        dictionary: Any,
        images: Any,
        *,
        concepts: Concepts = None,
        pooled: bool = True,
        key: Seed = None,
        progress: Watched = None,
    ) -> Float[np.ndarray, "wanted image height width"]:
        """Maps of concepts in images; see `Method`."""
        check_model(model)
        pictures, dictionary = checked_images(images), checked_bank(dictionary)
        chosen = list(concepts_of(concepts, len(dictionary)))
        asked = Asked(model, dictionary, pictures, chosen, flag("pooled", pooled), key_of(key), progress_of(progress))
        with freed_memory_kept(), taken_by(model, pictures):
            return self.maps(asked)

    @abc.abstractmethod
    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """The maps, in the size and the precision of the pictures."""


def checked_bank(dictionary: Any) -> Any:
    """A dictionary as it came; raises `ValueError` where it's no matrix of finite numbers."""
    try:
        known = np.asarray(dictionary)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"dictionary can't be read as an array ({error}); give concept × channel") from error
    if known.ndim != 2 or 0 in known.shape or not jnp.issubdtype(known.dtype, jnp.floating):
        raise ValueError(
            f"dictionary has shape {known.shape} and dtype {known.dtype}; give real numbers, concept × channel, such "
            "as explanation.dictionary"
        )
    if not np.isfinite(known).all():
        raise ValueError("dictionary has entries that are NaN or infinite; give the concepts of a factorization")
    return dictionary


def checked_images(images: Any) -> Float[Array, "image height width colour"]:
    """Network input as a JAX array; raises `ValueError` where it is none."""
    try:
        shape, dtype = np.shape(images), getattr(images, "dtype", np.asarray(images).dtype)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"images can't be read as an array ({error}); give network input") from error
    if len(shape) != 4 or 0 in shape:
        raise ValueError(f"images has shape {shape}; give network input, image × height × width × colour")
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"images has dtype {dtype}; give network input, which is real (face_jax.photographs reads any)"
        )
    pictures = jnp.asarray(images)
    lost = int((~np.isfinite(np.asarray(pictures))).any((1, 2, 3)).sum())
    if lost:
        raise ValueError(f"images has NaN or infinity in {lost} of {len(pictures)} pictures; leave these out")
    return pictures


@contextlib.contextmanager
def taken_by(model: SplitModel, images: Float[Array, "image height width colour"]) -> Iterator[None]:
    """Says of images in another shape than the model's input that they are, where the model doesn't take them."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        wanted, shape = model.preprocess.shape, images.shape
        if shape[1:] == wanted or isinstance(error, FactorizationError):
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"images has shape {shape}, which the model doesn't take ({first[:200]}); give image × height × width × "
            f"colour, such as {(shape[0], *wanted)}; np.moveaxis(images, 1, -1) where colours come first"
        ) from error


def parts(count: int, most: int) -> Iterator[slice]:
    """The numbers below `count` in slices of at most `most` and of nearly one size, so that few shapes occur."""
    pieces = -(-count // most)
    ends = [count * piece // pieces for piece in range(pieces + 1)]
    yield from (slice(start, end) for start, end in itertools.pairwise(ends))


def at_least(name: str, value: Any, least: int | float) -> None:
    """Raises `ValueError` for a setting that is too small, or for no whole number where the least is one."""
    number = index_or_none(value)
    if isinstance(least, int) and number is None:
        raise ValueError(f"{name}={shown(value)} isn't a whole number; give at least {least}")
    found = float_or_none(value)
    if found is not None and not found >= least:
        raise ValueError(f"{name}={shown(value)} is too small; give at least {least}")
    real(name, value, "number")

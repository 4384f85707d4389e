"""What every attribution method is: one way to call it, whatever goes on inside."""

from __future__ import annotations

import abc
import dataclasses
import itertools
import numbers
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..freed_memory import freed_memory_kept
from ..model import SplitModel
from ..progress import Progress, silent


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
        concepts: Sequence[int] | None = None,
        pooled: bool = True,
        key: Key[Array, ""] | None = None,
        progress: Progress = silent,
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

    def __call__(
        self,
        model: SplitModel,
        dictionary: Any,
        images: Any,
        *,
        concepts: Sequence[int] | None = None,
        pooled: bool = True,
        key: Key[Array, ""] | None = None,
        progress: Progress = silent,
    ) -> Float[np.ndarray, "wanted image height width"]:
        """Maps of concepts in images; see `Method`."""
        pictures, chosen = checked_images(images), chosen_concepts(concepts, len(dictionary))
        if not np.isfinite(np.asarray(dictionary)).all():
            raise ValueError("dictionary has entries that are NaN or infinite; give the concepts of a factorization")
        key = jax.random.key(0) if key is None else key
        with freed_memory_kept():
            return self.maps(Asked(model, dictionary, pictures, chosen, pooled, key, progress))

    @abc.abstractmethod
    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """The maps, in the size and the precision of the pictures."""


def chosen_concepts(concepts: Sequence[int] | None, number: int) -> list[int]:
    """The concepts asked for; raises `ValueError` for those that a dictionary of this size doesn't have."""
    chosen = list(range(number)) if concepts is None else [int(k) for k in concepts]
    wrong = [k for k in chosen if not 0 <= k < number]
    if wrong or not chosen:
        raise ValueError(
            f"concepts={wrong or chosen} of a dictionary with {number}; give numbers from 0 to {number - 1}"
        )
    return chosen


def checked_images(images: Any) -> Float[Array, "image height width colour"]:
    """Network input as a JAX array; raises `ValueError` where it is none."""
    shape, dtype = np.shape(images), getattr(images, "dtype", np.asarray(images).dtype)
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


def parts(count: int, most: int) -> Iterator[slice]:
    """The numbers below `count` in slices of at most `most` and of nearly one size, so that few shapes occur."""
    pieces = -(-count // most)
    ends = [count * piece // pieces for piece in range(pieces + 1)]
    yield from (slice(start, end) for start, end in itertools.pairwise(ends))


def at_least(name: str, value: int | float, least: int | float) -> None:
    """Raises `ValueError` for a setting that is too small, or for no whole number where the least is one."""
    if isinstance(least, int) and not isinstance(value, numbers.Integral):
        raise ValueError(f"{name}={value!r} is no whole number; give at least {least}")
    if not value >= least:
        raise ValueError(f"{name}={value!r} is too small; give at least {least}")

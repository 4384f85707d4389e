"""What becomes of predictions without one concept, everything else as it is, beside random concepts of its strength."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..blocks.room import averaged
from ..heads.affine import affine_map
from ..heads.beside import of_pictures
from ..outputs import Outputs
from ..support.fields import within
from .controls import random_dictionary

_MANY, _BATCH = 10**7, 32


@dataclasses.dataclass(frozen=True)
class Removal:
    """What happens to photographs of the class where one concept is taken out of their activations.

    Codes of the concept, by non-negative least squares, are taken out; what the other concepts and no concept hold
    stays.

    **Arguments:**

    - `photographs`: how many were looked at: all that are explained; behind a head that isn't affine, some of them.
    - `leave`: how many of them leave the class.
    - `becomes`: of exclusive classes what they become, and how many of them, the most frequent first.
    - `random`: how many leave, on average, where as much is taken out at the same places of random directions.
    """

    photographs: int = dataclasses.field(metadata=within(0, _MANY))
    leave: int = dataclasses.field(metadata=within(0, _MANY))
    becomes: tuple[tuple[int, int], ...] = dataclasses.field(metadata=within(0, _MANY))
    random: float = dataclasses.field(metadata=within(0, _MANY))


def removals(
    head: Any,
    maps: Float[np.ndarray, "image y x channel"],
    codes: Float[np.ndarray, "image y x concept"],
    dictionary: Float[np.ndarray, "concept channel"],
    target: int,
    outputs: Outputs,
    *,
    draws: int,
    key: Key[Array, ""],
) -> tuple[Removal, ...]:
    """What the removal of each concept does to pictures that are of the class.

    **Arguments:**

    - `head`: from activations to logits, with these pictures' tokens beside the maps where it takes such.
    - `maps`, `codes`: of pictures that are of the class; averages over places behind an affine head.
    - `dictionary`: the concepts.
    - `target`, `outputs`: the class, and what the logits mean.
    - `draws`: random directions for each concept.
    - `key`: for these.

    **Returns:** an entry for each concept.
    """
    signed = bool((dictionary < 0).any())
    others = random_dictionary(dictionary.shape[1], draws, key=key, signed=signed).astype(dictionary.dtype)
    less = logits_without(head, maps, codes)
    had = np.asarray(outputs.has(less([], dictionary[:0]), target))
    found = []
    for concept in range(len(dictionary)):
        logits = less([concept], dictionary[concept][None])
        left = had & ~np.asarray(outputs.has(logits, target))
        become: list[tuple[int, int]] = []
        if outputs.exclusive:
            become = collections.Counter(logits[left].argmax(-1).tolist()).most_common()
        by_chance = [had & ~np.asarray(outputs.has(less([concept], other[None]), target)) for other in others]
        found.append(
            Removal(int(had.sum()), int(left.sum()), tuple(become), float(np.mean([some.sum() for some in by_chance])))
        )
    return tuple(found)


def logits_without(
    head: Any,
    maps: Float[np.ndarray, "image y x channel"],
    codes: Float[np.ndarray, "image y x concept"],
    before: Float[np.ndarray, "image class"] | None = None,
) -> Callable[[Any, Float[np.ndarray, "some channel"]], Float[np.ndarray, "image class"]]:
    """A function of some concepts and directions: logits less as much of each direction as there is of its concept.

    **Arguments:**

    - `head`: from activations to logits, with these pictures' tokens beside the maps where it takes such.
    - `maps`, `codes`: of the pictures; averages over places will do behind an affine head.
    - `before`: their logits, where they are known.

    **Returns:** the function; what it takes first indexes concepts.
    """
    if head.affine:
        kernel, bias = (np.asarray(part, np.float64) for part in affine_map(head, maps.shape[-1], maps.dtype))
        amount = codes.astype(np.float64).mean((1, 2))
        whole = averaged(maps, np.float64) @ kernel + bias if before is None else before

        def affine(concepts: Any, directions: Float[np.ndarray, "some channel"]) -> Float[np.ndarray, "image class"]:
            return (whole - amount[:, concepts] @ (directions @ kernel)).astype(maps.dtype)

        return affine
    size = min(_BATCH, len(maps))
    # The last batch is filled up, so that it's compiled for one shape.
    batches = [np.minimum(np.arange(at, at + size), len(maps) - 1) for at in range(0, len(maps), size)]

    def general(concepts: Any, directions: Float[np.ndarray, "some channel"]) -> Float[np.ndarray, "image class"]:
        taken, some = jnp.asarray(np.asarray(directions, maps.dtype)), codes[..., concepts]
        found = [
            np.asarray(_logits_less(of_pictures(head, at), jnp.asarray(maps[at]), jnp.asarray(some[at]), taken))
            for at in batches
        ]
        return np.concatenate(found)[: len(maps)]

    return general


@jax.jit
def _logits_less(
    head: Any,
    maps: Float[Array, "image y x channel"],
    codes: Float[Array, "image y x concept"],
    taken: Float[Array, "concept channel"],
) -> Float[Array, "image class"]:
    """Logits of activations from which directions are taken, each as much as its codes say."""
    return head(maps - codes.astype(maps.dtype) @ taken)

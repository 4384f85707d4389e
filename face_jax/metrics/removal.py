"""What becomes of predictions without one concept, everything else as it is, beside random concepts of its strength."""

from __future__ import annotations

import collections
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..heads.affine import affine_map
from ..outputs import Outputs
from ..support.fields import within
from .controls import random_dictionary

_MANY = 10**7


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
    without = logits_without(head, maps, codes, dictionary)
    had = np.asarray(outputs.has(without(None, None), target))
    found = []
    for concept in range(len(dictionary)):
        logits = without(concept, dictionary[concept])
        left = had & ~np.asarray(outputs.has(logits, target))
        become: list[tuple[int, int]] = []
        if outputs.exclusive:
            become = collections.Counter(logits[left].argmax(-1).tolist()).most_common()
        by_chance = [had & ~np.asarray(outputs.has(without(concept, other), target)) for other in others]
        found.append(
            Removal(int(had.sum()), int(left.sum()), tuple(become), float(np.mean([some.sum() for some in by_chance])))
        )
    return tuple(found)


def logits_without(
    head: Any,
    maps: Float[np.ndarray, "image y x channel"],
    codes: Float[np.ndarray, "image y x concept"],
    dictionary: Float[np.ndarray, "concept channel"],
) -> Any:
    """A function of a concept and a direction: logits of the pictures less as much of the latter as of the former."""
    if head.affine:
        kernel, bias = (np.asarray(part) for part in affine_map(head, dictionary.shape[1], maps.dtype))
        before, amount = maps.mean((1, 2)) @ kernel + bias, codes.mean((1, 2))

        def affine(concept: int | None, direction: np.ndarray | None) -> Float[np.ndarray, "image class"]:
            return before if concept is None else before - amount[:, concept, None] * (direction @ kernel)[None]

        return affine
    given = jnp.asarray(maps)

    def general(concept: int | None, direction: np.ndarray | None) -> Float[np.ndarray, "image class"]:
        amount = np.zeros(codes.shape[:3], maps.dtype) if concept is None else codes[..., concept]
        taken = np.zeros(maps.shape[-1], maps.dtype) if direction is None else direction
        return np.asarray(logits_less(head, given, jnp.asarray(amount)[..., None], jnp.asarray(taken)[None]))

    return general


@jax.jit
def logits_less(
    head: Any,
    maps: Float[Array, "image y x channel"],
    codes: Float[Array, "image y x concept"],
    taken: Float[Array, "concept channel"],
) -> Float[Array, "image class"]:
    """Logits of activations from which directions are taken, each as much as its codes say."""
    return head(maps - codes.astype(maps.dtype) @ taken)

"""What concepts, and what they leave out, add to the difference of two logits in a picture."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Shaped

from ..heads.affine import affine_map
from ..support.randomness import generator
from ..support.reprs import short_repr

# With so many parts or fewer every set of them is tried.
MOST_ENUMERATED = 10
_BATCH = 64


@dataclasses.dataclass(frozen=True)
class DifferenceParts:
    """A difference of two logits, part by part; the parts' sum is the difference, to rounding.

    **Arguments:**

    - `concepts`: what each concept adds.
    - `left_out`: what is in the activations beside all concepts.
    - `nothing`: the difference without any activations (behind an affine head, of the two biases).
    - `difference`: the difference itself, as the model gives it.
    - `exact`: whether parts are exact; else Shapley values over sampled orders of the parts.
    - `error`: of sampled values the standard errors, of the concepts, then of what is left out; zeros where exact.
    """

    concepts: Float[np.ndarray, " concept"]
    left_out: float
    nothing: float
    difference: float
    exact: bool
    error: Float[np.ndarray, " part"]

    __repr__ = short_repr

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return float(self.concepts.sum()) + self.left_out + self.nothing


def difference_parts(
    head: Any,
    maps: Float[np.ndarray, "y x channel"],
    codes: Float[np.ndarray, "y x concept"],
    dictionary: Float[np.ndarray, "concept channel"],
    first: int,
    second: int,
    *,
    permutations: int,
    key: Key[Array, ""],
) -> DifferenceParts:
    """Parts of `logit[first] − logit[second]` in one picture.

    Behind an affine head each part is exact. Behind any other it is a Shapley value: what the part adds, averaged over
    all orders in which concepts and what they leave out can be put in. Over ten parts that are there at most, every set
    is tried; over more, as many orders as `permutations` are drawn, each with its reverse.

    **Arguments:**

    - `head`: from activations to logits, with this picture's tokens beside the maps where it takes such.
    - `maps`, `codes`: the picture's activations, and how much of each concept is at each place.
    - `dictionary`: the concepts.
    - `first`, `second`: the classes' numbers.
    - `permutations`: how many orders.
    - `key`: for the orders.

    **Returns:** the parts.
    """
    given = jnp.asarray(maps[None])
    logits = np.asarray(_said(head, given), np.float64)[0]
    difference = float(logits[first] - logits[second])
    if head.affine:
        kernel, bias = (np.asarray(part, np.float64) for part in affine_map(head, maps.shape[-1], maps.dtype))
        column, constant = kernel[:, first] - kernel[:, second], float(bias[first] - bias[second])
        amount, bank = codes.astype(np.float64).mean((0, 1)), dictionary.astype(np.float64)
        left = maps.astype(np.float64).mean((0, 1)) - amount @ bank
        concepts = amount * (bank @ column)
        return DifferenceParts(
            concepts, float(left @ column), constant, difference, True, np.zeros(len(dictionary) + 1)
        )
    rest = maps - codes @ dictionary
    there = [*np.flatnonzero(codes.any((0, 1))).tolist(), *([len(dictionary)] if rest.any() else [])]
    pieces = [rest if part == len(dictionary) else codes[..., part, None] * dictionary[part] for part in there]
    stack = jnp.asarray(np.stack(pieces)) if pieces else jnp.zeros((0, *maps.shape), maps.dtype)

    def values(masks: Shaped[np.ndarray, "set part"]) -> Float[np.ndarray, " set"]:
        found = []
        for at in range(0, len(masks), _BATCH):
            some = np.zeros((min(_BATCH, len(masks)), len(there)), maps.dtype)
            part = masks[at : at + _BATCH]
            some[: len(part)] = part
            said = np.asarray(_of_sets(head, stack, jnp.asarray(some)), np.float64)[: len(part)]
            found.append(said[:, first] - said[:, second])
        return np.concatenate(found)

    shares, errors, nothing = _shapley(values, len(there), permutations, key)
    every, error = np.zeros(len(dictionary) + 1), np.zeros(len(dictionary) + 1)
    every[there], error[there] = shares, errors
    return DifferenceParts(every[:-1], float(every[-1]), nothing, difference, len(there) <= MOST_ENUMERATED, error)


def _shapley(
    values: Any, count: int, permutations: int, key: Key[Array, ""]
) -> tuple[Float[np.ndarray, " part"], Float[np.ndarray, " part"], float]:
    """Shapley values of a game on `count` parts, their standard errors, and the value of the empty set."""
    if count <= MOST_ENUMERATED:
        masks = np.asarray(list(itertools.product((0, 1), repeat=count))).reshape(2**count, count)
        value, size = values(masks), masks.sum(1)
        found = np.zeros(count)
        for part in range(count):
            without = np.flatnonzero(masks[:, part] == 0)
            weight = [1 / (count * math.comb(count - 1, each)) for each in size[without].tolist()]
            found[part] = np.dot(weight, value[without + 2 ** (count - 1 - part)] - value[without])
        return found, np.zeros(count), float(value[0])
    random, pairs = generator(key), max(2, permutations // 2)
    drawn = [random.permutation(count) for _ in range(pairs)]
    orders = np.stack([order for each in drawn for order in (each, each[::-1])])
    # The sets on the way from none to all, of each order.
    place = np.argsort(orders, axis=1)
    masks = place[:, None, :] < np.arange(1, count)[None, :, None]
    ends = values(np.stack([np.zeros(count), np.ones(count)]))
    between = values(masks.reshape(-1, count)).reshape(len(orders), count - 1)
    start, stop = (np.full((len(orders), 1), end) for end in ends)
    steps = np.diff(np.concatenate([start, between, stop], axis=1), axis=1)
    gains = np.take_along_axis(steps, place, axis=1).reshape(pairs, 2, count).mean(1)
    return gains.mean(0), gains.std(0, ddof=1) / math.sqrt(pairs), float(ends[0])


@jax.jit
def _said(head: Any, maps: Float[Array, "image y x channel"]) -> Float[Array, "image class"]:
    return head(maps)


@jax.jit
def _of_sets(
    head: Any, pieces: Float[Array, "part y x channel"], masks: Float[Array, "set part"]
) -> Float[Array, "set class"]:
    return head(jnp.tensordot(masks, pieces, axes=1))

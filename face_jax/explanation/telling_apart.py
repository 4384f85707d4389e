"""Which concepts tell two classes apart: parts of the difference of their logits, in the photographs of both."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..activations import Collected
from ..heads.affine import affine_map
from ..importance.differences import difference_parts
from ..nmf.encoding import encode_maps
from ..support.randomness import generator
from ..support.reprs import short_repr
from .class_usage import places_of
from .record import Explanation

# Behind a head that isn't affine, parts take thousands of calls of the head for each photograph.
_SAMPLED_PHOTOGRAPHS = 12


@dataclasses.dataclass(frozen=True)
class Apart:
    """Which concepts tell two classes apart: parts of `logit[first] − logit[second]` in the photographs of both.

    **Arguments:**

    - `names`: the two classes.
    - `concepts`: each concept by the class whose report has it and its number there; with a shared bank, that of the
        first class.
    - `first`, `second`: what each concept adds to the difference of the logits in the mean photograph of the first
        class, and of the second.
    - `left_out`: what the concepts leave out adds there, likewise.
    - `nothing`: what no activations at all add, likewise; the same in both but for tokens beside the maps.
    - `difference`: the mean difference itself in both.
    - `separates`: how well each concept's part alone orders photographs of the first class before those of the second:
        the area under the curve, 0.5 by chance.
    - `by_chance`: what the best of the concepts reaches where the photographs' classes are shuffled: 95 % quantile.
    - `photographs`: how many of each class were looked at.
    - `exact`: whether parts are exact; else they are Shapley values.
    """

    names: tuple[str, str]
    concepts: tuple[tuple[str, int], ...]
    first: Float[np.ndarray, " concept"]
    second: Float[np.ndarray, " concept"]
    left_out: tuple[float, float]
    nothing: tuple[float, float]
    difference: tuple[float, float]
    separates: Float[np.ndarray, " concept"]
    by_chance: float
    photographs: tuple[int, int]
    exact: bool

    __repr__ = short_repr

    @property
    def tells(self) -> Float[np.ndarray, " concept"]:
        """By how much each concept moves the two classes apart: what it adds in the one less what it adds in the other.

        With what is left out, these add up to the distance of the mean differences.
        """
        return self.first - self.second

    @property
    def order(self) -> Int[np.ndarray, " concept"]:
        """The concepts, those first that move the classes apart most."""
        return np.argsort(-np.abs(self.tells), kind="stable")

    def table(self) -> dict[str, Any]:
        """All of it in plain numbers and words."""
        return {
            "classes": list(self.names),
            "photographs": list(self.photographs),
            "exact": self.exact,
            "difference": list(self.difference),
            "left_out": list(self.left_out),
            "nothing": list(self.nothing),
            "by_chance": self.by_chance,
            "concepts": [
                {
                    "class": self.concepts[at][0],
                    "number": self.concepts[at][1],
                    "in_first": float(self.first[at]),
                    "in_second": float(self.second[at]),
                    "tells": float(self.tells[at]),
                    "separates": float(self.separates[at]),
                }
                for at in self.order.tolist()
            ],
        }


def told_apart(
    names: tuple[str, str],
    explanations: tuple[Explanation, Explanation],
    *,
    shared: bool,
    shuffles: int,
    permutations: int,
    key: Key[Array, ""],
) -> Apart:
    """`ClassExplanations.tell_apart` of two explanations."""
    one, other = explanations
    if one.dictionary.shape[1] != other.dictionary.shape[1]:
        raise ValueError(
            f"{names[0]!r} and {names[1]!r} are explained in different channels, because only one of them has "
            "activations below zero; give signs='mixed' to explain_classes"
        )
    own = [(names[0], concept.number) for concept in one.concepts]
    theirs = [] if shared else [(names[1], concept.number) for concept in other.concepts]
    bank = one.dictionary if shared else np.concatenate([one.dictionary, other.dictionary])
    pair = one.target.index, other.target.index
    options: Any = {"shared": shared, "permutations": permutations, "key": key}
    parts = [_parts(each, bank, *pair, **options) for each in explanations]
    values = np.concatenate([each.concepts for each in parts])
    counts = len(parts[0].concepts), len(parts[1].concepts)
    random = generator(key)
    shuffled = [_areas(values[random.permutation(len(values))], counts[0]) for _ in range(shuffles)]
    chance = [float(np.abs(each - 0.5).max(initial=0)) for each in shuffled]
    return Apart(
        names=names,
        concepts=tuple(own + theirs),
        first=parts[0].concepts.mean(0),
        second=parts[1].concepts.mean(0),
        left_out=(float(parts[0].left_out.mean()), float(parts[1].left_out.mean())),
        nothing=(float(parts[0].nothing.mean()), float(parts[1].nothing.mean())),
        difference=(float(parts[0].difference.mean()), float(parts[1].difference.mean())),
        separates=_areas(values, counts[0]),
        by_chance=0.5 + float(np.quantile(chance, 0.95)),
        photographs=counts,
        exact=all(each.exact for each in parts),
    )


@dataclasses.dataclass(frozen=True)
class _Parts:
    """Parts of a difference of logits in several photographs."""

    concepts: Float[np.ndarray, "image concept"]
    left_out: Float[np.ndarray, " image"]
    nothing: Float[np.ndarray, " image"]
    difference: Float[np.ndarray, " image"]
    exact: bool


def _parts(
    explanation: Explanation, bank: Float[np.ndarray, "concept channel"], first: int, second: int, *, shared: bool,
    permutations: int, key: Any,
) -> _Parts:  # fmt: skip
    """Parts in the photographs of one class; a shared bank is the explanation's own, in another order."""
    collected, head = explanation.pictures.collected, explanation.model.head
    if not head.affine:
        index = np.linspace(0, len(collected) - 1, min(_SAMPLED_PHOTOGRAPHS, len(collected))).round().astype(np.int64)
        return _sampled(collected[index], bank, head, first, second, permutations, key)
    maps = collected.maps
    if shared:
        amount = np.empty((len(maps), len(bank)))
        amount[:, places_of(explanation.dictionary, bank)] = explanation.codes.astype(np.float64).mean((1, 2))
    else:
        amount = encode_maps(maps, bank).astype(np.float64).mean((1, 2))
    kernel, bias = (np.asarray(part, np.float64) for part in affine_map(head, maps.shape[-1], maps.dtype))
    column, nothing = kernel[:, first] - kernel[:, second], float(bias[first] - bias[second])
    directions = bank.astype(np.float64)
    left = (maps.mean((1, 2), dtype=np.float64) - amount @ directions) @ column
    logits = collected.logits.astype(np.float64)
    return _Parts(
        amount * (directions @ column), left, np.full(len(maps), nothing), logits[:, first] - logits[:, second], True
    )


def _sampled(
    collected: Collected, bank: Float[np.ndarray, "concept channel"], head: Any, first: int, second: int,
    permutations: int, key: Any,
) -> _Parts:  # fmt: skip
    codes = encode_maps(collected.maps, bank)
    found = [
        difference_parts(
            collected[at : at + 1].head(head), collected.maps[at], codes[at], bank, first, second,
            permutations=permutations, key=key,
        )
        for at in range(len(collected))
    ]  # fmt: skip
    columns = ((one.left_out, one.nothing, one.difference) for one in found)
    left, nothing, difference = (np.asarray(each) for each in zip(*columns, strict=True))
    return _Parts(np.stack([one.concepts for one in found]), left, nothing, difference, all(one.exact for one in found))


def _areas(values: Float[np.ndarray, "image concept"], first: int) -> Float[np.ndarray, " concept"]:
    """The area under the curve of each concept, of the first photographs above the others."""
    from scipy.stats import rankdata

    ranks = rankdata(values, axis=0)
    others = len(values) - first
    return (ranks[:first].sum(0) - first * (first + 1) / 2) / (first * others)

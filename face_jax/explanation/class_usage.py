"""Which class uses which concept: one column a concept of a shared bank, or a group of concepts that are alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from ..metrics import random_dictionary, unit_length
from ..support.arguments import key_of
from ..support.reprs import short_repr
from .record import Explanation

# Concepts of two banks whose directions have this cosine at least may be one; more where random directions reach more.
_ALIKE = 0.8
_RANDOM_BANKS = 20


@dataclasses.dataclass(frozen=True)
class Usage:
    """Which class uses which concept.

    **Arguments:**

    - `classes`: the classes' names.
    - `columns`: for each concept the numbers that it has in the classes' reports, by class. Of a shared bank every
        class has every concept; else a column is a concept, or concepts of several classes that are alike: of each
        class one at most.
    - `importance`: the concept's importance for the class; NaN where the class has none such.
    - `adds`: what it adds to the class's logit in the mean photograph of the class; NaN also where the head isn't
        affine.
    - `coverage`: in which share of the class's photographs it is.
    - `alike`: the cosine from which on concepts of different classes are in one column; None with a shared bank.
    """

    classes: tuple[str, ...]
    columns: tuple[dict[str, int], ...]
    importance: Float[np.ndarray, "class column"]
    adds: Float[np.ndarray, "class column"]
    coverage: Float[np.ndarray, "class column"]
    alike: float | None

    __repr__ = short_repr


def usage_of(explanations: Mapping[str, Explanation], bank: Float[np.ndarray, "concept channel"] | None) -> Usage:
    """Which class uses which concept.

    **Arguments:**

    - `explanations`: by class.
    - `bank`: the concepts that they share; None with one bank each.
    """
    names = tuple(explanations)
    alike = None if bank is not None else _least_cosine(explanations)
    columns = _alike(explanations, alike) if alike is not None else [{} for _ in ([] if bank is None else bank)]
    if bank is not None:
        for name, each in explanations.items():
            for number, at in enumerate(places_of(each.dictionary, bank).tolist(), start=1):
                columns[at][name] = number
    importance, adds, coverage = (np.full((len(names), len(columns)), np.nan) for _ in range(3))
    for at, column in enumerate(columns):
        for name, number in column.items():
            concept = explanations[name].concepts[number - 1]
            place = names.index(name), at
            importance[place], coverage[place] = concept.importance, concept.coverage
            adds[place] = np.nan if concept.contribution is None else concept.contribution
    return Usage(names, tuple(columns), importance, adds, coverage, alike)


def _alike(explanations: Mapping[str, Explanation], least: float) -> list[dict[str, int]]:
    """Concepts in groups of those that are alike, one of each class at most; what weighs most first."""
    concepts = [(name, one) for name, each in explanations.items() for one in each.concepts]
    units = {name: unit_length(each.dictionary) for name, each in explanations.items()}
    columns: list[dict[str, int]] = []
    leaders: list[Float[np.ndarray, " channel"]] = []
    # Each joins the most important one that it is most like, unless that has one of its class by then.
    for name, concept in sorted(concepts, key=lambda pair: -pair[1].importance):
        direction = units[name][concept.index]
        cosine = [float(direction @ one) if len(one) == len(direction) else -1.0 for one in leaders]
        fitting = [at for at, value in enumerate(cosine) if value >= least and name not in columns[at]]
        if fitting:
            columns[max(fitting, key=cosine.__getitem__)][name] = concept.number
        else:
            columns.append({name: concept.number})
            leaders.append(direction)

    def weight(column: dict[str, int]) -> float:
        return sum(explanations[name].concepts[number - 1].importance for name, number in column.items())

    return sorted(columns, key=weight, reverse=True)


def _least_cosine(explanations: Mapping[str, Explanation]) -> float:
    """The least cosine of concepts that are called alike: above what random banks stay below in 95 % of draws."""
    banks = [each.dictionary for each in explanations.values()]
    rank, channels = max(len(bank) for bank in banks), banks[0].shape[1]
    signed = any(bool((bank < 0).any()) for bank in banks)
    best = []
    for draw in range(_RANDOM_BANKS):
        keys = (key_of(2 * draw), key_of(2 * draw + 1))
        one, other = (random_dictionary(channels, rank, key=key, signed=signed) for key in keys)
        best.append(float((one @ other.T).max()))
    return max(_ALIKE, float(np.quantile(best, 0.95)))


def places_of(
    rows: Float[np.ndarray, "concept channel"], bank: Float[np.ndarray, "concept channel"]
) -> Int[np.ndarray, " concept"]:
    """Where each row is in a bank that has the same rows in another order; equal ones one after another."""
    left, found = list(range(len(bank))), []
    for row in rows:
        found.append(next(at for at in left if np.array_equal(bank[at], row)))
        left.remove(found[-1])
    return np.asarray(found, np.int64)

"""What two explanations have in common: concepts matched one to one, and what each bank predicts of the other's."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from ..explanation.record import Explanation
from ..pictures.photographs import Photograph
from ..support.reprs import short_repr

# Copies differ by rounding.
EQUAL = 0.999


@dataclasses.dataclass(frozen=True)
class Match:
    """A concept of each explanation, matched one to one.

    **Arguments:**

    - `first`, `second`: their numbers, from 0.
    - `correlation`: of their codes over the same places.
    - `floor`: what both have to beat: the correlation that either reaches, at best, with 95 % of banks of random
        directions in the other's activations.
    - `shared`: whether the correlation is above the floor, above what shuffled photographs give, and above `least`.
    """

    first: int
    second: int
    correlation: float
    floor: float
    shared: bool


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two explanations have in common.

    **Arguments:**

    - `first`, `second`: the explanations.
    - `photographs`: those that both were looked at in.
    - `places`: what codes are compared at: the places of the coarser grid, or whole photographs where the models don't
        see the same part of a photograph.
    - `correlation`: of each concept's codes with each of the other's.
    - `silent`: concepts, of the first and of the second, whose codes are the same everywhere in these photographs:
        nothing can be said of them.
    - `matches`: concepts matched one to one, the highest correlation first.
    - `null`: for each shuffle of the photographs the highest correlation of concepts that are matched anew.
    - `threshold`: its 95 % quantile, or `least` if that's higher.
    - `predicts_second`, `predicts_first`: which share of the variance of one's codes (all of them, and of each concept)
        the other's predict, by linear regression, in photographs left out.
    - `null_predicts`: the 95 % quantile of the same with shuffled photographs, for the second's and the first's.
    - `notes`: what to know of how they were compared.
    """

    first: Explanation
    second: Explanation
    photographs: tuple[Photograph, ...]
    places: Literal["grid", "photographs"]
    correlation: Float[np.ndarray, "first second"]
    silent: tuple[tuple[int, ...], tuple[int, ...]]
    matches: tuple[Match, ...]
    null: Float[np.ndarray, " shuffle"]
    threshold: float
    predicts_second: tuple[float, Float[np.ndarray, " second"]]
    predicts_first: tuple[float, Float[np.ndarray, " first"]]
    null_predicts: tuple[float, float]
    notes: tuple[str, ...] = ()

    __repr__ = short_repr

    @property
    def shared(self) -> tuple[Match, ...]:
        """The matches that are shared."""
        return tuple(match for match in self.matches if match.shared)

    @property
    def only_first(self) -> tuple[int, ...]:
        """Concepts of the first that no concept of the second shares."""
        found = set(range(self.correlation.shape[0])) - set(self.silent[0])
        return tuple(sorted(found - {match.first for match in self.shared}))

    @property
    def only_second(self) -> tuple[int, ...]:
        """Concepts of the second that no concept of the first shares."""
        found = set(range(self.correlation.shape[1])) - set(self.silent[1])
        return tuple(sorted(found - {match.second for match in self.shared}))

    @property
    def equal(self) -> bool:
        """Whether both have the same concepts: as many, and each goes with one of the other's as closely as a copy."""
        rows, columns = self.correlation.shape
        heard = [match for match in self.matches if match.first not in self.silent[0]]
        same = rows == columns and len(self.silent[0]) == len(self.silent[1])
        return same and all(match.correlation >= EQUAL for match in heard)

    def table(self) -> dict[str, Any]:
        """All of it in plain numbers; concepts by the numbers that reports give them."""
        importance = [[one.importance for one in each.concepts] for each in (self.first, self.second)]
        return {
            "first": _name(self.first),
            "second": _name(self.second),
            "photographs": [photograph.name for photograph in self.photographs],
            "compared_at": self.places,
            "notes": list(self.notes),
            "equal": self.equal,
            "silent": [[at + 1 for at in each] for each in self.silent],
            "threshold": self.threshold,
            "null": self.null.tolist(),
            "matches": [
                {
                    "first": match.first + 1,
                    "second": match.second + 1,
                    "correlation": match.correlation,
                    "floor": match.floor,
                    "shared": match.shared,
                    "importance": [importance[0][match.first], importance[1][match.second]],
                    "importance_change": importance[1][match.second] - importance[0][match.first],
                }
                for match in self.matches
            ],
            "only_first": [at + 1 for at in self.only_first],
            "only_second": [at + 1 for at in self.only_second],
            "first_predicts_second": {"all": self.predicts_second[0], "each": self.predicts_second[1].tolist()},
            "second_predicts_first": {"all": self.predicts_first[0], "each": self.predicts_first[1].tolist()},
            "by_chance": {
                "first_predicts_second": self.null_predicts[0],
                "second_predicts_first": self.null_predicts[1],
            },
        }


def _name(explanation: Explanation) -> dict[str, str]:
    model = explanation.model
    return {"model": model.name, "layer": model.layer, "class": explanation.target_name}

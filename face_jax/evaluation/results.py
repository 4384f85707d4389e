"""What a comparison gives: a record a method, and all of them as a table."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..metrics import Stability
from ..metrics.paired import half_width, told_apart
from ..support.arguments import several, text
from ..support.reprs import short_repr

_USUAL = ("relative_error", "kl", "accuracy", "c_insertion", "c_deletion", "c_gini")


@dataclasses.dataclass(frozen=True)
class Difference:
    """By how much a method has more of a number than another one, over the folds that both were scored on.

    **Arguments:**

    - `mean`: the mean of the folds' differences; NaN where one of the two has no finite number in a fold.
    - `half_width`: half the width of its 95 % interval (Student's t). Folds share most of what they were fitted on,
        so that intervals are a little too narrow.
    - `told`: 1 where the method has more, −1 where it has less, 0 where the interval leaves that open and where the
        two are equal to rounding.
    """

    mean: float
    half_width: float
    told: int


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """One method's scores.

    **Arguments:**

    - `name`: the method's.
    - `control`: whether it's there to be beaten.
    - `folds`: the numbers of `BankScore.table()`, one table a fold.
    - `insertion`, `deletion`: accuracy after 0, 1, …, r concepts, one curve a fold.
    - `over_folds`: how alike the concepts of fits without each of the folds are; the floor is that of pictures drawn at
        random, less the bank's offset where it has one (a mean, of PCA and ICA), as its concepts are about it.
    - `over_starts`: how alike the concepts of fits of the same pictures with different keys are; None for one start.
    - `seconds`: of a fit, one a fold.
    - `dictionaries`: the concepts, one array a fold.
    - `learned`: whether its concepts were fitted, as those of λ = 0 are among the controls. What learned nothing must
        be beaten in every number, what was fitted in predictions.
    """

    name: str
    control: bool
    folds: tuple[dict[str, float], ...]
    insertion: Float[np.ndarray, "fold step"]
    deletion: Float[np.ndarray, "fold step"]
    over_folds: Stability
    over_starts: Stability | None
    seconds: tuple[float, ...]
    dictionaries: tuple[Float[np.ndarray, "concept channel"], ...] = ()
    learned: bool = True

    __repr__ = short_repr

    def runs(self, name: str) -> Float[np.ndarray, " fold"]:
        """A number in each of the folds."""
        return np.asarray([fold[name] for fold in self.folds], np.float64)

    def mean(self, name: str) -> float:
        """A number's mean over the folds."""
        return float(self.runs(name).mean())

    def std(self, name: str) -> float:
        """A number's standard deviation over the folds, the sample's; folds share pictures they were fitted on."""
        # Where KL is infinite, its deviation is NaN.
        with np.errstate(invalid="ignore"):
            return float(self.runs(name).std(ddof=1))

    def difference(self, other: MethodResult, name: str) -> Difference:
        """A number of this method less that of another one, fold by fold.

        **Arguments:**

        - `other`: a method of the same comparison; raises `ValueError` for other folds, and for one fold alone.
        - `name`: the number's, as in `Comparison.table()`.
        """
        first, second = self.runs(name), other.runs(name)
        if len(first) != len(second) or len(first) < 2:
            raise ValueError(
                f"other has {len(second)} folds and {self.name} has {len(first)}; give a method of the same "
                "comparison, of at least 2 folds"
            )
        if not np.isfinite([first, second]).all():
            return Difference(math.nan, math.nan, 0)
        apart = first - second
        return Difference(float(apart.mean()), float(half_width(apart)), int(told_apart(first, second)))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods and controls beside each other.

    **Arguments:**

    - `results`: one a method, the controls last.
    - `rank`: how many concepts each has.
    - `pictures`: how many pictures there were.
    - `parts`: the numbers of the pictures that each fold was scored on.
    - `model`, `layer`, `target`: the classifier's name, where it was split, and the class's name.
    - `exclusive`: whether classes exclude each other; labels don't.
    - `own`: whether each method had its own inference and importance.
    """

    results: tuple[MethodResult, ...]
    rank: int
    pictures: int
    parts: tuple[Int[np.ndarray, " picture"], ...] = ()
    model: str = ""
    layer: str = ""
    target: str = ""
    exclusive: bool = True
    own: bool = False

    __repr__ = short_repr

    def __getitem__(self, name: str) -> MethodResult:
        """A method's result."""
        for result in self.results:
            if result.name == name:
                return result
        raise ValueError(
            f"name={name!r} isn't a method that was compared; give one of {[r.name for r in self.results]}"
        )

    def table(self) -> list[dict[str, Any]]:
        """One row a method: each number's mean and, as `…_std`, its standard deviation over the folds."""
        return [
            {
                "method": result.name,
                "control": result.control,
                **{
                    label: value
                    for name in result.folds[0]
                    for label, value in ((name, result.mean(name)), (f"{name}_std", result.std(name)))
                },
                "stability_over_folds": result.over_folds.mean,
                "stability_over_folds_floor": result.over_folds.floor,
                "stability_over_starts": math.nan if result.over_starts is None else result.over_starts.mean,
                "stability_over_starts_floor": math.nan if result.over_starts is None else result.over_starts.floor,
                "seconds": float(np.mean(result.seconds)),
            }
            for result in self.results
        ]

    def markdown(self, names: Sequence[str] = _USUAL) -> str:
        """A table of some numbers as `mean ± std`, with the ceilings in its last row, and stability with its floor."""
        names = tuple(text("names", name, "a number's name") for name in several("names", names, "names"))
        known = set(self.results[0].folds[0])
        if wrong := [name for name in names if name not in known]:
            raise ValueError(f"names has {wrong[0]!r}, which isn't measured; give some of {sorted(known)}")
        rows = [["method", *names, "over folds (floor)", "over starts (floor)"]]
        rows += [
            [
                f"*{result.name}*" if result.control else result.name,
                *(f"{result.mean(name):.3f} ± {result.std(name):.3f}" for name in names),
                _likeness(result.over_folds),
                _likeness(result.over_starts),
            ]
            for result in self.results
        ]
        ceilings = [
            max(result.mean(f"{name}_ceiling") for result in self.results) if f"{name}_ceiling" in known else None
            for name in names
        ]
        rows.append(["ceiling", *("" if each is None else f"{each:.3f}" for each in ceilings), "1", "1"])
        rows.insert(1, ["---"] * len(rows[0]))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def _likeness(found: Stability | None) -> str:
    return "" if found is None else f"{found.mean:.3f} ({found.floor:.3f})"

"""What can be believed of methods compared: which are as good as the best, which don't beat a control; in words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from ..evaluation import Comparison, MethodResult
from ..metrics import Stability
from ..support.sentences import listed

# Fewer folds than this leave intervals that hardly anything is beyond.
_FEW_FOLDS = 5


@dataclasses.dataclass(frozen=True)
class Column:
    """A number of the tables.

    `better` is 1 where more is better, −1 where less is, 0 where neither. `words` is what sentences call it, `best` the
    best that's possible, where no ceiling is measured. `floor` is the number that stands in brackets behind it.
    """

    number: str
    title: str
    better: int
    words: str = ""
    best: str = ""
    percent: bool = False
    floor: str | None = None

    @property
    def heading(self) -> str:
        """The title, with an arrow to what is better."""
        return self.title + {1: "\u00a0↑", -1: "\u00a0↓", 0: ""}[self.better]


_KL = Column("kl", "KL", -1, "KL divergence", "0")
_ACCURACY = Column("accuracy", "accuracy", 1, "accuracy", "100 %", percent=True)
_ERROR = Column("relative_error", "squared error", -1, "squared error", "0")
_INSERTION = Column("c_insertion", "C-Ins", 1, "insertion")
_DELETION = Column("c_deletion", "C-Del", 1, "deletion")
_AGREEMENT = Column("agreement", "agreement", 1, "agreement", "100 %", percent=True)
_NOTHING = Column("accuracy_of_nothing", "at U = 0", 0, percent=True)
SECONDS = Column("seconds", "seconds", -1)
SCORES = (_KL, _ACCURACY, _ERROR, _INSERTION, _DELETION, Column("c_gini", "C-Gini", 1))
STABILITY = (
    Column("stability_over_folds", "stability, folds", 1, best="1"),
    Column("stability_over_starts", "stability, starts", 1, best="1"),
)
_MORE = (
    _AGREEMENT,
    Column("l1", "L1", -1, best="0"),
    Column("surrogate_from_offset_mae", "SURF", -1, best="0", floor="surrogate_from_offset_mae_random_concepts"),
    Column("non_zero_codes", "codes not 0", 0, percent=True),
    _NOTHING,
)
MORE = (*_MORE, SECONDS)
# By these the best is named.
_JUDGED = {
    _KL: "In keeping the predictions (KL divergence)",
    _ACCURACY: "In keeping the class (accuracy)",
    _ERROR: "In rebuilding the activations (squared error)",
}
# Controls must be beaten in predictions, and where they learned nothing in all of these.
_PREDICTIONS = (_KL, _ACCURACY, _AGREEMENT)
_HELD = (*_PREDICTIONS, _ERROR, _INSERTION, _DELETION)


class Standings:
    """Which methods of a comparison are as good as the best, and which don't beat a control where they should."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self.methods = [result for result in comparison.results if not result.control]
        self.controls = [result for result in comparison.results if result.control]
        # Where all pictures are of one class, they are the same.
        twice = all(
            np.allclose(each.runs("agreement"), each.runs("accuracy"), equal_nan=True) for each in comparison.results
        )
        self.held = [column for column in _HELD if not (twice and column is _AGREEMENT)]
        self.best = {column.number: self._best(column) for column in (*SCORES, *_MORE) if column.better}

    def _best(self, column: Column) -> MethodResult | None:
        known = [each for each in self.methods if np.isfinite(each.runs(column.number)).all()]
        return max(known, key=lambda each: column.better * each.mean(column.number), default=None)

    def as_good(self, column: Column) -> list[MethodResult]:
        """The best method, and those that can't be told apart from it."""
        best = self.best[column.number]
        if best is None:
            return []
        return [best, *(each for each in self.methods if each is not best and _ahead(best, each, column) == 0)]

    def unbeaten(self, result: MethodResult, column: Column) -> list[tuple[MethodResult, bool]]:
        """Controls that a method doesn't beat where it should, and whether it's worse."""
        if result.control or column not in self.held:
            return []
        against = [each for each in self.controls if column in _PREDICTIONS or not each.learned]
        found = [(each, _ahead(result, each, column)) for each in against]
        return [(control, ahead < 0) for control, ahead in found if ahead <= 0]

    def verdicts(self) -> Iterator[tuple[str, str]]:
        """Levels and sentences: what is best, then what warns, then what to know."""
        yield from self._bests()
        warnings = [*self._no_evidence(), *self._as_by_chance()]
        yield from (("warn", text) for text in warnings)
        if self.methods and not self.controls:
            yield "note", "No controls were compared: concepts that learned nothing may score as high."
        elif self.methods and not warnings:
            yield "good", "Every method beats every control wherever it should."
        yield from (("note", text) for text in self._to_know())

    def _bests(self) -> Iterator[tuple[str, str]]:
        for column, words in _JUDGED.items() if len(self.methods) > 1 else ():
            if not (found := self.as_good(column)):
                continue
            best, *near = found
            value, beside = self.written(column, best.mean(column.number)), listed([each.name for each in near])
            if not near:
                yield "good", f"{words}, {best.name} is the best ({value}), and told apart from all other methods."
            elif len(found) == len(self.methods):
                yield "note", f"{words}, no method can be told apart from the best, {best.name} ({value})."
            else:
                said = f"{beside} can't be told apart from it, and the others are worse."
                yield "note", f"{words}, {best.name} is the best ({value}); {said}"

    def _no_evidence(self) -> Iterator[str]:
        """What says nothing of any method, and then which methods other numbers say nothing of."""
        nothing_learned = {each.name for each in self.controls if not each.learned}
        behind = {
            column: {each.name: {control.name for control, _ in found} for each in self.methods
                     if (found := self.unbeaten(each, column))}
            for column in self.held
        }  # fmt: skip
        empty = [
            column
            for column, found in behind.items()
            if len(found) == len(self.methods) and nothing_learned.intersection(*found.values())
        ]
        if empty:
            words = listed([column.words for column in empty])
            yield (
                f"{words[0].upper()}{words[1:]} {'are' if len(empty) > 1 else 'is'} no evidence here: a control that "
                "learned nothing is beaten by no method."
            )
        by_names: dict[tuple[str, ...], list[str]] = {}
        for column, found in behind.items():
            if found and column not in empty:
                by_names.setdefault(tuple(found), []).append(column.words)
        for names, words in by_names.items():
            every = len(names) == len(self.methods) > 1
            said = "No method beats" if every else f"{listed(names)} {_dont(names)} beat"
            yield f"{said} every control in {listed(words)}."

    def not_beaten(self) -> Iterator[tuple[str, str]]:
        """For each number the methods that don't beat some control, and which controls these are."""
        for column in self.held:
            clauses: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
            for control in self.controls:
                found = [
                    (each.name, worse)
                    for each in self.methods
                    for one, worse in self.unbeaten(each, column)
                    if one is control
                ]
                if found:
                    level = tuple(name for name, worse in found if not worse)
                    clauses.setdefault((level, tuple(name for name, worse in found if worse)), []).append(control.name)
            if clauses:
                yield column.words, "; ".join(self._clause(*key, names) for key, names in clauses.items())

    def _clause(self, level: Sequence[str], worse: Sequence[str], controls: Sequence[str]) -> str:
        """That some methods are level with these controls, and others worse."""
        names, beaten = [*level, *worse], listed([f"“{name}”" for name in controls], "or")
        if not level:
            return f"{listed(worse)} {'are' if len(worse) > 1 else 'is'} worse than {beaten}"
        if len(names) == len(self.methods) > 1:
            said = f"no method beats {beaten}"
        else:
            said = f"{listed(names)} {_dont(names)} beat {beaten}"
        return f"{said} ({listed(worse)} {'are' if len(worse) > 1 else 'is'} worse)" if worse else said

    def _as_by_chance(self) -> Iterator[str]:
        for words, of in (("folds", lambda each: each.over_folds), ("starts", lambda each: each.over_starts)):
            names = [each.name for each in self.methods if as_by_chance(of(each))]
            if names:
                yield (
                    f"By stability over {words}, concepts of {listed(names)} are no more alike than pictures drawn at "
                    "random."
                )

    def _to_know(self) -> Iterator[str]:
        folds = len(self.comparison.results[0].folds)
        if folds < _FEW_FOLDS:
            yield (
                f"There are only {folds} folds: intervals over so few are wide, so that methods that differ may not be "
                "told apart."
            )
        begun = [each for each in self.methods if each.mean(_NOTHING.number) > 0]
        if begun:
            least, most = (pick(each.mean(_NOTHING.number) for each in begun) for pick in (min, max))
            shares = " to ".join(dict.fromkeys(self.written(_NOTHING, each) for each in (least, most)))
            noun = "class" if self.comparison.exclusive else "label"
            yield (
                f"With all codes at zero, this {noun} is already predicted for {shares} of the pictures with "
                f"{listed([each.name for each in begun])}: that alone makes insertion high and deletion low."
            )

    def written(self, column: Column, value: float, sign: str = "") -> str:
        """A value with as many digits as the column needs; a dash for what isn't a number."""
        if not math.isfinite(value):
            return "–"
        if column.percent:
            return f"{100 * value:{sign}.1f} %".replace("-", "−")
        return f"{value:{sign}.{self._digits(column.number)}f}".replace("-", "−")

    def _digits(self, number: str) -> int:
        """As many that the smallest mean has two, from 3 to 6."""
        means = [abs(result.mean(number)) for result in self.comparison.results]
        smallest = min((each for each in means if each > 0 and math.isfinite(each)), default=1.0)
        return min(max(1 - math.floor(math.log10(smallest)), 3), 6)


def _ahead(first: MethodResult, second: MethodResult, column: Column) -> int:
    """1 where the first is better, −1 where it's worse, 0 where that's open; what isn't a number is worse than any."""
    known = [bool(np.isfinite(each.runs(column.number)).all()) for each in (first, second)]
    if not all(known):
        return known[0] - known[1]
    return column.better * first.difference(second, column.number).told


def _dont(names: Collection[str]) -> str:
    return "don't" if len(names) > 1 else "doesn't"


def as_by_chance(found: Stability | None) -> bool:
    """Whether concepts are no more alike than its floor; where there is no stability it isn't known."""
    return found is not None and not found.mean > found.floor

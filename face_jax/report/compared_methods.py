"""The page of methods compared: what can be believed, scores beside controls and ceilings, curves with bands."""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..evaluation import Comparison, MethodResult
from ..metrics import Stability, band_over_runs
from ..support.arguments import instance, several, text
from ..support.sentences import listed
from . import figures
from .definitions import Definition, definitions
from .standings import MORE, SCORES, SECONDS, STABILITY, Column, Standings, as_by_chance
from .written import write_page


def write_methods(comparison: Comparison, folder: str | pathlib.Path, *, notes: Sequence[str] = ()) -> pathlib.Path:
    """Write `methods.html` and `methods.json`: methods beside controls and ceilings, and what can be believed of them.

    The page says by which numbers methods can be told apart (95 % intervals of their differences over the folds), and
    warns of each that doesn't beat a control where it should.

    **Arguments:**

    - `comparison`: the result of `face_jax.compare_methods`.
    - `folder`: where they go; made if need be.
    - `notes`: what the page says besides, such as what took no part (`PicturesAndCrops.notes`).

    **Returns:** the page. Raises `ValueError` for anything but a comparison of at least one method over two folds or
    more, and `ImportError` where what draws pages isn't installed.

    **Example:**

    >>> from face_jax.methods import NMF
    >>> found = fj.compare_methods(model, images, [NMF()], target="warm", rank=2, folds=2, starts=1, controls=())
    >>> fj.write_methods(found, folder / "methods").name
    'methods.html'
    """
    instance("comparison", comparison, Comparison, "the result of face_jax.compare_methods")
    said = [text("notes", note, "a sentence") for note in several("notes", notes, "sentences")]
    _check(comparison)
    standings = Standings(comparison)
    verdicts = [*standings.verdicts(), *(("note", note) for note in said)]
    tables = _Tables(standings)
    content = {
        "comparison": comparison,
        "verdicts": verdicts,
        "not_beaten": list(standings.not_beaten()),
        "folds": len(comparison.results[0].folds),
        "tables": tables,
        "ceilings": {column.number: tables.ceiling(column) for column in SCORES},
        "lines": figures.method_lines(comparison.results),
        "drawn": functools.partial(figures.band_figure, comparison.results),
    }
    return write_page("methods", content, _said(standings, verdicts), folder, needed="matplotlib")


def _check(comparison: Comparison) -> None:
    counts = [len(result.folds) for result in comparison.results]
    if not counts:
        raise ValueError("comparison has no results; give that of at least one method")
    if min(counts) < 2 or len(set(counts)) > 1:
        raise ValueError(
            f"comparison has results of {min(counts)} to {max(counts)} folds; give the same folds for all, at least 2"
        )


@dataclasses.dataclass(frozen=True)
class _Cell:
    """What a table says in one place; `strong` where it can't be told from the best, `unbeaten` names controls."""

    text: str
    beside: str = ""
    strong: bool = False
    unbeaten: str = ""


class _Tables:
    """The page's tables, as cells."""

    def __init__(self, standings: Standings) -> None:
        self.standings, self.results = standings, standings.comparison.results
        self.exclusive = standings.comparison.exclusive

    def scores(self) -> dict[str, Any]:
        """The scores that everybody asks for, and stability with its floors."""
        columns = (*SCORES, *STABILITY)
        rows = [
            [*(self._cell(result, column) for column in SCORES), _likeness(result, result.over_folds),
             _likeness(result, result.over_starts)]
            for result in self.results
        ]  # fmt: skip
        return {"columns": columns, "rows": self._rows(rows), "best": [self.ceiling(column) for column in columns]}

    def more(self) -> dict[str, Any]:
        """Further numbers."""
        rows = [[self._cell(result, column) for column in MORE] for result in self.results]
        return {"columns": MORE, "rows": self._rows(rows), "best": [self.ceiling(column) for column in MORE]}

    def differences(self) -> dict[str, Any]:
        """How far every method is from the best, with intervals."""
        columns = [column for column in SCORES if self.standings.best[column.number] is not None]
        rows = [[self._difference(result, column) for column in columns] for result in self.results]
        return {"columns": columns, "rows": self._rows(rows), "best": []}

    def _rows(self, cells: list[list[_Cell]]) -> list[tuple[MethodResult, list[_Cell]]]:
        return list(zip(self.results, cells, strict=True))

    def _cell(self, result: MethodResult, column: Column) -> _Cell:
        if column is SECONDS:
            return _Cell(f"{np.mean(result.seconds):.3g}")
        text = self.standings.written(column, result.mean(column.number))
        beside = "" if text == "–" else f"± {self.standings.written(column, result.std(column.number))}"
        if column.floor:
            beside += f" ({self.standings.written(column, result.mean(column.floor))})"
        strong = column.better != 0 and any(each is result for each in self.standings.as_good(column))
        unbeaten = listed([f"“{each.name}”" for each, _ in self.standings.unbeaten(result, column)], "or")
        return _Cell(text, beside, strong and len(self.standings.methods) > 1, unbeaten)

    def _difference(self, result: MethodResult, column: Column) -> _Cell:
        best = self.standings.best[column.number]
        assert best is not None
        if result is best:
            return _Cell("best")
        found = result.difference(best, column.number)
        if math.isnan(found.mean):
            return _Cell("–")
        half = self.standings.written(column, found.half_width)
        return _Cell(self.standings.written(column, found.mean, sign="+"), f"± {half}", strong=found.told == 0)

    def meanings(self) -> list[tuple[Column, Definition]]:
        """What each number means."""
        defined = definitions(exclusive=self.exclusive)
        return [(column, defined[column.number]) for column in (*SCORES, *STABILITY, *MORE)]

    def ceiling(self, column: Column) -> str:
        """The best that's possible; C-Ins's depends on where a method begins."""
        name = f"{column.number}_ceiling"
        if column.best or name not in self.results[0].folds[0]:
            return column.best
        known = [result.mean(name) for result in self.results]
        return " to ".join(dict.fromkeys(f"{each:.3f}" for each in (min(known), max(known))))


def _likeness(result: MethodResult, found: Stability | None) -> _Cell:
    if found is None:
        return _Cell("–")
    unbeaten = "pictures drawn at random" if not result.control and as_by_chance(found) else ""
    return _Cell(f"{found.mean:.3f}", f"({found.floor:.3f})", unbeaten=unbeaten)


def _said(standings: Standings, verdicts: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What the page says in plain numbers and words."""
    comparison = standings.comparison
    return {
        "face_jax": importlib.metadata.version("face-jax"),
        "model": comparison.model,
        "layer": comparison.layer,
        "class": comparison.target,
        "own_inference_and_importance": comparison.own,
        "rank": comparison.rank,
        "pictures": comparison.pictures,
        "folds": len(comparison.results[0].folds),
        "scored_on": comparison.parts,
        "verdicts": [{"level": level, "text": text} for level, text in verdicts],
        "methods": [
            row
            | {
                "learned": result.learned,
                "of_folds": list(result.folds),
                **{name: _curve(getattr(result, name)) for name in ("insertion", "deletion")},
                "to_best": {
                    column.number: {"best": best.name, **dataclasses.asdict(result.difference(best, column.number))}
                    for column in SCORES
                    if (best := standings.best[column.number]) is not None
                },
                "does_not_beat": {
                    column.number: [{"control": control.name, "worse": worse} for control, worse in found]
                    for column in standings.held
                    if (found := standings.unbeaten(result, column))
                },
            }
            for row, result in zip(comparison.table(), comparison.results, strict=True)
        ],
    }


def _curve(curves: Float[np.ndarray, "fold step"]) -> dict[str, Any]:
    band = band_over_runs(curves)
    return {"mean": band.mean, "std": band.high - band.mean}

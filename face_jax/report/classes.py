"""The page of several classes: which uses which concept, what tells them apart, and the way to each one's report."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..explanation.several import ClassExplanations
from ..explanation.summary import plain
from ..explanation.telling_apart import Apart
from ..pipeline.class_folders import folder_names
from ..support.arguments import Whole, instance, shown, whole
from ..support.atomic_folder import folder_of
from . import pictures
from .links import ReportLinks
from .measures import MINOR
from .page import write_report
from .reasons import suspects_table
from .tree import Pictures, crop_pictures
from .written import write_page

# Columns of the picture, concepts of a class's card and of a pair, crops of each.
_COLUMNS, _FIRST, _TELLING, _CROPS = 60, 3, 8, 4


@dataclasses.dataclass(frozen=True)
class _Concept:
    """A concept by the class whose report has it: its number there, what the page calls it, and where it is."""

    number: int
    name: str
    colour: str
    address: str
    importance: float
    crops: Pictures


def write_classes(
    found: ClassExplanations,
    folder: str | pathlib.Path,
    *,
    command: str | None = None,
    pairs: Whole = 3,
    misread: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Write `index.html` and `classes.json` for several classes, and each class's report in a folder of its own.

    The index shows which class uses which concept, as a picture and as a table, and which concepts tell the most
    confusable classes apart, and leads to the reports. These lead back, and each concept's line there to the other
    classes for which it has at least a hundredth of the importance.

    **Arguments:**

    - `found`: the result of `face_jax.explain_classes`.
    - `folder`: where they go; made if need be. May be the `folder` that the explanations were saved in.
    - `command`: the command line that made them, if one did; the reports repeat it.
    - `pairs`: how many pairs of classes are told apart, those first that are confused most easily.
    - `misread`: for classes, by their names in `found.explanations`, the result of `face_jax.misled`: photographs that
        the model gets wrong, which each class's report then shows.

    **Returns:** the index.

    **Example:**

    >>> found = fj.explain_classes(model, images, ["warm", "cold"], rank=3)
    >>> fj.write_classes(found, folder / "classes").name
    'index.html'
    """
    instance("found", found, ClassExplanations, "the result of face_jax.explain_classes")
    if command is not None and not isinstance(command, str):
        raise ValueError(f"command={shown(command)} isn't text; give the command line in quotes, or leave it out")
    pairs = whole("pairs", pairs, "pairs of classes")
    misread = {} if misread is None else dict(misread)
    if strange := set(misread) - set(found.explanations):
        raise ValueError(
            f"misread has {shown(min(strange))}, which isn't explained here; give results of misled for some of "
            f"{', '.join(found.explanations)}"
        )
    folder = folder_of(folder)
    folders = folder_names([*found.explanations, *found.failed])
    page = _Page(found, folders)
    for name, explanation in found.explanations.items():
        options: Any = {"misread": misread.get(name), "links": page.links(name)}
        write_report(explanation, folder / folders[name], command=command, **options)
    told = [found.tell_apart(*pair) for pair in found.confusable[:pairs]]
    content = {
        "found": found,
        "classes": [{**page.card(name), "misread": _count(misread, name)} for name in found.explanations],
        "failed": found.failed,
        "matrix": page.matrix(),
        "pairs": [page.pair(each) for each in told],
        "command": command,
    }
    return write_page("classes", content, page.table(told, misread), folder, file="index.html")


def _count(misread: dict[str, Any], name: str) -> int | None:
    """How many photographs of or as a class are misread; None where nobody asked."""
    return len(misread[name]) if name in misread else None


class _Page:
    """What the page says of explanations."""

    def __init__(self, found: ClassExplanations, folders: dict[str, str]) -> None:
        self._found, self._folders = found, folders
        self._usage = found.usage
        self._numbers = {name: found.numbers(name) for name in found.explanations} if found.shared else {}

    def concept(self, name: str, number: int, crops: int = _CROPS) -> _Concept:
        explanation = self._found.explanations[name]
        concept = explanation.concepts[number - 1]
        called = int(self._numbers[name][number - 1]) if self._found.shared else number
        return _Concept(
            number=number,
            name=str(called),
            colour=pictures.concept_colour(called),
            address=f"{self._folders[name]}/report.html#concept-{number}",
            importance=concept.importance,
            crops=crop_pictures(explanation, concept.strongest[:crops], 96),
        )

    def links(self, name: str) -> ReportLinks:
        """From a class's report back to the index, and to the reports of other classes that use its concepts."""
        called = {number: str(at) for number, at in enumerate(self._numbers.get(name, ()), start=1)}
        used: dict[int, list[tuple[str, float, str]]] = {}
        for column in self._usage.columns:
            if name in column:
                others = [self._use(other, number) for other, number in column.items() if other != name]
                some = sorted((one for one in others if one[1] >= MINOR), key=lambda one: -one[1])
                used |= {column[name]: some} if some else {}
        return ReportLinks("../index.html", called, used)

    def _use(self, name: str, number: int) -> tuple[str, float, str]:
        importance = self._found.explanations[name].concepts[number - 1].importance
        return name, importance, f"../{self._folders[name]}/report.html#concept-{number}"

    def card(self, name: str) -> dict[str, Any]:
        explanation = self._found.explanations[name]
        first = [concept.number for concept in explanation.concepts[:_FIRST]]
        return {
            "name": name,
            "address": f"{self._folders[name]}/report.html",
            "photographs": len(explanation.photographs),
            "agreement": explanation.scores.own.agreement,
            "concepts": [self.concept(name, number) for number in first],
        }

    def matrix(self) -> dict[str, Any]:
        """The picture's cells, as shares of the largest, and the table's."""
        usage = self._usage
        strength = np.nan_to_num(np.maximum(usage.importance, 0))
        shown = np.flatnonzero((strength > 0).any(0))[:_COLUMNS].tolist()
        largest = max(float(strength.max(initial=0)), 1e-30)
        columns = [
            {
                "name": str(at + 1),
                "cells": [
                    self._cell(name, usage.columns[at].get(name), at, row, float(strength[row, at]) / largest)
                    for row, name in enumerate(usage.classes)
                ],
            }
            for at in shown
        ]
        return {"columns": columns, "hidden": len(usage.columns) - len(shown), "alike": usage.alike}

    def _cell(self, name: str, number: int | None, at: int, row: int, share: float) -> dict[str, Any] | None:
        if number is None:
            return None
        usage, adds = self._usage, float(self._usage.adds[row, at])
        return {
            "class": name,
            "number": number,
            "address": f"{self._folders[name]}/report.html#concept-{number}",
            "share": share,
            "importance": float(usage.importance[row, at]),
            "adds": None if np.isnan(adds) else adds,
            "coverage": float(usage.coverage[row, at]),
        }

    def pair(self, told: Apart) -> dict[str, Any]:
        longest = max(float(np.abs(told.tells).max(initial=0)), 1e-30)
        rows = [
            {
                "concept": self.concept(*told.concepts[at]),
                "class": told.concepts[at][0],
                "first": float(told.first[at]),
                "second": float(told.second[at]),
                "tells": float(told.tells[at]),
                "share": abs(float(told.tells[at])) / longest,
                "separates": float(told.separates[at]),
                "chance": abs(float(told.separates[at]) - 0.5) + 0.5 <= told.by_chance,
            }
            for at in told.order[:_TELLING].tolist()
        ]
        rest = told.order[_TELLING:]
        others = (float(told.first[rest].sum()), float(told.second[rest].sum()))
        return {"told": told, "rows": rows, "rest": len(rest), "others": others}

    def table(self, told: list[Apart], misread: dict[str, Any]) -> dict[str, Any]:
        """All of it in plain numbers and words."""
        found, usage = self._found, self._usage
        return plain(
            {
                "model": found.model.name,
                "layer": found.model.layer,
                "shared": found.shared,
                "classes": [
                    {
                        "class": name,
                        "index": each.target.index,
                        "folder": self._folders[name],
                        "photographs": len(each.photographs),
                        "misread": _count(misread, name),
                        "suspects": suspects_table(misread.get(name, ())),
                        "report": f"{self._folders[name]}/report.html",
                        "numbers_in_the_bank": self._numbers[name] if found.shared else None,
                        "also_used_by": {
                            str(number): [
                                {"class": other, "importance": importance, "report": address.removeprefix("../")}
                                for other, importance, address in some
                            ]
                            for number, some in sorted(self.links(name).used.items())
                        },
                    }
                    for name, each in found.explanations.items()
                ],
                "failed": found.failed,
                "usage": {
                    "alike": usage.alike,
                    "columns": list(usage.columns),
                    "importance": usage.importance,
                    "adds": usage.adds,
                    "coverage": usage.coverage,
                },
                "told_apart": [each.table() for each in told],
                "notes": list(found.notes),
            }
        )

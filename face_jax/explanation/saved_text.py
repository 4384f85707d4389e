"""What the files of an explanation may hold: checked before anything in them is believed.

A check takes a value and the words for its place, and raises `Unfit` where it isn't what it may be.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..faithfulness.path import Point
from ..model import Preprocess

Check = Callable[[Any, str], None]

# More than any explanation has, and little enough to be looked through.
_MANY, _LONG = 10_000_000, 1_000_000
_DEEPEST = 20
# An index or a share is around 1; an estimate may be off by so much.
_FAR = 1e3


class Unfit(ValueError):  # noqa: N818 (never seen by users: a SavedFilesError says where)
    """A value that isn't what it may be."""


def _unfit(where: str, value: Any, wanted: str) -> Unfit:
    said = repr(value)
    return Unfit(f"{where} is {said if len(said) <= 60 else said[:57] + '…'}, not {wanted}")


@dataclasses.dataclass(frozen=True)
class Real:
    """A finite number within bounds; null, for one that isn't known, only if that's allowed."""

    low: int | float = -math.inf
    high: int | float = math.inf
    unknown: bool = False

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if value is None and self.unknown:
            return
        if (
            not isinstance(value, int | float)
            or isinstance(value, bool)
            or not (self.low <= value <= self.high and abs(value) <= sys.float_info.max)
        ):
            bounds = "" if math.isinf(self.low) else f" from {self.low:g} to {self.high:g}"
            raise _unfit(where, value, f"a number{bounds}")


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number within bounds."""

    low: int
    high: int

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise _unfit(where, value, f"a whole number from {self.low} to {self.high}")


@dataclasses.dataclass(frozen=True)
class Words:
    """A text, of a certain form if there is a pattern."""

    pattern: str = ""

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if not isinstance(value, str) or len(value) > _LONG or "\0" in value:
            raise _unfit(where, value, "a text")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise _unfit(where, value, "such a text")


@dataclasses.dataclass(frozen=True)
class YesOrNo:
    """True or false."""

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if not isinstance(value, bool):
            raise _unfit(where, value, "true or false")


@dataclasses.dataclass(frozen=True)
class Listed:
    """A list, of a certain length if there is one."""

    item: Check
    count: int | None = None
    most: int = _MANY

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if not isinstance(value, list) or len(value) > self.most:
            raise _unfit(where, value, "a list")
        if self.count is not None and len(value) != self.count:
            raise Unfit(f"{where} has {len(value)} entries, not {self.count}")
        for number, each in enumerate(value):
            self.item(each, f"{where}[{number}]")


@dataclasses.dataclass(frozen=True)
class Entries:
    """An object with these fields; with others only if there is a check for them."""

    fields: Mapping[str, Check]
    others: Check | None = None

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if not isinstance(value, dict):
            raise _unfit(where, value, "an object")
        missing = [name for name in self.fields if name not in value]
        if missing:
            raise Unfit(f"{where} has no {missing[0]}")
        for name, each in value.items():
            check = self.fields.get(name, self.others)
            if check is None:
                raise Unfit(f"{where} has {name[:40]!r}, which doesn't belong there")
            check(each, f"{where}.{name[:40]}")


@dataclasses.dataclass(frozen=True)
class Maybe:
    """Null, or what passes a check."""

    check: Check

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if value is not None:
            self.check(value, where)


def anything(value: Any, where: str, depth: int = 0) -> None:
    """Whatever is finite and not too deep."""
    if depth > _DEEPEST:
        raise Unfit(f"{where} has too many levels")
    if isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            anything(each, where, depth + 1)
    elif value is not None and not isinstance(value, bool):
        (Words() if isinstance(value, str) else Real())(value, where)


_HEX = Words("[0-9a-f]{64}")
_NUMBERS = Words(r"[1-9]\d{0,6}(\.[1-9]\d{0,6})*")
_SHARE = Real(0, 1 + 1e-6)
_POSITIVE = Real(0)
_UNKNOWN = Real(unknown=True)


settings_check = Entries(
    {
        "model": Words(),
        "layer": Words(),
        "fingerprint": Words(),
        "target": Whole(0, _MANY),
        "preprocess": Entries({field.name: anything for field in dataclasses.fields(Preprocess)}, others=anything),
    },
    others=anything,
)
seconds_check = Entries(
    {
        "format": Whole(5, 5),
        "digest": _HEX,
        "seconds": Entries({}, others=_POSITIVE),
        "text_digest": _HEX,
    }
)


def _crops(crops: int) -> Check:
    edge = Whole(0, _MANY)
    return Listed(
        Entries({"crop": Whole(0, crops - 1), "photograph": Words(), "box": Listed(edge, 4), "code": _POSITIVE}),
        most=crops,
    )


def text_check(saved: Mapping[str, Any], *, old: bool, crops: int, classes: int, steps: int) -> Check:
    """What `explanation.json` may hold.

    **Arguments:**

    - `saved`: its content, of which numbers of things are taken that others must fit.
    - `old`: whether it's of format 4.
    - `crops`, `classes`, `steps`: how many there are of crops, of the model's classes and of places on a curve.
    """
    photographs, concepts = _count(saved, "photographs", "kept"), _count(saved, "concepts")
    concept = {
        "number": Whole(1, concepts),
        "importance": Real(-_FAR, _FAR),
        "interval": Listed(Real(-_FAR, _FAR), 2),
        "contribution": Real(unknown=True),
        "tcav": _SHARE,
        "tcav_p_value": Real(0, 1, unknown=True),
        "gradient_times_code": Real(),
        "coverage": _SHARE,
        "strongest": _crops(crops),
    }
    curve = Listed(_SHARE, steps)
    score = {
        "name": Words(),
        "relative_squared_error": Real(0, unknown=True),
        "kl": Real(-1e-3, unknown=True),
        "kl_quantiles": Entries(dict.fromkeys(("50 %", "90 %", "100 %"), Real(-1e-3, unknown=True))),
        "l1": Real(0, 2 + 1e-3, unknown=True),
        "agreement": _SHARE,
        "becomes": Entries({}, others=Whole(1, _MANY)),
        "becomes_index": Listed(Listed(Whole(0, _MANY), 2), most=classes),
        "c_insertion": Real(-1, 1 + 1e-6),
        "c_deletion": Real(-1, 1 + 1e-6),
        "c_gini": Real(-1e-6, 1),
        "insertion": curve,
        "deletion": curve,
    }
    index = Listed(Whole(0, photographs - 1), most=photographs)
    fields: dict[str, Check] = {
        "format": Whole(0, _MANY),
        "target": Entries({"index": Whole(0, classes - 1), "name": Words(), "chosen": Words()}),
        "photographs": Entries(
            {
                "kept": Listed(Words(), photographs),
                "files": Listed(Maybe(Words()), photographs),
                "digests": Listed(Maybe(_HEX), photographs),
                "fitted": index,
                "held_out": index,
            }
        ),
        "importance_is_exact": YesOrNo(),
        "concepts": Listed(Entries(concept), concepts),
        "recursion": Maybe(_tree(crops, concepts)),
        "scores": Listed(Entries(score), _count(saved, "scores")),
        "rank_scan": Maybe(_scan(saved.get("rank_scan"))),
        "path": Maybe(_path(saved.get("path"))),
        "accuracy_of_nothing": _SHARE,
        "fit": Entries({}, others=anything),
        "notes": Listed(Words(), most=10_000),
        "settings": settings_check,
        "digest": _HEX,
    }
    return Entries(fields | ({"seconds": Entries({}, others=_POSITIVE)} if old else {"text_digest": _HEX}))


def _count(saved: Any, *names: str) -> int:
    for name in names:
        saved = saved.get(name) if isinstance(saved, dict) else None
    where = ".".join(names)
    if not isinstance(saved, list) or not saved:
        raise Unfit(f"there are no {where}")
    return len(saved)


def _path(saved: Any) -> Check:
    points = _count(saved, "points") if saved is not None else 1
    fields = {field.name: _UNKNOWN for field in dataclasses.fields(Point)}
    point = fields | {"weight": _POSITIVE, "agreement": _SHARE, "steps": Whole(0, _MANY)}
    return Entries(
        {"points": Listed(Entries(point), points), "chosen": Whole(0, points - 1), "most_error": Real(1)}
    )  # fmt: skip


def _scan(saved: Any) -> Check:
    ranks = _count(saved, "ranks") if saved is not None else 1
    fields = dict.fromkeys(("held_out", "held_out_error", "fitted", "stability", "floor"), Listed(_UNKNOWN, ranks))
    return Entries({"ranks": Listed(Whole(1, _MANY), ranks), **fields})


def _tree(crops: int, concepts: int) -> Check:
    return Entries(
        {
            "spread": Listed(_UNKNOWN, concepts),
            "layer": Words(),
            "threshold": Real(),
            "suggested": Listed(Whole(1, concepts), most=concepts),
            "divisions": Listed(_Branch(crops), most=concepts),
            "notes": Listed(Words()),
        }
    )


@dataclasses.dataclass(frozen=True)
class _Branch:
    """A concept that was taken apart: its parts are called after it, and may be taken apart themselves."""

    crops: int
    level: int = 0

    def __call__(self, value: Any, where: str) -> None:
        if self.level > _DEEPEST:
            raise Unfit(f"{where[:60]}… has too many levels")
        part = {
            "concept": _NUMBERS,
            "share": _SHARE,
            "coherence": Real(-1.001, 1.001, unknown=True),
            "strongest": _crops(self.crops),
            "division": Maybe(_Branch(self.crops, self.level + 1)),
        }
        own = {
            "concept": _NUMBERS,
            "layer": Words(),
            "fingerprint": Words(),
            "crops": Whole(1, self.crops),
            "coherence": _UNKNOWN,
            "floor": _UNKNOWN,
            "spread": _UNKNOWN,
            "parts": Listed(Entries(part)),
        }
        Entries(own)(value, where)
        for number, each in enumerate(value["parts"]):
            if each["concept"] != f"{value['concept']}.{number + 1}":
                raise Unfit(f"{where}: {each['concept']} is called a part of {value['concept']}")
            if each["division"] is not None and each["division"]["concept"] != each["concept"]:
                raise Unfit(f"{where}: {each['division']['concept']} is called the division of {each['concept']}")

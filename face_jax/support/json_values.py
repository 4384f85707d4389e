"""What JSON that others wrote may hold: checked before anything in it is believed.

A check takes a value and the words for its place, and raises `Unfit` where it isn't what it may be.
"""

from __future__ import annotations

import dataclasses
import math
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], None]

# More than any file has, and little enough to be looked through.
_LONG, _DEEPEST = 1_000_000, 20


class Unfit(ValueError):  # noqa: N818 (never seen by users: a module's own error says where)
    """A value that isn't what it may be."""


def unfit(where: str, value: Any, wanted: str) -> Unfit:
    """What to raise for a value that isn't what was wanted."""
    said = repr(value)
    return Unfit(f"{where} is {said if len(said) <= 60 else said[:57] + '…'}, not {wanted}")


@dataclasses.dataclass(frozen=True)
class Real:
    """A finite number."""

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= sys.float_info.max:
            raise unfit(where, value, "a number")


@dataclasses.dataclass(frozen=True)
class Whole:
    """A whole number within bounds."""

    low: int | float = -math.inf
    high: int | float = math.inf

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            bounds = "" if math.isinf(self.low) else f" from {self.low} to {self.high}"
            raise unfit(where, value, f"a whole number{bounds}")


@dataclasses.dataclass(frozen=True)
class Words:
    """A text, of a certain form if there is a pattern."""

    pattern: str = ""

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if not isinstance(value, str) or len(value) > _LONG or "\0" in value:
            raise unfit(where, value, "a text")
        if self.pattern and not re.fullmatch(self.pattern, value):
            raise unfit(where, value, "such a text")


@dataclasses.dataclass(frozen=True)
class YesOrNo:
    """True or false."""

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if not isinstance(value, bool):
            raise unfit(where, value, "true or false")


@dataclasses.dataclass(frozen=True)
class Entries:
    """An object with these fields; with others only if there is a check for them."""

    fields: Mapping[str, Check]
    others: Check | None = None

    def __call__(self, value: Any, where: str) -> None:  # noqa: D102 (the check)
        if not isinstance(value, dict):
            raise unfit(where, value, "an object")
        missing = [name for name in self.fields if name not in value]
        if missing:
            raise Unfit(f"{where} has no {missing[0]}")
        for name, each in value.items():
            check = self.fields.get(name, self.others)
            if check is None:
                raise Unfit(f"{where} has {name[:40]!r}, which doesn't belong there")
            check(each, f"{where}.{name[:40]}")


def anything(value: Any, where: str, depth: int = 0) -> None:
    """Whatever is finite and not too deep."""
    if depth > _DEEPEST:
        raise Unfit(f"{where} has too many levels")
    if isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            anything(each, where, depth + 1)
    elif value is not None and not isinstance(value, bool):
        (Words() if isinstance(value, str) else Real())(value, where)

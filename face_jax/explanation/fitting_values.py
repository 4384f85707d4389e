"""Whether what a record holds fits its annotations: its arrays' axes agree, and its numbers are within their bounds."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import sys
import typing
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import AbstractArray

from ..pictures.photographs import Photograph
from ..support.fields import Within
from ..support.json_values import Unfit


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """The annotations of a dataclass's fields."""
    return typing.get_type_hints(kind)


def array_kind(kind: Any) -> Any:
    """The annotation of an array in a field's, also where it's one of several; None where there is none."""
    found = [
        each for each in (kind, *typing.get_args(kind)) if inspect.isclass(each) and issubclass(each, AbstractArray)
    ]
    return found[0] if found else None


def check_fits(record: Any, kind: Any, lengths: Mapping[str, int], *, values: bool = True) -> None:
    """Raises `Unfit` where axes of the same name have different lengths, and for numbers outside of their bounds.

    **Arguments:**

    - `record`: a dataclass, or a field of one.
    - `kind`: its annotation.
    - `lengths`: of axes that are known beforehand.
    - `values`: whether numbers in arrays are looked at.
    """
    walk = _Walk(dict(lengths), [])
    walk.over(record, kind, {}, "", {})
    for value, bounds, where, names in walk.bounded:
        # Only now: a number may be counted by an axis that comes later.
        if values or not isinstance(value, np.ndarray):
            walk.check(value, bounds, where, names)


@dataclasses.dataclass(frozen=True)
class _Walk:
    """The axes' lengths so far, and the numbers that have bounds; `names` is what axes are called outside."""

    lengths: dict[str, int]
    bounded: list[tuple[Any, Within, str, Mapping[str, str]]]

    def over(self, value: Any, kind: Any, about: Mapping[str, Any], where: str, names: Mapping[str, str]) -> None:
        if isinstance(value, np.ndarray):
            self.shape(value, kind, where, names)
        elif isinstance(value, Photograph):
            return
        elif dataclasses.is_dataclass(value):
            own = about.get("axes", {})
            names = {**names, **{axis: names.get(to, to) if to else f"{axis} of {where}" for axis, to in own.items()}}
            hints = hints_of(type(value))
            for field in dataclasses.fields(value):
                if not field.metadata.get("elsewhere"):
                    place = f"{where}.{field.name}".removeprefix(".")
                    self.over(getattr(value, field.name), hints[field.name], field.metadata, place, names)
        elif isinstance(value, tuple | dict):
            if "counted" in about:
                self.length(about["counted"], len(value), where, names)
            inside = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
            kinds = [each for each in typing.get_args(kind) if each is not ...] or [None]
            for at, (name, item) in enumerate(inside):
                place = f"{where}.{name}" if isinstance(value, dict) else f"{where}[{name}]"
                self.over(item, kinds[min(at, len(kinds) - 1)], about, place, names)
            return
        if "within" in about and isinstance(value, np.ndarray | int | float) and not isinstance(value, bool):
            self.bounded.append((value, about["within"], where, names))

    def length(self, axis: str, length: int, where: str, names: Mapping[str, str]) -> None:
        known = self.lengths.setdefault(names.get(axis, axis), length)
        if length != known or not length:
            raise Unfit(f"{where} has {length} entries, not {known or 'any'}: one for each {axis}")

    def shape(self, array: np.ndarray, kind: Any, where: str, names: Mapping[str, str]) -> None:
        axes = array_kind(kind).dim_str.split()
        wanted = [
            int(axis) if axis.isdecimal() else self.lengths.setdefault(names.get(axis, axis), length)
            for axis, length in zip(axes, array.shape, strict=True)
        ]
        if list(array.shape) != wanted or 0 in wanted:
            said = " × ".join(f"{length or axis}" for axis, length in zip(axes, wanted, strict=True))
            raise Unfit(f"{where} has shape {list(array.shape)}, not {said}")

    def check(self, value: Any, bounds: Within, where: str, names: Mapping[str, str]) -> None:
        low, high = bounds.low, bounds.high
        if isinstance(high, str):
            high = low + self.lengths[names.get(high, high)] - 1
        if isinstance(value, np.ndarray):
            known = value[~np.isnan(value)] if bounds.unknown else value
            least, most = (known.min().item(), known.max().item()) if known.size else (low, low)
        else:
            least = most = low if bounds.unknown and math.isnan(value) else value
        # Also whole numbers that are too large for a real one.
        largest = sys.float_info.max
        if max(low, -largest) <= least and most <= min(high, largest):
            return
        if isinstance(value, np.ndarray):
            raise Unfit(f"{where} has values from {least:.6g} to {most:.6g}, which isn't possible")
        raise Unfit(f"{where} is {str(value)[:40]}, not a number from {low:.7g} to {high:.7g}")

"""Records to files and back: a value that JSON can hold, and arrays by their dotted paths.

A record is a frozen dataclass, and everything about it is said once, where its fields are declared: the annotation is
what a field holds, `face_jax.support.fields` which numbers. Arrays are the fields with an annotation of jaxtyping.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import pathlib
import types
import typing
from collections.abc import Mapping
from typing import Any

import cattrs
import numpy as np

from ..pictures.photographs import Photograph
from ..support.json_values import Real, Unfit, Whole, Words, YesOrNo, unfit
from .fitting_values import array_kind, check_fits, hints_of
from .photograph_files import digest_of, file_of

_DEEPEST = 100
# By their kind, for messages: what annotations call Int and Float.
_KINDS = {"i": "whole", "u": "whole", "f": "real", "b": "yes-or-no"}


class _Misplaced(Unfit):
    """An `Unfit` that knows where it is, from the inside out."""

    def __init__(self, said: str, place: str = ""):
        super().__init__(f"{place.removeprefix('.') or 'the record'} {said}")
        self.said, self.place = said, place


@dataclasses.dataclass(frozen=True)
class _Given:
    """A value that was in no file, among those that were."""

    value: Any


def encode(record: Any) -> tuple[Any, dict[str, np.ndarray]]:
    """What JSON can hold of a record, and its arrays by their paths, such as `bank.crop_codes`.

    NaN and infinities become null. Fields that are kept `elsewhere` are left out.
    """
    arrays: dict[str, np.ndarray] = {}
    return _apart(_converter().unstructure(record), "", arrays), arrays


def decode(
    kind: Any,
    value: Any,
    arrays: Mapping[str, np.ndarray],
    *,
    given: Mapping[str, Any] | None = None,
    lengths: Mapping[str, int] | None = None,
    values: bool = True,
) -> Any:
    """The record that `encode` was given.

    **Arguments:**

    - `kind`: its class, or any other annotation that a field might have.
    - `value`, `arrays`: what `encode` returned; `value` may be whatever JSON can hold.
    - `given`: fields that are kept `elsewhere`, by their paths.
    - `lengths`: axes whose lengths are known beforehand.
    - `values`: whether numbers in arrays are looked at; if not, only types and shapes are.

    **Returns:** the record, whose every field is of its type and within its bounds, and whose axes agree. Raises
    `Unfit` for anything else, for a field that is missing, and for one that there isn't.
    """
    _check_depth(value)
    tree = copy.deepcopy(value)
    for path, leaf in (*arrays.items(), *((path, _Given(one)) for path, one in (given or {}).items())):
        _put(tree, path, leaf)
    record = _within("", tree, kind)
    check_fits(record, kind, lengths or {}, values=values)
    return record


def _apart(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """A value without its arrays, which go to `arrays`; in a list, null stays in their place."""
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return None
    if isinstance(value, dict):
        inside = {name: _apart(item, f"{path}.{name}" if path else name, arrays) for name, item in value.items()}
        return {name: item for name, item in inside.items() if not isinstance(value[name], np.ndarray)}
    if isinstance(value, list | tuple):
        return [_apart(item, f"{path}.{number}", arrays) for number, item in enumerate(value)]
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _put(tree: Any, path: str, leaf: Any) -> None:
    *way, last = path.split(".")
    for step in way:
        if isinstance(tree, dict):
            tree = tree.get(step)
        else:
            tree = tree[int(step)] if isinstance(tree, list) and step.isdecimal() and int(step) < len(tree) else None
    if isinstance(tree, dict) and last not in tree:
        tree[last] = leaf
    elif isinstance(tree, list) and last.isdecimal() and int(last) < len(tree) and tree[int(last)] is None:
        tree[int(last)] = leaf
    elif not isinstance(leaf, _Given):
        raise Unfit(f"the record has {path[:60]!r}, which doesn't belong there")
    elif isinstance(tree, dict):
        raise Unfit(f"the record has {path!r}, which isn't saved with it")


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if (depth := depth + 1) > _DEEPEST:
            raise Unfit("the record has too many levels")
        level = [
            item
            for one in level
            if isinstance(one, list | dict)
            for item in (one.values() if isinstance(one, dict) else one)
        ]


def _within(place: str, value: Any, kind: Any) -> Any:
    """A part of a record; what's wrong with it is told with its place."""
    try:
        return _converter().structure(value, kind)
    except _Misplaced as error:
        raise _Misplaced(error.said, place + error.place) from error
    except Unfit as error:
        raise _Misplaced(str(error).strip(), place) from error


def _record(value: Any, kind: Any) -> Any:
    if not isinstance(value, dict):
        raise unfit("", value, "an object")
    hints = hints_of(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in value:
        if name not in fields:
            raise Unfit(f"has {name[:40]!r}, which doesn't belong there")
    found = {}
    for name, field in fields.items():
        if field.metadata.get("elsewhere"):
            leaf = value.get(name, _Given(None))
            if not isinstance(leaf, _Given):
                raise Unfit(f"has {name!r}, which isn't saved with it")
            found[name] = leaf.value
        elif name not in value and field.metadata.get("lately"):
            found[name] = field.default  # written before there was such a field
        elif name not in value:
            raise Unfit(f"has no {name}")
        else:
            found[name] = _within(f".{name}", value[name], hints[name])
    try:
        return kind(**found)
    except (TypeError, ValueError) as error:
        # A record's own check; that of its annotations, where there is one, says more than a line.
        said = str(error).partition("\n")[0]
        raise Unfit(f"isn't what it may be: {said[:200]}") from error


def _array(value: Any, kind: Any) -> np.ndarray:
    if not isinstance(value, np.ndarray):
        raise unfit("", value, "an array")
    if value.dtype.name not in kind.dtypes or (value.dtype.kind in "if" and value.dtype.itemsize < 4):
        wanted = _KINDS.get(np.dtype(kind.dtypes[-1]).kind, "such")
        raise Unfit(f"is of type {value.dtype.kind.upper()}{8 * value.dtype.itemsize}, not of {wanted} numbers")
    if value.ndim != len(kind.dim_str.split()):
        raise Unfit(f"has shape {list(value.shape)}, not {' × '.join(kind.dim_str.split())}")
    return value


def _sequence(value: Any, kind: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise unfit("", value, "a list")
    kinds = typing.get_args(kind)
    if kinds[1:] == (...,):
        kinds = (kinds[0],) * len(value)
    if len(value) != len(kinds):
        raise Unfit(f"has {len(value)} entries, not {len(kinds)}")
    return tuple(_within(f"[{at}]", *pair) for at, pair in enumerate(zip(value, kinds, strict=True)))


def _mapping(value: Any, kind: Any) -> Any:
    if not isinstance(value, dict):
        raise unfit("", value, "an object")
    for name in value:
        Words()(name, "a name")
    return {name: _within(f".{name[:40]}", item, typing.get_args(kind)[1]) for name, item in value.items()}


def _one_of(value: Any, kind: Any) -> Any:
    """Of several kinds the first that fits; null is None where that's one of them."""
    kinds = typing.get_args(kind)
    if value is None and type(None) in kinds:
        return None
    kinds, problem = [each for each in kinds if each is not type(None)], Unfit("")
    for each in kinds:
        try:
            return _converter().structure(value, each)
        except Unfit as error:
            problem = error
    if len(kinds) == 1:
        raise problem
    raise unfit("", value, "any of what it may be")


def _number(value: Any, _: Any) -> float:
    if value is None:
        # JSON has no NaN.
        return math.nan
    Real()(value, "")
    return float(value)


def _checked(check: Any, value: Any, _: Any) -> Any:
    check(value, "")
    return value


def _saved_photograph(photograph: Photograph) -> dict[str, str | None]:
    return {"name": photograph.name, "file": file_of(photograph), "digest": digest_of(photograph)}


def _photograph(value: Any, _: Any) -> Photograph:
    saved = _record(value, _SavedPhotograph)
    if saved.digest is not None:
        Words("[0-9a-f]{64}")(saved.digest, "digest")
    # Without a digest nothing tells whether what lies there is the picture that was explained, or any other.
    if saved.digest is None or saved.file is None:
        return Photograph(saved.name, None, saved.digest and bytes.fromhex(saved.digest))
    return Photograph(saved.name, pathlib.Path(saved.file), bytes.fromhex(saved.digest))


@dataclasses.dataclass(frozen=True)
class _SavedPhotograph:
    """Where a photograph lies, None for pixels that were in no file, and the digest of its content."""

    name: str
    file: str | None
    digest: str | None


def _as_saved(record: Any) -> dict[str, Any]:
    hints, saved = hints_of(type(record)), {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if value is not None and array_kind(hints[field.name]):
            # JAX's arrays too.
            saved[field.name] = np.asarray(value)
        elif not field.metadata.get("elsewhere"):
            saved[field.name] = _converter().unstructure(value)
    return saved


@functools.cache
def _converter() -> Any:
    made = cattrs.Converter()
    for kind, check in ((str, Words()), (int, Whole()), (bool, YesOrNo())):
        made.register_structure_hook(kind, functools.partial(_checked, check))
    made.register_structure_hook(float, _number)
    origin = typing.get_origin
    for fits, hook in (
        (lambda kind: dataclasses.is_dataclass(kind), _record),
        (lambda kind: array_kind(kind) is kind, _array),
        (lambda kind: origin(kind) is tuple, _sequence),
        (lambda kind: origin(kind) is dict, _mapping),
        (lambda kind: origin(kind) in (typing.Union, types.UnionType), _one_of),
        (lambda kind: kind is Photograph, _photograph),
    ):
        made.register_structure_hook_func(fits, hook)
    made.register_unstructure_hook_func(dataclasses.is_dataclass, _as_saved)
    made.register_unstructure_hook(Photograph, _saved_photograph)
    return made

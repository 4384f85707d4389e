"""What photographs really show: labels, and groups, from a table, from names of folders, or given one by one."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from ..support.arguments import shown
from ..support.classes import UnknownClassError, class_index, class_of_folder
from ..support.regular_files import text_of
from .photographs import Photograph

_COLUMNS = ("file", "label", "group")
FOLDERS = "folders"


@dataclasses.dataclass(frozen=True)
class Labels:
    """Labels of photographs.

    **Arguments:**

    - `photographs`: those that have one.
    - `index`: the class of each.
    - `group`: which group each belongs to, by its number in `groups`.
    - `groups`: the groups' names; empty where there are none.
    """

    photographs: tuple[Photograph, ...]
    index: Int[np.ndarray, " image"]
    group: Int[np.ndarray, " image"]
    groups: tuple[str, ...]


def labels_of(photographs: Sequence[Photograph], labels: Any, classes: Sequence[str]) -> Labels:
    """Labels for photographs.

    **Arguments:**

    - `photographs`: the photographs.
    - `labels`: the path of a CSV file with the columns `file`, `label` and, if wanted, `group`, whose files are named
        as the photographs are, by path, or by the file's own name where only one photograph has it; `"folders"`: the
        nearest folder that a photograph lies in is named as its class (`_` and `-` may stand for spaces); a mapping
        from the photographs' names to labels; or a list with a label for each photograph. A label is a class's name or
        number.
    - `classes`: the model's.

    **Returns:** those that have a label. Raises `ValueError` where none has, and for labels that contradict each
    other, `UnknownClassError` for a label that is no class.
    """
    if isinstance(labels, str) and labels == FOLDERS:
        rows = [(photograph, folder_of(photograph), None, photograph.name) for photograph in photographs]
    elif isinstance(labels, str | os.PathLike):
        rows = _of_table(photographs, pathlib.Path(labels))
    elif isinstance(labels, Mapping):
        by_name = {photograph.name: photograph for photograph in photographs}
        rows = [(by_name[name], label, None, name) for name, label in labels.items() if name in by_name]
    else:
        given = list(labels) if hasattr(labels, "__iter__") else None
        if given is None or len(given) != len(photographs):
            what = shown(labels) if given is None else f"{len(given)} labels"
            raise ValueError(
                f"labels={what} for {len(photographs)} photographs; give one for each, a mapping from their names, "
                f"{FOLDERS!r}, or a CSV file with the columns file, label and group"
            )
        rows = [
            (photograph, label, None, photograph.name) for photograph, label in zip(photographs, given, strict=True)
        ]
    if not rows:
        raise ValueError(
            f"labels={shown(labels)} has none of the {len(photographs)} photographs, the first of which is called "
            f"{photographs[0].name!r}; name them so"
        )
    meant = class_of_folder if isinstance(labels, str) and labels == FOLDERS else class_index
    names = sorted({str(group) for _, _, group, _ in rows if group is not None})
    number = {name: at for at, name in enumerate(names)}
    return Labels(
        tuple(photograph for photograph, *_ in rows),
        np.asarray([_class(meant, classes, label, where) for _, label, _, where in rows], np.int64),
        np.asarray([0 if group is None else number[str(group)] for _, _, group, _ in rows], np.int64),
        tuple(names),
    )


def _class(meant: Callable[[Sequence[str], Any], int], classes: Sequence[str], label: Any, where: str) -> int:
    try:
        return meant(classes, label)
    except UnknownClassError as error:
        raise UnknownClassError(f"labels: {where}: {str(error).replace('target=', 'label=', 1)}") from error


def folder_of(photograph: Photograph) -> str:
    """The name of the nearest folder that a photograph lies in; raises `ValueError` if it lies in none."""
    parts = pathlib.PurePath(photograph.name).parts
    if len(parts) < 2 and isinstance(photograph.source, pathlib.Path):
        parts = photograph.source.absolute().parts
    if len(parts) < 2:
        raise ValueError(
            f"labels='folders': {photograph.name!r} lies in no folder; give a folder with a folder for each class, or "
            "labels one by one"
        )
    return parts[-2]


def _of_table(photographs: Sequence[Photograph], file: pathlib.Path) -> list[tuple[Photograph, str, str | None, str]]:
    found: dict[int, tuple[Photograph, str, str | None, str]] = {}
    places = _places(photographs)
    for line, row in _rows(file):
        name, label, group = (row.get(column) for column in _COLUMNS)
        at = _place(places, name or "", file.parent)
        if at is None:
            continue
        where = f"line {line} of {file.name}"
        if not label:
            raise ValueError(f"labels: {where} has no label; give each file one, or leave its line out")
        entry = (photographs[at], label, group or None, where)
        if at in found and found[at][1:3] != entry[1:3]:
            raise ValueError(f"labels: {where} says something else of {name!r} than {found[at][3]}; leave one out")
        found[at] = entry
    groups = [entry[2] for entry in found.values()]
    if any(groups) and not all(groups):
        missing = next(entry for entry in found.values() if entry[2] is None)
        raise ValueError(f"labels: {missing[3]} has no group, and others have; give all files one, or none")
    return list(found.values())


def _rows(file: pathlib.Path) -> list[tuple[int, dict[str, str]]]:
    remedy = "give a CSV file with the columns file, label and, if wanted, group"
    text = text_of(f"labels={str(file)!r}", file, f"{remedy}, or 'folders'")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        rows = [
            (reader.line_num, {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)})  # pyright: ignore
            for row in reader
        ]
        columns = [name.strip() for name in reader.fieldnames or ()]
    except csv.Error as error:
        raise ValueError(f"labels={str(file)!r} can't be read ({error}); {remedy}, or 'folders'") from error
    missing = [name for name in _COLUMNS[:2] if name not in columns]
    if missing:
        raise ValueError(f"labels={str(file)!r} has no column {missing[0]!r} (it has {', '.join(columns)}); {remedy}")
    return rows


def _places(photographs: Sequence[Photograph]) -> dict[str, list[int]]:
    """The photographs of each name, path and last part of a name."""
    places: dict[str, list[int]] = {}
    for at, photograph in enumerate(photographs):
        keys = {photograph.name, pathlib.PurePath(photograph.name).name}
        if isinstance(photograph.source, pathlib.Path):
            keys.add(str(photograph.source.resolve()))
        for key in keys:
            places.setdefault(key, []).append(at)
    return places


def _place(places: dict[str, list[int]], name: str, beside: pathlib.Path) -> int | None:
    """Which photograph a line means: by its path, by its name, else by its last part if only one has it."""
    path = str((beside / name).resolve())
    for key in (path, name, pathlib.PurePath(name).name):
        if len(places.get(key, [])) == 1:
            return places[key][0]
    return None


def files_of(labels: Any) -> list[pathlib.Path]:
    """The files that a table of labels names, as paths from its own folder. Raises `ValueError`."""
    file = pathlib.Path(labels)
    return [file.parent / row["file"] for _, row in _rows(file)]

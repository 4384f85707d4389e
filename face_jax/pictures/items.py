"""Pictures from iterables: lists, generators, data sets, loaders."""

from __future__ import annotations

import io
import numbers
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from .decoding import is_pillow
from .image_arrays import is_array

# What a mapping's picture is called where it's an array, which anything may be.
_NAMES = ("image", "img", "images", "pixel_values")
_REMEDY = "give a folder, a file, an array, a Pillow image, or a list of these"


def items_of(source: Any, name: str) -> Iterable[Any]:
    """What a source gives one after another; raises `ValueError`, with the remedy, for one that has no order."""
    kind = type(source).__name__
    if isinstance(source, set | frozenset):
        raise ValueError(f"{name} is a {kind}, which has no order; give sorted(…)")
    if isinstance(source, Mapping):
        raise ValueError(f"{name} is a {kind}; give the pictures alone, as list(….values()) does")
    if isinstance(source, bytes | bytearray | memoryview):
        raise ValueError(f"{name} is {kind}; give a path as text, or PIL.Image.open(io.BytesIO(…)) of a file's content")
    if isinstance(source, io.IOBase) or hasattr(source, "read"):
        raise ValueError(f"{name} is an open file ({kind}); give its path, or PIL.Image.open(…)")
    if (paths := _paths_of(source)) is not None:
        return paths
    if hasattr(type(source), "__iter__"):
        return source
    if hasattr(type(source), "__getitem__") and hasattr(type(source), "__len__"):
        return _counted(source)
    raise ValueError(f"{name} is of type {kind}, out of which no pictures come; {_REMEDY}")


def picture_of(item: Any, name: str) -> Any:
    """The picture of an item: itself, or the one that stands in it beside labels; else raises `ValueError`."""
    if isinstance(item, Mapping):
        return _of_mapping(item, name)
    if not isinstance(item, tuple | list):
        return item
    others = [each for each in item if not _is_label(each)]
    # A list is several pictures; a tuple is one item, such as a picture and a map of its objects.
    labelled = len(others) < len(item)
    if len(others) != 1 and (labelled or isinstance(item, tuple)):
        kinds = ", ".join(type(each).__name__ for each in item)
        raise ValueError(
            f"{name} is a {type(item).__name__} of {kinds}, in which it isn't clear what the picture is; give the "
            "pictures alone, such as [picture for picture, *_ in …]"
        )
    return picture_of(others[0], name) if labelled or isinstance(item, tuple) else item


def _of_mapping(item: Mapping[Any, Any], name: str) -> Any:
    pictures = [value for value in item.values() if is_pillow(value)]
    named = [item[key] for key in _NAMES if key in item and is_array(item[key])]
    found = pictures or named
    if len(found) == 1:
        return found[0]
    raise ValueError(
        f"{name} is a {type(item).__name__} with {', '.join(map(repr, item))}, in which it isn't clear what the "
        "picture is; give the pictures alone, such as [item['image'] for item in …]"
    )


def _is_label(value: Any) -> bool:
    """Whether this can't be a picture: a number, a row of numbers, or a description."""
    if value is None or isinstance(value, numbers.Number | np.generic | Mapping):
        return True
    if isinstance(value, tuple | list):
        return all(map(_is_label, value))
    if is_pillow(value) or not is_array(value) or np.ndim(value) > 1:
        return False
    return getattr(getattr(value, "dtype", None), "kind", "f") not in "OSU"


def _paths_of(source: Any) -> list[str] | None:
    """The files of torchvision's folders of pictures, where these are taken as they are."""
    folder = sys.modules.get("torchvision.datasets.folder")
    if folder is None or not isinstance(source, folder.ImageFolder):
        return None
    as_they_are = source.transforms is None and source.loader is folder.default_loader
    return [os.fspath(path) for path, _ in source.samples] if as_they_are else None


def _counted(source: Any) -> Iterator[Any]:
    for number in range(len(source)):
        yield source[number]

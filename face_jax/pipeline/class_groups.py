"""Which classes are explained, and in which photographs: by folders, by a mapping, or by what the model predicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..model import SplitModel, photographs_for
from ..pictures.labels import folder_of
from ..pictures.photographs import NoPhotographsError, Photograph
from ..support.arguments import index_or_none, several, shown
from ..support.classes import UnknownClassError, class_index, class_of_folder


@dataclasses.dataclass(frozen=True)
class Group:
    """A class and the photographs to look for it in.

    **Arguments:**

    - `number`, `name`: the class.
    - `photographs`: where it's looked for.
    - `together`: whether all classes are looked for in the same photographs.
    """

    number: int
    name: str
    photographs: tuple[Photograph, ...]
    together: bool = False


def groups_of(model: SplitModel, images: Any, targets: Any) -> tuple[list[Group], dict[str, str]]:
    """The classes to explain.

    **Arguments:**

    - `model`: whose classes they are.
    - `images`, `targets`: as for `explain_classes`.

    **Returns:** the groups; what can't be one, and why. Raises `ValueError` where there is none.
    """
    if isinstance(images, Mapping):
        if targets is not None:
            raise ValueError("images is a mapping from classes and targets are given, too; leave targets out")
        given, unknown = _of_mapping(model, images), {}
    elif targets is not None:
        numbers = [class_index(model.classes, target) for target in _listed(targets)]
        if twice := [number for number in numbers if numbers.count(number) > 1]:
            raise ValueError(f"targets has {model.classes[twice[0]]!r} twice; give each class once")
        if not numbers:
            raise ValueError("targets is an empty list; give the classes to explain, or leave it out")
        every = photographs_for(model, images)
        return [Group(number, _named(model, number), every, True) for number in numbers], {}
    else:
        given, unknown = _of_folders(model, photographs_for(model, images))
    if not given:
        name, reason = next(iter(unknown.items()), ("images", "there are no photographs"))
        raise ValueError(
            f"images: no folder is named as a class of {model.name} ({name!r}: {reason}); name the folders so, give a "
            "mapping from classes to photographs, or give targets"
        )
    return [Group(number, _named(model, number), some) for number, some in given.items()], unknown


def _named(model: SplitModel, number: int) -> str:
    """A class's name, with its number if another class has it, too."""
    name = model.classes[number]
    return name if model.classes.count(name) == 1 else f"{name} ({number})"


def _listed(targets: Any) -> tuple[Any, ...]:
    if isinstance(targets, str) or index_or_none(targets) is not None:
        raise ValueError(f"targets={shown(targets)} is one class; give several in brackets, or call face_jax.explain")
    return several("targets", targets, "classes")


def _of_mapping(model: SplitModel, images: Mapping[Any, Any]) -> dict[int, tuple[Photograph, ...]]:
    found: dict[int, tuple[Photograph, ...]] = {}
    for name, source in images.items():
        try:
            number = class_index(model.classes, name)
        except UnknownClassError as error:
            raise UnknownClassError(f"images: {str(error).replace('target=', '', 1)}") from error
        if number in found:
            raise ValueError(
                f"images has photographs of {model.classes[number]!r} under two names; give them under one"
            )
        try:
            found[number] = photographs_for(model, source)
        except NoPhotographsError as error:
            raise NoPhotographsError(f"images[{name!r}]: {error}") from error
    if not found:
        raise ValueError("images is an empty mapping; give photographs for each class")
    return found


def _of_folders(
    model: SplitModel, every: tuple[Photograph, ...]
) -> tuple[dict[int, tuple[Photograph, ...]], dict[str, str]]:
    folders: dict[str, list[Photograph]] = {}
    for photograph in every:
        try:
            folders.setdefault(folder_of(photograph), []).append(photograph)
        except ValueError:
            raise ValueError(
                f"targets is needed: {photograph.name!r} lies in no folder that is named as a class; name the classes, "
                "or give a folder with a folder for each, or a mapping from classes to photographs"
            ) from None
    found: dict[int, list[Photograph]] = {}
    unknown: dict[str, str] = {}
    for name, some in folders.items():
        try:
            found.setdefault(class_of_folder(model.classes, name), []).extend(some)
        except UnknownClassError as error:
            unknown[name] = str(error).replace("target=", "the folder ", 1)
    return {number: tuple(some) for number, some in found.items()}, unknown

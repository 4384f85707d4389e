"""A class by its name or its number."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class UnknownClassError(ValueError):
    """A class that the model doesn't have, or a name that several of its classes have."""


def class_index(classes: Sequence[str], target: int | str) -> int:
    """The number of the class that `target` means.

    **Arguments:**

    - `classes`: the model's classes, in the order of its logits.
    - `target`: a number, a number in words of digits, a name, or one of the names that a class has between commas.
        Case doesn't matter.

    **Returns:** the number. Raises `UnknownClassError` with the nearest names, or with all numbers of a name that
    several classes have.
    """
    if isinstance(target, int) or target.strip().isdigit():
        number = int(target)
        if not 0 <= number < len(classes):
            raise UnknownClassError(f"target={number} is out of range: the model has classes 0…{len(classes) - 1}")
        return number
    wanted = target.strip().lower()
    whole = [number for number, name in enumerate(classes) if name.lower() == wanted]
    matches = whole or [number for number, name in enumerate(classes) if wanted in _synonyms(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UnknownClassError(f"target={target!r} is the name of several classes: {matches}; give the number of one")
    raise UnknownClassError(f"target={target!r} is no class of the model; {_hint(classes, wanted)}")


def _synonyms(name: str) -> list[str]:
    return [part.strip().lower() for part in name.split(",")]


def _hint(classes: Sequence[str], wanted: str) -> str:
    containing = [name for name in classes if wanted in name.lower()]
    lower = {name.lower(): name for name in classes}
    close = [lower[name] for name in difflib.get_close_matches(wanted, lower, n=5, cutoff=0.5)]
    nearest = list(dict.fromkeys(close + containing))[:6]
    if not nearest:
        return f"give a number (0…{len(classes) - 1}) or one of its names, such as {', '.join(classes[:3])}"
    return f"did you mean {', '.join(nearest)}?"

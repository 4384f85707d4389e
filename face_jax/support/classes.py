"""Classes by their names and their numbers."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, SupportsIndex

from .arguments import index_or_none, shown

if TYPE_CHECKING:
    Target = SupportsIndex | str
    ClassNames = Iterable[str] | Mapping[int, str] | Mapping[str, int]
    Names = tuple[str, ...]
else:
    # Whoever gives something else is told so by the functions below.
    Target = ClassNames = Names = Any


class UnknownClassError(ValueError):
    """A class that the model doesn't have, or a name that several of its classes have."""


def class_names(classes: ClassNames, count: int | None = None) -> tuple[str, ...]:
    """The names of classes, in the order of the logits.

    **Arguments:**

    - `classes`: a list of names; a mapping (or what has `items`, as a Series has) from all numbers to names
        (`id2label`) or from all names to numbers (`class_to_idx`); or a word whose letters are the names.
    - `count`: how many logits there are, if that's known.

    **Returns:** the names. Raises `ValueError` for anything whose order isn't known or whose names aren't words.
    """
    # A Series of pandas has items, counts by its index, and is no mapping.
    given: Any = classes
    if callable(getattr(given, "items", None)):
        names: tuple[Any, ...] = _of_mapping(dict(given.items()))
    elif (
        isinstance(classes, (Set, bytes)) or not isinstance(classes, Iterable) or getattr(classes, "shape", None) == ()
    ):
        raise ValueError(
            f"classes={shown(classes)} has no order of the logits; give a list of names, one for each logit"
        )
    else:
        names = tuple(classes)
        if isinstance(classes, str) and not (classes.isalnum() and (count is None or len(classes) == count)):
            raise ValueError(
                f"classes={shown(classes)} is one word, whose letters would be the names; give a list of names, one "
                "for each logit (of a file pathlib.Path(…).read_text().splitlines())"
            )
    wrong = next((at for at, name in enumerate(names) if not isinstance(name, str)), None)
    if wrong is not None:
        raise ValueError(
            f"classes[{wrong}]={shown(names[wrong])} isn't a name; give words, str(…) where they are numbers"
        )
    blank = next((at for at, name in enumerate(names) if not name.strip()), None)
    if blank is not None:
        raise ValueError(f"classes[{blank}]={names[blank]!r} is an empty name; give each logit's class a name")
    if count is not None and len(names) != count:
        raise ValueError(f"classes has {len(names)} names and the model gives {count} logits; name each of them once")
    return tuple(str(name) for name in names)


def binary_names(classes: Sequence[str]) -> tuple[str, ...]:
    """The names of both classes of a binary classifier: `("cat",)` are `("not cat", "cat")`, two names stay."""
    return (f"not {classes[0]}", classes[0]) if len(classes) == 1 else tuple(classes)


def _of_mapping(classes: Mapping[Any, Any]) -> tuple[Any, ...]:
    """Names from `{0: name, …}` or `{name: 0, …}`."""
    by_number = {index_or_none(key): name for key, name in classes.items()}
    if all(isinstance(key, str) for key in classes):
        by_number = {index_or_none(number): name for name, number in classes.items()}
        if all(isinstance(name, str) for name in classes.values()) and all(_plain(key) for key in classes):
            # JSON has no numbers as keys.
            by_number = {_number(key): name for key, name in classes.items()}
            if all(_plain(name) for name in classes.values()):
                by_number = {}
    if not classes or set(by_number) != set(range(len(classes))):
        raise ValueError(
            f"classes={shown(classes)} doesn't map all numbers from 0 on to names, nor all names to numbers; give a "
            "list of names in the order of the logits: [id2label[i] for i in range(n)], or sorted(class_to_idx, "
            "key=class_to_idx.get)"
        )
    return tuple(by_number[number] for number in range(len(classes)))


def class_index(classes: Sequence[str], target: Target) -> int:
    """The number of the class that `target` means.

    **Arguments:**

    - `classes`: the model's classes, in the order of its logits.
    - `target`: a number, of any package; or a name, or one of the names that a class has between commas, for which
        case and the way in which accents are written don't matter unless names differ by it; or a number in digits,
        if it is no class's name.

    **Returns:** the number. Raises `UnknownClassError` with the nearest names, or with all numbers of a name that
    several classes have.
    """
    if isinstance(target, str):
        named = _named(classes, str(target))
        if len(named) == 1:
            return named[0]
        if named:
            raise UnknownClassError(
                f"target={target!r} is the name of several classes: {named}; give the number of one"
                + (", as an integer" if _plain(target) else "")
            )
        number = _number(target)
        if number is None:
            raise UnknownClassError(f"target={shown(target)} isn't a class of the model; {_hint(classes, target)}")
        same = [at for at, name in enumerate(classes) if _value(name) == number]
        if same and same != [number]:
            raise UnknownClassError(
                f"target={target!r} isn't a class of the model, which has {classes[same[0]]!r}; give that name as it "
                "is written, or an integer for the class of that number"
            )
    else:
        number = index_or_none(target)
        if number is None:
            raise UnknownClassError(
                f"target={shown(target)} is neither a name nor a whole number; give one of these, such as "
                f"{classes[0]!r} or 0"
            )
    if not 0 <= number < len(classes):
        raise UnknownClassError(f"target={number} is out of range: the model has classes 0…{len(classes) - 1}")
    return number


def class_of_folder(classes: Sequence[str], name: str) -> int:
    """The class that a folder is named as, with `_` or `-` for spaces; raises `UnknownClassError`."""
    for word in (name, name.replace("_", " "), name.replace("-", " ").replace("_", " ")):
        try:
            return class_index(classes, word)
        except UnknownClassError:
            continue
    return class_index(classes, name)


def other_reading(classes: Sequence[str], target: Target | None) -> str | None:
    """What else a `target` could have meant that is a number and a name of different classes; None if nothing."""
    if target is None:
        return None
    number = _number(target) if isinstance(target, str) else index_or_none(target)
    if number is None or not 0 <= number < len(classes):
        return None
    named = [at for at in _named(classes, str(target) if isinstance(target, str) else str(number)) if at != number]
    if len(named) != 1 or (isinstance(target, str) and class_index(classes, target) != named[0]):
        return None
    name = classes[named[0]]
    if isinstance(target, str):
        return (
            f"target={target!r} was taken for the class named {name!r}, which is number {named[0]}. Class number "
            f"{number} is named {classes[number]!r}: for that one give its name, or in Python the integer {number}."
        )
    if classes[number].strip() == name.strip():
        # The number is the class's own name, which another class has as well.
        return None
    return (
        f"target={number} was taken for class number {number}, which is named {classes[number]!r}. The class named "
        f"{name!r} is number {named[0]}: for that one give the name {name!r} as a string."
    )


def _named(classes: Sequence[str], target: str) -> list[int]:
    """The classes of that name: exactly, else but for case, else as one of its names between commas."""
    wanted = _composed(target.strip())
    if not wanted:
        return []
    readings = (
        lambda name: name == target,
        lambda name: name.strip() == target.strip(),
        lambda name: _composed(name.strip()) == wanted,
        lambda name: _folded(name.strip()) == _folded(wanted),
        lambda name: wanted in map(_composed, _synonyms(name)),
        lambda name: _folded(wanted) in map(_folded, _synonyms(name)),
    )
    for fits in readings:
        found = [number for number, name in enumerate(classes) if fits(name)]
        if found:
            return found
    return []


def _plain(word: str) -> bool:
    """Whether a word is made of the digits 0 to 9, of which `str.isdigit` knows others."""
    return word.strip().isascii() and word.strip().isdigit()


def _number(word: str) -> int | None:
    """The number that a word of digits is."""
    # Python refuses to read some thousand digits; no model has so many classes.
    return int((word.strip().lstrip("0") or "0")[:18]) if _plain(word) else None


def _value(word: str) -> float | None:
    """The number that a word is however it is written: `"02"` and `"2.0"` are 2."""
    try:
        return float(word)
    except ValueError:
        return None


def _composed(name: str) -> str:
    """A name with each accent in its letter: file systems and keyboards differ in that, and nobody sees it."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(_composed(name).casefold())


def _synonyms(name: str) -> list[str]:
    return [part.strip() for part in name.split(",")]


def _hint(classes: Sequence[str], target: str) -> str:
    wanted = target.strip().lower()
    containing = [name for name in classes if wanted and wanted in name.lower()]
    lower = {name.lower(): name for name in classes}
    close = [lower[name] for name in difflib.get_close_matches(wanted, lower, n=5, cutoff=0.5)]
    nearest = list(dict.fromkeys(close + containing))[:6]
    if not nearest:
        return f"give a number (0…{len(classes) - 1}) or one of its names, such as {', '.join(classes[:3])}"
    return f"did you mean {', '.join(nearest)}?"

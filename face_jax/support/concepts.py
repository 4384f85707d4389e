"""Which concepts are asked for, by their numbers."""

from __future__ import annotations

from typing import Any

from .arguments import index_or_none, shown


def concepts_of(concepts: Any, count: int, of: str = "a dictionary with") -> tuple[int, ...]:
    """The concepts asked for, counted from 0.

    **Arguments:**

    - `concepts`: one number, or several; None for all.
    - `count`: how many there are, and `of` what has them.

    **Returns:** their numbers, in the order asked for. Raises `ValueError` for others.
    """
    if concepts is None:
        return tuple(range(count))
    one = index_or_none(concepts)
    if one is None and (
        isinstance(concepts, (str, bytes, dict, set, frozenset))
        or "bool" in str(getattr(concepts, "dtype", ""))
        or not hasattr(concepts, "__iter__")
        or getattr(concepts, "shape", None) == ()
    ):
        raise ValueError(f"concepts={shown(concepts)} isn't a list of concepts; give numbers from 0 to {count - 1}")
    given = [one] if one is not None else list(concepts)
    numbers = [index_or_none(number) for number in given]
    wrong = [
        shown(value) for value, number in zip(given, numbers, strict=True) if number is None or not 0 <= number < count
    ]
    if wrong or not given:
        raise ValueError(
            f"concepts=[{', '.join(wrong[:5])}{', …' if len(wrong) > 5 else ''}] of {f'{of} {count}'.strip()}; "
            f"give numbers from 0 to {count - 1}"
        )
    return tuple(number for number in numbers if number is not None)

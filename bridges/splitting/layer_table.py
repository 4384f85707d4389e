"""A list of layers that prints as the command's table."""

from __future__ import annotations

from typing import Any


class LayerTable(tuple[Any, ...]):
    """`Layer`s, in the order in which they run; a tuple that prints a line for each."""

    __slots__ = ()

    def __repr__(self) -> str:
        """What `lines_of` says of each, in columns."""
        rows = lines_of(self)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(text.rstrip() for text in lines)


def lines_of(places: Any) -> list[tuple[str, ...]]:
    """The titles of a table's columns, and each place's name, grid, other tokens, signs, head, and when it's taken.

    Other tokens have a column where a place has some, and so has when a place is taken.
    """
    prefix, taken = any(place.prefix for place in places), any(_remark(place) for place in places)

    def chosen(name: str, shape: str, beside: str, below: str, head: str, when: str) -> tuple[str, ...]:
        return (name, shape, *([beside] if prefix else []), below, head, *([when] if taken else []))

    rows = [chosen("layer", "y × x × channel", "tokens beside", "below zero", "head behind it", "taken")]
    for place in places:
        below = "none" if place.non_negative else f"{100 * place.negative:.0f} %, down to {place.minimum:.2g}"
        head = "pooling, then affine" if place.affine else "not affine"
        beside = str(place.prefix) if place.prefix else ""
        rows.append(chosen(place.name, " × ".join(map(str, place.shape)), beside, below, head, _remark(place)))
    return rows


def _remark(place: Any) -> str:
    if not place.reaches:
        return "can't be: the logits don't depend on these places"
    if not place.told:
        return "with grid=(y, x): where its places lie isn't known"
    return place.taken

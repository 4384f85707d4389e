"""A list of layers that prints as the command's table."""

from __future__ import annotations

from typing import Any


class LayerTable(tuple[Any, ...]):
    """`Layer`s, in the order in which they run; a tuple that prints a line for each."""

    __slots__ = ()

    def __repr__(self) -> str:
        """Name, shape, share below zero and head of each."""
        rows = [("layer", "y × x × channel", "below zero", "head behind it")]
        for place in self:
            below = "none" if place.non_negative else f"{100 * place.negative:.0f} %, down to {place.minimum:.2g}"
            head = "pooling, then affine" if place.affine else "not affine"
            rows.append((place.name, " × ".join(map(str, place.shape)), below, head))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
        return "\n".join(text.rstrip() for text in lines)

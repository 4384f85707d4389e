"""What the fields of a record may hold, said beside them as `dataclasses.field(metadata=…)`; several are joined by `|`.

`face_jax.explanation.codec` writes and reads records by their annotations and by this.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Within:
    """Bounds of numbers; `high` may name an axis: as many whole numbers as that is long, from `low` on."""

    low: int | float
    high: int | float | str
    unknown: bool


def within(
    low: int | float = -math.inf, high: int | float | str = math.inf, *, unknown: bool = False
) -> dict[str, Any]:
    """Numbers that are finite and within bounds, also those in an array, a tuple or a dictionary.

    **Arguments:**

    - `low`, `high`: the bounds, both allowed. `within(0, "crop")` is the number of a crop, `within(1, "crop")` one
        counted from 1.
    - `unknown`: NaN is allowed too.
    """
    return {"within": Within(low, high, unknown)}


def counted(axis: str) -> dict[str, Any]:
    """A tuple with one entry for each place of an axis; it's never empty."""
    return {"counted": axis}


def axes(**names: str | None) -> dict[str, Any]:
    """What axes of the record in this field are called around it; None for one that is this record's own."""
    return {"axes": names}


def lately() -> dict[str, Any]:
    """A field that files of the same format may lack, because it came later: its default is what they mean."""
    return {"lately": True}


def elsewhere() -> dict[str, Any]:
    """A field that isn't saved with its record, and is given again when it's read: None if it isn't."""
    return {"elsewhere": True}

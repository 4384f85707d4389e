"""Short `repr`s of records: what they are, and of arrays the shape only."""

from __future__ import annotations

import dataclasses
from typing import Any


def short_repr(self: Any) -> str:
    """A dataclass's name and fields, with arrays as their type and shape: `Solution(codes=float32[300,25], …)`."""
    fields = (f"{field.name}={_short(getattr(self, field.name))}" for field in dataclasses.fields(self) if field.repr)
    return f"{type(self).__name__}({', '.join(fields)})"


def _short(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(shape, tuple) and dtype is not None:
        try:
            # A number's worth is its value, where it is known yet.
            return str(value.item()) if shape == () and dtype.kind in "fiub" else _sized(dtype, shape)
        except Exception:  # whatever an array of another package raises that has no value yet
            return _sized(dtype, shape)
    if isinstance(value, (tuple, list)) and len(value) > 4:
        return f"<{len(value)} {type(value[0]).__name__}s>"
    if isinstance(value, (tuple, list)):
        inside = ", ".join(map(_short, value))
        return f"[{inside}]" if isinstance(value, list) else f"({inside}{',' if len(value) == 1 else ''})"
    return repr(value)


def _sized(dtype: Any, shape: tuple[Any, ...]) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"

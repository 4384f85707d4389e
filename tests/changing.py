"""Records with other values somewhere inside them."""

import dataclasses
from typing import Any


def changed(record: Any, values: dict[str, Any]) -> Any:
    """A copy of nested dataclasses with other values at dotted paths, such as `bank.dictionary`."""
    for path, value in values.items():
        name, _, rest = path.partition(".")
        inside = changed(getattr(record, name), {rest: value}) if rest else value
        record = dataclasses.replace(record, **{name: inside})
    return record

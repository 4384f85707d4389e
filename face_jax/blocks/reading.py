"""Reading ahead: the next block comes while this one is worked on."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any, TypeVar

T = TypeVar("T")
_END: Any = object()


def ahead(parts: Iterator[T]) -> Iterator[T]:
    """The same one after another, each made on another thread while the one before is used."""
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="rows") as reader:
        coming = reader.submit(next, parts, _END)
        try:
            while (part := coming.result()) is not _END:
                coming = reader.submit(next, parts, _END)
                yield part
        finally:
            # Whoever stops early waits for the one that is being read, no more.
            coming.cancel()

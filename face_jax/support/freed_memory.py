"""Freed memory kept by the process (glibc), so that a network's passes don't fetch it page by page again.

By default glibc asks the system for every large array and gives it back as soon as it's freed. What comes next is as
large, is asked for again, and arrives in pages of 4 KiB that the system fills with zeros at first touch: a forward pass
of 64 pictures in EfficientNet-Lite0 meets a million of these on its way, which take several times as long as its
arithmetic (`benchmarks/bridges.py memory`). Kept memory is used again at once. The price is a higher peak.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from typing import Any

# From glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_EVERYTHING = 2**31 - 1
# The heap grows by this at a time: room that nothing touches costs nothing, and blocks fit together better.
_PAD = 2**28
# Where glibc's own thresholds arrive once blocks of 32 MiB have been freed; its default padding.
_USUAL = {_MMAP_THRESHOLD: 2**25, _TRIM_THRESHOLD: 2**26, _TOP_PAD: 2**17}
_KEPT = {_MMAP_THRESHOLD: _EVERYTHING, _TRIM_THRESHOLD: _EVERYTHING, _TOP_PAD: _PAD}
_SETTINGS = ("MALLOC_TOP_PAD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")

_lock = threading.Lock()
_users = 0


@functools.cache
def _allocator() -> Any:
    """The C library, where it's glibc and whoever started the process left its allocator alone; else None."""
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(name in os.environ for name in _SETTINGS):
        return None
    try:
        library = ctypes.CDLL(None)
        library.mallopt.argtypes, library.mallopt.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
        library.malloc_trim.argtypes, library.malloc_trim.restype = (ctypes.c_size_t,), ctypes.c_int
    except (OSError, TypeError, AttributeError):
        return None  # macOS, Windows, musl
    return library


def _begin() -> bool:
    global _users
    library = _allocator()
    if library is None:
        return False
    with _lock:
        _users += 1
        if _users == 1:
            for name, value in _KEPT.items():
                library.mallopt(name, value)
    return True


def _end() -> None:
    global _users
    library = _allocator()
    with _lock:
        _users -= 1
        if _users == 0:
            for name, value in _USUAL.items():
                library.mallopt(name, value)
            library.malloc_trim(0)


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While this lasts, what is freed stays with the process; afterwards it goes back to the system.

    It may be nested and used by several threads; the outermost one's end counts. Where the C library isn't glibc, or
    its allocator was set up in the environment (`GLIBC_TUNABLES`, `MALLOC_…_`), nothing happens.
    """
    begun = _begin()
    try:
        yield
    finally:
        if begun:
            _end()


def keep_freed_memory() -> bool:
    """What is freed stays with the process from now on: for programs that run torch on the processor again and again.

    `face_jax` does so by itself while it takes pictures through a network, and gives the memory back afterwards. Call
    this first thing in a program that works with torch outside these passes too (training, Captum's methods): its
    passes become up to four times as fast, and the program keeps the most memory that it has ever used.

    **Returns:** whether it could be set: not where the C library isn't glibc, or where the environment says what its
    allocator does (`GLIBC_TUNABLES`, `MALLOC_…_`).

    **Example:**

    >>> bridges.keep_freed_memory()  # doctest: +SKIP
    True
    """
    return _begin()

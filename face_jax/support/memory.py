"""Memory: how much is free, and the error that says what to do where it doesn't suffice."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

_CGROUPS = pathlib.Path("/sys/fs/cgroup")


class NotEnoughMemoryError(ValueError):
    """More memory asked for than there is."""


def check_memory(needed: int | float, what: str, remedy: str, device: Any = None) -> None:
    """Raises `NotEnoughMemoryError` if so many bytes aren't free; where nobody knows how many are, nothing.

    With a `device` it's this accelerator's memory.
    """
    free = free_memory() if device is None else device_memory(device)
    if free is not None and needed > free:
        raise NotEnoughMemoryError(
            f"{what} would need about {in_bytes(needed)} of memory, and {in_bytes(free)} are free; {remedy}"
        )


@contextlib.contextmanager
def exhaustion_in_words(what: str, remedy: str) -> Iterator[None]:
    """What NumPy, JAX or torch raise when memory runs out becomes `NotEnoughMemoryError`, in a sentence."""
    try:
        yield
    except NotEnoughMemoryError:
        raise
    except (MemoryError, RuntimeError) as error:
        if not _exhausted(error):
            raise
        raise NotEnoughMemoryError(f"the memory ran out over {what}; {remedy}") from error


def free_memory() -> int | None:
    """Bytes that this process can still have: of the machine's, its container's and its own limit; None if unknown."""
    found = [free for free in (_machine(), _container(), _process()) if free is not None]
    return min(found) if found else None


def device_memory(device: Any) -> int | None:
    """Bytes that JAX can still have of an accelerator's memory; None where it doesn't say."""
    told = device.memory_stats() or {}
    return told["bytes_limit"] - told.get("bytes_in_use", 0) if "bytes_limit" in told else None


def _exhausted(error: BaseException) -> bool:
    said = str(error)
    marks = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError) or any(mark in said for mark in marks)


def in_bytes(count: int | float) -> str:
    """A number of bytes in words."""
    return f"{count / 2**30:,.1f} GiB" if count >= 0.95 * 2**30 else f"{count / 2**20:,.0f} MiB"


def _machine() -> int | None:
    numbers = {}
    for line in _text(pathlib.Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        if value.strip().endswith(" kB"):
            numbers[name] = int(value.split()[0]) * 1024
    return numbers["MemAvailable"] + numbers.get("SwapFree", 0) if "MemAvailable" in numbers else None


def _container() -> int | None:
    own = [line.rpartition(":")[2].lstrip("/") for line in _text(pathlib.Path("/proc/self/cgroup")).splitlines()]
    folders = [_CGROUPS / place for place in (*own, "")] + [_CGROUPS / "memory"]
    found = []
    for folder in folders:
        for most, taken in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
            limit, now = (_text(folder / name).strip() for name in (most, taken))
            if limit.isdigit() and now.isdigit():
                # Files' pages are counted, and are given up when somebody wants memory.
                found.append(int(limit) - int(now) + _inactive(folder))
    return max(0, min(found)) if found else None


def _inactive(folder: pathlib.Path) -> int:
    for line in _text(folder / "memory.stat").splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def _process() -> int | None:
    try:
        import resource
    except ImportError:
        # Not on Windows.
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _text(pathlib.Path("/proc/self/statm")).split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    return max(0, limit - int(pages[0]) * resource.getpagesize())


def _text(file: pathlib.Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""

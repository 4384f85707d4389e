"""Progress: how long computations report stages and steps, whatever shows them."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import time
from collections.abc import Callable, Iterator
from typing import Protocol, runtime_checkable

from .interrupts import go_on

Advance = Callable[[int], None]


@runtime_checkable
class Progress(Protocol):
    """Called at the start of each stage of work with its name and its number of steps.

    Returns a context manager that gives a function, to be called with the number of steps done since.
    """

    def __call__(self, stage: str, total: int) -> contextlib.AbstractContextManager[Advance]:
        """Begin a stage."""
        ...


# How many stages are open, of which somebody or nobody is told.
_OPEN: contextvars.ContextVar[int] = contextvars.ContextVar("open_stages", default=0)


@contextlib.contextmanager
def open_stage() -> Iterator[None]:
    """While it's open, work inside tells nobody unless it was asked to: `told_already`."""
    # By counting: stages of generators needn't close in the order in which they were opened.
    _OPEN.set(_OPEN.get() + 1)
    try:
        yield
    finally:
        _OPEN.set(_OPEN.get() - 1)


def told_already() -> bool:
    """Whether this is part of work of which somebody is told already, or nobody is to be."""
    return _OPEN.get() > 0


@contextlib.contextmanager
def silent(stage: str, total: int) -> Iterator[Advance]:
    """A `Progress` that shows nothing."""
    del stage, total
    go_on()
    with open_stage():
        yield nobody


def nobody(steps: int) -> None:
    """An `Advance` that tells nobody."""
    del steps
    go_on()


def tell_more(advance: Advance, text: str) -> None:
    """Tells what else is known of the work, where whoever is told shows it: an `Advance` with a `more` does."""
    more = getattr(advance, "more", None)
    if callable(more):
        more(text)


class Stopwatch:
    """Seconds spent in each named kind of work; nested kinds are counted once, for the inner one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = collections.defaultdict(float)
        self._running: list[str] = []
        self._since = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, work: str) -> Iterator[None]:
        """Count the time spent inside for `work`."""
        self._turn()
        self._running.append(work)
        try:
            yield
        finally:
            self._turn()
            self._running.pop()

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

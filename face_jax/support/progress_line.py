"""Progress on standard error as one line that is written over; no further package needed."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .arguments import callable_with
from .interrupts import go_on
from .progress import Advance, Progress, open_stage, silent, told_already

if TYPE_CHECKING:
    Watched = Progress | bool | None
else:
    # Whoever gives something else is told so by `progress_of`.
    Watched = Any

_REMEDY = (
    "give True, False, or a function of a stage's name and its number of steps that gives a context manager "
    "(face_jax.support.progress.Progress)"
)
# Work that is done sooner isn't worth a line.
_SOON = 1.0
_PAUSE = 0.1


def progress_of(progress: Watched) -> Progress:
    """Whom work tells how far it is.

    **Arguments:**

    - `progress`: a `Progress` of your own; True for a line on standard error, False for nothing, None for a line where
        a person watches, on a terminal and in a notebook, unless this is part of work of which somebody is told.

    **Returns:** a `Progress`. Raises `ValueError` for anything else.
    """
    if progress is None:
        return line if _watched() and not told_already() else silent
    if isinstance(progress, bool):
        return line if progress else silent
    if isinstance(progress, _Own):
        return progress
    if not callable(progress) or isinstance(progress, type):
        raise ValueError(f"progress={progress!r} isn't valid; {_REMEDY}")
    return _Own(callable_with("progress", progress, _REMEDY, "stage", "total"))


@dataclasses.dataclass(frozen=True)
class _Own:
    """Somebody's own `Progress`, which ends what it's told of if the user asked for that."""

    progress: Any

    @contextlib.contextmanager
    def __call__(self, stage: str, total: int) -> Iterator[Advance]:
        """Begin a stage; raises `ValueError` where no context manager of a function comes back."""
        go_on()
        told = self.progress(stage, total)
        if not isinstance(told, contextlib.AbstractContextManager):
            raise ValueError(f"progress gives a {type(told).__name__}, which isn't a context manager; {_REMEDY}")
        with told as tell, open_stage():
            callable_with("progress", tell, f"let its context manager give a function of a number; {_REMEDY}", 1)

            def advance(steps: int) -> None:
                go_on()
                tell(steps)

            if hasattr(tell, "more"):
                advance.more = tell.more  # pyright: ignore[reportFunctionMemberAccess]
            yield advance


@contextlib.contextmanager
def line(stage: str, total: int) -> Iterator[Advance]:
    """A `Progress` that writes a line on standard error, over and over, once the work has taken a second."""
    go_on()
    begun = time.monotonic()
    done, told, known, longest = 0, begun + _SOON - _PAUSE, "", 0

    def tell(end: str) -> None:
        nonlocal longest
        text = f"{stage}: {done} of {total}, {time.monotonic() - begun:.0f} s{known}"
        # What a longer line left is written over.
        longest, text = max(longest, len(text)), text.ljust(longest if known else 0)
        print(f"\r{text}", end=end, file=sys.stderr, flush=True)

    def more(text: str) -> None:
        nonlocal known
        left = (time.monotonic() - begun) * (total - done) / max(done, 1)
        known = f", at most {left:.0f} s left; {text}"

    def advance(steps: int) -> None:
        nonlocal done, told
        go_on()
        done += steps
        if time.monotonic() - told >= _PAUSE:
            told = time.monotonic()
            tell("")

    advance.more = more  # pyright: ignore[reportFunctionMemberAccess]
    if total <= 1:
        # It has no steps to wait for, and may take minutes.
        print(f"\r{stage} …", end="", file=sys.stderr, flush=True)
    try:
        with open_stage():
            yield advance
    finally:
        if total <= 1 or time.monotonic() - begun >= _SOON:
            tell("\n")


def _watched() -> bool:
    """Whether a person sees standard error as it is written."""
    interactive = sys.modules.get("IPython")
    shell = None if interactive is None else interactive.get_ipython()
    if shell is not None and hasattr(shell, "kernel"):
        return True
    return sys.stderr is not None and sys.stderr.isatty()

"""Progress for whoever watches, without other packages: one line that is written over."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .progress import Advance, Progress, silent

if TYPE_CHECKING:
    Watched = Progress | bool | None
else:
    # Whoever gives something else is told so by `progress_of`.
    Watched = Any

# Work that is done sooner isn't worth a line.
_SOON = 1.0
_PAUSE = 0.1


def progress_of(progress: Watched) -> Progress:
    """Whom work tells how far it is.

    **Arguments:**

    - `progress`: a `Progress` of your own; True for a line on standard error, False for nothing, None for a line where
        a person watches: on a terminal and in a notebook.

    **Returns:** a `Progress`. Raises `ValueError` for anything else.
    """
    if progress is None:
        return line if _watched() else silent
    if isinstance(progress, bool):
        return line if progress else silent
    if not callable(progress) or isinstance(progress, type):
        raise ValueError(
            f"progress={progress!r} isn't valid; give True, False, or a function of a stage's name and its number of "
            "steps that gives a context manager (face_jax.progress.Progress)"
        )
    return progress


@contextlib.contextmanager
def line(stage: str, total: int) -> Iterator[Advance]:
    """A `Progress` that writes a line on standard error, over and over, once the work has taken a second."""
    begun = time.monotonic()
    done, told = 0, begun + _SOON - _PAUSE

    def tell(end: str) -> None:
        print(f"\r{stage}: {done} of {total}, {time.monotonic() - begun:.0f} s", end=end, file=sys.stderr, flush=True)

    def advance(steps: int) -> None:
        nonlocal done, told
        done += steps
        if time.monotonic() - told >= _PAUSE:
            told = time.monotonic()
            tell("")

    if total <= 1:
        # It has no steps to wait for, and may take minutes.
        print(f"\r{stage} …", end="", file=sys.stderr, flush=True)
    try:
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

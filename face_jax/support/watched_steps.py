"""Steps of compiled loops, told while they run: what a loop is at, without waiting for it.

A loop that is watched calls the host behind each step (`jax.debug.callback`) and doesn't wait for the answer. Whether
it does is part of what a program is compiled for; one that isn't watched has nothing of it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from .progress import Advance, Progress, silent, tell_more
from .progress_line import Watched, progress_of

_WATCHED: Any = jax.make_user_context(default_value=False)
# Those who are told, the last one first; loops run one at a time wherever somebody watches.
_LISTENERS: list[Callable[[int, float, float], None]] = []
# Entries of a matrix whose factorization takes a second or more: less isn't worth a program of its own.
_LARGE = 2**24


def tell_step(step: Any, residual: Any, share: Any) -> None:
    """Tells a step of a loop that is being traced, if anybody watches.

    **Arguments:**

    - `step`: how many are done.
    - `residual`: where the loop is.
    - `share`: the objective, as a share of what it was at the start.
    """
    if _WATCHED.value:
        jax.debug.callback(_told, step, residual, share)


@contextlib.contextmanager
def watched_steps(watched: Watched, stage: str, steps: int, rows: int, channels: int) -> Iterator[None]:
    """Loops that run inside are told of: steps, residual, objective, rows a second, time left.

    **Arguments:**

    - `watched`: whom to tell, as for `progress_of`; where that is nobody, nothing is compiled anew.
    - `stage`: what the work is called.
    - `steps`: how many there are at most.
    - `rows`, `channels`: of the matrix; a small one is told of only where that was asked for.
    """
    progress = told_of(watched, rows, channels)
    if progress is None:
        yield
        return
    with progress(stage, steps) as advance:
        listener = _Listener(advance, rows)
        _LISTENERS.append(listener)
        try:
            with _WATCHED(True):
                yield
            # Steps may still be on their way.
            jax.effects_barrier()
        finally:
            _LISTENERS.remove(listener)


def told_of(watched: Watched, rows: int, channels: int) -> Progress | None:
    """Whom to tell of work on a matrix: nobody of a small one unless that was asked for."""
    progress = progress_of(watched)
    return None if progress is silent or (watched is None and rows * channels < _LARGE) else progress


def unwatched() -> Any:
    """Loops that are traced inside are told of to nobody: those of samples, whose steps are others."""
    return _WATCHED(False)


class _Listener:
    """Tells a `Progress` of steps.

    **Arguments:**

    - `advance`: of the work.
    - `rows`: that a step goes through.
    """

    def __init__(self, advance: Advance, rows: int) -> None:
        self.advance, self.rows, self.done = advance, rows, 0
        self.since: float | None = None  # the step before; what comes before the first is compiling and the start

    def __call__(self, step: int, residual: float, share: float) -> None:
        """A step of a loop. There may be a second one, of what the first began: its steps count where they are more."""
        said, now = f"step {step}, residual {residual:.1e}, objective {share:.3g} of the start's", time.perf_counter()
        if self.since is not None:
            said += f", {self.rows / max(now - self.since, 1e-9):.2g} rows/s"
        self.since = now
        tell_more(self.advance, said)
        more, self.done = max(0, step - self.done), max(step, self.done)
        self.advance(more)


def _told(step: Any, residual: Any, share: Any) -> None:
    if _LISTENERS:
        _LISTENERS[-1](int(step), float(residual), float(share))

"""Ctrl-C ends work wherever it falls: what is raised inside a callback of JAX's may get lost on the way out."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

# Whether the user has asked for the work to end.
_ASKED_TO_END = threading.Event()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Work that Ctrl-C ends with `KeyboardInterrupt`, also where it becomes another exception, or none, on its way.

    Also a decorator. It may be nested; the outermost one counts. A program that treats the signal in its own way, and
    work in another thread than the main one, which gets no signals, are left alone.
    """
    alone = threading.current_thread() is not threading.main_thread()
    if alone or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _ASKED_TO_END.clear()
    signal.signal(signal.SIGINT, _end)
    try:
        yield
        go_on()
    except Exception as error:
        if _ASKED_TO_END.is_set():
            raise KeyboardInterrupt from error
        raise
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _ASKED_TO_END.clear()


def go_on() -> None:
    """Ends the work here if the user asked for it and the exception got lost."""
    if _ASKED_TO_END.is_set() and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def _end(number: int, frame: Any) -> None:
    _ASKED_TO_END.set()
    raise KeyboardInterrupt

"""What is going on, every half minute: on standard error, so that pytest's own output stays as it is."""

from __future__ import annotations

import os
import threading
import time

import pytest


class Heartbeat:
    """Follows the tests of a session, and says where it is while it lasts.

    It belongs into the process that a session is started in; with pytest-xdist, workers tell that one what they do.
    """

    def __init__(self, seconds: float) -> None:
        # Standard error itself is caught while a test runs.
        self.out = os.fdopen(os.dup(2), "w", encoding="utf-8", errors="replace")
        self.seconds, self.began = seconds, time.monotonic()
        self.total, self.done, self.failed = 0, 0, 0
        self.running: dict[str, float] = {}
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        while not self.over.wait(self.seconds):
            print(f"\n{self.line()}", file=self.out, flush=True)

    def line(self) -> str:
        """Time, how many tests are done, and what is being run since when."""
        now = time.monotonic()
        minutes, seconds = divmod(int(now - self.began), 60)
        failed = f", {self.failed} failed" if self.failed else ""
        # Workers' tests come and go in another thread.
        running = "; ".join(f"{name} ({now - since:.0f} s)" for name, since in tuple(self.running.items()))
        done = f"[{minutes}:{seconds:02}] {self.done} of {self.total} tests done{failed}"
        return f"{done}. Now: {running or 'nothing yet' if self.total else 'collecting tests'}"

    def pytest_sessionstart(self) -> None:
        self.thread.start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.total = len(session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        self.total = len(ids)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.running[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.failed += report.failed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.running.pop(nodeid, None)
        self.done += 1

    def pytest_sessionfinish(self) -> None:
        self.over.set()
        if self.thread.is_alive():
            self.thread.join()

    def pytest_unconfigure(self) -> None:
        self.over.set()
        self.out.close()

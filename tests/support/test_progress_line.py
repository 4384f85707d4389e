"""Progress by default: where a person watches, and nowhere else."""

import io
import sys
import types

import pytest
from toy_model import recorded_progress

from face_jax.support import progress_line
from face_jax.support.progress import silent
from face_jax.support.progress_line import line, progress_of


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_line_on_a_terminal_and_in_a_notebook_and_nothing_in_a_pipe(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert progress_of(None) is silent
    monkeypatch.setattr(sys, "stderr", _Terminal())
    assert progress_of(None) is line
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert progress_of(None) is line


def test_true_false_and_a_progress_of_ones_own():
    told, own = recorded_progress()
    assert progress_of(True) is line
    assert progress_of(False) is silent
    with progress_of(progress_of(own))("Crops", 3) as advance:
        advance(1)
        advance(2)
    assert told == [["Crops", 3, 3]]


@pytest.mark.parametrize("progress", ["yes", 1, object])
def test_anything_else_is_refused(progress):
    with pytest.raises(ValueError, match="isn't valid; give True, False, or a function"):
        progress_of(progress)


def test_the_line_says_how_far_it_is(monkeypatch):
    times = iter([0.0, 0.5, 2.0, 2.0, 2.0, 2.05, 3.0, 3.0, 3.0, 3.0])
    monkeypatch.setattr(progress_line.time, "monotonic", lambda: next(times))
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    with line("Crops", 3) as advance:
        for _ in range(3):
            advance(1)
    told = written.getvalue()
    assert told == "\rCrops: 2 of 3, 2 s\rCrops: 3 of 3, 3 s\n"


def test_work_that_is_done_at_once_says_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    with line("Crops", 3) as advance:
        advance(3)
    assert written.getvalue() == ""

"""The examples' programs run in a small form, and what they print is what they say."""

import pathlib
import subprocess
import sys

import pytest
from compiling import compiled_as_here

pytest.importorskip("sklearn", reason="scikit-learn is optional")
EXAMPLES = pathlib.Path(__file__).resolve().parent.parent / "examples"


def printed(name, *given):
    command = [sys.executable, str(EXAMPLES / name), *given]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=compiled_as_here())
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_topics_are_read_and_documents_filed_under_them():
    told = printed("topics.py", "--documents", "600")
    for one in ("space", "hockey", "medicine", "cryptography", "cars", "graphics", "politics", "religion"):
        assert f"({one}: " in told
    assert int(told.rpartition(": ")[2].strip("%\n")) >= 80


def test_missing_ratings_are_better_than_the_mean():
    told = printed("missing.py", "--people", "150", "--ranks", "2", "4").splitlines()
    mean, filled = (float(line.split()[-1]) for line in told[-2:])
    assert filled < 0.8 * mean
    assert any("<- chosen" in line for line in told)


def test_quiet_notes_are_heard_by_the_divergence_that_has_no_unit():
    told = printed("audio.py", "--seconds", "6")
    quiet, loud = told.split("beta_loss='frobenius'")
    assert quiet.count(": heard") == 5
    assert ": not heard" in loud

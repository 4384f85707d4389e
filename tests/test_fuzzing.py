"""A few hundred of the fuzzer's cases, as a process of its own: nothing checks annotations there before we do."""

import pathlib
import subprocess
import sys

import fuzzed_functions
import fuzzing
import pytest
from compiling import compiled_as_here


@pytest.mark.parametrize("kind", fuzzing.KINDS)
def test_damaged_files_and_odd_arguments_are_taken_or_refused_by_name(kind):
    cases = {"lines": 25, "arguments": 40, "measures": 40, "explanations": 60}.get(kind, 150)
    command = [sys.executable, str(pathlib.Path(fuzzing.__file__)), "--cases", str(cases), "--only", kind]
    done = subprocess.run(command, capture_output=True, text=True, env=compiled_as_here())
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_every_public_function_is_fuzzed_or_says_why_it_isnt():
    command = [sys.executable, str(pathlib.Path(fuzzing.__file__)), "--unfuzzed"]
    done = subprocess.run(command, capture_output=True, text=True, env=compiled_as_here())
    assert done.stdout.split() == sorted(fuzzed_functions.LEFT_OUT), done.stderr[-2000:]
    assert len(fuzzed_functions.public_functions()) > 100

"""Runs scikit-learn's own tests of its factorization against face_jax's estimators, and says how each ended.

The tests are those of the installed scikit-learn, which are read where they lie: `python tests/sklearn_parity.py`
prints the table that `docs/howto/scikit-learn-tests.md` has, `--write` puts it there.
"""

from __future__ import annotations

import collections
import os
import pathlib
import sys
from typing import Any

import pytest

TESTS = "decomposition/tests/test_nmf.py"
# What these look at isn't an estimator: functions that scikit-learn's modules have for themselves.
OWN = (
    "test_initialize_nn_output", "test_initialize_close", "test_initialize_variants", "test_beta_divergence",
    "test_special_sparse_dot", "test_nmf_underflow",
)  # fmt: skip


class Outcomes:
    """A plugin of pytest: how each test ended, and the last line of what it said."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called by pytest behind each phase of each test."""
        name = report.nodeid.rpartition("::")[2]
        if report.when == "call" or report.outcome != "passed":
            crash = getattr(report.longrepr, "reprcrash", None)
            words = crash.message if crash else str(report.longrepr or "")
            self.found.setdefault(name, (report.outcome, words))


def run(*, only: str = "", options: tuple[str, ...] = ()) -> dict[str, tuple[str, str]]:
    """How each of scikit-learn's tests ends with face_jax's estimators, by name.

    **Arguments:**

    - `only`: an expression of pytest's `-k`.
    - `options`: further ones.
    """
    import sklearn
    import sklearn.decomposition as package

    import face_jax.sklearn as ours

    names = "NMF", "MiniBatchNMF", "non_negative_factorization"
    theirs = {name: getattr(package, name) for name in names}
    outcomes = Outcomes()
    file = pathlib.Path(sklearn.__file__).parent / TESTS
    # Not with this project's own settings, by which warnings are errors.
    options = ("-q", "-c", os.devnull, "--rootdir", str(file.parent), "-p", "no:cacheprovider", *options)
    try:
        for name in names:
            setattr(package, name, getattr(ours, name))
        pytest.main([str(file), *options, *(["-k", only] if only else [])], plugins=[outcomes])
    finally:
        for name, value in theirs.items():
            setattr(package, name, value)
    return {name: one for name, one in outcomes.found.items() if name.partition("[")[0] not in OWN}


def table(found: dict[str, tuple[str, str]]) -> str:
    """One line a test function."""
    groups: dict[str, list[tuple[str, str, str]]] = collections.defaultdict(list)
    for name, (outcome, words) in found.items():
        function, _, case = name.partition("[")
        groups[function].append((case.rstrip("]"), outcome, words))
    lines = ["| test | cases | pass |", "|---|---|---|"]
    for function, cases in groups.items():
        lines.append(f"| `{function}` | {len(cases)} | {sum(outcome == 'passed' for _, outcome, _ in cases)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    found = run(only=" ".join(sys.argv[1:]), options=("--tb=short", "-W", "ignore::DeprecationWarning"))
    passed = sum(outcome == "passed" for outcome, _ in found.values())
    print(table(found))
    print(f"{passed} of {len(found)} pass ({passed / max(1, len(found)):.1%})")
    for name, (outcome, words) in found.items():
        if outcome != "passed":
            print(name, outcome, words[:300].replace("\n", " | "))
    sys.exit(passed < len(found))

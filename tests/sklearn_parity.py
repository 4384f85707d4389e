"""Runs scikit-learn's own tests of its factorization against face_jax's estimators, and says how each ended.

The tests are those of the installed scikit-learn, which are read where they lie: `python tests/sklearn_parity.py`
prints the table that `docs/howto/scikit-learn-tests.md` has. `--keep FILE` writes each outcome there as it's found, and
leaves out those that are there already, so that a run can be stopped and goes on; whatever else is given is an
expression of pytest's `-k`.
"""

from __future__ import annotations

import argparse
import collections
import json
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
    """A plugin of pytest: how each test ended, and the last line of what it said.

    **Arguments:**

    - `keep`: a file for the outcomes, whose tests aren't run again; None without.
    """

    def __init__(self, keep: pathlib.Path | None = None) -> None:
        self.keep = keep
        known = json.loads(keep.read_text()) if keep is not None and keep.exists() else {}
        self.found: dict[str, tuple[str, str]] = {name: tuple(one) for name, one in known.items()}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Called by pytest when it has found the tests."""
        known = set(self.found) if self.keep is not None else set()
        items[:] = [item for item in items if item.name not in known and item.originalname not in OWN]

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Called by pytest behind each phase of each test."""
        name = report.nodeid.rpartition("::")[2]
        if report.when == "call" or report.outcome != "passed":
            crash = getattr(report.longrepr, "reprcrash", None)
            words = crash.message if crash else str(report.longrepr or "")
            self.found.setdefault(name, (report.outcome, words))
            if self.keep is not None:
                self.keep.write_text(json.dumps(self.found, indent=1))


def run(
    *, only: str = "", options: tuple[str, ...] = (), keep: pathlib.Path | None = None
) -> dict[str, tuple[str, str]]:
    """How each of scikit-learn's tests ends with face_jax's estimators, by name.

    **Arguments:**

    - `only`: an expression of pytest's `-k`.
    - `options`: further ones.
    - `keep`: see `Outcomes`.
    """
    import sklearn
    import sklearn.decomposition as package

    import face_jax.sklearn as ours

    names = "NMF", "MiniBatchNMF", "non_negative_factorization"
    theirs = {name: getattr(package, name) for name in names}
    outcomes = Outcomes(keep)
    file = pathlib.Path(sklearn.__path__[0]) / TESTS
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=pathlib.Path, metavar="FILE")
    parser.add_argument("only", nargs="*")
    given = parser.parse_args()
    settings = ("--tb=short", "-W", "ignore::DeprecationWarning")
    found = run(only=" ".join(given.only), options=settings, keep=given.keep)
    passed = sum(outcome == "passed" for outcome, _ in found.values())
    print(table(found))
    print(f"{passed} of {len(found)} pass ({passed / max(1, len(found)):.1%})")
    for name, (outcome, words) in found.items():
        if outcome != "passed":
            print(name, outcome, words[:300].replace("\n", " | "))
    sys.exit(passed < len(found))

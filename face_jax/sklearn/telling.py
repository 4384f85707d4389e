"""What `verbose` prints: scikit-learn's words, behind the last pass, as the passes are one program."""

from __future__ import annotations

import math
from typing import Any

from ..nmf import RESULTS
from .fitting import Fitted


def tell(estimator: Any, found: Fitted, seconds: float) -> None:
    """The way of a fit, if it's wanted."""
    if not estimator.verbose:
        return
    first = float(found.residuals[0]) or 1.0
    if estimator.solver == "mu":
        for step in range(10, found.steps + 1, 10):
            error = math.sqrt(2 * max(0.0, float(found.objectives[step])))
            print(f"Epoch {step:02d} reached after {seconds * step / found.steps:.3f} seconds, error: {error:f}")
        if found.steps % 10:
            print(f"Epoch {found.steps:02d} reached after {seconds:.3f} seconds.")
        return
    for residual in found.residuals[1:]:
        print("violation:", float(residual) / first)
    if found.result in (RESULTS.successful, RESULTS.objective_overflowed):
        print("Converged at iteration", found.steps)

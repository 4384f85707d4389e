"""What a score is worth: the same score of banks that learned nothing, or less."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from . import metrics
from .activations import Collected
from .factorize import NNDSVD, SquaredError, factorize
from .model import SplitModel
from .progress import Progress, silent
from .ranking import importance_of


def control_banks(
    rows: Float[np.ndarray, "row channel"], rank: int, objective: Any, solver: Any, start: Any, keys: dict[str, Any]
) -> dict[str, Float[np.ndarray, "concept channel"]]:
    """Banks whose scores say what this explanation's are worth."""
    first, second = jax.random.split(keys["controls"])
    activations = jnp.asarray(rows)
    banks = {}
    if objective.terms:
        plain = factorize(activations, rank, objective=SquaredError(), solver=solver, start=start, key=keys["start"])
        banks["λ = 0: the same without the faithfulness term"] = np.asarray(plain.dictionary)
    begun = np.asarray(NNDSVD()(activations, rank, signed=False, key=keys["start"])[1])
    banks["NNDSVD start, no steps taken"] = metrics.unit_length(begun)
    banks["mean activation and noise"] = metrics.mean_direction(rows, rank, key=first)
    banks["random directions"] = metrics.random_dictionary(rows.shape[1], rank, key=second).astype(rows.dtype)
    return banks


def control_scores(
    model: SplitModel,
    fit_units: Collected,
    score_units: Collected,
    banks: dict[str, Float[np.ndarray, "concept channel"]],
    target: int,
    key: Key[Array, ""],
    progress: Progress,
) -> tuple[metrics.Score, ...]:
    """Scores of these banks, each with an importance of its own."""
    rows = []
    with progress("Controls", len(banks)) as advance:
        for name, dictionary in banks.items():
            importance = importance_of(model, fit_units, dictionary, target, key, silent).per_class
            rows.append(metrics.score(name, model.head, score_units, dictionary, target, importance))
            advance(1)
    return tuple(rows)

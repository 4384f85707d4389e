"""Controls: banks that learned nothing or less (random, mean direction, start of the solver, λ = 0), scored alike."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from .. import metrics
from ..activations import Collected
from ..model import SplitModel
from ..nmf import NNDSVD, factorize
from ..support.progress import Progress, silent
from .fitting import Fitted
from .ranking import importance_of

WITHOUT_TERM = "λ = 0: the same without the faithfulness term"


def control_banks(fitting: Fitted, rank: int, keys: dict[str, Any]) -> dict[str, Float[np.ndarray, "concept channel"]]:
    """Banks whose scores say what this explanation's are worth."""
    first, second = jax.random.split(keys["controls"])
    rows, activations = fitting.rows, jnp.asarray(fitting.rows)
    banks = {}
    if fitting.objective.terms:
        plain = factorize(activations, rank, solver=fitting.solver, start=fitting.start, key=keys["start"])
        banks[WITHOUT_TERM] = np.asarray(plain.dictionary)
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

"""λ: the weights of an objective's terms, checked; and what the terms have to know of the activations."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import numpy as np

from ..magnitude import check_beside_terms
from ..objective import Objective, Weighted
from ..shapes import Activations


def active(objective: Objective) -> tuple[Weighted, ...]:
    """The terms whose weight isn't known to be zero; raises `ValueError` for weights that can't be."""
    found = []
    for weighted in objective.terms:
        weight = weighted.weight
        if not isinstance(weight, jax.core.Tracer):
            known = np.asarray(weight)
            if isinstance(weight, str) and weight == "auto":
                raise ValueError(
                    'λ="auto" is chosen by faithfulness_path and by explain(faithfulness="auto"); a factorization '
                    "takes a number, such as the path's weight"
                )
            if known.shape != () or known.dtype.kind not in "bifu" or not np.isfinite(known) or known < 0:
                raise ValueError(
                    f"λ={weight!r} isn't a weight of a term; give a finite number of at least 0 (0 leaves the term out)"
                )
            if known == 0:
                continue
        found.append(weighted)
    return tuple(found)


def check_weights(objective: Objective) -> None:
    """Raise `ValueError` for weights that terms can't be combined with."""
    if objective.weights is not None:
        raise ValueError(
            "weights of single entries can't be combined with a further term; give row_weights, or leave one out"
        )


def prepare(terms: tuple[Weighted, ...], activations: Activations) -> tuple[Any, ...]:
    """What the terms remember of the activations, checked."""
    for weighted in terms:
        weighted.term.check(activations)
    if terms:
        check_beside_terms(activations)
    prepared = _prepare(tuple(weighted.term for weighted in terms), activations)
    for weighted, one in zip(terms, prepared, strict=True):
        weighted.term.check_prepared(one)
    return prepared


@jax.jit
def _prepare(terms: tuple[Any, ...], activations: Activations) -> tuple[Any, ...]:
    return tuple(term.prepare(activations) for term in terms)

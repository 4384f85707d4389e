"""The table of importance measures, side by side."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..explanation.record import Explanation
from ..metrics.ranks import rank_correlation
from .pictures import concept_colour

# Concepts below this total Sobol index are folded away, and shown when asked for.
MINOR = 0.01


@dataclasses.dataclass(frozen=True)
class _Row:
    """One concept by every measure; `bar`s are shares of the longest in their column."""

    number: int
    colour: str
    sobol: float
    low: float
    high: float
    sobol_bar: float
    tcav: float
    p_value: float | None
    significant: bool
    gradient: float
    gradient_bar: float
    against: bool


def measures(explanation: Explanation) -> dict[str, Any]:
    """What the page says of total Sobol indices, TCAV and |gradient × code|.

    `major` and `minor` are the concepts from one per cent on and below. `order` is the rank correlation of the last
    with the first, or None where one of them is the same for all concepts.
    """
    tcav, gradients = explanation.importance.tcav, explanation.importance.gradient_times_code
    score, significant, size = tcav.per_class, tcav.significant(), gradients.per_class
    sobol = np.asarray([concept.importance for concept in explanation.concepts])
    order = rank_correlation(sobol, size)
    longest = [max(float(values.max()), 1e-30) for values in (sobol, size)]
    rows = [
        _Row(
            number=concept.number,
            colour=concept_colour(concept.number),
            sobol=concept.importance,
            low=max(concept.low, 0.0),
            high=concept.high,
            sobol_bar=max(concept.importance, 0.0) / longest[0],
            tcav=float(score[at]),
            p_value=float(tcav.p_value[at]) if np.isfinite(tcav.p_value[at]) else None,
            significant=bool(significant[at]),
            gradient=float(size[at]),
            gradient_bar=float(size[at]) / longest[1],
            against=float(gradients.contribution[:, at].mean()) < 0,
        )
        for at, concept in enumerate(explanation.concepts)
    ]
    major = [row for row in rows if row.sobol >= MINOR] or rows[:1]
    return {
        "major": major,
        "minor": [row for row in rows if row not in major],
        "affine": explanation.model.head.affine,
        "pictures": len(explanation.importance.index),
        "every": len(explanation.crops if explanation.single else explanation.pictures.fitted),
        "directions": len(tcav.random_scores),
        "by_chance": float(tcav.random_scores.mean()),
        "order": order if np.isfinite(order) else None,
    }

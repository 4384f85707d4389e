"""What is measured along λ: of the images fitted and of those held out, at each solution."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..blocks.row_blocks import RowBlocks
from ..heads import Beside
from ..metrics import relative_squared_error
from ..metrics.faithfulness import mean_error
from ..nmf import Solution, magnitude
from ..nmf.encoding import encode_maps
from ..outputs import Outputs
from ..support.fields import within
from .certificates import predictions
from .checks import check_finite
from .prepared import Prepared, Unkept
from .rows import weighed_parts
from .term import Faithfulness, check_weighed


@dataclasses.dataclass(frozen=True)
class Point:
    """One λ of a path.

    **Arguments:**

    - `weight`: λ, in the term's unit.
    - `error`, `loss`: relative squared error and mean loss of the images fitted, their codes by non-negative least
        squares.
    - `held_out_error`, `held_out_loss`: the same for the images held out.
    - `agreement`: share of the images held out whose predicted class survives; of several labels the share of labels
        that stay on their side of the threshold.
    - `objective`, `residual`, `steps`: what the solver says.
    """

    weight: float = dataclasses.field(metadata=within(0))
    error: float
    loss: float
    held_out_error: float
    held_out_loss: float
    agreement: float = dataclasses.field(metadata=within(0, 1 + 1e-6))
    objective: float
    residual: float
    steps: int = dataclasses.field(metadata=within(0, 10**7))


@dataclasses.dataclass(frozen=True)
class Part:
    """What is fitted, and what judges it.

    **Arguments:**

    - `activations`, `term`: the rows that are learned from, and their faithfulness.
    - `held_out`, `held_out_term`: rows of other images, and theirs.
    """

    activations: Float[Array, "row channel"] | RowBlocks
    term: Faithfulness
    # Other channels are refused in words where the path begins.
    held_out: Float[Array, "other _"] | RowBlocks
    held_out_term: Faithfulness


def prepared_of(term: Faithfulness, activations: Any, name: str) -> Prepared | Unkept | None:
    """What a term remembers of rows in memory; raises `ValueError` for rows, in memory or not, that don't fit."""
    check_weighed(term, activations, name)
    if isinstance(activations, RowBlocks):
        # What's prepared of all images may be as much as the rows are.
        for _, rows, some in weighed_parts(term, activations):
            check_finite(some.prepare(rows).finite, name)
        return None
    magnitude.check_beside_terms(activations, name)
    prepared = term.prepare(activations)
    check_finite(prepared.finite, name)
    return prepared


def total_of(part: Part, prepared: Prepared | Unkept | None, solution: Solution) -> float:
    """The term at a solution."""
    if prepared is None:
        return sum(
            float(
                some.value(
                    some.recalled(some.prepare(rows), rows),
                    jnp.asarray(np.asarray(solution.codes[index])),
                    solution.dictionary,
                )
            )
            for index, rows, some in weighed_parts(part.term, part.activations)
        )
    activations: Any = part.activations
    known = part.term.recalled(prepared, activations)
    return float(part.term.value(known, solution.codes, solution.dictionary))


def point_at(weight: float, solutions: Sequence[Solution], parts: Sequence[Part], outputs: Outputs) -> Point:
    """What was measured of one λ: means over the parts, and of the solver's the worst."""
    measured = []
    for part, solution in zip(parts, solutions, strict=True):
        error, loss, _ = _measured(part.term, part.activations, solution.dictionary, outputs)
        measured.append((error, loss, *_measured(part.held_out_term, part.held_out, solution.dictionary, outputs)))
    error, loss, other_error, other_loss, agreement = np.mean(measured, axis=0).tolist()
    stats = [solution.stats for solution in solutions]
    return Point(
        weight=weight,
        error=error,
        loss=loss,
        held_out_error=other_error,
        held_out_loss=other_loss,
        agreement=agreement,
        objective=float(np.mean([float(each.final_objective) for each in stats])),
        residual=max(float(each.final_residual) for each in stats),
        steps=max(int(each.steps) for each in stats),
    )


def _measured(
    term: Faithfulness, activations: Any, dictionary: Float[Array, "concept channel"], outputs: Outputs
) -> tuple[float, float, float]:
    """Relative squared error, mean loss and agreement, of the images that the term weighs."""
    found, squares, counted = [], [], []
    for _, rows, some in weighed_parts(term, activations):
        found.append(_measured_together(some, rows, dictionary, outputs))
        if isinstance(activations, RowBlocks):
            squares.append(float(np.square(np.asarray(rows), dtype=np.float64).sum()))
            counted.append(len(rows) if some.weights is None else float(np.sum(np.asarray(some.weights))))
    if len(found) == 1:
        return found[0]
    errors, losses, same = zip(*found, strict=True)
    return (
        mean_error(errors, squares),
        float(np.average(losses, weights=counted)),
        float(np.average(same, weights=counted)),
    )


def _measured_together(
    term: Faithfulness,
    activations: Float[Array, "row channel"],
    dictionary: Float[Array, "concept channel"],
    outputs: Outputs,
) -> tuple[float, float, float]:
    weights = None if term.weights is None else np.asarray(term.weights, np.float64)
    if weights is not None and term.places == 1 and not isinstance(term.head, Beside):
        # Others count for nothing below.
        activations, weights = activations[np.flatnonzero(weights > 0)], weights[weights > 0]
    rows, concepts = np.asarray(activations), np.asarray(dictionary)
    # As explanations have it, so that no more programs are compiled.
    codes = jnp.asarray(encode_maps(rows[:, None, None], concepts)[:, 0, 0])
    original, rebuilt = predictions(term, activations, codes, dictionary)
    losses = np.asarray(term.loss.values(term.loss.target(original), rebuilt), np.float64)
    same = outputs.agreement(np.asarray(original), np.asarray(rebuilt))
    weights = np.ones_like(losses) if weights is None else weights
    counted = np.repeat(weights > 0, term.places)
    error = relative_squared_error(rows[counted], (np.asarray(codes) @ concepts)[counted])
    return error, float(np.average(losses, weights=weights)), float(np.average(same, weights=weights))

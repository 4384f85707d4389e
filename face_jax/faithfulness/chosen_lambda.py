"""λ chosen on some of the pictures fitted, by a path on the others, and the way to it on all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..activations import Collected
from ..blocks.row_blocks import RowBlocks
from ..nmf import Solution, SquaredError, factorize
from ..nmf.options import AnyObjective, AnySolver, AnyStart
from ..outputs import Outputs
from ..support.arguments import Seed
from .lambda_path import Part, Path, going_on, path_over
from .lambda_units import InSums, Unit
from .rows import Rows, ZeroedRows, in_jax, rows_where_they_lie
from .term import Faithfulness

# The pictures are divided into so many parts, of which one judges the concepts that were learned without it; each in
# its turn where a part has fewer pictures than this.
FOLDS, _FEW = 4, 10


def path_judged_on(
    pictures: Collected,
    head: Any,
    crops: Float[np.ndarray, "crop channel"],
    crop_of: Int[np.ndarray, " crop"] | None,
    rank: int,
    *,
    shuffled: Int[np.ndarray, " picture"],
    single: bool,
    outputs: Outputs,
    unit: Unit = InSums(),  # noqa: B008 (settings: frozen)
    **settings: Any,
) -> Path:
    """Solutions along λ, each judged on pictures that nothing is learned from: a quarter, or each quarter in its turn.

    **Arguments:**

    - `pictures`: those fitted, at least two.
    - `head`: from activations to logits.
    - `crops`: averaged activations of their crops.
    - `crop_of`: for each crop the number of its picture, −1 if that isn't among them; if None, all crops are learned
        from at all times.
    - `rank`: how many concepts.
    - `shuffled`: the numbers of the pictures, in the order in which they are divided.
    - `single`: whether these are crops of one photograph, which aren't independent however many judge.
    - `outputs`: what the logits mean.
    - `unit`: what λ means.
    - `settings`: others of `path_over`.

    **Returns:** the path.
    """
    parts, affine = [], getattr(head, "affine", False)
    for judged in folds_of(shuffled)[: turns_of(head, len(pictures), single=single)]:
        judging = pictures[judged]
        if affine:
            # Of the pictures that judge not even crops are learned from.
            left_out = np.zeros(len(crops), bool) if crop_of is None else np.isin(crop_of, judged)
            left_out = np.concatenate([left_out, np.isin(np.arange(len(pictures)), judged)])
            rows, term = rows_where_they_lie(head, crops, pictures.maps, outputs)
            # Rows of zeros that weigh nothing teach nothing, and all fits are one program.
            if isinstance(rows, RowBlocks):
                rows = RowBlocks(ZeroedRows(rows, left_out), rows=rows.rows, scratch=rows.scratch)
            else:
                rows = np.where(left_out[:, None], 0, rows)
            term = dataclasses.replace(term, weights=jnp.where(jnp.asarray(left_out), 0, jnp.asarray(term.weights)))
        else:
            fitting = pictures[np.setdiff1d(shuffled, judged)]
            rows, term = rows_where_they_lie(fitting.head(head), crops[:0], fitting.maps, outputs)
        held_out, held_out_term = rows_where_they_lie(judging.head(head), crops[:0], judging.maps, outputs)
        term, held_out_term = (dataclasses.replace(each, unit=unit) for each in (term, held_out_term))
        parts.append(Part(in_jax(rows), term, in_jax(held_out), held_out_term))
    return path_over(parts, rank, outputs=outputs, **settings)


def turns_of(head: Any, pictures: int, *, single: bool) -> int:
    """How many parts judge in turn. Behind a head that isn't affine one does: a fit takes many times as long."""
    few = pictures < FOLDS * _FEW and not single
    return FOLDS if few and getattr(head, "affine", False) else 1


def folds_of(shuffled: Int[np.ndarray, " picture"]) -> list[Int[np.ndarray, " judge"]]:
    """Which pictures judge together; of the same number, so that programs are compiled once, and some judge never."""
    folds = min(FOLDS, len(shuffled))
    each = len(shuffled) // folds
    return [np.sort(shuffled[fold * each : (fold + 1) * each]) for fold in range(folds)]


def fit_along(
    weights: Sequence[float],
    rows: Rows,
    rank: int,
    term: Faithfulness,
    *,
    solver: AnySolver,
    start: AnyStart,
    key: Seed,
) -> Solution:
    """The solution at the last of some λ: without the term first, then from each to the next.

    At a large λ it's a long way from anywhere else.

    **Arguments:**

    - `weights`: λ, ascending, such as `leading_to(path)`.
    - `rows`, `rank`, `term`: the problem.
    - `solver`, `start`, `key`: for `factorize`.
    """
    return solution_along(way_along(weights, term), rows, rank, solver=solver, start=start, key=key)


def way_along(weights: Sequence[float], term: Faithfulness) -> tuple[AnyObjective, ...]:
    """What is minimized on the way along some λ, one after another."""
    return SquaredError(), *(SquaredError() + weight * term for weight in weights)


def solution_along(
    way: Sequence[AnyObjective], rows: Rows, rank: int, *, solver: AnySolver, start: AnyStart, key: Seed
) -> Solution:
    """The solution of the last of some objectives, each from where the one before it ended."""
    activations = in_jax(rows)
    solution = factorize(activations, rank, objective=way[0], solver=solver, start=start, key=key)
    for objective in way[1:]:
        last = going_on(solution)
        solution = factorize(activations, rank, objective=objective, solver=solver, start=last, key=key)
    return solution


def leading_to(path: Path) -> list[float]:
    """The λ of a path above 0, up to the one that was chosen."""
    return [point.weight for point in path.points[: path.chosen + 1] if point.weight > 0]

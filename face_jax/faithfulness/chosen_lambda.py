"""λ chosen on some of the pictures fitted, by a path on the others, and the way to it on all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..activations import Collected
from ..nmf import Given, Solution, SquaredError, factorize
from ..nmf.options import AnySolver, AnyStart
from ..outputs import Outputs
from ..support.arguments import Seed
from .lambda_path import Part, Path, path_over
from .lambda_units import InSums, Unit
from .rows import faithful_rows
from .term import Faithfulness

# So many parts of the pictures judge in turn the concepts that were learned without them.
FOLDS = 4


def path_judged_on(
    pictures: Collected,
    head: Any,
    crops: Float[np.ndarray, "crop channel"],
    crop_of: Int[np.ndarray, " crop"] | None,
    rank: int,
    *,
    shuffled: Int[np.ndarray, " picture"],
    outputs: Outputs,
    unit: Unit = InSums(),  # noqa: B008 (settings: frozen)
    **settings: Any,
) -> Path:
    """Solutions along λ, each judged on pictures that nothing is learned from, a quarter at a time.

    **Arguments:**

    - `pictures`: those fitted, at least two.
    - `head`: from activations to logits.
    - `crops`: averaged activations of their crops.
    - `crop_of`: for each crop the number of its picture, −1 if that isn't among them; if None, all crops are learned
        from at all times.
    - `rank`: how many concepts.
    - `shuffled`: the numbers of the pictures, in the order in which they are divided.
    - `outputs`: what the logits mean.
    - `unit`: what λ means.
    - `settings`: others of `path_over`.

    **Returns:** the path.
    """
    parts = []
    # Behind another head a fit takes many times as long, and one part judges.
    turns = FOLDS if getattr(head, "affine", False) else 1
    for judged in folds_of(shuffled)[:turns]:
        fitting, judging = pictures[np.setdiff1d(shuffled, judged)], pictures[judged]
        # Of the pictures that judge not even crops are learned from.
        others = crops if crop_of is None else crops[~np.isin(crop_of, judged)]
        rows, term = faithful_rows(fitting.head(head), others, fitting.maps, outputs)
        held_out, held_out_term = faithful_rows(judging.head(head), crops[:0], judging.maps, outputs)
        term, held_out_term = (dataclasses.replace(each, unit=unit) for each in (term, held_out_term))
        parts.append(Part(jnp.asarray(rows), term, jnp.asarray(held_out), held_out_term))
    return path_over(parts, rank, outputs=outputs, **settings)


def folds_of(shuffled: Int[np.ndarray, " picture"]) -> list[Int[np.ndarray, " judge"]]:
    """Which pictures judge together; of the same number, so that programs are compiled once, and some judge never."""
    folds = min(FOLDS, len(shuffled))
    each = len(shuffled) // folds
    return [np.sort(shuffled[fold * each : (fold + 1) * each]) for fold in range(folds)]


def fit_along(
    weights: Sequence[float],
    rows: Float[np.ndarray, "row channel"],
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
    activations = jnp.asarray(rows)
    solution = factorize(activations, rank, solver=solver, start=start, key=key)
    for weight in weights:
        last = Given(solution.codes, solution.dictionary)
        objective = SquaredError() + weight * term
        solution = factorize(activations, rank, objective=objective, solver=solver, start=last, key=key)
    return solution


def leading_to(path: Path) -> list[float]:
    """The λ of a path above 0, up to the one that was chosen."""
    return [point.weight for point in path.points[: path.chosen + 1] if point.weight > 0]

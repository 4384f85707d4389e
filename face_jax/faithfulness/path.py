"""How much faithfulness: solutions along λ, each from the last, and which to take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..choices import native
from ..factorize import ADMM, NNDSVD, Given, Solution, SquaredError, encode, factorize, magnitude, with_terms
from ..metrics import relative_squared_error
from .certify import predictions
from .checks import check_finite, check_weighed
from .losses import SigmoidKL
from .term import Faithfulness, Prepared, Unkept

# Relative to the λ at which both parts of the objective are equally large without the term.
_SHARES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_WORSE = 2  # values of λ in a row that must be worse before larger ones are given up
SOLVER = ADMM(rtol=1e-4, max_steps=60)


@dataclasses.dataclass(frozen=True)
class Point:
    """One λ of a path.

    **Arguments:**

    - `weight`: λ, in the term's unit.
    - `error`, `loss`: relative squared error and mean loss of the images fitted, their codes by non-negative least
        squares.
    - `held_out_error`, `held_out_loss`: the same for the images held out.
    - `agreement`: share of the images held out whose predicted class survives; of several labels (`SigmoidKL`) the
        share of labels that stay on their side of a probability of one half.
    - `objective`, `residual`, `steps`: what the solver says.
    """

    weight: float
    error: float
    loss: float
    held_out_error: float
    held_out_loss: float
    agreement: float
    objective: float
    residual: float
    steps: int


@dataclasses.dataclass(frozen=True)
class Path:
    """Solutions along λ, the first without the term.

    `table()` has the numbers; `face_jax.report.figures.path_figure` draws them for an explanation's page.

    **Arguments:**

    - `points`: one a λ, ascending.
    - `chosen`: the number of the point that was chosen.
    - `solution`: the solution there; None in an explanation that was loaded.
    - `most_error`: the bound on the held-out error, as a factor of the first point's.
    """

    points: tuple[Point, ...]
    chosen: int
    solution: Solution | None
    most_error: float

    @property
    def weight(self) -> float:
        """The λ that was chosen."""
        return self.points[self.chosen].weight

    def table(self) -> list[dict[str, float]]:
        """One row a λ, with what was measured: ready to be drawn, printed or saved."""
        return [dataclasses.asdict(point) for point in self.points]


def faithfulness_path(
    activations: Float[Array, "row channel"],
    rank: int,
    term: Faithfulness,
    held_out: Float[Array, "other channel"],
    *,
    held_out_term: Faithfulness | None = None,
    weights: Sequence[float] | None = None,
    most_error: float = 1.1,
    solver: Any = SOLVER,
    start: Any = None,
    key: Key[Array, ""] | None = None,
) -> Path:
    """Factorizations along λ, warm-started, and the one whose held-out loss is lowest within the bound on its error.

    Both are measured on images held out, encoded by non-negative least squares: the rule that new images meet.

    **Arguments:**

    - `activations`: the rows.
    - `rank`: how many concepts.
    - `term`: the faithfulness.
    - `held_out`: rows of other images to choose by. Score the choice on images that are in neither.
    - `held_out_term`: the term for these, where grouping or weights differ; without weights `term`.
    - `weights`: values of λ, ascending; 0 is put first. By default seven around the one at which squared error and
        term are equally large; larger ones are left out once two in a row made the held-out loss worse.
    - `most_error`: how much larger than without the term the held-out error may become, as a factor.
    - `solver`, `start`, `key`: for `factorize`.

    **Returns:** the path. Raises `ValueError` for values of λ or bounds that make no sense, and before anything is
    factorized for rows that don't fit the terms, terms that weigh no image, predictions that aren't finite, and
    solvers that terms can't be combined with.
    """
    if not math.isfinite(most_error) or most_error < 1:
        raise ValueError(f"most_error={most_error} allows no solution; give a factor of at least 1, such as 1.1")
    if weights is not None:
        known = [float(weight) for weight in weights]
        if not all(math.isfinite(weight) and weight >= 0 for weight in known) or known != sorted(known):
            raise ValueError(f"weights={known} aren't ascending numbers of at least 0; give such as (1e2, 1e3, 1e4)")
    activations = jnp.asarray(native("activations", activations))
    held_out = jnp.asarray(native("held_out", held_out))
    prepared = _prepared(term, activations, "activations")
    held_out_term = dataclasses.replace(term, weights=None) if held_out_term is None else held_out_term
    _prepared(held_out_term, held_out, "held_out")
    with_terms.check_solver(SquaredError() + term, solver)
    key = jax.random.key(0) if key is None else key
    start = NNDSVD() if start is None else start

    solution = factorize(activations, rank, solver=solver, start=start, key=key)
    points = [_point(0.0, solution, activations, term, held_out, held_out_term)]
    chosen, kept, worse = 0, solution, 0
    if weights is None:
        balance = float(solution.stats.final_objective) / max(_total(term, prepared, activations, solution), 1e-12)
        candidates = [share * balance for share in _SHARES]
    else:
        candidates = [float(weight) for weight in weights if weight > 0]
    for weight in candidates:
        solution = factorize(
            activations,
            rank,
            objective=SquaredError() + weight * term,
            solver=solver,
            start=Given(solution.codes, solution.dictionary),
            key=key,
        )
        points.append(_point(weight, solution, activations, term, held_out, held_out_term))
        better = points[-1].held_out_loss < points[chosen].held_out_loss
        if better and points[-1].held_out_error <= most_error * points[0].held_out_error:
            chosen, kept, worse = len(points) - 1, solution, 0
        else:
            worse += 1
        if weights is None and worse >= _WORSE:
            break
    return Path(tuple(points), chosen, kept, most_error)


def _prepared(term: Faithfulness, activations: Float[Array, "row channel"], name: str) -> Prepared | Unkept:
    check_weighed(term, activations, name)
    magnitude.check_beside_terms(activations, name)
    prepared = term.prepare(activations)
    check_finite(prepared.finite, name)
    return prepared


def _total(
    term: Faithfulness, prepared: Prepared | Unkept, activations: Float[Array, "row channel"], solution: Solution
) -> float:
    known = term.recalled(prepared, activations)
    return float(term.value(known, solution.codes, solution.dictionary))


def _point(
    weight: float,
    solution: Solution,
    activations: Float[Array, "row channel"],
    term: Faithfulness,
    held_out: Float[Array, "other channel"],
    held_out_term: Faithfulness,
) -> Point:
    error, loss, _ = _measured(term, activations, solution.dictionary)
    other_error, other_loss, agreement = _measured(held_out_term, held_out, solution.dictionary)
    return Point(
        weight=weight,
        error=error,
        loss=loss,
        held_out_error=other_error,
        held_out_loss=other_loss,
        agreement=agreement,
        objective=float(solution.stats.final_objective),
        residual=float(solution.stats.final_residual),
        steps=int(solution.stats.steps),
    )


def _measured(
    term: Faithfulness, activations: Float[Array, "row channel"], dictionary: Float[Array, "concept channel"]
) -> tuple[float, float, float]:
    """Relative squared error, mean loss and agreement, of the images that the term weighs."""
    codes = encode(activations, dictionary)
    original, rebuilt = predictions(term, activations, codes, dictionary)
    losses = np.asarray(term.loss.values(term.loss.target(original), rebuilt), np.float64)
    original, rebuilt = np.asarray(original), np.asarray(rebuilt)
    if isinstance(term.loss, SigmoidKL):
        same = ((original > 0) == (rebuilt > 0)).mean(axis=-1)
    else:
        same = original.argmax(-1) == rebuilt.argmax(-1)
    weights = np.ones_like(losses) if term.weights is None else np.asarray(term.weights, np.float64)
    counted = np.repeat(weights > 0, term.places)
    error = relative_squared_error(np.asarray(activations)[counted], np.asarray(codes @ dictionary)[counted])
    return error, float(np.average(losses, weights=weights)), float(np.average(same, weights=weights))

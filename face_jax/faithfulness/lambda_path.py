"""The λ path: solutions along λ, each started from the last, and which to take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..nmf import NNDSVD, Given, Solution, SquaredError, factorize
from ..nmf.kept_parts import Keep, kept_in
from ..nmf.options import AnySolver, AnyStart
from ..nmf.options import Kept as Folder
from ..nmf.settings import solver_or, start_or, usual_solver
from ..nmf.validate import matrix, rank_of, value_range
from ..outputs import AnyOutputs, Outputs
from ..support.arguments import Real, Seed, Whole, instance, key_of, real, several
from ..support.fields import counted, elsewhere, within
from ..support.precision import full_precision
from ..support.progress import Progress, silent
from .lambda_points import Part as Part
from .lambda_points import Point as Point
from .lambda_points import point_at, prepared_of, total_of
from .losses import outputs_for
from .term import Faithfulness

# Relative to the λ at which both parts of the objective are equally large without the term.
_SHARES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_WORSE = 2  # values of λ in a row that must be worse before larger ones are given up
# From this share on, values of λ that lower the held-out loss by less than this part of it count as worse: they are the
# ones that take long.
_FELT, _GAIN = 0.3, 0.02
# Of the solver, where none is given.
SETTINGS: Mapping[str, Any] = {"rtol": 1e-4, "max_steps": 60}


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

    points: tuple[Point, ...] = dataclasses.field(metadata=counted("point"))
    chosen: int = dataclasses.field(metadata=within(0, "point"))
    solution: Solution | None = dataclasses.field(metadata=elsewhere())
    most_error: float = dataclasses.field(metadata=within(1))

    def __repr__(self) -> str:
        """What was chosen of what, without arrays; `table()` has the numbers."""
        begun, taken = self.points[0], self.points[self.chosen]
        return (
            f"<Path of {len(self.points)} λ up to {self.points[-1].weight:.3g}: λ={taken.weight:.3g} chosen, held-out "
            f"loss {begun.held_out_loss:.3g} → {taken.held_out_loss:.3g}, held-out error {begun.held_out_error:.3g} → "
            f"{taken.held_out_error:.3g}>"
        )

    @property
    def weight(self) -> float:
        """The λ that was chosen."""
        return self.points[self.chosen].weight

    def table(self) -> list[dict[str, float]]:
        """One row a λ, with what was measured: ready to be drawn, printed or saved."""
        return [dataclasses.asdict(point) for point in self.points]


@full_precision
def faithfulness_path(
    activations: Float[Array, "row channel"],
    rank: Whole,
    term: Faithfulness,
    held_out: Float[Array, "other channel"],
    *,
    held_out_term: Faithfulness | None = None,
    weights: Sequence[float] | None = None,
    most_error: Real = 1.1,
    solver: AnySolver | None = None,
    start: AnyStart | None = None,
    key: Seed = None,
    checkpoint: Folder = None,
    progress: Progress = silent,
    outputs: AnyOutputs | None = None,
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
        term are equally large; larger ones are left out once two in a row made the held-out loss worse, or, from
        0.3 times that λ on, lowered it by less than 2 %.
    - `most_error`: how much larger than without the term the held-out error may become, as a factor.
    - `solver`, `start`, `key`: for `factorize`. The solver is `ADMM(rtol=1e-4, max_steps=60)` by default, or
        `SemiNMF` with these settings if any of the rows, held out or not, is below zero. The start is `NNDSVD()` by
        default, as `explain` has it: only the path's first point uses it, each other one starts from the last.
    - `checkpoint`: a folder in which each λ's solution is kept, so that a path that was killed goes on behind it, and
        ends with the same numbers. What is kept there of other paths is left.
    - `progress`: told after each λ.
    - `outputs`: what the logits mean, for the agreement: `model.outputs`. By default labels with a threshold of one
        half where the loss is `SigmoidKL()`, else exclusive classes.

    **Returns:** the path. Raises `ValueError` for values of λ or bounds that make no sense, and before anything is
    factorized for rows that don't fit the terms, terms that weigh no image, predictions that aren't finite, and
    solvers that terms can't be combined with.

    **Example:**

    >>> path = fj.faithfulness_path(rows[:8], 3, fj.Faithfulness(model.head), rows[8:], weights=[0.0, 10.0])
    >>> [point.weight for point in path.points]
    [0.0, 10.0]
    """
    instance("term", term, Faithfulness, "Faithfulness(model.head)")
    activations = matrix("activations", activations, "row × channel")
    held_out = matrix("held_out", held_out, "row × channel")
    held_out_term = dataclasses.replace(term, weights=None) if held_out_term is None else held_out_term
    return path_over(
        [Part(activations, term, held_out, held_out_term)], rank, weights=weights, most_error=most_error,
        solver=solver, start=start, key=key, progress=progress, outputs=outputs, keep=kept_in(checkpoint),
    )  # fmt: skip


def path_over(
    parts: Sequence[Part],
    rank: Whole,
    *,
    weights: Sequence[float] | None = None,
    most_error: Real = 1.1,
    solver: AnySolver | None = None,
    start: AnyStart | None = None,
    key: Seed = None,
    progress: Progress = silent,
    outputs: AnyOutputs | None = None,
    keep: Keep = Keep(),  # noqa: B008 (settings: frozen)
) -> Path:
    """`faithfulness_path` by several fits, which are judged together: each λ by the means over the parts.

    **Arguments:**

    - `parts`: what is fitted and what judges; parts of about the same size.
    - `keep`: keeps solutions as they are found.
    - the others: as there.

    **Returns:** the path; the solution is that of the last part.
    """
    rank, solver = rank_of(rank), solver_or(None, solver)
    most_error = real("most_error", most_error, "factor")
    if most_error < 1:
        raise ValueError(f"most_error={most_error} allows no solution; give a factor of at least 1, such as 1.1")
    known = None if weights is None else _ascending(weights)
    prepared = [prepared_of(part.term, part.activations, "activations") for part in parts]
    for part in parts:
        prepared_of(part.held_out_term, part.held_out, "held_out")
    if solver is None:
        every: list[Any] = [rows for part in parts for rows in (part.activations, part.held_out)]
        lowest = min(value_range(rows)[0] for rows in every)
        solver = usual_solver(signed=lowest < 0, **SETTINGS)
    solver.check_terms(SquaredError() + parts[0].term)
    outputs = outputs_for(parts[0].term.loss) if outputs is None else outputs
    instance("outputs", outputs, Outputs, "MultiClass() or MultiLabel()")
    key, start = key_of(key), start_or(NNDSVD(), start)

    every_term = [(part.term, part.held_out_term) for part in parts]
    keep = keep.of([part.activations for part in parts], every_term, solver, start, key, rank)
    plain = lambda part: factorize(part.activations, rank, solver=solver, start=start, key=key)  # noqa: E731
    solutions = [keep.solution([at, 0.0], partial(plain, part)) for at, part in enumerate(parts)]
    points = [point_at(0.0, solutions, parts, outputs)]
    chosen, kept, worse = 0, solutions[-1], 0
    if known is None:
        totals = [total_of(*each) for each in zip(parts, prepared, solutions, strict=True)]
        balance = sum(float(each.stats.final_objective) for each in solutions) / max(sum(totals), 1e-12)
        candidates = [share * balance for share in _SHARES]
    else:
        balance = 0.0
        candidates = [weight for weight in known if weight > 0]
    way: list[float] = [0.0]
    with progress("Comparing λ", len(candidates)) as advance:
        for weight in candidates:
            way.append(weight)
            for at, part in enumerate(parts):
                objective, last = SquaredError() + weight * part.term, going_on(solutions[at])
                settings: Any = {"objective": objective, "solver": solver, "start": last, "key": key}
                solutions[at] = keep.solution([at, *way], partial(factorize, part.activations, rank, **settings))
            advance(1)
            points.append(point_at(weight, solutions, parts, outputs))
            best = points[chosen].held_out_loss
            gained = best - points[-1].held_out_loss
            if gained > 0 and points[-1].held_out_error <= most_error * points[0].held_out_error:
                chosen, kept = len(points) - 1, solutions[-1]
                worse = worse + 1 if weight >= _FELT * balance and gained < _GAIN * best else 0
            else:
                worse += 1
            if weights is None and worse >= _WORSE:
                break
    return Path(tuple(points), chosen, kept, most_error)


def going_on(solution: Solution) -> Given:
    """The start at another solution."""
    if isinstance(solution.codes, np.ndarray):
        # Of rows in blocks: they may be more than memory.
        return Given(solution.codes, jnp.asarray(np.asarray(solution.dictionary)))
    # Results of heads whose numbers lie on a device for good do so too, and would be compiled for anew.
    return Given(*(jnp.asarray(np.asarray(each)) for each in (solution.codes, solution.dictionary)))


def _ascending(weights: Sequence[Real]) -> list[float]:
    known = [real("weights", weight, "list of λ") for weight in several("weights", weights, "λ")]
    if not all(weight >= 0 for weight in known) or known != sorted(known):
        raise ValueError(f"weights={known} aren't ascending numbers of at least 0; give such as (1e2, 1e3, 1e4)")
    return known

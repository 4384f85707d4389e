"""Crops become concepts: the factorization of an explanation, with the faithfulness that was asked for."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..faithfulness import Path, faithful_rows
from ..faithfulness.chosen_lambda import path_judged_on, start_along
from ..faithfulness.lambda_path import SETTINGS as FAITHFUL
from ..nmf import NNDSVD, RankScan, Solution, SquaredError, encode, factorize, rank_scan
from ..nmf.options import AnyObjective, AnySolver, AnyStart
from ..nmf.rank_choice import SETTINGS as OF_RANKS
from ..nmf.settings import usual_solver
from ..outputs import MultiClass, Outputs
from ..support.progress import Progress, Stopwatch
from . import checks
from .material import Keys, Material
from .selection import split


@dataclasses.dataclass(frozen=True)
class Fitted:
    """A factorization and what it was made of.

    **Arguments:**

    - `rows`: what was factorized: crops, behind them or in their place what the term needs.
    - `objective`, `solver`, `start`: what was minimized, how, and from where.
    - `solution`: the factors.
    - `crop_codes`: of the crops.
    - `path`: how λ was chosen, if it was.
    """

    rows: Float[np.ndarray, "row channel"]
    objective: AnyObjective
    solver: AnySolver
    start: AnyStart
    solution: Solution
    crop_codes: Float[np.ndarray, "crop concept"]
    path: Path | None


def fit(
    head: Any,
    material: Material,
    rank: int,
    *,
    faithfulness: float | Literal["auto"] | None,
    objective: AnyObjective | None,
    signed: bool,
    solver: AnySolver | None,
    start: AnyStart | None,
    keys: Keys,
    progress: Progress,
    stopwatch: Stopwatch,
    outputs: Outputs = MultiClass(),  # noqa: B008 (settings: frozen)
) -> Fitted:
    """Concepts of crops that also keep what the head says of the pictures, if that was asked for.

    **Arguments:**

    - `head`: from activations to logits.
    - `material`: the crops, and the pictures whose predictions are kept.
    - `rank`: how many concepts.
    - `faithfulness`: λ, or `"auto"`, or None for none.
    - `signed`: whether concepts may have entries below zero.
    - `objective`, `solver`, `start`: for `factorize`; the usual ones if None.
    - `keys`: from `keys_of`.
    - `progress`, `stopwatch`: told how far it is, and what the time went into.
    - `outputs`: what the logits mean.

    **Returns:** the factorization.
    """
    objective = SquaredError() if objective is None else objective
    if solver is None:
        solver = usual_solver(signed=signed, **({} if faithfulness is None else FAITHFUL))
    start = first = NNDSVD() if start is None else start
    crops = material.pictures.crop_activations
    rows, path = crops, None
    with stopwatch("factorization"), progress("Factorizing", 1) as advance:
        if faithfulness is not None:
            rows, term = faithful_rows(material.fitted.head(head), crops, material.fitted.maps, outputs)
            if faithfulness == "auto":
                with stopwatch("choice of the faithfulness"):
                    path = _path(head, material, rank, solver, start, keys, progress, outputs)
                first = start_along(path, rows, start)
            objective = SquaredError() + (float(faithfulness) if path is None else path.weight) * term
        solution = factorize(
            jnp.asarray(rows), rank, objective=objective, solver=solver, start=first, key=keys["start"]
        )
        crop_codes = np.asarray(solution.codes)[: len(crops)]
        if not (getattr(head, "affine", False) or faithfulness is None):
            # The rows were places of pictures, in the crops' place.
            crop_codes = np.asarray(encode(jnp.asarray(crops), solution.dictionary))
        advance(1)
    return Fitted(rows, objective, solver, start, solution, crop_codes, path)


def choose_rank(
    rank: int | Literal["auto"],
    rows: Float[np.ndarray, "crop channel"],
    *,
    signed: bool,
    key: Key[Array, ""],
    progress: Progress,
    stopwatch: Stopwatch,
) -> tuple[int, RankScan | None]:
    """How many concepts, and the scan that says so where that is left to it."""
    if rank != "auto":
        return rank, None
    with stopwatch("choice of the rank"), progress("Comparing ranks", 1) as advance:
        ranks = [candidate for candidate in checks.RANKS if candidate <= min(rows.shape)]
        # By the signs of all that is explained, of which the rows are averages.
        scan = rank_scan(jnp.asarray(rows), ranks, key=key, solver=usual_solver(signed=signed, **OF_RANKS))
        advance(1)
    return scan.suggested, scan


def _path(
    head: Any,
    material: Material,
    rank: int,
    solver: AnySolver,
    start: AnyStart,
    keys: Keys,
    progress: Progress,
    outputs: Outputs,
) -> Path:
    """Solutions along λ, judged on a quarter of the pictures fitted; those held out are for the scores alone."""
    pictures = material.fitted
    if len(pictures) < 2:
        raise ValueError(
            'faithfulness="auto" chooses λ on some of the pictures, and there is only one; give λ as a number, such as '
            "faithfulness=1e3, or more photographs"
        )
    learned, judged = split(len(pictures), 0.25, key=jax.random.fold_in(keys["controls"], 1))
    # Of the pictures that judge not even crops are learned from.
    crops = material.pictures.crop_activations
    others = crops[~np.isin(material.crop_of, material.index[judged])]
    settings: dict[str, Any] = {"solver": solver, "start": start, "key": keys["start"], "progress": progress}
    return path_judged_on(pictures, learned, judged, head, others, rank, outputs=outputs, **settings)

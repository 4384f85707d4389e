"""Crops become concepts: the factorization of an explanation, with the faithfulness that was asked for."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..activations import Collected
from ..faithfulness import Path, faithful_rows, faithfulness_path
from ..faithfulness.path import SOLVER as FAITHFUL_SOLVER
from ..nmf import ADMM, NNDSVD, Given, Solution, SquaredError, encode, factorize
from ..support.progress import Progress, Stopwatch, silent
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
    objective: Any
    solver: Any
    start: Any
    solution: Solution
    crop_codes: Float[np.ndarray, "crop concept"]
    path: Path | None


def fit(
    head: Any,
    crops: Float[np.ndarray, "crop channel"],
    crop_of: Int[np.ndarray, " crop"],
    pictures: Collected,
    numbers: Int[np.ndarray, " image"],
    rank: int,
    *,
    faithfulness: float | Literal["auto"] | None,
    objective: Any,
    solver: Any,
    start: Any,
    key: Key[Array, ""],
    path_key: Key[Array, ""],
    progress: Progress = silent,
    stopwatch: Stopwatch | None = None,
) -> Fitted:
    """Concepts of crops that also keep what the head says of the pictures, if that was asked for.

    **Arguments:**

    - `head`: from activations to logits.
    - `crops`: averaged activations, and `crop_of` the number of the picture that each is a part of.
    - `pictures`: whose predictions are kept, and `numbers` theirs.
    - `rank`: how many concepts.
    - `faithfulness`: λ, or `"auto"`, or None for none.
    - `objective`, `solver`, `start`: for `factorize`; the usual ones if None.
    - `key`: for the start; `path_key`: for the pictures that λ is judged on.
    - `progress`, `stopwatch`: told how far the choice of λ is, and its time.

    **Returns:** the factorization.
    """
    objective = SquaredError() if objective is None else objective
    solver = (ADMM() if faithfulness is None else FAITHFUL_SOLVER) if solver is None else solver
    start = first = NNDSVD() if start is None else start
    rows, path = crops, None
    if faithfulness is not None:
        rows, term = faithful_rows(head, crops, pictures.maps)
        if faithfulness == "auto":
            with nullcontext() if stopwatch is None else stopwatch("choice of the faithfulness"):
                path = _path(head, crops, crop_of, pictures, numbers, rank, solver, start, key, path_key, progress)
            if path.solution is not None and path.weight > 0:
                # At a large λ it is a long way from anywhere else.
                known = path.solution.dictionary
                first = Given(encode(jnp.asarray(rows), known), known)
        objective = SquaredError() + (float(faithfulness) if path is None else path.weight) * term
    solution = factorize(jnp.asarray(rows), rank, objective=objective, solver=solver, start=first, key=key)
    crop_codes = np.asarray(solution.codes)[: len(crops)]
    if not (getattr(head, "affine", False) or faithfulness is None):
        # The rows were places of pictures, in the crops' place.
        crop_codes = np.asarray(encode(jnp.asarray(crops), solution.dictionary))
    return Fitted(rows, objective, solver, start, solution, crop_codes, path)


def _path(
    head: Any,
    crops: Float[np.ndarray, "crop channel"],
    crop_of: Int[np.ndarray, " crop"],
    pictures: Collected,
    numbers: Int[np.ndarray, " image"],
    rank: int,
    solver: Any,
    start: Any,
    key: Key[Array, ""],
    path_key: Key[Array, ""],
    progress: Progress,
) -> Path:
    """Solutions along λ, judged on a quarter of the pictures fitted; those held out are for the scores alone."""
    if len(pictures) < 2:
        raise ValueError(
            'faithfulness="auto" chooses λ on some of the pictures, and there is only one; give λ as a number, such as '
            "faithfulness=1e3, or more photographs"
        )
    learned, judged = split(len(pictures), 0.25, key=path_key)
    # Of the pictures that judge not even crops are learned from.
    others = crops[~np.isin(crop_of, numbers[judged])]
    rows, term = faithful_rows(head, others, pictures.maps[learned])
    held_out, held_out_term = faithful_rows(head, crops[:0], pictures.maps[judged])
    return faithfulness_path(
        jnp.asarray(rows),
        rank,
        term,
        jnp.asarray(held_out),
        held_out_term=held_out_term,
        solver=solver,
        start=start,
        key=key,
        progress=progress,
    )

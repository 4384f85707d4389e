"""Concepts of other activations, found as an explanation's were: with its own λ where it has one."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Array, Float, Key

from ..activations import Collected
from ..blocks.room import mapped_by_parts, squares
from ..explanation.record import Explanation
from ..faithfulness.chosen_lambda import fit_along, leading_to
from ..faithfulness.lambda_path import SETTINGS as FAITHFUL
from ..faithfulness.rows import in_jax, rows_where_they_lie, streamed
from ..heads.scaled import scaled
from ..model import SplitModel
from ..nmf import SquaredError, factorize
from ..nmf.options import AnySolver, AnyStart
from ..nmf.settings import usual_objective, usual_solver


def refitted(
    explanation: Explanation,
    model: SplitModel,
    crops: Float[np.ndarray, "crop channel"],
    pictures: Collected,
    *,
    places: Float[np.ndarray, "row channel"] | None,
    solver: AnySolver | None,
    signed: bool,
    start: AnyStart,
    key: Key[Array, ""],
) -> Float[np.ndarray, "concept channel"]:
    """Concepts of the same photographs in another model, which may have forgotten everything: it then has none.

    **Arguments:**

    - `explanation`: how it was fitted: λ and those on the way to it; none for a preset's, and for an objective of one's
        own, whose term isn't known.
    - `model`: the other model.
    - `crops`, `pictures`: what it makes of the explanation's crops, averaged, and of the pictures fitted.
    - `places`: of the photographs, where concepts are found at these; else None.
    - `solver`: for `factorize`; if None the usual one, by `signed`.
    - `start`, `key`: for `factorize`.
    """
    rank, largest = len(explanation.dictionary), float(max(crops.max(initial=0), -crops.min(initial=0)))
    if not largest > 0:
        return np.zeros((rank, crops.shape[1]), crops.dtype)
    # Untrained layers shrink activations by many orders of magnitude; concepts don't depend on their unit, which is a
    # power of two so that no digit changes.
    unit = float(2.0 ** np.round(np.log2(largest)))

    def divided(array: np.ndarray) -> np.ndarray:
        return mapped_by_parts(array, array.shape[-1], lambda some: some / unit)

    weights = _weights(explanation, model, crops, pictures)
    if not weights:
        solver = usual_solver(signed=signed) if solver is None else solver
        rows = streamed(divided(crops if places is None else places))
        error = usual_objective(rows, rank, signed=places is not None)
        found = factorize(in_jax(rows), rank, objective=error, solver=solver, start=start, key=key)
        return np.asarray(found.dictionary)
    head = pictures.head(scaled(model.head, unit))
    rows, term = rows_where_they_lie(head, divided(crops), divided(pictures.maps), model.outputs)
    solver = usual_solver(signed=signed, **FAITHFUL) if solver is None else solver
    weights = [weight / unit**2 for weight in weights]
    settings: dict[str, Any] = {"solver": solver, "start": start, "key": key}
    if explanation.fit.path is None:
        objective = SquaredError() + weights[-1] * term
        return np.asarray(factorize(in_jax(rows), rank, objective=objective, **settings).dictionary)
    return np.asarray(fit_along(weights, rows, rank, term, **settings).dictionary)


def _weights(
    explanation: Explanation, model: SplitModel, crops: Float[np.ndarray, "crop channel"], pictures: Collected
) -> list[float]:
    """λ on the way to the explanation's, each weighing as much beside activations of another size; none without."""
    settings, path = explanation.provenance.settings, explanation.fit.path
    chosen = settings.faithfulness
    if settings.preset is not None or isinstance(chosen, (bool, tuple)) or chosen == 0:
        return []
    _, term = rows_where_they_lie(pictures.head(model.head), crops, pictures.maps, model.outputs)
    if repr(SquaredError() + chosen * term) != settings.objective:
        # An objective of one's own, with another loss or other settings.
        return []
    size, own = squares(crops), squares(explanation.pictures.crop_activations)
    return [weight * size / own for weight in ([chosen] if path is None else leading_to(path))]

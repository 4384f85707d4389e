"""Certificates of a solution: each image's divergence, its bounds, and their quantiles."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..heads.beside import of_pictures
from ..metrics import Certificates, certificates, relative_squared_error
from ..nmf import Objective, Solution, SquaredError, encode
from ..nmf.validate import finite, matrix, squared_error
from ..outputs import AnyOutputs, Outputs
from ..support.arguments import instance
from ..support.precision import full_precision
from .checks import check_finite
from .losses import outputs_for
from .term import Faithfulness, check_weighed

QUANTILES = (0.1, 0.5, 0.9, 0.99, 1.0)


@dataclasses.dataclass(frozen=True)
class Certified:
    """Certificates of the images fitted and of images held out.

    **Arguments:**

    - `fitted`, `held_out`: image by image, those that the term weighs; `held_out` is None if there were none.
    - `fitted_error`, `held_out_error`: `‖A − UWᵀ‖² / ‖A‖²` of these images' rows.
    """

    fitted: Certificates
    held_out: Certificates | None
    fitted_error: float
    held_out_error: float | None

    def table(self) -> list[dict[str, float | str]]:
        """One row a quantity and set of images: mean and quantiles (0.1, 0.5, 0.9, 0.99, 1)."""
        rows = []
        for images, found in (("fitted", self.fitted), ("held out", self.held_out)):
            if found is None:
                continue
            for name in ("kl", "l1", "pinsker", "bretagnolle_huber", "agreement"):
                values = getattr(found, name).astype(np.float64)
                quantiles = dict(zip(map(str, QUANTILES), np.quantile(values, QUANTILES).tolist(), strict=True))
                rows.append({"images": images, "quantity": name, "mean": float(values.mean()), **quantiles})
        return rows


@full_precision
def certify(
    term: Faithfulness,
    activations: Float[Array, "row channel"],
    solution: Solution,
    *,
    held_out: Float[Array, "other channel"] | None = None,
    objective: Objective = SquaredError(),  # noqa: B008 (settings: frozen)
    outputs: AnyOutputs | None = None,
) -> Certified:
    """Certificates of a solution: per-image KL, L1, both bounds and agreement, fitted and held out.

    Rows are encoded by non-negative least squares, the rule by which new images are encoded too; with a term in
    `objective` faithfully, as `encode` does then, which asks the head about every image that is encoded.

    **Arguments:**

    - `term`: whose head predicts, and which says what an image is. Images fitted to which it gives no weight are left
        out, such as crops that stand beside pictures.
    - `activations`: the rows that were fitted.
    - `solution`: their factorization.
    - `held_out`: rows of other images, all of which count.
    - `objective`: what codes minimize; without weights of rows or images, which belong to one set of rows.
    - `outputs`: what the logits mean, `model.outputs`. By default labels with a threshold of one half where the term's
        loss is `SigmoidKL()`, else exclusive classes.

    **Returns:** certificates with quantiles. Raises `ValueError` for rows that don't fit the term; for a term that
    weighs no image; and for predictions that aren't finite.

    **Example:**

    >>> term = fj.Faithfulness(model.head)
    >>> found = fj.factorize(rows, 3, objective=fj.SquaredError() + 10.0 * term)
    >>> fj.certify(term, rows, found).fitted.kl.shape
    (12,)
    """
    if not isinstance(term, Faithfulness):
        raise ValueError(f"term is a {type(term).__name__}; give a Faithfulness, such as Faithfulness(model.head)")
    instance("solution", solution, Solution, "the result of factorize")
    outputs = outputs_for(term.loss) if outputs is None else outputs
    instance("outputs", outputs, Outputs, "MultiClass() or MultiLabel()")
    squared_error(objective)
    sets = {"activations": (term, matrix("activations", activations, "row × channel"))}
    if held_out is not None:
        if _weighs(objective):
            raise ValueError(
                "objective has weights of rows, entries or images, which belong to one set of rows; certify "
                "activations and held_out in two calls, each with its own"
            )
        sets["held_out"] = (dataclasses.replace(term, weights=None), matrix("held_out", held_out, "row × channel"))
    for name, (one, rows) in sets.items():
        finite(name, rows)
        check_weighed(one, rows, name)
    found = [_certified(one, rows, name, solution.dictionary, objective, outputs) for name, (one, rows) in sets.items()]
    (fitted, error), (other, other_error) = found if held_out is not None else (*found, (None, None))
    return Certified(fitted, other, error, other_error)


def _weighs(objective: Objective) -> bool:
    terms = [weighted.term for weighted in objective.terms]
    every = (objective.weights, objective.row_weights, *(getattr(term, "weights", None) for term in terms))
    return any(weights is not None for weights in every)


def _certified(
    term: Faithfulness,
    activations: Float[Array, "row channel"],
    name: str,
    dictionary: Float[Array, "concept channel"],
    objective: Objective,
    outputs: Outputs,
) -> tuple[Certificates, float]:
    codes = encode(activations, dictionary, objective=objective)
    if term.weights is not None:
        counted = np.repeat(np.asarray(term.weights) > 0, term.places)
        activations, codes = activations[counted], codes[counted]
        term = dataclasses.replace(term, head=of_pictures(term.head, np.asarray(term.weights) > 0))
    original, rebuilt = predictions(dataclasses.replace(term, weights=None), activations, codes, dictionary)
    check_finite(jnp.isfinite(original).all(axis=1), name)
    check_finite(jnp.isfinite(rebuilt).all(axis=1), f"{name} rebuilt from concepts")
    error = relative_squared_error(np.asarray(activations), np.asarray(codes @ dictionary))
    return certificates(np.asarray(original), np.asarray(rebuilt), outputs), error


@jax.jit
def predictions(
    term: Faithfulness,
    activations: Float[Array, "row channel"],
    codes: Float[Array, "row concept"],
    dictionary: Float[Array, "concept channel"],
) -> tuple[Float[Array, "image class"], Float[Array, "image class"]]:
    """Logits of the activations and of what the concepts rebuild."""
    return term.logits(jnp.asarray(activations)), term.rebuilt(codes, dictionary)

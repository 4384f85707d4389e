"""The conditions of optimality as equations that can be differentiated, and where they can't be.

`U ≥ 0`, `Λ = ∂f/∂U ≥ 0`, `Λ ∘ U = 0`, and the same for W: for the squared error `Λ_U = (U Wᵀ − A) W` (CRAFT, Fel et
al. 2023, eq. 11). All is written against the objective's gradient, whatever the objective is made of.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ..linalg.steps import coordinate_step, positive
from ..objective import PENALTIES, WEIGHTS, Objective, SquaredError

Activations = Float[Array, "row channel"]
Codes = Float[Array, "row concept"]
Dictionary = Float[Array, "concept channel"]


@jax.jit
def at_scale(codes: Codes, dictionary: Dictionary, scale: Float[Array, " concept"]) -> tuple[Codes, Dictionary]:
    """The factors as the objective sees them."""
    safe = positive(scale)
    return jnp.where((scale > 0)[None], codes / safe[None], 0), dictionary * scale[:, None]


def in_dtype(objective: Objective, dtype: jnp.dtype) -> Objective:
    """The objective with its own numbers in the activations' dtype."""
    numbers: dict[str, Any] = {name: getattr(objective, name) for name in (*WEIGHTS, *PENALTIES)}
    cast: dict[str, Any] = {
        name: None if value is None else jnp.asarray(value).astype(dtype) for name, value in numbers.items()
    }
    terms = tuple(dataclasses.replace(part, weight=jnp.asarray(part.weight).astype(dtype)) for part in objective.terms)
    return SquaredError(**cast).with_terms(terms)


def gradient(
    objective: Objective, activations: Activations, codes: Codes, dictionary: Dictionary
) -> tuple[Codes, Dictionary]:
    """Of the squared error and all terms, with respect to codes and dictionary."""
    slopes = objective.quadratic.gradient(activations, codes, dictionary)
    for part in objective.terms:
        known = part.term.recalled(part.term.prepare(activations), activations)
        more = part.term.gradient(known, codes, dictionary)
        slopes = (slopes[0] + part.weight * more[0], slopes[1] + part.weight * more[1])
    return slopes


def is_plain(objective: Objective) -> bool:
    """Whether all rows see one and the same Gram matrix: no terms, no weights of single entries."""
    return not objective.terms and objective.weights is None


def equations(
    objective: Objective, activations: Activations, codes: Codes, dictionary: Dictionary
) -> tuple[Codes, Dictionary]:
    """The gradient; if the objective is plain, a row's equation isn't multiplied with the row's weight.

    That changes nothing for a positive weight, and keeps the codes of a row of weight 0, which follow from the
    dictionary as in `encode`, defined.
    """
    slopes = gradient(objective, activations, codes, dictionary)
    if not is_plain(objective) or objective.row_weights is None:
        return slopes
    unweighted = dataclasses.replace(objective, row_weights=None)
    return gradient(unweighted, activations, codes, dictionary)[0], slopes[1]


def curvatures(
    objective: Objective, codes: Codes, dictionary: Dictionary, *, rows_weighted: bool
) -> tuple[Float[Array, "_ concept"], Float[Array, "concept _"]]:
    """The second derivative along every single entry, terms left out; an axis of length 1 where all are equal.

    With `rows_weighted` of the objective itself, otherwise without the rows' weights in the codes' part.
    """
    rows = None if objective.row_weights is None else objective.row_weights[:, None]
    squares = codes**2 if rows is None else codes**2 * rows
    if objective.weights is None:
        of_codes = jnp.sum(dictionary**2, axis=1)[None]
        of_dictionary = jnp.sum(squares, axis=0)[:, None]
    else:
        of_codes = objective.weights @ (dictionary**2).T
        of_dictionary = squares.T @ objective.weights
    of_codes = of_codes + objective.l2_codes
    if rows is not None and rows_weighted:
        of_codes = of_codes * rows
    return of_codes, of_dictionary + objective.l2_dictionary


def targets(
    objective: Objective,
    activations: Activations,
    codes: Codes,
    dictionary: Dictionary,
    *,
    signed_dictionary: bool,
) -> tuple[Codes, Dictionary]:
    """Where each entry would be without its bound, the others standing still.

    Positive for free entries, negative for those that the bound holds; zero is the kink, where the two meet and the
    solution has no derivative. A signed dictionary has no kinks: infinite.
    """
    slopes = equations(objective, activations, codes, dictionary)
    of_codes, of_dictionary = curvatures(objective, codes, dictionary, rows_weighted=not is_plain(objective))
    wanted = coordinate_step(codes, slopes[0], of_codes, signed=True)
    if signed_dictionary:
        return wanted, jnp.full_like(dictionary, jnp.inf)
    return wanted, coordinate_step(dictionary, slopes[1], of_dictionary, signed=True)


def free(
    wanted: tuple[Codes, Dictionary], codes: Codes, dictionary: Dictionary, *, signed_dictionary: bool
) -> tuple[Bool[Array, "row concept"], Bool[Array, "concept channel"]]:
    """The entries that move with the activations: positive, and not about to be zero.

    The second half matters for rules that come near zero without reaching it. At the kink an entry of zero stays
    there: the one-sided derivative towards the inside of the zero set.
    """
    of_dictionary = jnp.ones_like(dictionary, bool) if signed_dictionary else (dictionary > 0) & (wanted[1] > 0)
    return (codes > 0) & (wanted[0] > 0), of_dictionary

"""The conditions of optimality as equations that can be differentiated, and where they can't be.

`U ≥ 0`, `Λ = ∂f/∂U ≥ 0`, `Λ ∘ U = 0`, and the same for W: for the squared error `Λ_U = (U Wᵀ − A) W` (CRAFT, Fel et
al. 2023, eq. 11). All is written against the objective's gradient, whatever the objective is made of.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...linalg.stored_matrix import Difference, StoredMatrix
from ...support.scaling import positive
from ..objective import Objective
from ..shapes import Activations, Codes, Dictionary, Factors, Masks, Number, Scalar
from ..steps import coordinate_step


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("activations", "objective", "rtol"),
    meta_fields=("signed_dictionary",),
)
@dataclasses.dataclass(frozen=True)
class Conditions:
    """What a solution has to fulfil, as functions of the factors at the scale that the objective sees.

    **Arguments:**

    - `activations`, `objective`: what was factorized, and what was minimized; of sparse ones a plain objective.
    - `rtol`: how exactly linear systems with the conditions' derivative are solved.
    - `signed_dictionary`: whether the dictionary may be negative.
    """

    activations: Activations | StoredMatrix
    objective: Objective
    rtol: Scalar = 1e-6
    signed_dictionary: bool = False

    @property
    def in_dtype(self) -> Conditions:
        """The same with the objective's own numbers in the activations' dtype."""
        return dataclasses.replace(self, objective=self.objective.in_dtype(self.activations.dtype))

    @property
    def dense(self) -> Activations:
        """The activations, for what sparse ones never come to: terms, and other units."""
        assert not isinstance(self.activations, StoredMatrix)
        return self.activations

    @property
    def plain(self) -> bool:
        """Whether all rows see one and the same Gram matrix: no terms, no weights of single entries, no divergence."""
        objective = self.objective
        return objective.squared_error and not objective.terms and objective.weights is None

    def entries(self, factors: Factors) -> Activations | None:
        """What each entry weighs in a quadratic model of the misfit at these factors; None if all count once."""
        objective = self.objective
        if objective.squared_error:
            return objective.weights
        return objective.fit.curvature(self.activations, factors[0] @ factors[1])

    def gradient(self, factors: Factors) -> Factors:
        """Of the squared error and all terms, with respect to codes and dictionary."""
        if isinstance(self.activations, StoredMatrix):
            return self._gradient_of_stored(*factors)
        slopes = self.objective.fit.gradient(self.activations, *factors)
        for part in self.objective.terms:
            known = part.term.recalled(part.term.prepare(self.activations), self.activations)
            more = part.term.gradient(known, *factors)
            slopes = (slopes[0] + part.weight * more[0], slopes[1] + part.weight * more[1])
        return slopes

    def _gradient_of_stored(self, codes: Codes, dictionary: Dictionary) -> Factors:
        objective, misfit = self.objective, self.misfit((codes, dictionary))
        of_codes = (dictionary @ misfit.T).T + objective.l1_codes + objective.l2_codes * codes
        if objective.row_weights is not None:
            codes, of_codes = (x * objective.row_weights[:, None] for x in (codes, of_codes))
        return of_codes, codes.T @ misfit + objective.l1_dictionary + objective.l2_dictionary * dictionary

    def misfit(self, factors: Factors) -> Activations | Difference:
        """`U Wᵀ − A`; of sparse activations what has its products."""
        if isinstance(self.activations, StoredMatrix):
            return Difference(*factors, self.activations)
        return factors[0] @ factors[1] - self.activations

    @property
    def size(self) -> Number:
        """What the objective's `fit` says is the activations'."""
        if isinstance(self.activations, StoredMatrix):
            return self.activations.squares(self.objective.row_weights)
        return self.objective.fit.size(self.activations)

    def equations(self, factors: Factors) -> Factors:
        """The gradient; if the objective is plain, a row's equation isn't multiplied with the row's weight.

        That changes nothing for a positive weight, and keeps the codes of a row of weight 0, which follow from the
        dictionary as in `encode`, defined.
        """
        slopes = self.gradient(factors)
        if not self.plain or self.objective.row_weights is None:
            return slopes
        unweighted = dataclasses.replace(self.objective, row_weights=None)
        return dataclasses.replace(self, objective=unweighted).gradient(factors)[0], slopes[1]

    def equations_on(self, masks: Masks, factors: Factors) -> Factors:
        """Zero at a solution; entries that aren't free have the equation `x = 0`."""
        return on(masks, self.equations(on(masks, factors)), factors)

    def curvatures(self, factors: Factors, *, rows_weighted: bool) -> tuple[Float[Array, "_ _"], Float[Array, "_ _"]]:
        """The second derivative along every single entry, terms left out; an axis of length 1 where all are equal.

        With `rows_weighted` of the objective itself, otherwise without the rows' weights in the codes' part.
        """
        (codes, dictionary), objective = factors, self.objective
        rows = None if objective.row_weights is None else objective.row_weights[:, None]
        squares = codes**2 if rows is None else codes**2 * rows
        entries = self.entries(factors)
        if entries is None:
            of_codes = jnp.sum(dictionary**2, axis=1)[None]
            of_dictionary = jnp.sum(squares, axis=0)[:, None]
        else:
            of_codes = entries @ (dictionary**2).T
            of_dictionary = squares.T @ entries
        of_codes = of_codes + objective.l2_codes
        if rows is not None and rows_weighted:
            of_codes = of_codes * rows
        return of_codes, of_dictionary + objective.l2_dictionary

    def targets(self, factors: Factors) -> Factors:
        """Where each entry would be without its bound, the others standing still.

        Positive for free entries, negative for those that the bound holds; zero is the kink, where the two meet and the
        solution has no derivative. A signed dictionary has no kinks: infinite.
        """
        slopes = self.equations(factors)
        curved = self.curvatures(factors, rows_weighted=not self.plain)
        wanted = coordinate_step(factors[0], slopes[0], curved[0], signed=True)
        if self.signed_dictionary:
            return wanted, jnp.full_like(factors[1], jnp.inf)
        return wanted, coordinate_step(factors[1], slopes[1], curved[1], signed=True)

    def free(self, factors: Factors) -> Masks:
        """The entries that move with the activations: positive, and not about to be zero.

        The second half matters for rules that come near zero without reaching it. At the kink an entry of zero stays
        there: the one-sided derivative towards the inside of the zero set.
        """
        (codes, dictionary), wanted = factors, self.targets(factors)
        every = self.signed_dictionary
        of_dictionary = jnp.ones_like(dictionary, bool) if every else (dictionary > 0) & (wanted[1] > 0)
        return (codes > 0) & (wanted[0] > 0), of_dictionary


def on(masks: Masks, factors: Factors, elsewhere: tuple[Any, Any] = (0, 0)) -> Factors:
    """The factors where the masks are true, else zero, or what's given."""
    return jnp.where(masks[0], factors[0], elsewhere[0]), jnp.where(masks[1], factors[1], elsewhere[1])


@jax.jit
def at_scale(codes: Codes, dictionary: Dictionary, scale: Float[Array, " concept"]) -> Factors:
    """The factors as the objective sees them."""
    safe = positive(scale)
    return jnp.where((scale > 0)[None], codes / safe[None], 0), dictionary * scale[:, None]

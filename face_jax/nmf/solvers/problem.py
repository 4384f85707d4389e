"""A factorization of the squared error, as the functions of the factors that the loop needs."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jaxtyping import Array, Bool

from ...linalg.control_flow import cond
from ..objective import SquaredError
from ..shapes import Activations, CodesT, Dictionary, Gram, Number, Scalar
from ..steps import coordinate_step, ridged, share, sweep
from .passes import Sums, Update, pass_over, squared_error
from .rule import Iterate, Memory, UpdateRule

# Of ‖A‖²: what is less isn't taken from sums of that size, whose rounding in float32 is 1e-6 of it with many rows.
_SMALL_FIT = 0.1


@dataclasses.dataclass(frozen=True)
class Problem:
    """Activations, objective and rule, with the steps and measures that the loop needs."""

    activations: Activations
    objective: SquaredError
    solver: UpdateRule
    block_rows: int | None
    size: Number  # ‖A‖², weighted

    def improve_codes(
        self, dictionary: Dictionary, codes: Iterate, beta: Number, cautious: Bool[Array, ""]
    ) -> tuple[Iterate, Sums]:
        """A pass that improves all codes; see `pass_over`."""
        update = guarded(self.solver, cautious)
        return pass_over(self.activations, self.objective, update, dictionary, codes, beta, block_rows=self.block_rows)

    def sums(self, codes: CodesT, dictionary: Dictionary) -> Sums:
        """What a pass adds up that leaves the codes as they are."""
        still = Iterate(codes, codes)
        return pass_over(self.activations, self.objective, None, dictionary, still, block_rows=self.block_rows)[1]

    def improve_dictionary(
        self, dictionary: Dictionary, sums: Sums, memory: Memory, cautious: Bool[Array, ""]
    ) -> tuple[Dictionary, Memory, Number]:
        """The new dictionary, the rule's memory, and how the objective changed."""
        gram, cross = self.dictionary_problem(sums)
        slope = gram @ dictionary - cross
        if self.solver.signed_dictionary:
            ridge = jnp.finfo(gram.dtype).eps * jnp.trace(gram) + jnp.finfo(gram.dtype).tiny
            new = dictionary - jsl.cho_solve(jsl.cho_factor(ridged(gram, ridge)), slope)
        else:
            update = guarded(self.solver, cautious)
            new, memory = update(dictionary, gram, sums.cross, memory, self.objective.l1_dictionary)
        difference = new - dictionary
        return new, memory, jnp.sum(difference * (slope + (gram @ difference) / 2))

    def dictionary_problem(self, sums: Sums) -> tuple[Gram, Dictionary]:
        """G and C of the dictionary's own problem, as `UpdateRule` has them."""
        return ridged(sums.gram, self.objective.l2_dictionary), sums.cross - self.objective.l1_dictionary

    def dictionary_move(self, dictionary: Dictionary, sums: Sums) -> Number:
        """The squared change of the fit if each concept went to its own optimum."""
        gram, cross = self.dictionary_problem(sums)
        diagonal = jnp.diagonal(gram)[:, None]
        target = coordinate_step(dictionary, gram @ dictionary - cross, diagonal, signed=self.solver.signed_dictionary)
        return jnp.sum(diagonal * (dictionary - target) ** 2)

    def codes_move(self, dictionary: Dictionary, sums: Sums) -> Number:
        """The squared change of the fit if each code went to its own optimum."""
        return jnp.sum(jnp.sum(dictionary**2, axis=1) * sums.move)

    def measure(self, codes: CodesT, dictionary: Dictionary) -> tuple[Number, Number]:
        """The objective and the scaled KKT residual, at these very factors."""
        sums = self.sums(codes, dictionary)
        value = self.value(dictionary, sums)
        if self.objective.weights is None:
            # A good fit is the small difference of large sums; then the error itself is summed, block by block.
            penalty = self.penalty(dictionary, sums)
            value = cond(self.cancels(dictionary, sums), lambda: penalty + self.error(codes, dictionary), lambda: value)
        return value, self.residual(dictionary, sums)

    def residual(self, dictionary: Dictionary, sums: Sums) -> Number:
        """The scaled KKT residual, with sums that belong to this dictionary."""
        return share(self.codes_move(dictionary, sums) + self.dictionary_move(dictionary, sums), self.size)

    def error(self, codes: CodesT, dictionary: Dictionary) -> Number:
        """`½‖A − U Wᵀ‖²`, rows weighted, from the differences."""
        return squared_error(self.activations, self.objective, (codes, dictionary), block_rows=self.block_rows)

    def value(self, dictionary: Dictionary, sums: Sums) -> Number:
        """The objective, with sums that belong to this dictionary."""
        value = self.penalty(dictionary, sums)
        return value + self.fit(dictionary, sums) if self.objective.weights is None else value

    def cancels(self, dictionary: Dictionary, sums: Sums) -> Bool[Array, ""]:
        """Whether the fit is so good that sums can't tell it."""
        return self.fit(dictionary, sums) < _SMALL_FIT * self.size

    def penalty(self, dictionary: Dictionary, sums: Sums) -> Number:
        """The part of the objective that `fit` isn't."""
        l1, l2 = self.objective.l1_dictionary, self.objective.l2_dictionary
        return sums.value + jnp.sum(l1 * dictionary + l2 / 2 * dictionary**2)

    def fit(self, dictionary: Dictionary, sums: Sums) -> Number:
        """`½‖A − U Wᵀ‖²` without entry weights, from sums."""
        explained = jnp.sum(sums.gram * (dictionary @ dictionary.T)) / 2 - jnp.sum(sums.cross * dictionary)
        return self.size / 2 + explained


def guarded(rule: UpdateRule, cautious: Bool[Array, ""]) -> Update:
    """The rule; or, when its plain step has raised the objective, coordinate descent, which can't."""

    def guarded(x: Array, gram: Array, cross: Array, memory: Memory, l1: Scalar) -> tuple[Array, Memory]:
        return cond(
            cautious,
            lambda: (sweep(x, gram, cross - l1), tuple(jnp.zeros_like(part) for part in memory)),
            lambda: rule.update_penalized(x, gram, cross, memory, l1),
        )

    return guarded

"""Result codes of a factorization, each with its sentence."""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from ..support.reprs import short_repr


class RESULTS(enum.IntEnum):
    """The ways in which an iteration can end."""

    successful = 0
    max_steps_reached = 1
    stalled = 2
    settled = 3
    nonfinite = 5
    negative = 6
    derivative_inexact = 4
    derivative_undefined = 7
    derivative_unsettled = 8
    objective_overflowed = 9

    @property
    def message(self) -> str:
        """What happened, and what can be done about it."""
        return _MESSAGES[self]


_MESSAGES = {
    RESULTS.successful: "The scaled KKT residual fell below the tolerance.",
    RESULTS.max_steps_reached: (
        "The scaled KKT residual was still above the tolerance after max_steps; the factors are a descent point that "
        "can be used. Raise max_steps or rtol to converge."
    ),
    RESULTS.stalled: (
        "The objective can't be lowered any further in this dtype although the scaled KKT residual is above the "
        "tolerance; the factors can be used. Use float64 or raise rtol."
    ),
    RESULTS.settled: (
        "The objective changed by less than the absolute tolerance, which doesn't mean that the factors are "
        "stationary (the scaled KKT residual says how far they are); they can be used. Lower atol to go on."
    ),
    RESULTS.objective_overflowed: (
        "The scaled KKT residual fell below the tolerance, and the objective, in the activations' unit to its power, "
        "is larger than any number of this dtype; the factors can be used. Multiply activations by a power of two that "
        "brings them to the order of 1, or give float64, where the objective is to be known."
    ),
    RESULTS.nonfinite: (
        "The iteration met NaN or infinity; the factors can't be used. Look for NaN, infinity or huge values in "
        "activations, weights and penalties."
    ),
    RESULTS.negative: (
        "Activations, weights, penalties or given factors that were only known inside jit have negative entries, or "
        "l1_dictionary isn't 0 beside a dictionary of either sign, or activations are 0 beside a β-divergence with β "
        "of 0 or less; the factors can't be used. Take a layer behind a "
        "ReLU, use solver=SemiNMF() (codes ≥ 0, dictionary of either sign) without l1_dictionary, or clamp them "
        "yourself if they are rounding."
    ),
    RESULTS.derivative_inexact: (
        "Use float64, fewer concepts if some are duplicated, a larger rtol or max_steps of ImplicitAdjoint, or take "
        "the best that was found with ImplicitAdjoint(throw=False): the linear system of the derivative wasn't solved "
        "to the tolerance."
    ),
    RESULTS.derivative_unsettled: (
        "Use float64, fewer concepts, a start nearer to the solution, or more refinements of ImplicitAdjoint: the "
        "factors couldn't be brought so near to a solution that it's settled which entries are zero, which their "
        "derivative depends on. ImplicitAdjoint(throw=False) takes the one that was found."
    ),
    RESULTS.derivative_undefined: (
        "Use l1 penalties on both factors, or in backward mode differentiate only what codes @ dictionary decides: "
        "these factors aren't unique, concepts can be mixed with each other without changing the fit, so that codes "
        "and dictionary have no derivative. ImplicitAdjoint(throw=False) takes the least of the possible ones."
    ),
}


UNUSABLE = (RESULTS.nonfinite, RESULTS.negative)


class FactorizationError(RuntimeError):
    """A factorization or an encoding that ended without usable factors."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Result:
    """How an iteration ended; compare it with a member of `RESULTS`.

    **Arguments:**

    - `code`: the member's number, an array so that it can leave `jit` and `vmap`.
    """

    code: Int[Array, "*batch"]

    __repr__ = short_repr

    @property
    def successful(self) -> Bool[Array, "*batch"]:
        """Whether the tolerance was met, at an objective that the dtype can hold."""
        return self.code == RESULTS.successful.value

    @property
    def usable(self) -> Bool[Array, "*batch"]:
        """Whether the factors are finite, and made of what can be factorized."""
        return functools.reduce(operator.and_, (self.code != result.value for result in UNUSABLE))

    @property
    def message(self) -> str:
        """The sentence that belongs to the code; of a batch, to its worst code."""
        if isinstance(self.code, Tracer):
            return "(the result is known once the computation has run)"
        return max(map(RESULTS, np.unique(np.asarray(self.code))), key=lambda each: (each in UNUSABLE, each)).message

    def __eq__(self, other: object) -> bool:
        if isinstance(other, RESULTS):
            return bool(np.all(np.asarray(self.code) == other.value))
        if isinstance(other, Result):
            return bool(np.all(np.asarray(self.code) == np.asarray(other.code)))
        return NotImplemented

    def __hash__(self) -> int:
        return hash(np.asarray(self.code).tobytes())


def raise_if_unusable(result: Result) -> None:
    """Raise `FactorizationError` if the factors can't be used, under `jit` as well (then through a callback)."""
    if isinstance(result.code, Tracer):
        jax.debug.callback(_raise_host, result.code)
    else:
        _raise_host(result.code)


def _raise_host(code: object) -> None:
    for result in UNUSABLE:
        if np.any(np.asarray(code) == result.value):
            raise FactorizationError(result.message)


def measured(code: Int[Array, "*batch"], objective: Float[Array, "*batch"]) -> Int[Array, "*batch"]:
    """The code, or that the tolerance was met where the dtype can't hold the objective."""
    lost = (code == RESULTS.successful.value) & ~jnp.isfinite(objective)
    return jnp.where(lost, RESULTS.objective_overflowed.value, code).astype(jnp.int32)


def refused(result: Result, negative: Bool[Array, ""]) -> Result:
    """The result, or that the input was negative; what isn't finite stays so."""
    bad = negative & (result.code != RESULTS.nonfinite.value)
    return Result(jnp.where(bad, RESULTS.negative.value, result.code).astype(jnp.int32))

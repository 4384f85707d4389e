"""Units: activations are brought to the order of 1 by a power of two, and results back to their unit.

Squares and products of four factors leave a dtype's range long before activations do. Both factors take their share,
the root of the unit, so that penalties on either stay comparable; powers of two change no digit. What's of ordinary
size is left as it is.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array

from . import validate
from .beta_divergence import BetaDivergence
from .objective import PENALTIES, Objective
from .results import RESULTS, Result, measured
from .shapes import Activations, Number, Scalar
from .solution import Solution

ORDINARY = 16  # the binary exponents that are left alone reach from minus to plus this
_WITH_TERMS = {32: 40, 64: 400}  # bits of the dtype: exponents up to which squares can stand beside further terms


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unit:
    """What activations are measured in.

    **Arguments:**

    - `whole`: a power of four.
    - `root`: its root, a power of two.
    """

    whole: Number
    root: Number

    def into(self, activations: Array, objective: Any) -> tuple[Array, Any]:
        """Activations and penalties in this unit; the objective's own unit is the activations' to the power β."""
        half, once = self.root, self.whole
        if not objective.squared_error:
            return activations / once, self._divergence(objective)
        scaled = dataclasses.replace(
            objective,
            l1_codes=_divided(objective.l1_codes, once, half),
            l2_codes=_divided(objective.l2_codes, once),
            l1_dictionary=_divided(objective.l1_dictionary, once, half),
            l2_dictionary=_divided(objective.l2_dictionary, once),
        )
        return activations / once, scaled

    def _divergence(self, objective: BetaDivergence) -> BetaDivergence:
        # One division after the other, so that no power leaves the range.
        less = self.root ** (2 * objective.beta - 2)
        return dataclasses.replace(
            objective,
            l1_codes=_divided(objective.l1_codes, self.root, less),
            l2_codes=_divided(objective.l2_codes, less),
            l1_dictionary=_divided(objective.l1_dictionary, self.root, less),
            l2_dictionary=_divided(objective.l2_dictionary, less),
        )

    def factors(self, codes: Array, dictionary: Array, *, penalized: bool) -> tuple[Array, Array]:
        """Both factors in the root of this unit; without penalties lengths are free, and shared out evenly."""
        codes, dictionary = codes.astype(self.whole.dtype), dictionary.astype(self.whole.dtype)
        if penalized:
            return codes / self.root, dictionary / self.root
        # Two divisions that together are the unit's: codes of 1e-30 and concepts of 1 have the same product.
        exponents = [_exponent(x) for x in (codes, dictionary)]
        total = jnp.frexp(self.whole)[1] - 1
        shift = (exponents[0] + exponents[1]) // 2
        usual = (total == 0) & (jnp.abs(exponents[0]) <= ORDINARY) & (jnp.abs(exponents[1]) <= ORDINARY)
        first = jnp.where(usual, 0, exponents[0] - shift + total // 2)
        most = int(jnp.finfo(codes.dtype).maxexp) - 2
        codes_unit = _power(jnp.clip(first, -most, most), codes.dtype)
        dictionary_unit = _power(jnp.clip(total - first, -most, most), codes.dtype)
        return codes / codes_unit, dictionary / dictionary_unit

    def back(self, solution: Solution, beta: float = 2.0) -> Solution:
        """A solution in this unit, for activations as they were given; `beta` is that of the objective."""
        # Squares of the unit may leave the range where the objective doesn't.
        once = self.whole if beta == 2 else self.root**beta
        twice = lambda x: jax.lax.optimization_barrier(x * once) * once  # noqa: E731
        stats = dataclasses.replace(
            solution.stats,
            objective=twice(solution.stats.objective),
            final_objective=twice(solution.stats.final_objective),
        )
        codes = solution.codes * self.whole
        # Rows may be longer than the largest number where none of their entries is.
        code = jnp.where(jnp.isfinite(codes).all(), solution.result.code, RESULTS.nonfinite.value).astype(jnp.int32)
        code = measured(code, stats.final_objective)
        return dataclasses.replace(
            solution, codes=codes, scale=solution.scale * self.root, stats=stats, result=Result(code)
        )


def unit_of(activations: Activations, objective: Objective) -> Unit:
    """The unit in which activations are of the order of 1: 1 if they are of ordinary size, or not finite.

    Entries without weight don't count. It is a constant to derivatives: solutions don't depend on it.
    """
    weights = objective.weights
    if weights is None and not isinstance(activations, Tracer):
        exponent = _known_exponent(activations)
    else:
        counted = activations if weights is None else jnp.where(jnp.asarray(weights) > 0, activations, 0)
        exponent = _exponent(jax.lax.stop_gradient(counted))
    return _unit_from(exponent, activations.dtype)


def unit_at(largest: float, dtype: Any) -> Unit:
    """The unit for activations whose largest magnitude is known."""
    usable = 0 < largest < math.inf
    return _unit_from(jnp.asarray(math.frexp(largest)[1] - 1 if usable else 0, jnp.int32), dtype)


def _unit_from(exponent: Array, dtype: Any) -> Unit:
    exponent = jnp.where(jnp.abs(exponent) <= ORDINARY, 0, exponent)
    most = int(jnp.finfo(dtype).maxexp) - 4
    half = jnp.clip(exponent, -most, most) // 2
    return Unit(_power(2 * half, dtype), _power(half, dtype))


def is_one(unit: Unit) -> bool:
    """Whether it's known to change nothing."""
    return not isinstance(unit.whole, Tracer) and float(unit.whole) == 1


def check_penalties(objective: Objective, scaled: Objective) -> None:
    """Raise `ValueError` for penalties that the dtype can't hold in the activations' unit, as far as they are known."""
    for name in PENALTIES:
        given, value = getattr(objective, name), getattr(scaled, name)
        if isinstance(given, Tracer) or isinstance(value, Tracer):
            continue
        if float(given) > 0 and not (0 < float(value) < float(jnp.finfo(value.dtype).max) ** 0.5):
            raise ValueError(
                f"{name}={float(given)} can't be held beside activations of this size in {value.dtype}; multiply the "
                "activations so that they are of the order of 1, or give float64"
            )


def check_beside_terms(activations: Activations, name: str = "activations") -> None:
    """Raise `ValueError` for activations, if known, whose squares can't stand beside further terms of an objective.

    A head wants the activations as they are, so that nothing can be scaled there.
    """
    if isinstance(activations, Tracer):
        return
    low, high = validate.value_range(activations)
    check_largest_beside_terms(max(abs(low), abs(high)), activations.dtype, name)


def check_largest_beside_terms(largest: float, dtype: Any, name: str = "activations") -> None:
    """The same, for activations whose largest magnitude is known."""
    exponent = math.frexp(largest or 1.0)[1]
    if abs(exponent) > _WITH_TERMS[jnp.finfo(dtype).bits]:
        raise ValueError(
            f"{name} is of the order of 2**{exponent}, whose squares {dtype} can't hold beside a "
            f"term of the objective; multiply it by 2.0**{-exponent} and let the head multiply by 2.0**{exponent}"
        )


def _known_exponent(x: Array) -> Array:
    """As `_exponent`, by the program that has looked for NaN in numbers of this shape already."""
    largest = max(map(abs, validate.value_range(x)))
    if float(jnp.finfo(x.dtype).tiny) <= largest < math.inf:
        return jnp.asarray(math.frexp(largest)[1] - 1, jnp.int32)
    return _exponent(x)


@jax.jit
def _exponent(x: Array) -> Array:
    """The largest entry's binary exponent; 0 if all are zero or one isn't finite."""
    largest = jnp.max(jnp.abs(x))
    usable = jnp.isfinite(largest) & (largest > 0)
    return jnp.where(usable, jnp.frexp(jnp.where(usable, largest, 1))[1] - 1, 0)


def _power(exponent: Array, dtype: Any) -> Array:
    return jnp.ldexp(jnp.ones((), dtype), exponent)


def _divided(value: Scalar, *units: Array) -> Array:
    for unit in units:
        value = jnp.asarray(value).astype(unit.dtype) / unit
    return jnp.asarray(value)

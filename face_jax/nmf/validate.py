"""Checks of matrices, ranks and objectives before any work."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool

from ..support.arguments import index_or_none, native, real, shown
from .beta_divergence import BetaDivergence
from .objective import PENALTIES, WEIGHTS, Objective, Term


def matrix(name: str, value: Any, words: str) -> Array:
    """A floating-point matrix with both sides at least 1, of at least 32 bits; `words` name its axes."""
    value = _real_numbers(name, value)
    if value.ndim != 2:
        remedy = "reshape maps with activations.reshape(-1, channels)" if value.ndim > 2 else "give one row per item"
        raise ValueError(f"{name} has shape {tuple(value.shape)}, but a matrix ({words}) is needed; {remedy}")
    if 0 in value.shape:
        raise ValueError(f"{name} is empty, its shape is {tuple(value.shape)}; give at least one entry on each axis")
    if jnp.issubdtype(value.dtype, jnp.floating):
        bits = jnp.finfo(value.dtype).bits
        if bits < 16:
            raise ValueError(
                f"{name} has dtype {value.dtype}, too coarse for a factorization; convert it with .astype('float32')"
            )
        # Sums of 16 bits would lose all that the numbers still have.
        return jnp.asarray(value) if bits > 16 else jnp.asarray(value).astype(jnp.float32)
    return jnp.asarray(value).astype(jnp.result_type(float))


def _real_numbers(name: str, value: Any) -> Any:
    """An array of real numbers, whole ones and truth values among them."""
    value = native(name, value)
    if value.dtype == object or not (
        jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer) or value.dtype == bool
    ):
        raise ValueError(
            f"{name} has dtype {value.dtype}, which isn't a real number; convert it with np.asarray({name}, np.float32)"
        )
    return value


def finite(name: str, value: Array) -> None:
    """No NaN or infinity, if the values are known yet."""
    if not isinstance(value, Tracer):
        _finite(name, value, value_range(value))


def non_negative(name: str, value: Array, remedy: str) -> None:
    """No entry below zero, if the values are known yet."""
    if not isinstance(value, Tracer):
        _non_negative(name, value, value_range(value), remedy)


def factorizable(name: str, value: Array, *, signed: bool) -> None:
    """Finite, not all below the smallest normal number, and non-negative unless `signed`, if the values are known yet.

    One pass over the values, which may be many.
    """
    if isinstance(value, Tracer):
        return
    extremes = value_range(value)
    _finite(name, value, extremes)
    _normal(name, value, extremes)
    if not signed:
        _non_negative(name, value, extremes, SIGNED)


def _finite(name: str, value: Array, extremes: tuple[float, float]) -> None:
    # NaN is an extreme wherever there is one.
    if all(map(np.isfinite, extremes)):
        return
    count, first = found(~jnp.isfinite(value))
    raise ValueError(
        f"{name} has {count} entries that are NaN or infinite, the first at {first}; "
        "mask them with SquaredError(weights=...) after np.nan_to_num, or leave their rows out"
    )


def _normal(name: str, value: Array, extremes: tuple[float, float]) -> None:
    tiny = float(jnp.finfo(value.dtype).tiny)
    # Processors take what is smaller for zero.
    if max(map(abs, extremes)) < tiny and any(np.any(np.asarray(shard.data)) for shard in value.addressable_shards):
        raise ValueError(
            f"all of {name} is below the smallest normal number of {value.dtype}, {tiny:.3g}; multiply it by a power "
            "of two, or give float64"
        )


def _non_negative(name: str, value: Array, extremes: tuple[float, float], remedy: str) -> None:
    if extremes[0] >= 0:
        return
    count, _ = found(value < 0)
    share = count / value.size
    raise ValueError(
        f"{name} has {count} of {value.size} entries below zero ({share:.1%}), the lowest {extremes[0]:.4g}; " + remedy
    )


def found(mask: Bool[Array, "..."]) -> tuple[int, tuple[int, ...]]:
    """How many entries are true, and where the first one is: also where no process has all of them."""
    with jax.ensure_compile_time_eval():
        count, first = int(jnp.sum(mask)), int(jnp.argmax(mask))
    return count, tuple(int(i) for i in np.unravel_index(first, mask.shape))


def negative_inside(activations: Array, quadratic: Objective, start: Any, *, signed: bool) -> Bool[Array, ""] | None:
    """Whether anything that has to be at least 0 isn't, of what is known only inside `jit`; None if all is known."""
    checked = [getattr(quadratic, name) for name in (*WEIGHTS, *PENALTIES)]
    # With signs an ℓ1 penalty on the dictionary would be no penalty.
    checked += [-jnp.asarray(quadratic.l1_dictionary)] if signed else [activations]
    if hasattr(start, "codes"):
        checked += [start.codes] if signed else [start.codes, start.dictionary]
    traced = [jnp.any(value < 0) for value in checked if isinstance(value, Tracer)]
    if not quadratic.squared_error and any(isinstance(x, Tracer) for x in (activations, quadratic.weights)):
        traced.append(jnp.any(undefined(activations, quadratic)))
    return functools.reduce(jnp.logical_or, traced) if traced else None


_FEW = 2**20  # numbers that NumPy reads in less than a program takes to begin

SIGNED = (
    "a non-negative factorization can't represent them. Take a layer behind a ReLU, use solver=SemiNMF() "
    "(codes ≥ 0, dictionary of either sign), or clamp them yourself if they are rounding"
)


@jax.jit
def _extremes(value: Array) -> tuple[Array, Array]:
    return jnp.min(value), jnp.max(value)


def value_range(value: Array) -> tuple[float, float]:
    """The lowest and the highest of values that are known."""
    if value.size <= _FEW and value.is_fully_addressable and value.platform() == "cpu":
        # No program for each shape.
        host = np.asarray(value)
        return float(host.min()), float(host.max())
    # Arrays that a traced function closes over are known, too.
    with jax.ensure_compile_time_eval():
        low, high = _extremes(value)
        return float(low), float(high)


_MOST_CONCEPTS = 2**31 - 1  # what JAX counts with


def rank_of(rank: Any) -> int:
    """An integer of at least 1."""
    number = index_or_none(rank)
    if number is None:
        raise ValueError(f"rank={shown(rank)} isn't an integer; give the number of concepts, such as rank=25")
    if number < 1:
        raise ValueError(f"rank={number} leaves no concept; give at least 1")
    if number > _MOST_CONCEPTS:
        raise ValueError(f"rank={number} is more concepts than an array can have; give the number of concepts")
    return number


def misfit(objective: Any) -> Any:
    """An objective that has a squared error or is a divergence, which for β = 2 becomes the squared error."""
    if isinstance(objective, BetaDivergence):
        return objective.fit
    squared_error(objective)
    return objective


def unsigned(objective: Objective, *, signed: bool) -> None:
    """A dictionary that a divergence has a value for."""
    if signed and not objective.squared_error:
        raise ValueError(
            f"BetaDivergence({objective.fit.beta:g}) has no value for a dictionary of either sign; give SquaredError() "
            "or a non-negative dictionary"
        )


def divergence_defined(name: str, activations: Array, objective: Objective) -> None:
    """Activations that a divergence has a value and a slope for, if they are known yet; any for a squared error."""
    if objective.squared_error or isinstance(activations, Tracer) or isinstance(objective.weights, Tracer):
        return
    remedy = f"BetaDivergence({objective.fit.beta:g}) measures from 0 on; give SquaredError()"
    non_negative(name, activations, remedy)
    if objective.fit.beta > 0:
        return
    count, first = found(undefined(activations, objective))
    if count:
        raise ValueError(
            f"{name} has {count} entries of 0, the first at {first}, whose divergence for β={objective.fit.beta:g} "
            "isn't defined, and falls without bound towards a product of 0; add a small positive number, leave them "
            "out with observed=, or give β above 0"
        )


def undefined(activations: Array, objective: Objective) -> Bool[Array, "..."]:
    """Which entries a divergence has no value, or no slope, for: those below zero, for β ≤ 0 those of zero."""
    wrong = activations <= 0 if objective.fit.beta <= 0 else activations < 0
    return wrong if objective.weights is None else wrong & (objective.weights > 0)


def squared_error(objective: Any) -> None:
    """An objective that has a squared error."""
    if isinstance(objective, Objective) and objective.squared_error:
        return
    if isinstance(objective, BetaDivergence):
        _ = objective.quadratic
        return
    if isinstance(objective, Objective | Term):
        raise ValueError("objective has no squared error to weigh its terms against; write SquaredError() + λ * term")
    raise ValueError(
        f"objective={shown(objective)} isn't valid; give SquaredError(), with further terms such as "
        "SquaredError() + λ * Faithfulness(head)"
    )


def penalties(objective: Objective, *, both: bool, signed: bool = False) -> None:
    """Penalties that make sense; `both` asks for them on both factors or on none, `signed` is the dictionary's."""
    known = {}
    for name in PENALTIES:
        value = getattr(objective, name)
        if isinstance(value, Tracer):
            return
        known[name] = real(name, value, "penalty", least=0)
    if signed and known["l1_dictionary"] > 0:
        raise ValueError(
            f"l1_dictionary={known['l1_dictionary']:g} penalizes the sum of entries, which is no penalty for a "
            "dictionary of either sign; give l2_dictionary instead"
        )
    codes = known["l1_codes"] + known["l2_codes"]
    dictionary = known["l1_dictionary"] + known["l2_dictionary"]
    if both and (codes > 0) != (dictionary > 0):
        lone, other = ("codes", "dictionary") if codes > 0 else ("dictionary", "codes")
        raise ValueError(
            f"the {lone} have a penalty and the {other} none, so all length would move into the {other} and the "
            f"penalty would have no effect; add l2_{other}=... (or l1_{other}=...)"
        )


def weights_of(objective: Objective, activations: Array) -> Any:
    """The squared error, or the divergence, with weights in the activations' dtype and checked against their shape."""
    weights, row_weights = objective.weights, objective.row_weights
    if weights is not None:
        weights = jnp.asarray(_real_numbers("weights", weights)).astype(activations.dtype)
        if weights.shape != activations.shape:
            raise ValueError(
                f"weights has shape {weights.shape} and activations {activations.shape}; give one weight an entry"
            )
        finite("weights", weights)
        non_negative("weights", weights, "give weights of at least 0; 0 leaves an entry out")
    if row_weights is not None:
        row_weights = jnp.asarray(_real_numbers("row_weights", row_weights)).astype(activations.dtype)
        if row_weights.shape != activations.shape[:1]:
            raise ValueError(
                f"row_weights has shape {row_weights.shape}, but activations have {activations.shape[0]} rows; "
                "give one weight a row"
            )
        finite("row_weights", row_weights)
        non_negative("row_weights", row_weights, "give weights of at least 0; 0 leaves a row out of the fit")
    return dataclasses.replace(objective.fit, weights=weights, row_weights=row_weights)


def given(start: Any, activations: Any, rank: int, *, signed: bool, channels: int | None = None) -> None:
    """Given factors that fit; `channels` are the activations' own, unless said."""
    # Codes of rows in blocks may be in blocks, too, and are read where they're wanted.
    lazy = not isinstance(activations, Array) and start.elsewhere
    codes = start.codes if lazy else matrix("start.codes", start.codes, "row × concept")
    dictionary = matrix("start.dictionary", start.dictionary, "concept × channel")
    rows, channels = activations.shape[0], channels or activations.shape[1]
    if codes.shape != (rows, rank):
        raise ValueError(f"start.codes has shape {codes.shape}; activations and rank={rank} need {(rows, rank)}")
    if dictionary.shape != (rank, channels):
        raise ValueError(
            f"start.dictionary has shape {dictionary.shape}; activations and rank={rank} need {(rank, channels)}"
        )
    if not lazy:
        finite("start.codes", codes)
        non_negative("start.codes", codes, "give codes of at least 0, for instance those of encode")
    finite("start.dictionary", dictionary)
    if not signed:
        non_negative("start.dictionary", dictionary, "give a dictionary of at least 0")

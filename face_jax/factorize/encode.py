"""Codes for activations and a given dictionary: non-negative least squares with its exact derivative."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from . import encode_terms, validate, with_terms
from .least_squares import codes_of
from .objective import Objective, SquaredError
from .solvers import ADMM


def encode(
    activations: ArrayLike,
    dictionary: ArrayLike,
    *,
    objective: SquaredError | Objective = SquaredError(),  # noqa: B008 (settings: frozen)
) -> Float[Array, "row concept"]:
    """How much of each concept is in each row: `argmin_U ½‖A − U Wᵀ‖², U ≥ 0`, to rounding.

    The one inference rule for new activations. Whatever the dictionary (dependent concepts, more concepts than
    channels, any units), each row's codes u meet the conditions of a minimum: with each concept's slope
    `s_k = wₖᵀ(W u − a) / ‖wₖ‖` and code `v_k = u_k ‖wₖ‖`,

        |min(s_k, v_k)| ≤ 4 ε (√channels + concepts) (‖a‖ + Σ v),  ε = 1.2e-7 in float32, 3.6e-15 in float64,

    where `Σ v ≤ √concepts ‖a‖` for a non-negative dictionary; the term is what rounding the codes costs. Weights of
    entries, and penalties (the square one as further channels), belong to slopes and lengths. `certify_codes` measures
    it row by row.

    Beyond rounding, a row's codes don't depend on the rows that come with it. Where the minimizer isn't unique, the
    concepts with positive codes are independent, and later duplicates of a concept are left at zero: it's what
    Lawson & Hanson's method finds from zero, the first of equally steep concepts joining. That takes some thirty times
    as long as independent concepts do.

    Differentiable with respect to activations and dictionary in both modes, in closed form on the support and without
    iterating: `dU_S = (W_SᵀW_S)⁻¹ W_Sᵀ dA` and its companion for the dictionary; a code of zero stays zero, also
    that of a duplicate. Works under `jit` and `vmap`.

    **Arguments:**

    - `activations`: `row × channel`, any sign: what lies below zero just has no code.
    - `dictionary`: `concept × channel`; unit length isn't needed.
    - `objective`: weights of entries and penalties on the codes; with terms, such as `Faithfulness`, the codes
        minimize these too, by projected Newton steps: to rounding behind an affine head, whose problem is convex;
        behind any other to where no step lowers the objective, which is never above that of codes without the terms.

    **Returns:** the codes, in the activations' dtype. Raises `ValueError` for NaN, infinity, shapes that don't fit, a
    matrix below the dtype's normal numbers, and codes beyond the dtype's range (under `jit` they are infinite or 0, and
    `certify_codes` says so).
    """
    activations = validate.matrix("activations", activations, "row × channel")
    dictionary = validate.matrix("dictionary", dictionary, "concept × channel").astype(activations.dtype)
    if activations.shape[1] != dictionary.shape[1]:
        raise ValueError(
            f"dictionary has {dictionary.shape[1]} channels and activations have {activations.shape[1]}; "
            "encode activations of the layer that the dictionary was fitted on"
        )
    validate.factorizable("activations", activations, signed=True)
    validate.factorizable("dictionary", dictionary, signed=True)
    validate.squared_error(objective)
    validate.penalties(objective, both=False)
    quadratic = validate.weights_of(objective, activations)
    if terms := with_terms.active(objective):
        with_terms.check_solver(objective, ADMM())
        return encode_terms.encode(activations, dictionary, Objective(quadratic, terms))
    codes, lost = _codes_of(activations, dictionary, quadratic)
    if not isinstance(lost, Tracer) and (rows := np.flatnonzero(lost)).size:
        low, high = jnp.finfo(codes.dtype).tiny, jnp.finfo(codes.dtype).max
        raise ValueError(
            f"codes of {rows.size} rows, the first {rows[0]}, leave the range of {codes.dtype} "
            f"({low:.0e} to {high:.0e}), so different are the units of activations and dictionary; multiply one "
            "of them with a number that brings them closer, or give float64"
        )
    return codes


_codes_of = jax.jit(codes_of)

"""Codes for activations and a given dictionary: non-negative least squares with its exact derivative."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from . import encode_terms, validate, with_terms
from .nnls import nnls
from .objective import Objective, SquaredError
from .solvers import ADMM


def encode(
    activations: ArrayLike,
    dictionary: ArrayLike,
    *,
    objective: SquaredError | Objective = SquaredError(),  # noqa: B008 (settings: frozen)
) -> Float[Array, "row concept"]:
    """How much of each concept is in each row: `argmin_U ½‖A − U Wᵀ‖², U ≥ 0`, exactly.

    The one inference rule for new activations. Differentiable with respect to activations and dictionary in both
    modes, in closed form on the support and without iterating: `dU_S = (W_SᵀW_S)⁻¹ W_Sᵀ dA` and its companion
    for the dictionary. Works under `jit` and `vmap`.

    **Arguments:**

    - `activations`: `row × channel`, any sign: what lies below zero just has no code.
    - `dictionary`: `concept × channel`; unit length isn't needed.
    - `objective`: weights of entries and penalties on the codes; with terms, such as `Faithfulness`, the codes
        minimize these too, by projected Newton steps: to rounding behind an affine head, whose problem is convex;
        behind any other to where no step lowers the objective, which is never above that of codes without the terms.

    **Returns:** the codes, in the activations' dtype. Raises `ValueError` for NaN, infinity and shapes that don't fit.
    """
    activations = validate.matrix("activations", activations, "row × channel")
    dictionary = validate.matrix("dictionary", dictionary, "concept × channel").astype(activations.dtype)
    if activations.shape[1] != dictionary.shape[1]:
        raise ValueError(
            f"dictionary has {dictionary.shape[1]} channels and activations have {activations.shape[1]}; "
            "encode activations of the layer that the dictionary was fitted on"
        )
    validate.finite("activations", activations)
    validate.finite("dictionary", dictionary)
    validate.squared_error(objective)
    validate.penalties(objective, both=False)
    quadratic = validate.weights_of(objective, activations)
    if terms := with_terms.active(objective):
        with_terms.check_solver(objective, ADMM())
        return encode_terms.encode(activations, dictionary, Objective(quadratic, terms))
    return _encode(activations, dictionary, quadratic)


@jax.jit
def _encode(
    activations: Float[Array, "row channel"], dictionary: Float[Array, "concept channel"], objective: SquaredError
) -> Float[Array, "row concept"]:
    dtype = activations.dtype
    l1, l2 = jnp.asarray(objective.l1_codes, dtype), jnp.asarray(objective.l2_codes, dtype)
    ridge = l2 * jnp.eye(dictionary.shape[0], dtype=dtype)
    if objective.weights is None:
        return nnls(dictionary @ dictionary.T + ridge, dictionary @ activations.T - l1).T
    weights = objective.weights
    cross = dictionary @ (weights * activations).T - l1
    gram = jnp.einsum("kp,lp,np->kln", dictionary, dictionary, weights, optimize="optimal")
    return nnls(gram + ridge[:, :, None], cross).T

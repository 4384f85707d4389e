"""How far a pair of factors is from the optimality conditions of the whole problem."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import validate
from .conditions import at_scale, curvatures, gradient, in_dtype
from .objective import Objective, SquaredError


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KKTResidual:
    """Violations of `U ≥ 0, Λ ≥ 0, Λ ∘ U = 0` (Λ the gradient; CRAFT's eq. 11), and the same for the dictionary.

    Free of units, and of how length is shared between codes and dictionary. All zero: a stationary point.

    **Arguments:**

    - `codes`: by how much the fit would change if each code went to its own optimum, relative to `‖A‖`.
    - `dictionary`: the same for the dictionary's entries.
    - `complementarity`: the largest `|Λ ∘ U|` or `|Λ ∘ W|`, relative to `‖A‖²`.
    - `negative`: how far the lowest entry of either factor is below zero, relative to the factor's largest.
    """

    codes: Float[Array, ""]
    dictionary: Float[Array, ""]
    complementarity: Float[Array, ""]
    negative: Float[Array, ""]

    @property
    def scaled(self) -> Float[Array, ""]:
        """The one number that solvers stop by: `codes` and `dictionary` together."""
        return jnp.sqrt(self.codes**2 + self.dictionary**2)


def kkt_residual(
    activations: Float[Array, "row channel"],
    codes: Float[Array, "row concept"],
    dictionary: Float[Array, "concept channel"],
    *,
    objective: SquaredError | Objective = SquaredError(),  # noqa: B008 (settings: frozen)
    scale: Float[Array, " concept"] | None = None,
    signed_dictionary: bool = False,
) -> KKTResidual:
    """How far factors are from a stationary point of the objective.

    To judge a solution from anywhere by one measure. Works under `jit`, `vmap` and `grad`, and forms a matrix of the
    activations' size.

    **Arguments:**

    - `activations`: what was factorized.
    - `codes`, `dictionary`: the factors.
    - `objective`: what they should minimize.
    - `scale`: `Solution.scale`, needed with penalties, which are measured at `codes / scale` and `dictionary * scale`.
    - `signed_dictionary`: whether the dictionary may be negative, as with `SemiNMF`.

    **Returns:** the violations. Raises `ValueError` for shapes that don't fit.
    """
    activations = validate.matrix("activations", activations, "row × channel")
    codes = validate.matrix("codes", codes, "row × concept").astype(activations.dtype)
    dictionary = validate.matrix("dictionary", dictionary, "concept × channel").astype(activations.dtype)
    if codes.shape[0] != activations.shape[0] or dictionary.shape != (codes.shape[1], activations.shape[1]):
        raise ValueError(
            f"codes have shape {codes.shape} and dictionary {dictionary.shape}, which don't make activations of "
            f"shape {activations.shape}; give codes (row × concept) and dictionary (concept × channel)"
        )
    if scale is not None:
        codes, dictionary = at_scale(codes, dictionary, scale)
    return _kkt_residual(activations, codes, dictionary, objective, jnp.asarray(signed_dictionary))


def scaled_residual(
    activations: Float[Array, "row channel"],
    codes: Float[Array, "row concept"],
    dictionary: Float[Array, "concept channel"],
    objective: SquaredError | Objective,
    *,
    signed_dictionary: bool,
) -> Float[Array, ""]:
    """The one number of `kkt_residual`, of factors at the scale that the objective sees."""
    return _kkt_residual(activations, codes, dictionary, objective, jnp.asarray(signed_dictionary)).scaled


@jax.jit
def _kkt_residual(
    activations: Float[Array, "row channel"],
    codes: Float[Array, "row concept"],
    dictionary: Float[Array, "concept channel"],
    objective: SquaredError | Objective,
    signed_dictionary: Array,
) -> KKTResidual:
    dtype = activations.dtype
    objective = in_dtype(objective, dtype)
    slopes = gradient(objective, activations, codes, dictionary)
    curved = curvatures(objective, codes, dictionary, rows_weighted=True)
    rows, entries = objective.quadratic.row_weights, objective.quadratic.weights
    squares = activations**2 if entries is None else entries * activations**2
    size = jnp.sum(squares if rows is None else squares * rows[:, None])
    size = jnp.where(size > 0, size, 1)
    moves, products, lows = [], [], []
    for x, slope, curvature, signed in zip(
        (codes, dictionary), slopes, curved, (jnp.zeros_like(signed_dictionary), signed_dictionary), strict=True
    ):
        target = x - slope / jnp.where(curvature > 0, curvature, 1)
        step = x - jnp.where(signed, target, jnp.maximum(target, 0))
        moves.append(jnp.sqrt(jnp.sum(curvature * step**2) / size))
        products.append(jnp.max(jnp.abs(slope * x)) / size)
        lows.append(jnp.where(signed, 0, -jnp.min(x)) / jnp.maximum(jnp.max(jnp.abs(x)), jnp.finfo(dtype).tiny))
    return KKTResidual(moves[0], moves[1], jnp.maximum(*products), jnp.maximum(jnp.maximum(*lows), 0))

"""KKT residuals: how far factors, or codes of a given dictionary, are from their optimum."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.sharding import PartitionSpec
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from ...linalg.row_shards import explicit, in_auto_axes
from ...support.arguments import flag, real_array
from ...support.precision import full_precision
from ...support.reprs import short_repr
from ...support.scaling import exponent, positive, shifted
from .. import validate
from ..magnitude import unit_of
from ..nnls.block_pivoting import tolerance
from ..nnls.least_squares import concept_exponents
from ..objective import Objective, SquaredError
from ..shapes import Activations, Codes, Dictionary, Factors, Number
from ..steps import promised
from .conditions import Conditions, at_scale


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

    codes: Number
    dictionary: Number
    complementarity: Number
    negative: Number

    __repr__ = short_repr

    @property
    def scaled(self) -> Number:
        """The one number that solvers stop by: `codes` and `dictionary` together."""
        return jnp.sqrt(self.codes**2 + self.dictionary**2)


@full_precision
def kkt_residual(
    activations: Activations,
    codes: Codes,
    dictionary: Dictionary,
    *,
    objective: Objective = SquaredError(),  # noqa: B008 (settings: frozen)
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

    **Example:**

    >>> found = fj.factorize(A, 3)
    >>> residual = fj.kkt_residual(A, found.codes, found.dictionary)
    >>> float(residual.scaled) < 1e-3
    True
    """
    activations, codes, dictionary = _matrices(activations, codes, dictionary)
    if any(map(explicit, (activations, codes, dictionary))):
        again = lambda activations, codes, dictionary, objective, scale: kkt_residual(  # noqa: E731
            activations, codes, dictionary, objective=objective, scale=scale, signed_dictionary=signed_dictionary
        )
        # The numbers are sums over all rows, which every device gets.
        return in_auto_axes(again, lambda _: PartitionSpec(), activations, codes, dictionary, objective, scale)
    objective = validate.misfit(objective)
    validate.weights_of(objective, activations)
    if not isinstance(signed_dictionary, Tracer):
        flag("signed_dictionary", signed_dictionary)
        validate.unsigned(objective, signed=signed_dictionary)
        validate.penalties(objective, both=False, signed=signed_dictionary)
    if scale is not None and not isinstance(scale, Tracer):
        scale = jnp.asarray(real_array("scale", scale, "concept"))
        if len(scale) != codes.shape[1]:
            raise ValueError(f"scale has {len(scale)} numbers for {codes.shape[1]} concepts; give the solution's scale")
    if scale is not None:
        codes, dictionary = at_scale(codes, dictionary, scale)
    if not objective.terms:
        # Free of units, so measured where squares stay in range.
        unit = unit_of(activations, objective)
        codes, dictionary = unit.factors(codes, dictionary, penalized=objective.penalized)
        activations, objective = unit.into(activations, objective.fit)
    return _kkt_residual(Conditions(activations, objective), (codes, dictionary), jnp.asarray(signed_dictionary))


def _matrices(activations: ArrayLike, codes: ArrayLike, dictionary: ArrayLike) -> tuple[Array, Array, Array]:
    """The three as matrices of the activations' dtype; raises `ValueError` where their shapes don't fit together."""
    activations = validate.matrix("activations", activations, "row × channel")
    codes = validate.matrix("codes", codes, "row × concept").astype(activations.dtype)
    dictionary = validate.matrix("dictionary", dictionary, "concept × channel").astype(activations.dtype)
    if codes.shape[0] != activations.shape[0] or dictionary.shape != (codes.shape[1], activations.shape[1]):
        raise ValueError(
            f"codes have shape {codes.shape} and dictionary {dictionary.shape}, which don't make activations of "
            f"shape {activations.shape}; give codes (row × concept) and dictionary (concept × channel)"
        )
    return activations, codes, dictionary


def scaled_residual(conditions: Conditions, factors: Factors) -> Number:
    """The one number of `kkt_residual`, of factors at the scale that the objective sees."""
    return _kkt_residual(conditions, factors, jnp.asarray(conditions.signed_dictionary)).scaled


@jax.jit
def _kkt_residual(conditions: Conditions, factors: Factors, signed_dictionary: Array) -> KKTResidual:
    conditions = conditions.in_dtype
    objective = conditions.objective
    slopes, curved = conditions.gradient(factors), conditions.curvatures(factors, rows_weighted=True)
    size = positive(conditions.size)
    moves, products, lows = [], [], []
    for x, slope, curvature, signed in zip(
        factors, slopes, curved, (jnp.zeros_like(signed_dictionary), signed_dictionary), strict=True
    ):
        target = x - slope / positive(curvature)
        step = x - jnp.where(signed, target, jnp.maximum(target, 0))
        squares = curvature * step**2 if objective.squared_error else promised(x, slope, curvature)
        moves.append(jnp.sqrt(jnp.sum(squares) / size))
        products.append(jnp.max(jnp.abs(slope * x)) / size)
        lows.append(jnp.where(signed, 0, -jnp.min(x)) / jnp.maximum(jnp.max(jnp.abs(x)), jnp.finfo(x.dtype).tiny))
    return KKTResidual(moves[0], moves[1], jnp.maximum(*products), jnp.maximum(jnp.maximum(*lows), 0))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CodesCertificate:
    """How far each row's codes are from the conditions of its minimum, and how far `encode` lets them be.

    **Arguments:**

    - `violation`: for each row, the largest `|min(s_k, v_k)| / (‖a‖ + Σ v)`, where `s_k` is the objective's slope along
        the k-th concept and `v_k` its code, both for the concept at unit length. 0: the minimum, free of units.
        Infinite for codes that aren't finite.
    - `growth`: `Σ v / ‖a‖`, at most `√concepts` at the minimum of a non-negative dictionary. Where it's 10ⁿ, concepts
        of opposite signs cancel, and so many digits of what the codes rebuild are lost, however they are found.
    - `tolerance`: `4 ε (√channels + concepts)`, which `encode` promises; ε is 1.2e-7 in float32, 3.6e-15 in float64.
    """

    violation: Float[Array, " row"]
    growth: Float[Array, " row"]
    tolerance: Number

    @property
    def met(self) -> Bool[Array, " row"]:
        """Which rows are at their minimum, to the tolerance."""
        return self.violation <= self.tolerance


@full_precision
def certify_codes(
    activations: ArrayLike,
    codes: ArrayLike,
    dictionary: ArrayLike,
    *,
    objective: SquaredError = SquaredError(),  # noqa: B008 (settings: frozen)
) -> CodesCertificate:
    """Whether codes are the non-negative least squares of each row, from `encode` or from anywhere.

    Costs a few products of the activations' size, and works under `jit` and `vmap`.

    **Arguments:**

    - `activations`: `row × channel`.
    - `codes`: `row × concept`.
    - `dictionary`: `concept × channel`.
    - `objective`: the weights of entries and penalties on the codes with which they were encoded.

    **Returns:** each row's violation and the tolerance. Raises `ValueError` for shapes that don't fit, for NaN and
    infinity in activations and dictionary, and for an objective with further terms.

    **Example:**

    >>> dictionary = fj.factorize(A, 3).dictionary
    >>> certificate = fj.certify_codes(A, fj.encode(A, dictionary), dictionary)
    >>> bool((certificate.violation <= certificate.tolerance).all())
    True
    """
    activations, codes, dictionary = _matrices(activations, codes, dictionary)
    validate.finite("activations", activations)
    validate.finite("dictionary", dictionary)
    validate.squared_error(objective)
    if objective.terms:
        raise ValueError("objective has further terms, which this doesn't measure; take kkt_residual, which does")
    validate.penalties(objective, both=False)
    return _certify_codes(activations, codes, dictionary, validate.weights_of(objective, activations))


@jax.jit
def _certify_codes(
    activations: Activations, codes: Codes, dictionary: Dictionary, quadratic: SquaredError
) -> CodesCertificate:
    dtype = activations.dtype
    l1, l2 = jnp.asarray(quadratic.l1_codes, dtype), jnp.asarray(quadratic.l2_codes, dtype)
    # All in units in which nothing leaves the dtype's range: rows, concepts, and each row's weights.
    of_concepts = concept_exponents(dictionary, l2)
    units = shifted(dictionary, -of_concepts[:, None])
    of_rows = exponent(jnp.max(jnp.abs(activations), axis=1))
    rows = shifted(activations, -of_rows[:, None])
    u = shifted(codes, of_concepts[None] - of_rows[:, None])
    of_weights = jnp.zeros_like(of_rows)
    missed = u @ units - rows
    if quadratic.weights is None:
        sizes, squares = jnp.sum(rows**2, axis=1), jnp.sum(units**2, axis=1)[None]
    else:
        of_weights = exponent(jnp.max(quadratic.weights, axis=1))
        weights = shifted(quadratic.weights, -of_weights[:, None])
        missed = weights * missed
        sizes, squares = jnp.sum(weights * rows**2, axis=1), weights @ (units**2).T
    ridge = shifted(l2, -2 * of_concepts[None] - of_weights[:, None])
    slope = missed @ units.T + ridge * u + shifted(l1, -of_concepts[None] - (of_rows + of_weights)[:, None])
    lengths = positive(jnp.sqrt(squares + ridge))
    v = u * lengths
    row, total = jnp.sqrt(sizes), jnp.sum(jnp.abs(v), axis=1)
    whole = row + total
    violation = jnp.max(jnp.abs(jnp.minimum(slope / lengths, v)), axis=1) / positive(whole)
    right = jnp.all(jnp.isfinite(codes), axis=1) & jnp.isfinite(violation)
    promised = jnp.asarray(tolerance(dtype, activations.shape[1], dictionary.shape[0]), dtype)
    growth = jnp.where(total > 0, total / row, 0)
    return CodesCertificate(jnp.where(right, violation, jnp.inf), jnp.where(right, growth, jnp.inf), promised)

"""β-divergences as what a factorization minimizes, in place of the squared error."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ..support.arguments import shown
from . import divergence
from .objective import PENALTIES, WEIGHTS, Objective, SquaredError, Term, Weighted
from .shapes import Activations, Codes, Dictionary, Factors, Number, Scalar

NAMES = {"frobenius": 2.0, "kullback-leibler": 1.0, "itakura-saito": 0.0}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=(*WEIGHTS, *PENALTIES),
    meta_fields=("beta",),
)
@dataclasses.dataclass(frozen=True, init=False)
class BetaDivergence(Objective):
    """`Σ m d_β(A | U Wᵀ)` and the penalties of `SquaredError`, to minimize in its place.

        d_β(x|y) = x^β / (β(β − 1)) + y^β / β − x y^(β − 1) / (β − 1)

    β = 2 is the squared error `½(x − y)²`; β = 1 the generalized Kullback–Leibler divergence `x log(x/y) − x + y`, for
    counts; β = 0 Itakura and Saito's `x/y − log(x/y) − 1`, which doesn't depend on the unit, for power spectra.
    Definition and scale are scikit-learn's.

    For `factorize` and `encode` of activations in memory, with their derivatives. For β of 0 or less every activation
    has to be above 0: the divergence isn't defined elsewhere. For β between 0 and 1 an activation of 0 wants a product
    of 0, where the slope is infinite, and a product that is 0 beside it stays 0: give such a start as `Random()` there,
    which has no zeros.

    **Arguments:**

    - `beta`: any real number, or "frobenius", "kullback-leibler", "itakura-saito".
    - `weights`, `row_weights`, `l1_codes`, `l2_codes`, `l1_dictionary`, `l2_dictionary`: those of `SquaredError`.

    Févotte & Idier 2011, Algorithms for nonnegative matrix factorization with the β-divergence.

    **Example:**

    >>> fj.factorize(A, 3, objective=fj.BetaDivergence("kullback-leibler")).dictionary.shape
    (3, 12)
    """

    beta: float = 2.0
    terms: tuple[Weighted, ...] = dataclasses.field(default=(), init=False, repr=False)
    squared_error: bool = dataclasses.field(default=False, init=False, repr=False, metadata={"static": True})

    def __init__(
        self,
        beta: Any,
        weights: Any = None,
        row_weights: Float[Array, " row"] | None = None,
        l1_codes: Scalar = 0.0,
        l2_codes: Scalar = 0.0,
        l1_dictionary: Scalar = 0.0,
        l2_dictionary: Scalar = 0.0,
    ) -> None:
        given = (weights, row_weights, l1_codes, l2_codes, l1_dictionary, l2_dictionary)
        object.__setattr__(self, "beta", beta_of(beta))
        for name, value in zip((*WEIGHTS, *PENALTIES), given, strict=True):
            object.__setattr__(self, name, value)

    @property
    def fit(self) -> BetaDivergence | SquaredError:
        """The same; the squared error for β = 2, unless entries have weights, which is fitted entry by entry."""
        return SquaredError(**_numbers(self)) if self.beta == 2 and self.weights is None else self

    @property
    def quadratic(self) -> SquaredError:
        """The squared error that it is for β = 2; raises `ValueError` for any other."""
        if self.beta == 2:
            return SquaredError(**_numbers(self))
        raise ValueError(
            f"{self._short} isn't a squared error, which is needed here; it is for factorize and encode with "
            "activations in memory, give SquaredError() elsewhere"
        )

    @property
    def _short(self) -> str:
        return f"BetaDivergence({self.beta:g})"

    def in_dtype(self, dtype: jnp.dtype) -> BetaDivergence:
        """The same with its own numbers in the activations' dtype."""
        numbers = _numbers(self).items()
        cast: dict[str, Any] = {k: None if v is None else jnp.asarray(v).astype(dtype) for k, v in numbers}
        return BetaDivergence(self.beta, **cast)

    def with_terms(self, terms: tuple[Weighted, ...]) -> Objective:
        """The same beside no terms; the squared error beside them for β = 2."""
        return self.quadratic.with_terms(terms) if terms else self

    def __repr__(self) -> str:
        given = [f"{name}={value!r}" for name, value in _numbers(self).items() if value is not None]
        return f"BetaDivergence({', '.join([f'beta={self.beta!r}', *given])})"

    def __add__(self, other: Term | Objective) -> Objective:
        if self.beta == 2:
            return self.quadratic + other
        self._refuse_terms()

    __radd__ = __add__

    def _refuse_terms(self) -> NoReturn:
        raise ValueError(
            f"{self._short} stands alone: further terms, such as Faithfulness, are weighed against a squared error; "
            "write SquaredError() + λ * term"
        )

    def __mul__(self, weight: Scalar) -> Objective:
        raise ValueError(f"{self._short} can't be weighted; multiply penalties instead")

    __rmul__ = __mul__

    def value(self, activations: Activations, codes: Codes, dictionary: Dictionary) -> Number:
        """The objective at these factors."""
        return self._with_penalties(self.row_values(activations, codes @ dictionary), codes, dictionary)

    def row_values(self, activations: Activations, product: Activations) -> Float[Array, " row"]:
        """Each row's divergence from a product, penalties and the row's weight left out."""
        x = self.counted(activations)
        return jnp.sum(self.weighed(divergence.deviation(self.beta, x, product, divergence.floor_of(x))), axis=1)

    def entry_changes(self, activations: Activations, product: Activations, move: Activations) -> Activations:
        """How each entry's divergence changes with the product, rows' weights left out."""
        x = self.counted(activations)
        return self.weighed(divergence.change(self.beta, x, product, move, divergence.floor_of(x)))

    def gradient(self, activations: Activations, codes: Codes, dictionary: Dictionary) -> Factors:
        """Gradients with respect to codes and dictionary."""
        x = self.counted(activations)
        slopes = divergence.slope(self.beta, x, codes @ dictionary, divergence.floor_of(x))
        return self._by_factors(slopes, codes, dictionary)

    def curvature(self, activations: Activations, product: Activations) -> Activations:
        """What each entry weighs in a quadratic model around a product, rows' weights left out."""
        x = self.counted(activations)
        return self.weighed(divergence.curvature(self.beta, x, product, divergence.floor_of(x)))

    def size(self, activations: Activations) -> Number:
        """`Σ A^β`, weighted."""
        rows = jnp.sum(self.weighed(divergence.size(self.beta, self.counted(activations))), axis=1)
        return jnp.sum(rows if self.row_weights is None else rows * self.row_weights)

    def counted(self, activations: Activations) -> Activations:
        """The activations, with 1 for a 0 that is left out where β doesn't allow any."""
        if self.weights is None or self.beta >= 1:
            return activations
        return jnp.where((self.weights > 0) | (activations > 0), activations, 1)

    def weighed(self, entries: Activations) -> Activations:
        """Entries times their weights."""
        return entries if self.weights is None else entries * self.weights


def beta_of(beta: Any) -> float:
    """β as a number, of a word or a number; raises `ValueError` for anything else."""
    if isinstance(beta, str):
        if beta in NAMES:
            return NAMES[beta]
        raise ValueError(f"beta={beta!r} isn't a divergence; give a number, or one of {', '.join(map(repr, NAMES))}")
    known = None if isinstance(beta, bool | Tracer) else np.asarray(beta)
    if known is None or known.shape != () or known.dtype.kind not in "iuf" or not np.isfinite(known):
        raise ValueError(
            f"beta={shown(beta)} isn't a finite number that is known before tracing; give one, such as 1 for the "
            "Kullback–Leibler divergence"
        )
    return float(known)


def entry_by_entry(objective: Objective) -> BetaDivergence:
    """A weighted squared error as a divergence, so that each row and channel has a quadratic model of its own."""
    return BetaDivergence(2.0, **_numbers(objective))


def _numbers(objective: Objective) -> dict[str, Any]:
    return {name: getattr(objective, name) for name in (*WEIGHTS, *PENALTIES)}

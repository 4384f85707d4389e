"""What a factorization minimizes: a squared error with weights and penalties, and further weighted terms."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .shapes import Activations, Codes, Dictionary, Factors, Gram, Number, Scalar

WEIGHTS = ("weights", "row_weights")
PENALTIES = ("l1_codes", "l2_codes", "l1_dictionary", "l2_dictionary")


@dataclasses.dataclass(frozen=True)
class Local:
    """A term's quadratic model in one factor, the other one standing still.

    **Arguments:**

    - `slope`: the gradient.
    - `product`: a positive semidefinite curvature's product with a direction; linear.
    - `gram`: a `concept concept` matrix that resembles the curvature of a single row, for preconditioning; None if
        there is none.
    """

    slope: Array
    product: Callable[[Array], Array]
    gram: Gram | None = None


class Term(abc.ABC):
    """A smooth term of the objective besides the squared error, such as faithfulness to a classifier.

    `weight * term` and sums of terms with `SquaredError()` make an `Objective`. A term is a pytree, so that its
    arrays can be differentiated. `value` is all that has to be written; gradient and curvature are taken from
    it, and can be replaced by something cheaper.
    """

    @abc.abstractmethod
    def prepare(self, activations: Activations) -> Any:
        """What the term has to know of the activations, computed once."""

    @abc.abstractmethod
    def value(self, prepared: Any, codes: Codes, dictionary: Dictionary) -> Number:
        """The term at these factors."""

    def gradient(self, prepared: Any, codes: Codes, dictionary: Dictionary) -> Factors:
        """Gradients with respect to codes and dictionary."""
        return jax.grad(self.value, argnums=(1, 2))(prepared, codes, dictionary)

    def curvature(
        self, prepared: Any, codes: Codes, dictionary: Dictionary, d_codes: Codes, d_dictionary: Dictionary
    ) -> Factors:
        """A positive semidefinite Gauss–Newton, or the exact Hessian's, product with a direction."""

        def slope(u: Array, w: Array) -> tuple[Array, Array]:
            return self.gradient(prepared, u, w)

        return jax.jvp(slope, (codes, dictionary), (d_codes, d_dictionary))[1]

    @property
    def scale_free(self) -> bool:
        """Whether the term sees the factors' product alone, so that the concepts' lengths make no difference to it."""
        return False

    @property
    def convex_in_codes(self) -> bool:
        """Whether the term is known to be convex in the codes, the dictionary standing still."""
        return False

    def rows_together(self, rows: int) -> int:
        """How many consecutive rows the term sees as one; all of them, if it isn't a sum over such groups.

        What `prepare` returns has the groups on its leading axes if there are several.
        """
        return rows

    def counted(self, prepared: Any, counts: Float[Array, " group"]) -> Any:
        """What has been prepared, each group's share multiplied; needed if there are several groups."""
        raise NotImplementedError(f"{type(self).__name__} has several groups of rows and doesn't say how to count them")

    def of_groups(self, groups: Int[np.ndarray, " some"], total: int) -> Term:
        """The term for some of its groups of rows alone, as rows in blocks need it.

        **Arguments:**

        - `groups`: which they are.
        - `total`: how many groups there are.
        """
        del groups, total
        raise ValueError(
            f"{type(self).__name__} doesn't say what it is for some rows alone (Term.of_groups), as rows in blocks "
            "need it; give activations in memory"
        )

    def recalled(self, prepared: Any, activations: Activations) -> Any:
        """What has been prepared, with what wasn't kept computed again from the same rows' activations.

        Whatever else takes `prepared` takes what this returns.
        """
        del activations
        return prepared

    def values(self, prepared: Any, codes: Codes, dictionary: Dictionary) -> Float[Array, " group"]:
        """The term's share of each group of rows."""
        return self.value(prepared, codes, dictionary)[None]

    def local_codes(self, prepared: Any, codes: Codes, dictionary: Dictionary) -> Local:
        """The quadratic model in the codes."""

        def product(direction: Array) -> Array:
            return self.curvature(prepared, codes, dictionary, direction, jnp.zeros_like(dictionary))[0]

        return Local(self.gradient(prepared, codes, dictionary)[0], product)

    def local_dictionary(self, prepared: Any, codes: Codes, dictionary: Dictionary) -> Local:
        """The quadratic model in the dictionary."""

        def product(direction: Array) -> Array:
            return self.curvature(prepared, codes, dictionary, jnp.zeros_like(codes), direction)[1]

        return Local(self.gradient(prepared, codes, dictionary)[1], product)

    def local_both(
        self, prepared: Any, codes: Codes, dictionary: Dictionary
    ) -> Callable[[Array, Array], tuple[Array, Array]]:
        """Products of a positive semidefinite curvature in both factors with a pair of directions."""

        def product(d_codes: Array, d_dictionary: Array) -> tuple[Array, Array]:
            return self.curvature(prepared, codes, dictionary, d_codes, d_dictionary)

        return product

    def check(self, activations: Activations) -> None:
        """Raise `ValueError` for activations that the term can't be applied to."""
        del activations

    def check_prepared(self, prepared: Any) -> None:
        """Raise `ValueError` for what `prepare` returned, if it can't be used; it may not be known yet."""
        del prepared

    def __mul__(self, weight: Scalar) -> Objective:
        return Objective(terms=(Weighted(weight, self),), squared_error=False)

    __rmul__ = __mul__

    def __add__(self, other: Term | Objective) -> Objective:
        return 1.0 * self + other

    def __radd__(self, other: Objective) -> Objective:
        return other + 1.0 * self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Weighted:
    """A term and the factor that it's multiplied with."""

    weight: Scalar
    term: Term


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Objective:
    """A squared error and weighted further terms; made by `+` and `*` from `SquaredError(...)` and terms.

    **Arguments:**

    - `weights`, `row_weights`, `l1_codes`, `l2_codes`, `l1_dictionary`, `l2_dictionary`: those of `SquaredError`.
    - `terms`: the others with their weights.
    - `squared_error`: whether a squared error has been added yet.
    """

    weights: Any = None  # an array, or rows in blocks
    row_weights: Float[Array, " row"] | None = None
    l1_codes: Scalar = 0.0
    l2_codes: Scalar = 0.0
    l1_dictionary: Scalar = 0.0
    l2_dictionary: Scalar = 0.0
    terms: tuple[Weighted, ...] = ()
    squared_error: bool = dataclasses.field(default=True, metadata={"static": True})

    @property
    def quadratic(self) -> SquaredError:
        """The squared error alone."""
        return SquaredError(**{name: getattr(self, name) for name in (*WEIGHTS, *PENALTIES)})

    @property
    def fit(self) -> Any:
        """What measures the misfit, without further terms: the squared error, or a divergence in its place."""
        return self.quadratic

    @property
    def penalized(self) -> bool:
        """Whether a penalty may be there: one whose value isn't known yet counts."""
        penalties = [getattr(self, name) for name in PENALTIES]
        return any(isinstance(value, jax.core.Tracer) or float(value) != 0 for value in penalties)

    def in_dtype(self, dtype: jnp.dtype) -> Objective:
        """The same with its own numbers in the activations' dtype."""
        numbers: dict[str, Any] = {name: getattr(self, name) for name in (*WEIGHTS, *PENALTIES)}
        cast: dict[str, Any] = {
            name: None if value is None else jnp.asarray(value).astype(dtype) for name, value in numbers.items()
        }
        terms = tuple(dataclasses.replace(part, weight=jnp.asarray(part.weight).astype(dtype)) for part in self.terms)
        return SquaredError(**cast).with_terms(terms)

    def with_terms(self, terms: tuple[Weighted, ...]) -> Objective:
        """The squared error beside these terms instead of its own; alone if there are none."""
        quadratic = self.quadratic
        return Objective(**vars(quadratic), terms=terms) if terms else quadratic

    def _with_penalties(self, rows: Float[Array, " row"], codes: Codes, dictionary: Dictionary) -> Number:
        """The objective, of each row's misfit."""
        rows = rows + jnp.sum(self.l1_codes * codes + (self.l2_codes / 2) * codes**2, axis=1)
        if self.row_weights is not None:
            rows = rows * self.row_weights
        return jnp.sum(rows) + jnp.sum(self.l1_dictionary * dictionary + (self.l2_dictionary / 2) * dictionary**2)

    def _by_factors(self, slopes: Activations, codes: Codes, dictionary: Dictionary) -> Factors:
        """Gradients with respect to codes and dictionary, of the misfit's slope in each entry of their product."""
        if self.weights is not None:
            slopes = slopes * self.weights
        d_codes = slopes @ dictionary.T + self.l1_codes + self.l2_codes * codes
        if self.row_weights is not None:
            slopes = slopes * self.row_weights[:, None]
            d_codes = d_codes * self.row_weights[:, None]
        d_dictionary = codes.T @ slopes + self.l1_dictionary + self.l2_dictionary * dictionary
        return d_codes, d_dictionary

    def __repr__(self) -> str:
        # Explanations keep it.
        return f"Objective(quadratic={self.quadratic}, terms={self.terms}, squared_error={self.squared_error})"

    def __add__(self, other: Term | Objective) -> Objective:
        if isinstance(other, Term):
            other = 1.0 * other
        if not other.squared_error and not other.terms:
            # What is no squared error and no sum of terms says itself what it may be added to.
            return other + self
        if self.squared_error and other.squared_error:
            raise ValueError(
                "the objective has two squared errors; add one SquaredError(...) that has all weights and penalties"
            )
        both = self.squared_error or other.squared_error
        quadratic = (self if self.squared_error else other).quadratic
        return Objective(**vars(quadratic), terms=self.terms + other.terms, squared_error=both)

    def __mul__(self, weight: Scalar) -> Objective:
        if self.squared_error:
            raise ValueError("only terms can be weighted against the squared error; write SquaredError() + λ * term")
        return Objective(
            terms=tuple(Weighted(weight * part.weight, part.term) for part in self.terms), squared_error=False
        )

    __rmul__ = __mul__


@partial(jax.tree_util.register_dataclass, data_fields=(*WEIGHTS, *PENALTIES), meta_fields=())
@dataclasses.dataclass(frozen=True)
class SquaredError(Objective):
    """`½ Σ m (A − U Wᵀ)² + l1_codes Σ U + ½ l2_codes ‖U‖² + l1_dictionary Σ W + ½ l2_dictionary ‖W‖²`.

    Penalties are measured at the factors' own scale, which `Solution.scale` tells; the concepts are brought to
    unit length afterwards. A penalty on one factor alone would only move length into the other one, so
    `factorize` takes penalties on both or on none. `encode` has a given dictionary and takes those on the codes.

    **Arguments:**

    - `weights`: m of every entry, at least 0; 0 leaves the entry out. Of rows in blocks they may be in blocks, too.
    - `row_weights`: a factor for all that a row adds to the objective, the penalty on its codes included.
    - `l1_codes`, `l2_codes`, `l1_dictionary`, `l2_dictionary`: at least 0.
    """

    terms: tuple[Weighted, ...] = dataclasses.field(default=(), init=False, repr=False)
    squared_error: bool = dataclasses.field(default=True, init=False, repr=False, metadata={"static": True})

    def value(self, activations: Activations, codes: Codes, dictionary: Dictionary) -> Number:
        """The objective at these factors."""
        misfit = activations - codes @ dictionary
        rows = jnp.sum((misfit if self.weights is None else misfit * jnp.sqrt(self.weights)) ** 2, axis=1) / 2
        return self._with_penalties(rows, codes, dictionary)

    def gradient(self, activations: Activations, codes: Codes, dictionary: Dictionary) -> Factors:
        """Gradients with respect to codes and dictionary."""
        residual = codes @ dictionary - activations
        return self._by_factors(residual, codes, dictionary)

    def size(self, activations: Activations) -> Number:
        """`‖A‖²`, weighted."""
        squares = activations**2 if self.weights is None else activations**2 * self.weights
        rows = jnp.sum(squares, axis=1)
        return jnp.sum(rows if self.row_weights is None else rows * self.row_weights)

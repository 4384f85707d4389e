"""Solving with the Hessian of a factorization on the entries that are free to move, never forming it.

With codes U (`concept row`), dictionary W (`concept channel`) and a direction (V, X) the squared error's Hessian is

    row block      (W Wᵀ) V + (W Xᵀ) U + X Rᵀ            R = Uᵀ W − A
    channel block  (U Uᵀ) X + (U Vᵀ) W + V R

the two last parts of each line together being the cross term. R is formed once: with A in its place, large parts
would cancel, and float32 with them. The diagonal blocks are small: one `concept concept` matrix for each row and each
channel.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.conjugate_gradients import CGStats, conjugate_gradients
from ...linalg.stored_matrix import Difference
from ...support.scaling import positive
from ..objective import PENALTIES, Objective, SquaredError
from ..shapes import Activations, Codes, CodesT, Dictionary, Factors, Masks, Number
from ..steps import ridged
from .conditions import Conditions, on

Blocks = Float[Array, "item concept concept"]
Method = Callable[..., tuple[Any, CGStats]]
Inverses = tuple[Float[Array, "row concept concept"], Float[Array, "channel concept concept"]]


@dataclasses.dataclass(frozen=True)
class Hessian(abc.ABC):
    """The equations' derivative with respect to the factors, as far as they are free, and how it's solved with.

    **Arguments:**

    - `masks`: the entries that are free.
    - `inverses`: of each row's and each channel's own block.
    - `null`: the direction of each concept's length, along which nothing changes; zero where something does.
    """

    masks: Masks
    inverses: Inverses
    null: Factors

    @abc.abstractmethod
    def solve(
        self,
        rhs: Factors,
        *,
        rtol: Number,
        max_steps: int,
        transposed: bool = False,
        method: Method = conjugate_gradients,
        damping: Number | float = 0.0,
    ) -> tuple[Factors, CGStats]:
        """The solution on the free entries, zero elsewhere.

        **Arguments:**

        - `rhs`: the right-hand side.
        - `rtol`, `max_steps`: of `method`, which is `conjugate_gradients` or `descend`.
        - `transposed`: solve with the transposed matrix.
        - `damping`: multiples of the objective's curvature along single factors that are added.

        **Returns:** the solution and the method's stats.
        """


def hessian_at(conditions: Conditions, factors: Factors, masks: Masks | None = None) -> Hessian:
    """The Hessian at a solution of a problem, on the entries given or on those that are free."""
    objective = conditions.objective
    masks = conditions.free(factors) if masks is None else masks
    codes, dictionary = factors = on(masks, factors)
    entries = conditions.entries(factors)
    inverses = (
        _row_inverses(conditions, entries, dictionary, masks[0]),
        _channel_inverses(objective, entries, codes, masks[1]),
    )
    # Entries whose pivot is zero to rounding depend on others (dead and duplicated concepts): they stand still.
    kept = jnp.diagonal(inverses[0], axis1=1, axis2=2) > 0, jnp.diagonal(inverses[1], axis1=1, axis2=2).T > 0
    masks = masks[0] & kept[0], masks[1] & kept[1]
    null = _scale_directions(objective, on(masks, factors))
    if conditions.plain:
        misfit = conditions.misfit((codes, dictionary))
        return Reduced(masks, inverses, null, objective.quadratic, misfit, codes.T, dictionary)

    def slopes(factors: Factors) -> Factors:
        return on(masks, conditions.equations(on(masks, factors)))

    curved = conditions.curvatures(factors, rows_weighted=True)
    return Whole(masks, inverses, null, jax.linearize(slopes, factors)[1], curved)


@dataclasses.dataclass(frozen=True)
class Reduced(Hessian):
    """One Gram matrix for all rows: codes are eliminated row by row, conjugate gradients see the dictionary only.

    Each step costs what a step of the factorization does, both products with the activations, and the codes' share
    is exact. The preconditioner is the inverse of each channel's own block.

    Rows' equations aren't multiplied with their weights (see `equations`), so that the matrix is symmetric only up
    to these weights.
    """

    quadratic: SquaredError
    misfit: Activations | Difference
    codes: CodesT
    dictionary: Dictionary

    def solve(
        self,
        rhs: Factors,
        *,
        rtol: Number,
        max_steps: int,
        transposed: bool = False,
        method: Method = conjugate_gradients,
        damping: Number | float = 0.0,
    ) -> tuple[Factors, CGStats]:
        """By the Schur complement of the rows' blocks."""
        counts = self.quadratic.row_weights
        plain: Callable[[Array], Array] = lambda x: x  # noqa: E731
        weigh = plain if counts is None else lambda x: x * counts[None]
        before, after = (plain, weigh) if transposed else (weigh, plain)
        of_codes, of_dictionary = on(self.masks, rhs)
        of_codes = of_codes.T
        gram = ridged(weigh(self.codes) @ self.codes.T, self.quadratic.l2_dictionary)

        def product(x: Array) -> Array:
            return jnp.where(self.masks[1], (1 + damping) * (gram @ x), 0) - self.to_dictionary(
                weigh(self.of_rows(self.to_codes(x)))
            )

        null = self.null[1]
        lengths = positive(jnp.sum(null**2, axis=1, keepdims=True))
        reduced, stats = method(
            product,
            of_dictionary - self.to_dictionary(before(self.of_rows(of_codes))),
            preconditioner=lambda x: jnp.einsum("jkl,lj->kj", self.inverses[1], x),
            project=lambda x: x - null * (jnp.sum(null * x, axis=1, keepdims=True) / lengths),
            rtol=rtol,
            max_steps=max_steps,
        )
        codes = self.of_rows(of_codes - after(self.to_codes(reduced)))
        return (codes.T, reduced), stats

    def of_rows(self, x: CodesT) -> CodesT:
        """Each row's own block, inverted."""
        return jnp.einsum("nkl,ln->kn", self.inverses[0], x)

    def to_codes(self, x: Dictionary) -> CodesT:
        """How the rows' equations change with the dictionary."""
        mixed = self.dictionary @ x.T
        return jnp.where(self.masks[0].T, mixed @ self.codes + x @ self.misfit.T, 0)

    def to_dictionary(self, v: CodesT) -> Dictionary:
        """The transposed of `to_codes`."""
        mixed = self.codes @ v.T
        return jnp.where(self.masks[1], mixed @ self.dictionary + v @ self.misfit, 0)


@dataclasses.dataclass(frozen=True)
class Whole(Hessian):
    """Any objective: conjugate gradients on codes and dictionary, preconditioned by the squared error's blocks."""

    product: Callable[[Factors], Factors]
    curvatures: tuple[Array, Array]

    def solve(
        self,
        rhs: Factors,
        *,
        rtol: Number,
        max_steps: int,
        transposed: bool = False,
        method: Method = conjugate_gradients,
        damping: Number | float = 0.0,
    ) -> tuple[Factors, CGStats]:
        """The matrix is symmetric: `transposed` makes no difference."""
        del transposed
        codes, dictionary = self.null
        lengths = positive(jnp.sum(codes**2, axis=0) + jnp.sum(dictionary**2, axis=1))

        def project(x: Factors) -> Factors:
            share = (jnp.sum(codes * x[0], axis=0) + jnp.sum(dictionary * x[1], axis=1)) / lengths
            return x[0] - codes * share[None], x[1] - dictionary * share[:, None]

        def precondition(x: Factors) -> Factors:
            return (jnp.einsum("nkl,nl->nk", self.inverses[0], x[0]), jnp.einsum("jkl,lj->kj", self.inverses[1], x[1]))

        def product(x: Factors) -> Factors:
            image = self.product(x)
            return image[0] + damping * self.curvatures[0] * x[0], image[1] + damping * self.curvatures[1] * x[1]

        return method(
            product, on(self.masks, rhs), preconditioner=precondition, project=project, rtol=rtol, max_steps=max_steps
        )


def masked_inverse(gram: Array, support: Bool[Array, "item concept"]) -> Blocks:
    """The inverses of the rows and columns in each item's support; zero elsewhere.

    By sweeping pivots in turn. One that is zero to rounding belongs to a concept that depends on earlier ones, and
    is left out like those that aren't in the support.

    **Arguments:**

    - `gram`: one matrix for all items, or one for each, the items first.
    - `support`: what's inverted.

    **Returns:** the inverses.
    """
    concepts = support.shape[1]
    grams = gram if gram.ndim == 3 else gram[None]
    # Items last while sweeping, so that a processor's vectors are filled whatever the rank.
    matrices = jnp.moveaxis(jnp.where(support[:, :, None] & support[:, None, :], grams, 0), 0, 2)
    floor = 4 * concepts * jnp.finfo(gram.dtype).eps * jnp.diagonal(grams, axis1=1, axis2=2).T

    def pivot(k: Array, matrices: Array) -> Array:
        row = jax.lax.dynamic_index_in_dim(matrices, k, axis=0, keepdims=False)
        value = jax.lax.dynamic_index_in_dim(row, k, axis=0, keepdims=False)
        used = value > jax.lax.dynamic_index_in_dim(floor, k, axis=0, keepdims=False)
        reciprocal = jnp.where(used, 1 / jnp.where(used, value, 1), 0)
        # An unused pivot's row and column vanish, and with them its concept.
        scaled = row * reciprocal[None]
        new = matrices - row[:, None] * scaled[None]
        return new.at[k].set(scaled).at[:, k].set(scaled).at[k, k].set(-reciprocal)

    swept = jax.lax.fori_loop(0, concepts, pivot, matrices)
    return jnp.moveaxis(-swept, 2, 0)


def _row_inverses(
    conditions: Conditions, entries: Activations | None, dictionary: Dictionary, mask: Bool[Array, "row concept"]
) -> Blocks:
    objective = conditions.objective
    if entries is None:
        gram = ridged(dictionary @ dictionary.T, objective.l2_codes)
        if conditions.plain or objective.row_weights is None:
            return masked_inverse(gram, mask)
        grams = jnp.broadcast_to(gram[None], (len(mask), *gram.shape))
    else:
        ridge = objective.l2_codes * jnp.eye(mask.shape[1], dtype=dictionary.dtype)
        grams = jnp.einsum("kp,lp,np->nkl", dictionary, dictionary, entries, optimize="optimal") + ridge[None]
    if objective.row_weights is not None:
        grams = grams * objective.row_weights[:, None, None]
    return masked_inverse(grams, mask)


def _channel_inverses(
    objective: Objective, entries: Activations | None, codes: Codes, mask: Bool[Array, "concept channel"]
) -> Blocks:
    weighed = codes if objective.row_weights is None else codes * objective.row_weights[:, None]
    if entries is None:
        return masked_inverse(ridged(codes.T @ weighed, objective.l2_dictionary), mask.T)
    ridge = objective.l2_dictionary * jnp.eye(codes.shape[1], dtype=codes.dtype)
    grams = jnp.einsum("nk,nl,np->pkl", codes, weighed, entries, optimize="optimal")
    return masked_inverse(grams + ridge[None], mask.T)


def _scale_directions(objective: Objective, factors: Factors) -> Factors:
    """Along `(U D, −W D)` nothing changes without penalties; zeros if penalties, or a term, say otherwise."""
    level = jnp.all(jnp.stack([jnp.asarray(getattr(objective, name)) == 0 for name in PENALTIES]))
    if not all(part.term.scale_free for part in objective.terms):
        level = jnp.zeros_like(level)
    return jnp.where(level, factors[0], 0), jnp.where(level, -factors[1], 0)

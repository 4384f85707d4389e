"""Steps that improve one factor of a weighted squared error or a β-divergence, each item of it on its own.

An item is a row's codes or a channel's entries. Around the present product each entry has a slope and a curvature, and
each item a quadratic model with a `concept concept` matrix of its own. Activations and products stay `row channel`
whichever factor is improved.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..linalg.control_flow import cond
from ..linalg.line_search import armijo, backtrack
from ..support.scaling import positive
from . import divergence
from .shapes import Activations, Columns, Number, Scalar
from .steps import promised, sweep

_TRIALS = 12
_SHORTER = 0.3
_DAMPED = 0.1  # of the curvature that would bring an entry to zero, for entries that have none


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Entries:
    """What is fitted entry by entry.

    **Arguments:**

    - `activations`: the x of each entry, above 0 where its weight is 0 and β is below 1.
    - `weights`: of each entry; None if all count once.
    - `floor`: the product below which nothing divides.
    - `beta`: which divergence.
    """

    activations: Activations
    weights: Activations | None
    floor: Number
    beta: float = dataclasses.field(metadata={"static": True})

    def weighed(self, entries: Activations) -> Activations:
        """Entries times their weights."""
        return entries if self.weights is None else entries * self.weights

    def values(self, product: Activations) -> Activations:
        """Of each entry."""
        return self.weighed(divergence.deviation(self.beta, self.activations, product, self.floor))

    def slopes(self, product: Activations) -> Activations:
        """Of each entry in the product."""
        return self.weighed(divergence.slope(self.beta, self.activations, product, self.floor))

    def curvatures(self, product: Activations) -> Activations:
        """Of each entry in the product."""
        return self.weighed(divergence.curvature(self.beta, self.activations, product, self.floor))

    def changes(self, product: Activations, move: Activations) -> Activations:
        """How each entry's divergence changes with the product."""
        given = self.beta, self.activations, product, move, self.floor
        found, lost = self.weighed(divergence.change(*given)), divergence.lost(*given)
        if lost is None:
            return found
        return jnp.where(lost if self.weights is None else lost & (self.weights > 0), jnp.inf, found)

    def parts(self, product: Activations) -> tuple[Activations, Activations]:
        """`x y^(β − 2)` and `y^(β − 1)`: what pulls the product up, and down."""
        safe = jnp.maximum(product, self.floor)
        once = divergence.power(safe, self.beta - 2)
        return self.weighed(self.activations * once), self.weighed(once * safe)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Side:
    """One factor's problem, the other one standing still.

    **Arguments:**

    - `entries`: what is fitted; its weights include all that differs between the items' features.
    - `other`: the factor that stands still, `concept feature`.
    - `l1`, `l2`: penalties on the factor, the square one of each concept or of all.
    - `rows`: whether the items are rows (codes), or channels.
    """

    entries: Entries
    other: Float[Array, "concept feature"]
    l1: Scalar
    l2: Scalar | Float[Array, "concept 1"]
    rows: bool = dataclasses.field(metadata={"static": True})

    def product(self, x: Columns) -> Activations:
        """The factors', `row channel`."""
        return x.T @ self.other if self.rows else self.other.T @ x

    def gathered(self, coefficients: Float[Array, "_ feature"], entries: Activations) -> Float[Array, "_ item"]:
        """Sums over each item's features."""
        return coefficients @ (entries.T if self.rows else entries)

    def totals(self, entries: Activations) -> Float[Array, " item"]:
        """Of each item."""
        return jnp.sum(entries, axis=1 if self.rows else 0)

    def along(self, lengths: Float[Array, " item"]) -> Float[Array, "_ _"]:
        """A number of each item, beside its entries."""
        return lengths[:, None] if self.rows else lengths[None]

    def slope(self, x: Columns, product: Activations) -> Columns:
        """The objective's slope in the factor."""
        return self.gathered(self.other, self.entries.slopes(product)) + self.l1 + self.l2 * x

    def diagonal(self, product: Activations) -> Columns:
        """The model's curvature along each entry of the factor."""
        return self.gathered(self.other**2, self.entries.curvatures(product)) + self.l2

    def grams(self, product: Activations) -> Float[Array, "concept concept item"]:
        """The model's curvature of each item."""
        return self.grams_of(self.entries.curvatures(product))

    def grams_of(self, curvatures: Activations) -> Float[Array, "concept concept item"]:
        """The same, of entries' curvatures."""
        concepts = len(self.other)
        pair = np.zeros((concepts, concepts), np.int32)
        first, second = np.triu_indices(concepts)
        pair[first, second] = pair[second, first] = np.arange(len(first))
        found = self.gathered(self.other[first] * self.other[second], curvatures)
        return found[pair] + (self.l2 * jnp.eye(concepts, dtype=found.dtype))[:, :, None]

    def changes(self, x: Columns, product: Activations, step: Columns, move: Activations) -> Float[Array, " item"]:
        """How each item's objective changes by a step, whose product is the move."""
        penalty = jnp.sum(step * (self.l1 + self.l2 * (x + step / 2)), axis=0)
        return self.totals(self.entries.changes(product, move)) + penalty

    def values(self, x: Columns) -> Float[Array, " item"]:
        """Each item's objective."""
        found = self.totals(self.entries.values(self.product(x)))
        return found + jnp.sum(x * (self.l1 + self.l2 / 2 * x), axis=0)

    def newton(self, x: Columns, product: Activations, sweeps: int) -> Improved:
        """See `newton`."""
        return newton(self, x, product, sweeps)

    def multiplied(self, x: Columns, product: Activations, inner: int) -> Improved:
        """See `multiplied`."""
        return multiplied(self, x, product, inner)


Improved = tuple[Columns, Activations, Float[Array, " item"]]


def newton(side: Side, x: Columns, product: Activations, sweeps: int) -> Improved:
    """Coordinate sweeps over each item's quadratic model, as far along as the objective falls.

    **Arguments:**

    - `side`: the problem.
    - `x`, `product`: where the factor is, and its product with the other one.
    - `sweeps`: over the concepts, on one model.

    **Returns:** the factor, the product, and how far each item was from its minimum.
    """
    slope, grams = side.slope(x, product), side.grams(product)
    grams = damped(grams, slope, x)
    target, cross = x, jnp.einsum("kln,ln->kn", grams, x) - slope
    for _ in range(sweeps):
        target = sweep(target, grams, cross)
    moves = jnp.sum(promised(x, slope, jnp.diagonal(grams).T), axis=0)
    return *searched(side, x, product, target, slope), moves


def damped(
    grams: Float[Array, "concept concept item"], slope: Columns, x: Columns
) -> Float[Array, "concept concept item"]:
    """With some curvature for entries that have none and want to be zero."""
    diagonal = jnp.diagonal(grams).T
    more = jnp.where((diagonal <= 0) & (slope > 0) & (x > 0), _DAMPED * slope / positive(x), 0)
    return grams + jnp.eye(len(x), dtype=x.dtype)[:, :, None] * more[None]


def searched(
    side: Side, x: Columns, product: Activations, target: Columns, slope: Columns
) -> tuple[Columns, Activations]:
    """Each item as far on its way to the target as its objective falls; and the product there."""
    step = target - x
    move = side.product(step)
    expected = jnp.sum(slope * step, axis=0)

    def trial(t: Array, _: Array) -> tuple[Array, Array, tuple[()]]:
        change = side.changes(x, product, t[None] * step, side.along(t) * move)
        return armijo(change, t * expected), _SHORTER * t, ()

    if side.entries.beta == 2:
        # The model is the objective.
        return target, product + move
    whole = side.changes(x, product, step, move)
    good = armijo(whole, expected)

    def shorter() -> tuple[Columns, Activations]:
        t, _, none = backtrack(trial, (), ~good & (expected < 0), trials=_TRIALS, dtype=x.dtype, first=_SHORTER)
        t = jnp.where(good, 1, jnp.where(none | (expected >= 0), 0, t))
        # Written so that a whole step lands on the target's exact zeros.
        new = jnp.where(t[None] == 1, target, x + t[None] * step)
        return new, product + side.along(t) * move

    return cond(jnp.all(good), lambda: (target, product + move), shorter)


def multiplied(side: Side, x: Columns, product: Activations, inner: int) -> Improved:
    """Multiplicative updates, which never raise the objective: Févotte & Idier 2011.

    Beside `½ l2 x²` powers up to the second are bounded by a square where β is below 2, which takes a smaller exponent.

    **Arguments:**

    - `side`, `x`, `product`: as for `newton`.
    - `inner`: updates.

    **Returns:** as `newton`.
    """
    entries, tiny = side.entries, float(jnp.finfo(x.dtype).tiny)
    beta = entries.beta
    diagonal, moves = side.diagonal(product), jnp.zeros(x.shape[1], x.dtype)
    alone = divergence.descent_exponent(beta)
    squared = 1 / (3 - beta) if beta < 2 else alone
    exponent = jnp.where(jnp.asarray(side.l2) > 0, squared, alone).astype(x.dtype)
    for number in range(inner):
        up, down = (side.gathered(side.other, part) for part in entries.parts(product))
        down = down + side.l1 + side.l2 * x
        if number == 0:
            moves = jnp.sum(promised(x, down - up, diagonal), axis=0)
        ratio = up / jnp.maximum(down, tiny)
        x = x * (ratio if alone == squared == 1 else ratio**exponent)
        product = side.product(x)
    return x, product, moves

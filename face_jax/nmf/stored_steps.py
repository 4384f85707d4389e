"""Steps that improve one factor of a fit to the stored entries of sparse activations, each item of it on its own.

As `misfit_steps` has them: around the present product each entry has a slope and a curvature, and each item a quadratic
model with a `concept concept` matrix of its own. Products with the stored entries are SciPy's; what happens to matrices
of items are programs, a bounded number of items at a time. Factors are `item concept` here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..linalg.stored_places import Values
from . import divergence
from .misfit_steps import damped
from .nnls.masked_systems import masked_cholesky, masked_solve
from .steps import promised, sweep
from .stored_entries import StoredEntries

_TRIALS, _SHORTER, _DESCENT = 12, 0.3, 1e-4
_MATRICES = 2**21  # numbers in the matrices of items that are there at a time

Items = Float[np.ndarray, "_ _"]  # `item concept`
EachItem = Float[np.ndarray, " item"]
Improved = tuple[Items, Values, EachItem]


@dataclasses.dataclass(frozen=True)
class StoredSide:
    """One factor's problem, the other one standing still.

    **Arguments:**

    - `entries`: what is fitted, an item's entries together.
    - `other`: the factor that stands still, `feature concept`.
    - `l1`, `l2`: penalties on the factor, the square one of each concept or of all.
    - `counts`: what each feature counts, such as rows with weights; None if all count once.
    """

    entries: StoredEntries
    other: Items
    l1: Any
    l2: Any
    counts: EachItem | None = None

    def product(self, x: Items) -> Values:
        """The factors', at the stored entries."""
        return self.entries.places.products(x, self.other)

    def weighed(self, entries: Values) -> Values:
        """Entries times what their features count."""
        return entries if self.counts is None else entries * self.counts[self.entries.places.columns]

    def gathered(self, coefficients: Items, entries: Values) -> Items:
        """Sums over each item's stored entries."""
        return self.entries.places.matrix(self.weighed(entries)) @ coefficients

    @property
    def _counted(self) -> Items:
        return self.other if self.counts is None else self.other * self.counts[:, None]

    @property
    def shared_gram(self) -> Float[np.ndarray, "concept concept"]:
        """The curvature that all items share: of zeros beside the stored entries, and of the penalty."""
        ridge = np.eye(self.other.shape[1], dtype=self.other.dtype) * np.asarray(self.l2, self.other.dtype)
        squares = self.entries.zeros and self.entries.beta == 2
        return ridge + self._counted.T @ self.other if squares else ridge

    def shared_slope(self, x: Items) -> Any:
        """The slope of the same, and of the penalties."""
        rest = self.l1 + self.l2 * x
        if not self.entries.zeros:
            return rest
        if self.entries.beta == 2:
            return rest + x @ (self._counted.T @ self.other)
        return rest + np.sum(self._counted, axis=0, dtype=np.float64).astype(x.dtype)[None]

    def slope(self, x: Items, y: Values) -> Items:
        """The objective's slope in the factor."""
        return self.gathered(self.other, self.entries.slopes(y)) + self.shared_slope(x)

    def diagonal(self, y: Values) -> Items:
        """The model's curvature along each entry of the factor."""
        return self.gathered(self.other**2, self.entries.curvatures(y)) + np.diagonal(self.shared_gram)[None]

    def changes(self, x: Items, y: Values, step: Items, move: Values) -> EachItem:
        """How each item's objective changes by a step, whose product is the move."""
        stored = self.entries.places.sums(self.weighed(self.entries.changes(y, move)))
        return stored + np.einsum("ik,ik->i", step, self.shared_slope(x + step / 2), dtype=np.float64)

    def values(self, x: Items) -> EachItem:
        """Each item's objective, where no unstored zero has a part in it."""
        stored = self.entries.places.sums(self.weighed(self.entries.values(self.product(x))))
        return stored + np.einsum("ik,ik->i", x, self.l1 + self.l2 / 2 * x, dtype=np.float64)

    def moves(self, x: Items, y: Values) -> EachItem:
        """How far each item is from where its entries would be best, each by itself."""
        return _moves(x, self.slope(x, y), self.diagonal(y))

    def blocks(self, curvatures: Values) -> Iterator[tuple[slice, int, Any]]:
        """Some items at a time: which, to how many they're filled up, always as many, and their models' pairs."""
        items, concepts = len(self.entries.places.starts) - 1, self.other.shape[1]
        first, second = np.triu_indices(concepts)
        pairs = self.other[:, first] * self.other[:, second]
        each = min(max(32, _MATRICES // len(first)), 1 << max(5, (items - 1).bit_length()))
        matrix = self.entries.places.matrix(self.weighed(curvatures))
        for start in range(0, items, each):
            some = slice(start, min(start + each, items))
            yield some, each, _padded(np.asarray(matrix[some] @ pairs), each)

    def solved(self, x: Items, slope: Items, curvatures: Values, sweeps: int, *, exact: bool) -> tuple[Items, EachItem]:
        """Each item's model after so many sweeps, and how far it was from there; `exact`: solved on what is left."""
        target, moves, shared = np.empty_like(x), np.empty(len(x), x.dtype), self.shared_gram
        for some, each, packed in self.blocks(curvatures):
            given = _padded(x[some], each), _padded(slope[some], each)
            found, far = _minimized(packed, *given, shared, sweeps=sweeps, exact=exact)
            many = some.stop - some.start
            target[some], moves[some] = np.asarray(found)[:many], np.asarray(far)[:many]
        return target, moves

    def solved_on(self, free: Bool[np.ndarray, "item concept"], rhs: Items, curvatures: Values) -> Items:
        """The solution of each item's linear system on the entries that are free, zero elsewhere."""
        found, shared = np.empty_like(rhs), self.shared_gram
        for some, each, packed in self.blocks(curvatures):
            solved = _solved_on(packed, _padded(free[some], each), _padded(rhs[some], each), shared)
            found[some] = np.asarray(solved)[: some.stop - some.start]
        return found

    def newton(self, x: Items, y: Values, sweeps: int) -> Improved:
        """As `misfit_steps.newton`."""
        slope = self.slope(x, y)
        target, moves = self.solved(x, slope, self.entries.curvatures(y), sweeps, exact=False)
        return *self.searched(x, y, target, slope), moves

    def searched(self, x: Items, y: Values, target: Items, slope: Items) -> tuple[Items, Values]:
        """Each item as far on its way to the target as its objective falls; and the product there."""
        step = target - x
        move = self.product(step)
        if self.entries.beta == 2:
            return target, y + move
        expected = np.einsum("ik,ik->i", slope, step, dtype=np.float64)
        change = self.changes(x, y, step, move)
        open_ = ~(np.isfinite(change) & (change <= _DESCENT * expected))
        lengths = np.where(open_, 0, 1).astype(x.dtype)
        at, t = np.flatnonzero(open_ & (expected < 0)), 1.0
        for _ in range(_TRIALS):
            if not len(at):
                break
            t *= _SHORTER
            which = self.entries.places.taken(at)[1]
            some = dataclasses.replace(self, entries=self.entries.of_rows(at))
            change = some.changes(x[at], y[which], t * step[at], t * move[which])
            good = np.isfinite(change) & (change <= _DESCENT * t * expected[at])
            lengths[at[good]] = t
            at = at[~good]
        new = np.where(lengths[:, None] == 1, target, x + lengths[:, None] * step)
        return new, y + lengths[self.entries.places.rows] * move

    def pulls(self, x: Items, y: Values) -> tuple[Items, Items]:
        """What pulls each entry of the factor up, and down."""
        up, pushed = self.entries.parts(y)
        down = self.gathered(self.other, pushed) if np.ndim(pushed) else 0
        return self.gathered(self.other, up), np.zeros_like(x) + self.shared_slope(x) + down

    def multiplied(self, x: Items, y: Values, inner: int) -> Improved:
        """As `misfit_steps.multiplied`."""
        tiny, beta = float(np.finfo(x.dtype).tiny), self.entries.beta
        diagonal, moves = self.diagonal(y), np.zeros(len(x), x.dtype)
        alone = divergence.descent_exponent(beta)
        exponent = np.where(np.asarray(self.l2) > 0, 1 / (3 - beta), alone).astype(x.dtype) if beta < 2 else alone
        for number in range(inner):
            up, down = self.pulls(x, y)
            if number == 0:
                moves = _moves(x, down - up, diagonal)
            x = x * (up / np.maximum(down, tiny)) ** exponent
            y = self.product(x)
        return x, y, moves


def _moves(x: Items, slope: Items, curvature: Items) -> EachItem:
    return np.asarray(_promised(x, slope, curvature))


@jax.jit
def _promised(
    x: Float[Array, "item concept"], slope: Float[Array, "item concept"], curvature: Float[Array, "item concept"]
) -> Float[Array, " item"]:
    return jnp.sum(promised(x, slope, curvature), axis=1)


def _padded(x: np.ndarray, length: int) -> np.ndarray:
    return x if len(x) == length else np.concatenate([x, np.zeros((length - len(x), *x.shape[1:]), x.dtype)])


@partial(jax.jit, static_argnames=("sweeps", "exact"))
def _minimized(
    packed: Float[Array, "item pair"], codes: Float[Array, "item concept"], slope: Float[Array, "item concept"],
    shared: Float[Array, "concept concept"], *, sweeps: int, exact: bool,
) -> tuple[Float[Array, "item concept"], Float[Array, " item"]]:  # fmt: skip
    x, slope = codes.T, slope.T
    grams = damped(_grams(packed, shared), slope, x)
    cross, target = jnp.einsum("kln,ln->kn", grams, x) - slope, x
    moves = jnp.sum(promised(x, slope, jnp.diagonal(grams).T), axis=0)
    for _ in range(sweeps):
        target = sweep(target, grams, cross)
    if exact:
        support = target > 0
        solved = masked_solve(masked_cholesky(grams, support), jnp.where(support, cross, 0))
        usable = jnp.all((solved > 0) == support, axis=0) & jnp.all(jnp.isfinite(solved), axis=0)
        target = jnp.where(usable[None], solved, target)
    return target.T, moves


@jax.jit
def _solved_on(
    packed: Float[Array, "item pair"], free: Bool[Array, "item concept"], rhs: Float[Array, "item concept"],
    shared: Float[Array, "concept concept"],
) -> Float[Array, "item concept"]:  # fmt: skip
    return masked_solve(masked_cholesky(_grams(packed, shared), free.T), jnp.where(free.T, rhs.T, 0)).T


def _grams(
    packed: Float[Array, "item pair"], shared: Float[Array, "concept concept"]
) -> Float[Array, "concept concept item"]:
    concepts = len(shared)
    pair = np.zeros((concepts, concepts), np.int32)
    first, second = np.triu_indices(concepts)
    pair[first, second] = pair[second, first] = np.arange(len(first))
    return packed.T[pair] + shared[:, :, None]

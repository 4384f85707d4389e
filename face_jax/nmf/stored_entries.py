"""Which entries of sparse activations are fitted: the stored ones, and the zeros beside them or not.

    Σ_stored [a d(x|y) − …]  and, where unstored entries are zeros,  Σ_all d(0|y) − Σ_stored d(0|y)

The sum over all entries of `d(0|y)` is `Σ y` for β = 1 and `½ Σ y²` for β = 2, which are products of small sums over
both factors; for any other β it takes each entry's product.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import scipy.sparse

from ..linalg.sparse_rows import FilledRows, SparseRows
from ..linalg.stored_places import Places, Values
from ..support.arguments import shown
from . import divergence
from .beta_divergence import BetaDivergence

STORED, NUMBERS = "stored", "numbers"
_NOTHING = 0


@dataclasses.dataclass(frozen=True)
class StoredEntries:
    """What is fitted entry by entry.

    **Arguments:**

    - `places`, `x`: where the entries are, and the activations there.
    - `weights`: of each entry, 0 or above; None if all count once.
    - `zeros`: whether the entries beside them are zeros that count; otherwise they have no part in what's minimized.
    - `beta`: which divergence; 1 or 2 beside zeros.
    - `floor`: the product below which nothing divides.
    """

    places: Places
    x: Values
    weights: Values | None
    zeros: bool
    beta: float
    floor: Any

    @property
    def pushing(self) -> Any:
        """What `y^(β − 1)` counts at the stored entries, what is counted at all entries left out."""
        if not self.zeros:
            return 1 if self.weights is None else self.weights
        return _NOTHING if self.weights is None else self.weights - 1

    def parts(self, y: Values) -> tuple[Values, Any]:
        """`x y^(β − 2)` and `y^(β − 1)` at the stored entries: what pulls the product up, and down."""
        safe, pushing = np.maximum(y, self.floor), self.pushing
        once = divergence.power(safe, self.beta - 2)
        return self.weighed(self.x) * once, 0 if pushing is _NOTHING else pushing * (once * safe)

    def slopes(self, y: Values) -> Values:
        """Of each stored entry."""
        if not self.zeros:
            return self.weighed(divergence.slope(self.beta, self.x, y, self.floor))
        pulled, pushed = self.parts(y)
        return pushed - pulled

    def curvatures(self, y: Values, *, exact: bool = False) -> Values:
        """Of each stored entry; where that may be below zero a share of its convex part, unless `exact`."""
        if not self.zeros:
            each = divergence.second if exact else divergence.curvature
            return self.weighed(each(self.beta, self.x, y, self.floor))
        if self.beta == 2:
            return np.zeros_like(y) + self.pushing
        return self.weighed(divergence.curvature(1.0, self.x, y, self.floor))

    def changes(self, y: Values, move: Values) -> Values:
        """How each stored entry's share changes with the product."""
        found, lost = self._changes(y, move), divergence.lost(self.beta, self.x, y, move, self.floor)
        if lost is None:
            return found
        return np.where(lost if self.weights is None else lost & (self.weights > 0), np.inf, found)

    def _changes(self, y: Values, move: Values) -> Values:
        if not self.zeros:
            return self.weighed(divergence.change(self.beta, self.x, y, move, self.floor))
        if self.beta == 2:
            return move * (self.pushing * (y + move / 2) - self.weighed(self.x))
        return self.weighed(divergence.change(1.0, self.x, y, move, self.floor) - move) + self.pushing * move

    def values(self, y: Values) -> Values:
        """Each stored entry's share at a product."""
        if not self.zeros:
            return self.weighed(divergence.deviation(self.beta, self.x, y, self.floor))
        if self.beta == 2:
            return self.weighed(self.x * (self.x / 2 - y)) + self.pushing * (y * y / 2)
        return self.weighed(divergence.deviation(1.0, self.x, y, self.floor) - y) + self.pushing * y

    def sizes(self) -> Values:
        """`x^β` of each stored entry, weighted."""
        return self.weighed(divergence.size(self.beta, self.x))

    def weighed(self, entries: Values) -> Values:
        """Entries times their weights."""
        return entries if self.weights is None else entries * self.weights

    def of_rows(self, rows: Any) -> StoredEntries:
        """Those of some rows."""
        places, which = self.places.taken(rows)
        return self._at(places, which)

    @property
    def transposed(self) -> StoredEntries:
        """The same by columns."""
        return self._at(*self.places.transposed)

    def _at(self, places: Places, which: Any) -> StoredEntries:
        weights = None if self.weights is None else self.weights[which]
        return dataclasses.replace(self, places=places, x=self.x[which], weights=weights)


def stored_entries(name: str, rows: SparseRows, objective: Any, observed: Any) -> StoredEntries:
    """What is fitted of sparse activations.

    **Arguments:**

    - `name`, `rows`: of what.
    - `objective`: the squared error, or a divergence.
    - `observed`: None or "numbers" (unstored entries are zeros), "stored" (they weren't observed), or a sparse matrix
        of truth values.

    **Returns:** the entries. Raises `ValueError` for masks that don't fit and for what has no value or slope.
    """
    beta = 2.0 if objective.squared_error else objective.beta
    matrix, data = rows.matrix, rows.matrix.data
    zeros, weights, places = observed is None or (isinstance(observed, str) and observed == NUMBERS), None, None
    if zeros and beta not in (1, 2):
        why = "which is infinite at 0" if beta <= 0 else "whose sum Σ y^β over them takes each entry's product"
        raise ValueError(
            f"objective=BetaDivergence({beta:g}) measures each unstored zero of {name} by itself, {why}; give β = 1 or "
            f"2, or observed='stored' if unstored entries weren't observed, or all entries, {name}.toarray()"
        )
    if zeros:
        known = ~np.isnan(data)
        if observed is not None and not known.all():
            data, weights = np.where(known, data, 0).astype(data.dtype), known.astype(data.dtype)
    elif not isinstance(observed, str):
        places, data = _masked(name, rows, observed)
    elif observed != STORED:
        raise ValueError(
            f"observed={observed!r} isn't known; give 'stored' (entries that aren't stored weren't observed), "
            "'numbers' (NaN wasn't observed, entries that aren't stored are 0), or truth values"
        )
    places = Places.of(matrix) if places is None else places
    _check(name, data, beta, every=zeros)
    return StoredEntries(places, data, weights, zeros, beta, divergence.floor_of(data))


def _check(name: str, data: Values, beta: float, *, every: bool) -> None:
    bad = ~np.isfinite(data)
    if bad.any():
        remedy = "leave their rows out" if every else "leave them out of what is observed"
        more = ", or give observed='numbers' where NaN wasn't observed" if every else ""
        raise ValueError(f"{name} has {int(bad.sum())} entries that are NaN or infinite; {remedy}{more}")
    if data.size and data.min() < 0:
        raise ValueError(
            f"{name} has {int((data < 0).sum())} of {data.size} stored entries below zero, the lowest "
            f"{data.min():.4g}; give entries of at least 0"
        )
    if beta <= 0 and data.size and data.min() == 0:
        raise ValueError(
            f"{name} has {int((data == 0).sum())} observed entries of 0, whose divergence for β={beta:g} isn't "
            "defined, and falls without bound towards a product of 0; add a small positive number, leave them out of "
            "what is observed, or give β above 0"
        )


def _masked(name: str, rows: SparseRows, observed: Any) -> tuple[Places, Values]:
    """The places that a sparse matrix of truth values names, and the activations there: 0 where none is stored."""
    if not scipy.sparse.issparse(observed):
        raise ValueError(
            f"observed={shown(observed)} isn't sparse, and {name} is; give 'stored' or 'numbers', or a sparse matrix "
            "of truth values that stores where something was observed"
        )
    if tuple(observed.shape) != rows.shape:
        raise ValueError(f"observed has shape {observed.shape} and {name} {rows.shape}; give one value an entry")
    if observed.dtype != bool:
        raise ValueError(f"observed has dtype {observed.dtype}; give truth values, such as observed.astype(bool)")
    mask = scipy.sparse.csr_array(observed).copy()
    mask.sum_duplicates()
    mask.eliminate_zeros()
    places, wide = Places.of(mask), np.int64(rows.shape[1])
    own = Places.of(rows.matrix)
    wanted, there = (each.rows * wide + each.columns for each in (places, own))
    at = np.minimum(np.searchsorted(there, wanted), max(0, len(there) - 1))
    data = np.zeros(len(wanted), rows.dtype)
    if len(there):
        found = there[at] == wanted
        data[found] = rows.matrix.data[at[found]]
    return places, data


def visible(entries: StoredEntries, rows: SparseRows) -> SparseRows:
    """What starts look at: entries that weren't observed are what the others of their channel are on average."""
    if entries.zeros and entries.weights is None:
        return rows
    if entries.zeros:
        weights: Any = entries.weights
        gone = np.bincount(entries.places.columns, 1 - weights, minlength=rows.shape[1])
        total = np.bincount(entries.places.columns, entries.x, minlength=rows.shape[1])
        mean = (total / np.maximum(rows.shape[0] - gone, 1)).astype(rows.dtype)
        filled = np.where(weights > 0, entries.x, mean[entries.places.columns])
        return SparseRows(entries.places.matrix(filled), rows.dtype)
    columns = entries.places.columns
    total, count = (np.bincount(columns, x, minlength=rows.shape[1]) for x in (entries.x, np.ones_like(entries.x)))
    mean = (total / np.maximum(count, 1)).astype(rows.dtype)
    rest = entries.places.matrix(entries.x - mean[columns])
    return FilledRows(rest, rows.dtype, np.ones(rows.shape[0], rows.dtype), mean)


def divergence_of(objective: Any) -> BetaDivergence:
    """The objective as a divergence, weights of entries left out."""
    names = ("row_weights", "l1_codes", "l2_codes", "l1_dictionary", "l2_dictionary")
    beta = 2.0 if objective.squared_error else objective.beta
    return BetaDivergence(beta, None, **{name: getattr(objective, name) for name in names})

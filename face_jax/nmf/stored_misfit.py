"""Factorization and encoding of sparse activations by a β-divergence, or of which some weren't observed.

The steps are those of `misfit_loop`; all that is kept of the product of both factors is what it is at the stored
entries, so that room and time go with these.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from ..linalg.sparse_rows import SparseRows
from ..linalg.stored_places import Values
from . import magnitude, validate
from .history import begun
from .objective import PENALTIES, SquaredError
from .shapes import Codes, Dictionary
from .solution import Solution
from .sparse import solve as solve_squares
from .sparse_starts import begin
from .steps import share
from .stored_codes import codes_of
from .stored_entries import StoredEntries, divergence_of, stored_entries, visible
from .stored_steps import Items, StoredSide

_LEAST = 0.1  # of an entry that extrapolation leaves, as in `misfit_loop`


def wanted(objective: Any, observed: Any) -> bool:
    """Whether it's for this module: a divergence, or activations that weren't all observed."""
    fit = validate.misfit(objective)
    return observed is not None or not fit.squared_error


def factorize_stored(
    rows: SparseRows, rank: int, *, objective: Any, observed: Any, solver: Any, start: Any, key: Key[Array, ""]
) -> Solution:
    """The factorization of sparse rows, rank and settings already checked; as `factorize`."""
    if not getattr(solver, "fits_entries", False):
        raise ValueError(
            f"solver={type(solver).__name__}() doesn't fit single entries of sparse activations, which a β-divergence "
            "and observed= ask for; use solver=ADMM(), HALS() or MultiplicativeUpdate()"
        )
    fit = _checked(rows, objective, both=True)
    entries = stored_entries("activations", rows, fit, observed)
    if not entries.zeros:
        seen = np.bincount(entries.places.columns, minlength=rows.shape[1]) > 0
        if not seen.all():
            raise ValueError(
                f"observed leaves {int((~seen).sum())} channels without any entry, the first {int(np.argmin(seen))}; "
                "leave them out of activations, such as with activations[:, np.unique(activations.tocoo().col)]"
            )
    if start.given is not None:
        validate.given(
            start.given, jnp.zeros((rows.shape[0], 0), rows.dtype), rank, signed=False, channels=rows.shape[1]
        )
    entries, fit, unit = _in_unit(entries, fit)
    start = start.rescaled(partial(unit.factors, penalized=fit.penalized))
    if not magnitude.is_one(unit):
        rows = rows.divided(float(unit.whole))
    seen_by_start = visible(entries, rows)
    codes, dictionary = begin(start, seen_by_start, rank, signed=False, key=key, solve=solve_squares)
    codes, dictionary = solver.begin(codes), solver.begin(dictionary)
    with np.errstate(all="ignore"):
        solution = _solve(entries, fit, solver, np.array(codes.T), np.array(dictionary.T))
    return solution if magnitude.is_one(unit) else unit.back(solution, entries.beta)


def encode_stored(
    rows: SparseRows, dictionary: Dictionary, objective: Any, observed: Any, begun: Codes | None = None
) -> Codes:
    """Codes of sparse rows; as `encode`."""
    fit = _checked(rows, objective, both=False)
    validate.non_negative(
        "dictionary", dictionary, "single entries of sparse rows are fitted by non-negative products; clamp them"
    )
    entries = stored_entries("activations", rows, fit, observed)
    entries, fit, unit = _in_unit(entries, fit)
    concepts = np.array((dictionary / unit.root).T)
    first = None if begun is None else np.array(begun / unit.root)
    codes = codes_of(entries, concepts, fit.l1_codes, fit.l2_codes, first) * float(unit.root)
    return jnp.asarray(codes.astype(rows.dtype))


def value_of(
    rows: SparseRows, codes: Items, dictionary: Items, beta: float, observed: Any, weights: Any = None
) -> float:
    """`Σ d(x|y)` of what was observed, of codes `row concept` and a dictionary `channel concept`, rows weighted."""
    fit = divergence_of(SquaredError()) if beta == 2 else dataclasses.replace(divergence_of(SquaredError()), beta=beta)
    with np.errstate(all="ignore"):
        return misfit(stored_entries("X", rows, fit, observed), codes, dictionary, weights)


def _checked(rows: SparseRows, objective: Any, *, both: bool) -> Any:
    """The objective; raises `ValueError` for what can't be fitted to the stored entries."""
    fit = validate.misfit(objective)
    if fit.terms or fit.weights is not None:
        what = "further terms" if fit.terms else "weights of entries"
        raise ValueError(
            f"objective has {what}, and activations are sparse; leave them out, give row_weights, or say with "
            "observed= which entries count"
        )
    validate.penalties(fit, both=both)
    fit = validate.weights_of(fit, jnp.zeros((rows.shape[0], 1), rows.dtype))
    return divergence_of(fit)


@dataclasses.dataclass(frozen=True)
class Counted:
    """Rows' weights and penalties, as numbers of NumPy in the activations' dtype."""

    row_weights: Any
    l1_codes: Any
    l2_codes: Any
    l1_dictionary: Any
    l2_dictionary: Any

    @property
    def penalized(self) -> bool:
        """Whether there is any penalty."""
        return any((self.l1_codes, self.l2_codes, self.l1_dictionary, self.l2_dictionary))


def _in_unit(entries: StoredEntries, objective: Any) -> tuple[StoredEntries, Counted, Any]:
    """Entries of the order of 1, the objective beside them, and the unit; numbers of NumPy."""
    dtype = entries.x.dtype
    unit = magnitude.unit_at(float(entries.x.max(initial=0)), dtype)
    if not magnitude.is_one(unit):
        given = objective
        objective = unit.into(jnp.zeros((1, 1), dtype), objective)[1]
        magnitude.check_penalties(given, objective)
        whole = float(unit.whole)
        entries = dataclasses.replace(entries, x=entries.x / dtype.type(whole), floor=dtype.type(entries.floor / whole))
    penalties = (dtype.type(getattr(objective, name)) for name in PENALTIES)
    counts = None if objective.row_weights is None else np.asarray(objective.row_weights)
    return entries, Counted(counts, *penalties), unit


@dataclasses.dataclass(frozen=True)
class _Problem:
    entries: StoredEntries
    across: StoredEntries
    objective: Any
    solver: Any
    size: Any

    def of_codes(self, dictionary: Items) -> StoredSide:
        return StoredSide(self.entries, dictionary, self.objective.l1_codes, self.objective.l2_codes)

    def of_dictionary(self, codes: Items) -> StoredSide:
        objective = self.objective
        return StoredSide(self.across, codes, objective.l1_dictionary, objective.l2_dictionary, objective.row_weights)

    def by_columns(self, y: Values) -> Values:
        return y[self.entries.places.transposed[1]]

    def by_rows(self, y: Values) -> Values:
        found = np.empty_like(y)
        found[self.entries.places.transposed[1]] = y
        return found

    def counted(self, moves: Any) -> Any:
        weights = self.objective.row_weights
        return np.sum(moves if weights is None else moves * weights, dtype=np.float64)

    def residual(self, codes: Items, dictionary: Items, y: Values) -> Any:
        of_codes = self.counted(self.of_codes(dictionary).moves(codes, y))
        of_dictionary = np.sum(self.of_dictionary(codes).moves(dictionary, self.by_columns(y)), dtype=np.float64)
        return share(jnp.asarray(of_codes + of_dictionary, codes.dtype), self.size)

    def value(self, codes: Items, dictionary: Items) -> float:
        objective = self.objective
        total = misfit(self.entries, codes, dictionary, objective.row_weights)
        rows = np.sum(codes * (objective.l1_codes + objective.l2_codes / 2 * codes), axis=1, dtype=np.float64)
        return total + float(self.counted(rows)) + float(
            np.sum(dictionary * (objective.l1_dictionary + objective.l2_dictionary / 2 * dictionary), dtype=np.float64)
        )  # fmt: skip

    def change(self, codes: Items, dictionary: Items, new: tuple[Items, Items], y: Values, move: Values) -> float:
        """How the objective changes from factors with this product to new ones with a product that is so much more."""
        objective, weights = self.objective, self.objective.row_weights
        stored = self.entries.places.sums(self.entries.changes(y, move))
        step, middle = new[0] - codes, (new[0] + codes) / 2
        penalty = np.sum(step * (objective.l1_codes + objective.l2_codes * middle), axis=1, dtype=np.float64)
        total = float(self.counted(stored + penalty))
        more, half = new[1] - dictionary, (new[1] + dictionary) / 2
        total += float(np.sum(more * (objective.l1_dictionary + objective.l2_dictionary * half), dtype=np.float64))
        if not self.entries.zeros:
            return total
        rows = [x if weights is None else x * weights[:, None] for x in (step, middle)]
        if self.entries.beta == 2:
            gained = _symmetric(rows[0].T @ middle, middle.T @ rows[0])
            grown = _symmetric(more.T @ half, half.T @ more)
            squares = [x.T.astype(np.float64) @ z for x, z in ((new[1], new[1]), (rows[1] - rows[0] / 2, codes))]
            return total + (float(np.sum(gained * squares[0])) + float(np.sum(squares[1] * grown))) / 2
        sums: list[Any] = [np.sum(x, axis=0, dtype=np.float64) for x in (rows[0], rows[1] - rows[0] / 2, new[1], more)]
        return total + float(sums[0] @ sums[2] + sums[1] @ sums[3])


def _symmetric(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one + other).astype(np.float64)


def misfit(entries: StoredEntries, codes: Items, dictionary: Items, weights: Any) -> float:
    """`Σ d(x|y)` of codes `row concept` and a dictionary `channel concept`, rows weighted, penalties left out."""
    rows = entries.places.sums(entries.values(entries.places.products(codes, dictionary)))
    total = float(np.sum(rows if weights is None else rows * weights))
    if not entries.zeros:
        return total
    counted, exact = (codes if weights is None else codes * weights[:, None]), dictionary.astype(np.float64)
    if entries.beta == 2:
        total += float(np.sum((counted.T.astype(np.float64) @ codes) * (exact.T @ exact))) / 2
    else:
        total += float(np.sum(counted, axis=0, dtype=np.float64) @ exact.sum(axis=0))
    # A difference of sums, which rounding may bring below 0; not so NaN.
    return max(total, 0.0)


def _solve(entries: StoredEntries, objective: Any, solver: Any, codes: Items, dictionary: Items) -> Solution:
    dtype = codes.dtype
    sizes = entries.places.sums(entries.sizes())
    size = float(np.sum(sizes if objective.row_weights is None else sizes * objective.row_weights))
    problem = _Problem(entries, entries.transposed, objective, solver, jnp.asarray(size or 1.0, dtype))
    if not entries.zeros:
        codes = np.where(np.diff(entries.places.starts)[:, None] > 0, codes, 0)
    if entries.beta <= 1:
        codes, dictionary = _reaching(entries, codes, dictionary)
    y, rtol = entries.places.products(codes, dictionary), jnp.asarray(solver.rtol, dtype)
    value = jnp.asarray(problem.value(codes, dictionary), dtype)
    history = begun(value, problem.residual(codes, dictionary, y), rtol, solver.max_steps, solver.extrapolate)
    before = codes, dictionary
    while int(history.code) < 0 and int(history.step) < solver.max_steps:
        length = dtype.type(float(history.extrapolation))
        ahead = [np.maximum(x + length * (x - old), _LEAST * x) if length else x
                 for x, old in zip((codes, dictionary), before, strict=True)]  # fmt: skip
        there = entries.places.products(*ahead)
        new, there, moves = solver.improve_items(problem.of_codes(ahead[1]), ahead[0], there)
        far = problem.counted(moves)
        one, there, moves = solver.improve_items(problem.of_dictionary(new), ahead[1], problem.by_columns(there))
        there, far = problem.by_rows(there), far + np.sum(moves, dtype=np.float64)
        change = dtype.type(problem.change(codes, dictionary, (new, one), y, there - y))
        history = _after(history, change, dtype.type(far), problem.size, length, rtol)
        before = codes, dictionary
        if change <= 0:
            codes, dictionary, y = new, one, there
    value = jnp.asarray(problem.value(codes, dictionary), dtype)
    residual = problem.residual(codes, dictionary, y)
    return history.solution(jnp.asarray(codes.T), jnp.asarray(dictionary.T), value, residual)


@jax.jit
def _after(history: Any, change: Any, far: Any, size: Any, length: Any, rtol: Any) -> Any:
    accepted = change <= 0
    return history.after(
        accepted, jnp.maximum(history.objective + change, 0), share(far, size), rtol=rtol, patience=1,
        still=accepted & (change == 0) & (length == 0), finite=jnp.isfinite(change) | (length > 0),
    )  # fmt: skip


def _reaching(entries: StoredEntries, codes: Items, dictionary: Items) -> tuple[Items, Items]:
    """As `misfit_loop._reaching`: factors with a product above 0 where one is needed."""
    wants = entries.x > 0
    if entries.weights is not None:
        wants &= entries.weights > 0
    places = entries.places
    some = np.bincount(places.columns, wants, minlength=len(dictionary)) > 0
    none = ~np.any(dictionary > 0, axis=1) & some
    dictionary = np.where(none[:, None], dictionary.mean() or 1, dictionary).astype(codes.dtype)
    missed = places.sums((wants & (places.products(codes, dictionary) <= entries.floor)).astype(codes.dtype)) > 0
    return np.where(missed[:, None], np.maximum(codes, (codes.mean() or 1) / 100), codes), dictionary

"""Rank choice: held-out error and stability over a range of ranks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..blocks.row_blocks import RowBlocks, in_blocks
from ..linalg.row_shards import untyped
from ..support.arguments import Concepts, Real, Seed, Whole, instance, key_of, several, share, whole
from ..support.fields import within
from ..support.precision import full_precision
from ..support.progress import Advance, Progress, nobody
from ..support.progress_line import Watched, progress_of
from ..support.reprs import short_repr
from . import magnitude, validate
from . import rank_choice_in_blocks as in_parts
from .factorization import factorize
from .kept_parts import Factors, Keep, kept_in
from .matching import agreements, drawn_rows
from .memory_needs import check_room
from .objective import SquaredError
from .observed import observed_alone
from .options import Kept, Mask, Matrix
from .settings import check_solver, usual_solver
from .shapes import Activations, Codes, Dictionary, Number
from .solvers.starts import Given, Random
from .solvers.stream import Stream
from .solvers.streamed_facts import look
from .solvers.update_rules import Solver
from .sparse import sparse_rows

# Of the solver, where none is given.
SETTINGS: Mapping[str, Any] = {"rtol": 1e-3, "max_steps": 200}


@dataclasses.dataclass(frozen=True)
class RankScan:
    """What each rank does on entries that it hasn't seen, and whether it finds the same concepts again.

    **Arguments:**

    - `ranks`: increasing.
    - `held_out`: squared error on the entries left out, relative to their squares; mean over the folds.
    - `held_out_error`: its standard error over the folds.
    - `fitted`: the same ratio on the entries seen.
    - `stability`: mean cosine between the concepts of different starts, matched one to one; 1 is the same again.
    - `floor`: that of dictionaries which are random rows of the activations: what stability has to beat.
    """

    ranks: Int[np.ndarray, " rank"] = dataclasses.field(metadata=within(1))
    held_out: Float[np.ndarray, " rank"]
    held_out_error: Float[np.ndarray, " rank"]
    fitted: Float[np.ndarray, " rank"]
    stability: Float[np.ndarray, " rank"]
    floor: Float[np.ndarray, " rank"]

    __repr__ = short_repr

    @property
    def suggested(self) -> int:
        """The smallest rank whose held-out error is within one standard error of the lowest."""
        best = int(np.argmin(self.held_out))
        within = self.held_out <= self.held_out[best] + self.held_out_error[best]
        return int(self.ranks[np.argmax(within)])


@full_precision
def rank_scan(
    activations: Matrix,
    ranks: Concepts,
    *,
    key: Seed = None,
    folds: Whole = 3,
    starts: Whole = 3,
    left_out: Real = 0.1,
    solver: Any = None,
    observed: Mask = None,
    checkpoint: Kept = None,
    progress: Watched = None,
) -> RankScan:
    """Compare ranks by bi-cross-validation with masked entries (Owen & Perry 2009) and by stability over starts.

    In each fold other random entries are left out, and the ranks go upwards, each starting from the one before.
    Held-out error first falls and then rises with the rank; stability tells whether the concepts mean something.

    **Arguments:**

    - `activations`: `row × channel`, or rows in blocks, as for `factorize`.
    - `ranks`: which to try.
    - `key`: for masks and starts, or a seed; `jax.random.key(0)` if None.
    - `folds`: how many masks, at least 2.
    - `starts`: how many random starts are compared, at least 2.
    - `left_out`: which share of the entries a mask leaves out.
    - `solver`: the rule; a coarse tolerance is enough to compare ranks. By default `ADMM(rtol=1e-3, max_steps=200)`, or
        `SemiNMF` with these settings if any activation is below zero.
    - `observed`: where there are missing values, of dense activations in memory: truth values, as for `factorize`.
        Entries are left out among those that were observed.
    - `checkpoint`: a folder in which what was finished (each mask's ranks, each rank's starts) is kept, so that a scan
        that was killed goes on behind it, and ends with the same numbers. What is kept there of other scans is left.
    - `progress`: told how far it is, as by `face_jax.explain`: a line on a terminal by default.

    **Returns:** the table. Time grows with `(folds + starts) × len(ranks)`. Raises `ValueError` for what `factorize`
    refuses, and for activations that are 0 everywhere.

    **Example:**

    >>> scan = fj.rank_scan(A, [2, 3, 4])
    >>> scan.suggested
    3
    """
    blocks: Any = in_blocks("activations", activations)
    if observed is not None and (blocks is not None or sparse_rows("activations", activations) is not None):
        raise ValueError("observed= is there for dense activations in memory; leave it out, or give an array")
    order = sorted({validate.rank_of(rank) for rank in several("ranks", ranks, "numbers of concepts")})
    if not order:
        raise ValueError("ranks is empty; give the numbers of concepts to compare, such as (5, 10, 20)")
    if blocks is None:
        # Masks, what they leave out and what they show; codes as in a factorization.
        check_room(activations, order[-1], "comparing ranks of", wholes=3.0, codes=10)
        activations = untyped(validate.matrix("activations", activations, "row × channel"))
    seen = None
    if observed is not None:
        activations, objective = observed_alone(activations, SquaredError(), observed, channels=True)
        seen = objective.weights
    folds = whole("folds", folds, "masks to compare", least=2)
    starts = whole("starts", starts, "starts to compare", least=2)
    left_out = share("left_out", left_out, 0.1)
    keep, told = kept_in(checkpoint), progress_of(progress)
    if solver is not None:
        check_solver(instance("solver", solver, Solver, "ADMM(), HALS() or SemiNMF()"))
    if blocks is not None:
        facts = look(Stream.of(blocks), signed=solver is None or solver.signed_dictionary)
        solver = usual_solver(signed=facts.low < 0, **SETTINGS) if solver is None else solver
        if facts.low == facts.high == 0:
            raise ValueError("activations are all 0, which any number of concepts describes; give others")
        return _scan(blocks, order, folds, starts, left_out, solver, key, None, keep, told)
    validate.finite("activations", activations)
    if solver is None:
        solver = usual_solver(signed=validate.value_range(activations)[0] < 0, **SETTINGS)
    elif not solver.signed_dictionary:
        validate.non_negative("activations", activations, validate.SIGNED)
    if not np.asarray(activations).any():
        raise ValueError("activations are all 0, which any number of concepts describes; give others")
    # All that is told is a ratio or a cosine.
    activations = magnitude.unit_of(activations, SquaredError()).into(activations, SquaredError())[0]
    return _scan(activations, order, folds, starts, left_out, solver, key, seen, keep, told)


def _scan(
    activations: Any,
    order: list[int],
    folds: int,
    starts: int,
    left_out: float,
    solver: Solver,
    key: Seed,
    observed: Activations | None,
    keep: Keep,
    progress: Progress,
) -> RankScan:
    of_masks, of_starts, of_floor = jax.random.split(key_of(key), 3)
    fold_of: Any = _fold_in_blocks if isinstance(activations, RowBlocks) else partial(_fold, observed=observed)
    rows = activations if observed is None else [activations, observed]
    keep = keep.of(rows, (solver, of_masks, of_starts, of_floor), folds, starts, left_out)
    seen, unseen, alike = [], [], []
    with progress("Comparing ranks", (folds + starts) * len(order)) as advance:
        for number, fold in enumerate(jax.random.split(of_masks, folds)):
            errors = fold_of(activations, order, left_out, solver, fold, keep.part(f"mask {number}"), advance)
            seen.append([error[0] for error in errors])
            unseen.append([error[1] for error in errors])
        for rank in order:
            alike.append(_stability(activations, rank, starts, solver, of_starts, of_floor, keep, observed))
            advance(starts)
    stability, floor = zip(*alike, strict=True)
    return RankScan(
        ranks=np.asarray(order),
        held_out=np.mean(unseen, axis=0),
        held_out_error=np.std(unseen, axis=0, ddof=1) / np.sqrt(folds),
        fitted=np.mean(seen, axis=0),
        stability=np.asarray(stability),
        floor=np.asarray(floor),
    )


def _fold(
    activations: Activations,
    ranks: list[int],
    left_out: float,
    solver: Solver,
    key: Key[Array, ""],
    keep: Keep = Keep(),  # noqa: B008 (settings: frozen)
    advance: Advance = nobody,
    observed: Activations | None = None,
) -> list[tuple[float, float]]:
    of_mask, of_more = jax.random.split(key)
    mask = (jax.random.uniform(of_mask, activations.shape) >= left_out).astype(activations.dtype)
    # Activations are 0 where nothing was observed.
    rest = 1 - mask if observed is None else (1 - mask) * observed
    mask = mask if observed is None else mask * observed
    # The values left out never reach the fit, not even the start.
    visible = activations * mask

    def fitted(rank: int, more: Key[Array, ""], last: Factors | None) -> Factors:
        new_codes, new_dictionary = Random()(visible, rank, signed=solver.signed_dictionary, key=more)
        codes, dictionary = new_codes.T, new_dictionary
        if last is not None:
            kept = last.codes.shape[1]
            # New concepts start small, so that the ones found so far are only disturbed where they are wrong.
            codes = jnp.concatenate([jnp.asarray(last.codes), codes[:, kept:] / 10], axis=1)
            dictionary = jnp.concatenate([jnp.asarray(last.dictionary), dictionary[kept:]])
        found = factorize(
            visible, rank, objective=SquaredError(weights=mask), solver=solver, start=Given(codes, dictionary),
            progress=False,
        )  # fmt: skip
        return Factors(found.codes, found.dictionary)

    def measured(last: Factors) -> tuple[float, float]:
        return _errors(activations, jnp.asarray(last.codes), jnp.asarray(last.dictionary), mask, rest)

    return _each_from_the_last(ranks, of_more, keep, advance, fitted, measured)


def _fold_in_blocks(
    rows: RowBlocks,
    ranks: list[int],
    left_out: float,
    solver: Solver,
    key: Key[Array, ""],
    keep: Keep = Keep(),  # noqa: B008 (settings: frozen)
    advance: Advance = nobody,
) -> list[tuple[float, float]]:
    of_mask, of_more = jax.random.split(key)
    mask = in_parts.Mask(of_mask, rows.shape, left_out, rows.computed)
    visible, objective = in_parts.seen_by(mask, rows)
    magnitudes = in_parts.magnitudes_of(visible)

    def fitted(rank: int, more: Key[Array, ""], last: Any) -> Factors:
        codes, dictionary = in_parts.random_factors(
            visible, magnitudes, rank, last, more, signed=solver.signed_dictionary
        )
        found = factorize(
            visible, rank, objective=objective, solver=solver, start=Given(codes, dictionary), progress=False
        )
        return Factors(found.codes, found.dictionary)

    return _each_from_the_last(ranks, of_more, keep, advance, fitted, lambda last: in_parts.errors_of(rows, last, mask))


def _each_from_the_last(
    ranks: list[int],
    key: Key[Array, ""],
    keep: Keep,
    advance: Advance,
    fitted: Callable[[int, Any, Any], Factors],
    measured: Callable[[Factors], tuple[float, float]],
) -> list[tuple[float, float]]:
    """The errors of each rank, which is fitted from the one before, or was kept."""
    errors: list[tuple[float, float]] = []
    last: Factors | None = None
    for at, (rank, more) in enumerate(zip(ranks, jax.random.split(key, len(ranks)), strict=True)):
        last = keep.factors(ranks[: at + 1], partial(fitted, rank, more, last))
        errors.append(measured(last))
        advance(1)
    return errors


@jax.jit
def _ratios(
    activations: Activations, codes: Codes, dictionary: Dictionary, mask: Activations, rest: Activations
) -> tuple[Number, Number]:
    squares, errors = activations**2, (activations - codes @ dictionary) ** 2
    seen = jnp.sum(mask * errors) / jnp.sum(mask * squares)
    return seen, jnp.sum(rest * errors) / jnp.sum(rest * squares)


def _errors(activations: Array, codes: Array, dictionary: Array, mask: Array, rest: Array) -> tuple[float, float]:
    seen, unseen = _ratios(activations, codes, dictionary, mask, rest)
    return float(seen), float(unseen)


def _stability(
    activations: Any,
    rank: int,
    starts: int,
    solver: Solver,
    of_starts: Key[Array, ""],
    of_floor: Key[Array, ""],
    keep: Keep,
    observed: Activations | None = None,
) -> tuple[float, float]:
    objective = SquaredError(weights=observed)

    def fitted() -> list[np.ndarray]:
        options: Any = {"objective": objective, "solver": solver, "start": Random(), "progress": False}
        return [
            np.asarray(factorize(activations, rank, key=key, **options).dictionary)
            for key in jax.random.split(of_starts, starts)
        ]

    found = keep.arrays(f"starts at rank {rank}", fitted)
    keys = jax.random.split(of_floor, starts)
    if isinstance(activations, RowBlocks):
        draws = in_parts.drawn(activations, rank, keys)
    else:
        draws = drawn_rows(np.asarray(activations), rank, keys)
    return float(agreements(found).mean()), float(agreements(draws).mean())

"""Codes of sparse activations for a dictionary that stands still, to rounding, from their stored entries.

As `divergence_codes` has it: each row's quadratic model is minimized by coordinate sweeps and then exactly on the codes
above 0; rows that have arrived are left alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from .divergence_codes import SOFTENED
from .stored_entries import StoredEntries
from .stored_steps import Items, StoredSide

_SWEEPS, _MAX_STEPS, _POLISHES = 8, 200, 3
_ARRIVED = 16  # roundings that a row's codes may be away


def codes_of(entries: StoredEntries, dictionary: Items, l1: Any, l2: Any, begun: Items | None = None) -> Items:
    """The codes, `row concept`; those of rows without any entry that counts are 0.

    **Arguments:**

    - `entries`: of the activations.
    - `dictionary`: `channel concept`.
    - `l1`, `l2`: penalties on the codes.
    - `begun`: codes to start from as well, where a row's problem isn't convex.
    """
    side = StoredSide(entries, dictionary, l1, l2)
    with np.errstate(all="ignore"):
        first = _first(side)
        starts = [first]
        if not 1 <= entries.beta <= 2:
            # As `divergence_codes` has them.
            near = dataclasses.replace(side, entries=dataclasses.replace(entries, beta=1.0))
            starts += [_softened(near, first), _softened(side, first), *([] if begun is None else [begun])]
        found = [_polished(side, _arrived(side, start.copy())) for start in starts]
        if len(found) == 1:
            return found[0]
        values = np.stack([side.values(codes) for codes in found])
        best = np.argmin(np.where(np.isfinite(values), values, np.inf), axis=0)
        return np.stack(found)[best, np.arange(len(best))]


def _softened(side: StoredSide, codes: Items) -> Items:
    return side.multiplied(codes, side.product(codes), SOFTENED)[0]


def _first(side: StoredSide) -> Items:
    """Every concept alike, each row with its own sum."""
    entries, other = side.entries, side.other
    shape = other.sum(axis=1)
    total = entries.places.sums(entries.weighed(entries.x))
    whole = entries.places.sums(entries.pushing * shape[entries.places.columns]) + entries.zeros * shape.sum()
    each = np.where(whole > 0, total / np.where(whole > 0, whole, 1), 0).astype(other.dtype)
    return np.where(np.any(other > 0, axis=0)[None], each[:, None], 0).astype(other.dtype)


def _arrived(side: StoredSide, codes: Items) -> Items:
    eps, sizes = float(np.finfo(codes.dtype).eps), side.entries.places.sums(side.entries.sizes())
    open_ = np.arange(len(codes))
    for _ in range(_MAX_STEPS):
        some = dataclasses.replace(side, entries=side.entries.of_rows(open_))
        x = codes[open_]
        y = some.product(x)
        slope = some.slope(x, y)
        target, moves = some.solved(x, slope, some.entries.curvatures(y), _SWEEPS, exact=True)
        far = moves > (_ARRIVED * eps) ** 2 * sizes[open_]
        new, _ = some.searched(x, y, np.where(far[:, None], target, x), slope)
        codes[open_] = new
        open_ = open_[far & np.any(new != x, axis=1)]
        if not len(open_):
            break
    return codes


def _polished(side: StoredSide, codes: Items) -> Items:
    """Newton's own steps on the codes above 0, for rows where they bring the slopes nearer to zero."""
    free = codes > 0

    def slopes(codes: Items) -> tuple[Items, np.ndarray]:
        y = side.product(codes)
        return np.where(free, side.slope(codes, y), 0), side.entries.curvatures(y, exact=True)

    off, curvatures = slopes(codes)
    for _ in range(_POLISHES):
        new = codes - side.solved_on(free, off, curvatures)
        there, bent = slopes(new)
        better = np.all((new > 0) == free, axis=1) & (np.sum(there**2, axis=1) < np.sum(off**2, axis=1))
        codes, off = np.where(better[:, None], new, codes), np.where(better[:, None], there, off)
        curvatures = np.where(better[side.entries.places.rows], bent, curvatures)
    return codes

"""Problems of different numbers of rows made alike: rows of zeros change nothing but where a start looks.

A row of zeros has codes of zero from the first step on, and adds nothing to any sum. A start that draws a sample of the
rows is told which ones these would be without the zeros, and a random basis is the same to its last row: numbers that
are drawn for fewer rows are the first ones of those for more.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key

from ..objective import Objective
from .starts import NNDSVD, Start
from .update_rules import ADMM, HALS, SemiNMF
from .warmup import Sample, Warmup, spread

_LIKE_PREFIXES = "jax_threefry_partitionable"  # whether numbers drawn for fewer rows are the first of those for more


class Layout(NamedTuple):
    """How many rows problems that are alike have.

    **Arguments:**

    - `rows`: with those of zeros.
    - `samples`: of a start's samples, likewise; None if problems are alike only with exactly so many rows.
    """

    rows: int
    samples: tuple[int, ...] | None


def layout_of(
    rows: int, channels: int, rank: int, objective: Objective, solver: Any, start: Start, key: Key[Array, ""]
) -> Layout:
    """The layout in which a problem's solution is, to rounding, that of the problem by itself."""
    if objective.terms or objective.weights is not None or not _blind(solver, start, key):
        return Layout(rows, None)
    inner: Any = start.start if isinstance(start, Warmup) else start
    bound = _rounded(rows)
    stages = start.stages_of(rows, rank) if isinstance(start, Warmup) else []
    sizes = [int(bound * share) for share, _ in stages]
    counts = [int(rows * share) for share, _ in stages]

    def like(count: int, size: int) -> int:
        # The first factors are taken from the smaller side, and from as many directions as there are.
        if count < min(rank + inner.oversample, channels):
            return count
        return min(size, channels - 1) if count < channels else size

    if sizes:
        return Layout(bound, (like(counts[0], sizes[0]), *sizes[1:]))
    return Layout(like(rows, bound), ())


def start_in(layout: Layout, start: Start, rows: int, rank: int) -> Start:
    """The start for a problem of so many rows, filled up to the layout's."""
    if layout.samples is None or not isinstance(start, Warmup):
        return start
    drawn = []
    for size, (share, steps) in zip(layout.samples, start.stages_of(rows, rank), strict=True):
        count = int(rows * share)
        chosen = np.full(size, -1, np.int32)
        chosen[:count] = spread(rows, count)
        drawn.append(Sample(chosen, rows / count, steps))
    return _Drawn(start.start, start.stages, start.solver, tuple(drawn))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Drawn(Warmup):
    """A warm-up that is told its samples."""

    drawn: tuple[Sample, ...] = ()

    def samples(self, rows: int, channels: int, rank: int) -> list[Sample]:
        """Those."""
        del rows, channels, rank
        return list(self.drawn)


def _blind(solver: Any, start: Start, key: Key[Array, ""]) -> bool:
    """Whether solver and start don't see rows of zeros."""
    if not getattr(jax.config, _LIKE_PREFIXES) or str(jax.random.key_impl(key)) != "threefry2x32":
        return False
    if isinstance(start, Warmup):
        return _blind_rule(start.solver) and _blind(solver, start.start, key)
    return type(start) is NNDSVD and _blind_rule(solver)


def _blind_rule(solver: Any) -> bool:
    return _blind_rule(solver.codes) if type(solver) is SemiNMF else type(solver) in (ADMM, HALS)


def _rounded(rows: int) -> int:
    """At most a fourth more: 4, 5, 6 or 7 times a power of two; on accelerators, which compile slowly, that alone."""
    unit = 1 << max(0, (rows - 1).bit_length() - (3 if jax.default_backend() == "cpu" else 0))
    return -(-rows // unit) * unit

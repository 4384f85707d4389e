"""A start from a few of the rows, for so many rows that even one pass over them is long."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from ...support.scaling import positive
from ..objective import SquaredError
from ..shapes import Activations, FactorsT
from .loop import solve
from .starts import NNDSVD, Given, Start
from .update_rules import ADMM, SemiNMF, Solver
from .warmup import exactly, roughly

_RUNS = 64  # places in the rows that a mini-batch is taken from, so that few blocks are read for it


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class MiniBatch(Start):
    """The dictionary of a mini-batch of rows, then codes for all rows: `Warmup` with a bound on its samples.

    A sample of `Warmup` is a share of the rows, and so grows with them; this one doesn't. Rows are taken from 64 places
    spread evenly, those behind one another together.

    **Arguments:**

    - `rows`: how many.
    - `steps`: steps on them.
    - `start`: where these start. Factors that are `Given` are improved on the mini-batch first.
    - `solver`: their rule; where the dictionary may be negative, that of the codes.

    **Example:**

    >>> fj.factorize(A, 3, start=fj.MiniBatch(rows=30)).codes.shape
    (60, 3)
    """

    rows: int = dataclasses.field(default=65_536, metadata={"static": True})
    steps: int = dataclasses.field(default=20, metadata={"static": True})
    start: Start = NNDSVD()  # noqa: RUF009 (frozen)
    solver: Solver = ADMM()  # noqa: RUF009

    def __call__(self, activations: Activations, rank: int, *, signed: bool, key: Key[Array, ""]) -> FactorsT:
        """Factorize the mini-batch, then encode the rest roughly."""
        rows = activations.shape[0]
        chosen = jnp.asarray(self.chosen(rows))
        sample, start = activations[chosen], self.start
        if isinstance(start, Given):
            start = Given(start.codes[chosen], start.dictionary)
        codes, dictionary = start(sample, rank, signed=signed, key=key)
        rule: Any = self.rule(signed=signed)
        found = solve(sample, SquaredError(), dataclasses.replace(rule, max_steps=self.steps), codes, dictionary)
        lengths = jnp.sqrt(jnp.sqrt(jnp.sum(found.codes**2, axis=0) * (rows / len(chosen))))
        dictionary = found.dictionary * positive(lengths)[:, None]
        return (exactly if signed else roughly)(activations, dictionary), dictionary

    def chosen(self, rows: int) -> Int[np.ndarray, " some"]:
        """Which rows of so many, in order."""
        count = min(rows, self.rows)
        runs = min(_RUNS, count)
        starts = np.arange(runs) * rows // runs
        ends = np.minimum(starts + np.diff(np.arange(runs + 1) * count // runs), rows)
        return np.concatenate([np.arange(*run) for run in zip(starts, ends, strict=True)]).astype(np.int32)

    def counts(self, rows: int, rank: int) -> list[tuple[int, int]]:
        """The one sample's number of rows, and how many steps are taken on it."""
        del rank
        return [(min(rows, self.rows), self.steps)]

    def rule(self, *, signed: bool) -> Solver:
        """The mini-batch's rule."""
        return SemiNMF(codes=self.solver) if signed and not self.solver.signed_dictionary else self.solver

    @property
    def given(self) -> Given | None:
        """Those of the inner start."""
        return self.start.given

    def rescaled(self, rescale: Callable[[Any, Any], tuple[Any, Any]]) -> MiniBatch:
        """With the inner start rescaled."""
        return dataclasses.replace(self, start=self.start.rescaled(rescale))

"""A start that is a small factorization itself: of samples of the rows, a small one and then a larger one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

from ...support.scaling import positive
from ..nnls.least_squares import codes_of
from ..objective import SquaredError
from ..shapes import Activations, CodesT, Dictionary, FactorsT
from .loop import solve
from .passes import pass_over
from .rule import Iterate
from .starts import NNDSVD, Given, Start
from .update_rules import ADMM, HALS, SemiNMF, Solver

_FEWEST_ROWS = 4  # for each concept: a smaller sample says too little
_SWEEPS = 6  # coordinate sweeps that give all rows their codes for a sample's dictionary


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Warmup(Start):
    """The dictionary of ever larger samples of the rows, a few cheap steps each, then codes for all rows. The default.

    A dictionary has far fewer numbers than the activations, so a share of the rows brings it most of the way: ten
    steps at a sixteenth and five at a quarter cost as much as two on all rows, and save ten to thirty.
    A sample that's too small for the rank is left out; with few rows it's just the inner start.

    **Arguments:**

    - `start`: where the first sample starts. Factors that are `Given` are improved on the samples first, too.
    - `stages`: which share of the rows each sample is, and how many steps are taken on it.
    - `solver`: their rule; where the dictionary may be negative, that of the codes.
    """

    start: Start = NNDSVD()  # noqa: RUF009 (frozen)
    stages: tuple[tuple[float, int], ...] = dataclasses.field(
        default=((1 / 16, 10), (1 / 4, 5)), metadata={"static": True}
    )
    solver: Solver = ADMM()  # noqa: RUF009

    def __call__(self, activations: Activations, rank: int, *, signed: bool, key: Key[Array, ""]) -> FactorsT:
        """Factorize the samples, one after another, then encode the rest roughly."""
        rows = activations.shape[0]
        stages = self.counts(rows, rank)
        if not stages:
            return self.start(activations, rank, signed=signed, key=key)
        chosen = spread(rows, stages[0][0])
        sample, start = activations[chosen], self.start
        if isinstance(start, Given):
            start = Given(start.codes[chosen], start.dictionary)
        codes, dictionary = start(sample, rank, signed=signed, key=key)
        rule: Any = self.rule(signed=signed)
        codes_for = exactly if signed else roughly
        for number, (count, steps) in enumerate(stages):
            if number:
                sample = activations[spread(rows, count)]
                codes = codes_for(sample, dictionary)
            solver = dataclasses.replace(rule, max_steps=steps)
            found = solve(sample, SquaredError(), solver, codes, dictionary)
            # Equal shares of length for both factors: the solvers' steps treat them alike then.
            lengths = jnp.sqrt(jnp.sqrt(jnp.sum(found.codes**2, axis=0) * (rows / count)))
            dictionary = found.dictionary * positive(lengths)[:, None]
        return codes_for(activations, dictionary), dictionary

    def counts(self, rows: int, rank: int) -> list[tuple[int, int]]:
        """How many rows each sample has, and how many steps are taken on it."""
        stages = [(int(rows * share), steps) for share, steps in self.stages]
        return [(count, steps) for count, steps in stages if count >= _FEWEST_ROWS * rank]

    def rule(self, *, signed: bool) -> Solver:
        """The samples' rule."""
        return SemiNMF(codes=self.solver) if signed and not self.solver.signed_dictionary else self.solver

    @property
    def given(self) -> Given | None:
        """Those of the inner start."""
        return self.start.given

    def rescaled(self, rescale: Callable[[Array, Array], tuple[Array, Array]]) -> Warmup:
        """With the inner start rescaled."""
        return dataclasses.replace(self, start=self.start.rescaled(rescale))


def exactly(activations: Activations, dictionary: Dictionary) -> CodesT:
    """The codes that minimize the squared error, concepts first: concepts of either sign are so far from orthogonal
    that sweeps take dozens of times as many to come near."""
    return codes_of(activations, dictionary, SquaredError())[0].T


def roughly(activations: Activations, dictionary: Dictionary) -> CodesT:
    """Codes after some coordinate sweeps from zero, concepts first."""
    zeros = jnp.zeros((dictionary.shape[0], activations.shape[0]), activations.dtype)
    update = HALS(sweeps=_SWEEPS).update
    return pass_over(activations, SquaredError(), update, dictionary, Iterate(zeros, zeros))[0].x


def spread(rows: int, count: int) -> Int[Array, " count"]:
    """`count` row numbers, evenly spread but in step with no period: multiples of the golden ratio, modulo 1."""
    fractions = (np.arange(count) * 0.6180339887498949) % 1.0
    return jnp.asarray((fractions * rows).astype(np.int64), dtype=jnp.int32)

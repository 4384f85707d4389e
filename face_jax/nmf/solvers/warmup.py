"""A start that is a small factorization itself: of samples of the rows, a small one and then a larger one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ...linalg.row_shards import by_shard, row_shards
from ...support.scaling import positive
from ...support.watched_steps import unwatched
from ..nnls.least_squares import codes_of
from ..objective import SquaredError
from ..shapes import Activations, CodesT, Dictionary, FactorsT, Scalar
from .loop import solve
from .passes import pass_over
from .rule import Iterate
from .starts import NNDSVD, Given, Start
from .update_rules import ADMM, HALS, SemiNMF, Solver

_FEWEST_ROWS = 4  # for each concept: a smaller sample says too little
_SWEEPS = 6  # coordinate sweeps that give all rows their codes for a sample's dictionary


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sample:
    """Some of the rows, and what's done with them.

    **Arguments:**

    - `chosen`: their numbers, or those within each of the equal parts that rows lie in on devices; -1 gives a row of
        zeros, which changes nothing.
    - `times`: how many rows each stands for.
    - `steps`: that are taken on them.
    """

    chosen: Int[Array, " count"] | Int[np.ndarray, " count"] | Int[Array, "shard count"]
    times: Scalar
    steps: int = dataclasses.field(metadata={"static": True})

    def of(self, x: Float[Array, "row _"]) -> Float[Array, "count _"]:
        """These rows of a matrix."""
        chosen = self.chosen
        if chosen.ndim == 1:
            found = x[chosen]
        else:
            found = jnp.take_along_axis(by_shard(x, len(chosen)), jnp.maximum(chosen, 0)[:, :, None], axis=1)
            found, chosen = found.reshape(-1, x.shape[1]), chosen.reshape(-1)
        return jnp.where(chosen[:, None] >= 0, found, 0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Warmup(Start):
    """The dictionary of ever larger samples of the rows, a few cheap steps each, then codes for all rows. The default.

    A dictionary has far fewer numbers than the activations, so a share of the rows brings it most of the way: ten
    steps at a sixteenth and five at a quarter cost as much as two on all rows, and save ten to thirty.
    A sample that's too small for the rank is left out; with few rows it's just the inner start.

    Rows that lie on many devices stay there, each device's share of a sample as well; only a sample that has no more
    rows than there are channels, or that an inner start other than `NNDSVD` and `Given` looks at, is handed to all.

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
        rows, channels = activations.shape
        samples = self.samples(rows, channels, rank)
        if not samples:
            return self.start(activations, rank, signed=signed, key=key)
        sample, start = samples[0].of(activations), self.start
        if isinstance(start, Given):
            start = Given(samples[0].of(start.codes), start.dictionary)
        codes, dictionary = start(sample, rank, signed=signed, key=key)
        rule: Any = self.rule(signed=signed)
        codes_for = exactly if signed else roughly
        for number, drawn in enumerate(samples):
            if number:
                sample = drawn.of(activations)
                codes = codes_for(sample, dictionary)
            solver = dataclasses.replace(rule, max_steps=drawn.steps)
            with unwatched():
                found = solve(sample, SquaredError(), solver, codes, dictionary)
            # Equal shares of length for both factors: the solvers' steps treat them alike then.
            lengths = jnp.sqrt(jnp.sqrt(jnp.sum(found.codes**2, axis=0) * drawn.times))
            dictionary = found.dictionary * positive(lengths)[:, None]
        return codes_for(activations, dictionary), dictionary

    def counts(self, rows: int, rank: int) -> list[tuple[int, int]]:
        """How many rows each sample has, and how many steps are taken on it."""
        return [(int(rows * share), steps) for share, steps in self.stages_of(rows, rank)]

    def rule(self, *, signed: bool) -> Solver:
        """The samples' rule."""
        return SemiNMF(codes=self.solver) if signed and not self.solver.signed_dictionary else self.solver

    def stages_of(self, rows: int, rank: int) -> list[tuple[float, int]]:
        """The stages that have rows enough."""
        return [stage for stage in self.stages if int(rows * stage[0]) >= _FEWEST_ROWS * rank]

    def samples(self, rows: int, channels: int, rank: int) -> list[Sample]:
        """Which rows each sample has; none if there are too few rows."""
        shards = row_shards(rows)
        found = []
        for share, steps in self.stages_of(rows, rank):
            count = int(rows * share)
            chosen = spread(rows, count)
            # Where it's a matter of the rows alone, not of their order, each device keeps those that it has. A sample
            # that isn't larger than a matrix of channels is handed to all.
            alone = (type(self.start) is NNDSVD and channels >= rank) or isinstance(self.start, Given)
            if shards > 1 and count > channels and alone:
                chosen = _where_they_are(chosen, rows, shards)
            found.append(Sample(jnp.asarray(chosen, jnp.int32), rows / count, steps))
        return found

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
    update = HALS(sweeps=_SWEEPS).update_penalized
    return pass_over(activations, SquaredError(), update, dictionary, Iterate(zeros, zeros))[0].x


def spread(rows: int, count: int) -> Int[np.ndarray, " count"]:
    """`count` row numbers, evenly spread but in step with no period: multiples of the golden ratio, modulo 1."""
    fractions = (np.arange(count) * 0.6180339887498949) % 1.0
    return (fractions * rows).astype(np.int64)


def _where_they_are(chosen: Int[np.ndarray, " count"], rows: int, shards: int) -> Int[np.ndarray, "shard row"]:
    """The same rows as numbers within each of so many equal parts; -1 behind those of a part that has fewer."""
    each = rows // shards
    parts = [np.sort(chosen[chosen // each == shard]) - shard * each for shard in range(shards)]
    table = np.full((shards, max(map(len, parts))), -1)
    for line, part in zip(table, parts, strict=True):
        line[: len(part)] = part
    return table

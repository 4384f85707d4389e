"""A start that is a small factorization itself: of a sample of the rows."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from .driver import solve
from .objective import SquaredError
from .solvers import ADMM, Solver, sweep
from .starts import NNDSVD, Given, Start

_FEWEST_ROWS = 250  # a smaller sample says too little, and costs no less
_SWEEPS = 6  # coordinate sweeps that give all rows their codes for the sample's dictionary


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Warmup(Start):
    """The dictionary of a sample of the rows, for a few cheap steps, then codes for all rows. The default.

    A dictionary has far fewer numbers than the activations, so a share of the rows brings it most of the way: at
    an eighth of the rows, twenty steps cost as much as two and a half on all of them and save up to thirty.
    With few rows it's just the inner start.

    **Arguments:**

    - `start`: where the sample starts. Factors that are `Given` are improved on the sample first, too.
    - `share`: which share of the rows is the sample.
    - `steps`: steps on the sample.
    - `solver`: their rule.
    """

    start: Start = NNDSVD()  # noqa: RUF009 (frozen)
    share: float = dataclasses.field(default=0.125, metadata={"static": True})
    steps: int = dataclasses.field(default=20, metadata={"static": True})
    solver: Solver = ADMM()  # noqa: RUF009

    def __call__(
        self, activations: Float[Array, "row channel"], rank: int, *, signed: bool, key: Key[Array, ""]
    ) -> tuple[Float[Array, "concept row"], Float[Array, "concept channel"]]:
        """Factorize the sample, then encode the rest roughly."""
        rows = activations.shape[0]
        count = int(rows * self.share)
        if signed or count < max(_FEWEST_ROWS, 4 * rank):
            return self.start(activations, rank, signed=signed, key=key)
        chosen = spread(rows, count)
        sample = activations[chosen]
        start = self.start
        if isinstance(start, Given):
            start = Given(start.codes[chosen], start.dictionary)
        codes, dictionary = start(sample, rank, signed=signed, key=key)
        settings: Any = self.solver
        solver = dataclasses.replace(settings, max_steps=self.steps)
        found = solve(sample, SquaredError(), solver, codes, dictionary)
        # Equal shares of length for both factors: the solvers' steps treat them alike then.
        lengths = jnp.sqrt(jnp.sqrt(jnp.sum(found.codes**2, axis=0) * (rows / count)))
        dictionary = found.dictionary * jnp.where(lengths > 0, lengths, 1)[:, None]
        gram, cross = dictionary @ dictionary.T, dictionary @ activations.T
        codes = jax.lax.fori_loop(0, _SWEEPS, lambda _, x: sweep(x, gram, cross), jnp.zeros_like(cross))
        return codes, dictionary


def spread(rows: int, count: int) -> Int[Array, " count"]:
    """`count` row numbers, evenly spread but in step with no period: multiples of the golden ratio, modulo 1."""
    fractions = (np.arange(count) * 0.6180339887498949) % 1.0
    return jnp.asarray((fractions * rows).astype(np.int64), dtype=jnp.int32)

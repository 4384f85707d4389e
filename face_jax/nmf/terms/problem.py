"""An objective with terms, as the functions of the factors that a solver needs.

Rows are gone through block by block, so that the predictions of one block are all that is held at a time; what rows
of other blocks have to know is added up on the way.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...linalg.row_blocks import RowBlocks, map_blocks, put_rows
from ...linalg.row_shards import by_shard, row_shards
from ..objective import Objective, SquaredError, Term
from ..shapes import Activations, Codes, Dictionary, Gram, Number, Scalar
from ..steps import coordinate_step, ridged

BLOCK_ROWS, _LEAST_ROWS = 1024, 256  # rows whose predictions are held at a time, and at least of each device
SAMPLE_ROWS = 2048  # about the rows that the dictionary's curvature is taken from; gradients and values see all
JOINT_STEPS = 15
TRIALS = 10


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the loop takes from a solver.

    **Arguments:**

    - `rtol`, `max_steps`, `extrapolate`: the solver's own.
    - `signed`: whether the dictionary may have negative entries.
    - `inner`: ADMM iterations in each block.
    - `steps`, `cg_rtol`: bounds of the conjugate gradients in each of them.
    """

    rtol: Any = 1e-4
    max_steps: int = 500
    extrapolate: bool = True
    signed: bool = False
    inner: int = 3
    steps: int = 6
    cg_rtol: Any = 0.1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """What a pass over the rows adds up; the codes are those that it returns."""

    gram: Gram
    cross: Dictionary
    slope: Dictionary
    change: Number
    moves: Number


@dataclasses.dataclass(frozen=True)
class Part:
    """A term with its weight and with what it has prepared."""

    weight: Scalar
    term: Term
    prepared: Any
    rows: int

    def knowing(self, prepared: Any) -> Part:
        """The same of other rows, or with more of what it has prepared."""
        return dataclasses.replace(self, prepared=prepared)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Activations, objective and settings, with the functions of the factors that the loop needs."""

    activations: Activations
    quadratic: SquaredError
    parts: tuple[Part, ...]
    settings: Settings
    group: int
    size: Number
    parted: int = 1  # of how many equal parts this is one
    division: RowBlocks | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.activations.shape[0]

    def weights(self, codes: Codes) -> Float[Array, " row"]:
        """What each row counts."""
        weights = self.quadratic.row_weights
        return jnp.ones(codes.shape[0], codes.dtype) if weights is None else weights

    def codes_gram(self, dictionary: Dictionary) -> Gram:
        """The squared error's curvature in the codes of a row that counts once."""
        return ridged(dictionary @ dictionary.T, self.quadratic.l2_codes)

    def take(self, start: Array | int, size: int) -> Problem:
        """Some consecutive rows."""
        weights = _some(self.quadratic.row_weights, start, size)
        prepared = tuple(_some(part.prepared, start // part.rows, size // part.rows) for part in self.parts)
        return self._with_rows(_some(self.activations, start, size), weights, prepared)

    def _with_rows(self, activations: Activations, weights: Any, prepared: tuple[Any, ...]) -> Problem:
        quadratic = dataclasses.replace(self.quadratic, row_weights=weights)
        parts = tuple(part.knowing(mine) for part, mine in zip(self.parts, prepared, strict=True))
        return dataclasses.replace(self, activations=activations, quadratic=quadratic, parts=parts, division=None)

    def on_each_device(self, function: Callable[..., tuple[Any, Any]], *with_rows: Any) -> tuple[Any, Any]:
        """What `(problem, *with_rows) → (rows, sums)` gives for the rows that each device has, put together.

        Sums of different devices are added up once, behind all of their blocks.
        """
        shards = self.shards
        if shards == 1:
            return function(self, *with_rows)

        def alone(mine: tuple[Any, ...], *with_rows: Any) -> tuple[Any, Any]:
            return function(dataclasses.replace(self._with_rows(*mine), parted=shards), *with_rows)

        own = self.activations, self.quadratic.row_weights, tuple(part.prepared for part in self.parts)
        parted = jax.tree.map(lambda x: by_shard(x, shards), (own, *with_rows))
        found, sums = jax.vmap(alone)(*parted)
        together = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
        return together, jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)

    @property
    def shards(self) -> int:
        """The most equal parts of whole groups in which rows may lie on devices."""
        return 1 if self.parted > 1 else row_shards(self.rows // self.group)

    def recalled(self) -> Problem:
        """With all that the terms have to know of these rows."""
        parts = tuple(part.knowing(part.term.recalled(part.prepared, self.activations)) for part in self.parts)
        return dataclasses.replace(self, parts=parts)

    def sample(self, codes: Codes, offset: Array) -> tuple[tuple[Part, ...], Float[Array, "some concept"], float]:
        """Terms and codes of evenly spread groups of rows, and how many rows each stands for."""
        groups = self.rows // self.group
        count = sampled_groups(self.group)
        if groups <= count:
            return self.recalled().parts, codes, 1.0
        shards = math.gcd(self.shards, count)
        chosen = jnp.arange(count // shards, dtype=offset.dtype) * groups // count + offset % (groups // count)

        def taken(x: Array) -> Array:
            parted = x.reshape(shards, groups // shards, -1, *x.shape[1:])
            return parted[:, chosen].reshape(-1, *x.shape[1:])

        parts = tuple(part.knowing(jax.tree.map(taken, part.prepared)) for part in self.parts)
        some = dataclasses.replace(self, activations=taken(self.activations), parts=parts)
        return some.recalled().parts, taken(codes), groups / count

    def like(self, codes: Codes, dictionary: Dictionary) -> Gram:
        """A matrix that resembles the curvature of a row's codes."""
        gram = self.codes_gram(dictionary)
        if self.quadratic.row_weights is not None:
            gram = gram * jnp.mean(self.quadratic.row_weights)
        found = ((part.weight, part.term.local_codes(part.prepared, codes, dictionary).gram) for part in self.parts)
        return sum((weight * mine for weight, mine in found if mine is not None), gram)

    def values(self, codes: Codes, dictionary: Dictionary) -> Float[Array, " group"]:
        """The weighted terms of each group of rows."""
        total = jnp.zeros(codes.shape[0] // self.group, codes.dtype)
        for part in self.parts:
            found = part.weight * part.term.values(part.prepared, codes, dictionary)
            total = total + jnp.sum(found.reshape(total.shape[0], -1), axis=1)
        return total

    def all_values(self, codes: Codes, dictionary: Dictionary) -> Float[Array, " group"]:
        """The same for all rows, block by block."""
        if self.at_once:
            return self.recalled().values(codes, dictionary)

        def alone(part: Problem, codes: Codes) -> tuple[Array, tuple[()]]:
            blocks = part.blocks

            def one(start: Array) -> Array:
                return part.take(start, blocks.size).recalled().values(blocks.take(codes, start), dictionary)

            groups = jnp.zeros(part.rows // part.group, codes.dtype)
            return map_blocks(blocks, one, groups, put=part.put_groups), ()

        return self.on_each_device(alone, codes)[0]

    @property
    def at_once(self) -> bool:
        """Whether one block has all rows."""
        return RowBlocks.of(self.rows, BLOCK_ROWS, together=self.group).count == 1

    @property
    def blocks(self) -> RowBlocks:
        """The rows in blocks of whole groups: as they are divided, if these are some of more rows."""
        if self.division is not None:
            return self.division
        most = BLOCK_ROWS if self.parted == 1 else max(BLOCK_ROWS // self.parted, _LEAST_ROWS)
        return RowBlocks.of(self.rows, most, together=self.group)

    def put_groups(self, out: Array, piece: Array, start: Array) -> Array:
        """Numbers of a block's groups in their place."""
        return put_rows(out, piece, start // self.group)

    def dictionary_slope(self, sums: Sums, dictionary: Dictionary) -> tuple[Dictionary, Dictionary, Array]:
        """Slopes of the squared error and of all, and the Gram matrix."""
        gram = ridged(sums.gram, self.quadratic.l2_dictionary)
        quadratic = gram @ dictionary - sums.cross + self.quadratic.l1_dictionary
        return quadratic, quadratic + sums.slope, gram

    def dictionary_moves(self, slope: Dictionary, gram: Array, dictionary: Dictionary) -> Number:
        """The squared change of the fit if each entry went to its own optimum."""
        diagonal = jnp.diagonal(gram)[:, None]
        target = coordinate_step(dictionary, slope, diagonal, signed=self.settings.signed)
        return jnp.sum(diagonal * (dictionary - target) ** 2)

    def objective(self, codes: Codes, dictionary: Dictionary, sums: Sums, values: Float[Array, " group"]) -> Number:
        """The whole objective, from sums that belong to these codes."""
        return self.objective_from(self.codes_penalty(codes), dictionary, sums, values)

    def codes_penalty(self, codes: Codes) -> Number:
        """What the codes' penalties come to."""
        penalty = jnp.sum(self.quadratic.l1_codes * codes + self.quadratic.l2_codes / 2 * codes**2, axis=1)
        if self.quadratic.row_weights is not None:
            penalty = penalty * self.quadratic.row_weights
        return jnp.sum(penalty)

    def objective_from(
        self, penalty: Number, dictionary: Dictionary, sums: Sums, values: Float[Array, " group"]
    ) -> Number:
        """The whole objective, the codes' penalty known."""
        fit = jnp.sum(sums.gram * (dictionary @ dictionary.T)) / 2 - jnp.sum(sums.cross * dictionary)
        other = self.quadratic.l1_dictionary * dictionary + self.quadratic.l2_dictionary / 2 * dictionary**2
        return self.size / 2 + fit + penalty + jnp.sum(other) + jnp.sum(values)


def sampled_groups(group: int) -> int:
    """How many groups of rows the dictionary's curvature is taken from, of as many rows each.

    A power of two: then as many are on each of a power of two of devices, which keep them.
    """
    return 1 << (max(1, SAMPLE_ROWS // group) - 1).bit_length()


def _some(x: Any, start: Array | int, size: int) -> Any:
    return jax.tree.map(lambda part: jax.lax.dynamic_slice_in_dim(part, start, size), x)


def problem_of(
    activations: Activations, objective: Objective, prepared: tuple[Any, ...], settings: Settings
) -> Problem:
    """The problem, with what its terms have prepared."""
    objective, rows = objective.in_dtype(activations.dtype), activations.shape[0]
    parts = tuple(
        Part(weighted.weight, weighted.term, mine, weighted.term.rows_together(rows))
        for weighted, mine in zip(objective.terms, prepared, strict=True)
    )
    # Without terms each row stands alone.
    group = math.lcm(1, *(part.rows for part in parts))
    size = dataclasses.replace(objective.quadratic, weights=None).size(activations)
    return Problem(activations, objective.quadratic, parts, settings, rows if rows % group else group, size)

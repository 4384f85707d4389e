"""One pass over the activations: the only loop that touches them.

A block of rows comes in, its codes are improved, and what the dictionary has to know of them, `U A` and `U Uᵀ`, is
added up on the way. What crosses from one block to the next is `concept × channel` numbers, however many rows there
are. Codes are kept concepts first, so that both products run along the activations' rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ...linalg.row_blocks import RowBlocks, fold_blocks, put_columns
from ...linalg.row_shards import row_shards
from ..objective import SquaredError
from ..shapes import Activations, CodesT, Dictionary, FactorsT, Gram, Number, Scalar
from ..steps import coordinate_step, ridged
from .rule import Iterate, Memory

_BLOCK_BYTES = 8 * 2**20  # of activations in a block: about what stays in a CPU's last cache
_FEWEST_ROWS = 512  # below this the small products are all overhead


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """What a pass adds up over the rows.

    **Arguments:**

    - `cross`, `gram`: `U A` and `U Uᵀ` of the new codes, rows weighted.
    - `change`: how much the objective fell (negative) by the new codes, the dictionary standing still.
    - `value`: the new codes' penalty; with entry weights also the weighted squared error, which then has no short form.
    - `move`: for each concept the squared length of the coordinate steps that the old codes were away from optimal.
    """

    cross: Dictionary
    gram: Gram
    change: Number
    value: Number
    move: Float[Array, " concept"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Block:
    """Some rows of all that has rows."""

    activations: Activations
    weights: Activations | None
    row_weights: Float[Array, " row"] | None
    codes: Iterate


Update = Callable[[CodesT, Gram, CodesT, Memory, Scalar], tuple[CodesT, Memory]]


def pass_over(
    activations: Activations,
    objective: SquaredError,
    update: Update | None,
    dictionary: Dictionary,
    codes: Iterate,
    beta: Number | float = 0.0,
    *,
    block_rows: int | RowBlocks | None = None,
) -> tuple[Iterate, Sums]:
    """Improve all codes for a dictionary that stands still, and add up what its own update needs.

    **Arguments:**

    - `activations`, `objective`, `dictionary`: the problem.
    - `update`: a solver's rule; None leaves the codes as they are, which measures them.
    - `codes`: where the rule starts.
    - `beta`: how far its result is extrapolated from the one before.
    - `block_rows`: rows of a block, or the blocks themselves.

    **Returns:** the new codes, which have the rule's own result as what's `previous` to the next step; and the sums.
    """
    blocks = _blocks(activations, block_rows)
    gram = ridged(dictionary @ dictionary.T, objective.l2_codes)
    whole = Block(activations, objective.weights, objective.row_weights, codes)
    one = partial(_one_block, objective, update, dictionary, gram, beta)
    if blocks.count == 1:
        return one(whole, None)
    zero = jnp.zeros((), activations.dtype)
    sums = Sums(jnp.zeros_like(dictionary), jnp.zeros_like(gram), zero, zero, jnp.zeros_like(gram[0]))
    out = Iterate(codes.x, codes.x, codes.memory)
    each = lambda start, fresh: one(_take(whole, blocks, start), fresh)  # noqa: E731
    return fold_blocks(blocks, each, out, sums, dtype=activations.dtype, put=put_columns)


def squared_error(
    activations: Activations, objective: SquaredError, factors: FactorsT, *, block_rows: int | RowBlocks | None = None
) -> Number:
    """`½ Σ (A − U Wᵀ)²`, rows weighted, summed from the differences without forming all of them at once."""
    blocks = _blocks(activations, block_rows)
    codes, dictionary = factors
    whole = Block(activations, None, objective.row_weights, Iterate(codes, codes))

    def error(start: Array, fresh: Float[Array, " row"]) -> tuple[tuple[()], Number]:
        block = _take(whole, blocks, start)
        counts = fresh if block.row_weights is None else fresh * block.row_weights
        return (), jnp.sum(jnp.sum((block.activations - block.codes.x.T @ dictionary) ** 2, axis=1) * counts) / 2

    zero = jnp.zeros((), activations.dtype)
    return fold_blocks(blocks, error, (), zero, dtype=activations.dtype)[1]


def _blocks(activations: Activations, block_rows: int | RowBlocks | None) -> RowBlocks:
    if isinstance(block_rows, RowBlocks):
        return block_rows
    rows, channels = activations.shape
    return RowBlocks.of(rows, usual_rows(rows, channels, activations.dtype) if block_rows is None else block_rows)


def usual_rows(rows: int, channels: int, dtype: jnp.dtype) -> int:
    """Rows of a block: as many as stay in a processor's cache; all of them on an accelerator, and on many devices.

    A block of rows that lie on many devices would be handed to all of them.
    """
    if jax.default_backend() != "cpu" or row_shards(rows) > 1:
        return rows
    return max(_FEWEST_ROWS, _BLOCK_BYTES // (channels * dtype.itemsize))


def _take(whole: Block, blocks: RowBlocks, start: Array) -> Block:
    activations, weights, row_weights = blocks.take((whole.activations, whole.weights, whole.row_weights), start)
    return Block(activations, weights, row_weights, blocks.take(whole.codes, start, axis=1))


def _one_block(
    objective: SquaredError,
    update: Update | None,
    dictionary: Dictionary,
    gram: Gram,
    beta: Number | float,
    block: Block,
    fresh: Float[Array, " row"] | None,
) -> tuple[Iterate, Sums]:
    codes = block.codes.x
    cross = dictionary @ _completed(block, codes, dictionary).T
    # The zero rows of a moved last block and the row weights act alike on everything that's summed.
    counts = block.row_weights if fresh is None else fresh
    if fresh is not None and block.row_weights is not None:
        counts = fresh * block.row_weights
    new, weighed, sums = improved(objective, update, gram, cross, beta, block.codes, counts, fresh)
    completed = block.activations
    if block.weights is not None:
        fit = new.x.T @ dictionary
        missing = block.weights * (block.activations - fit)
        completed = fit + missing
        error = jnp.sum(missing * (block.activations - fit), axis=1) / 2
        sums = dataclasses.replace(sums, value=sums.value + jnp.sum(error if counts is None else error * counts))
    return new, dataclasses.replace(sums, cross=weighed @ completed)


def improved(
    objective: SquaredError,
    update: Update | None,
    gram: Gram,
    cross: CodesT,
    beta: Number | float,
    codes: Iterate,
    counts: Float[Array, " row"] | None,
    fresh: Float[Array, " row"] | None = None,
) -> tuple[Iterate, CodesT, Sums]:
    """Better codes where their own problem is known, whatever the activations are.

    **Arguments:**

    - `objective`: the penalties.
    - `update`, `beta`, `codes`: as for `pass_over`.
    - `gram`, `cross`: of the codes' problem, as `UpdateRule` has them, without the linear penalty.
    - `counts`: weights of rows; `fresh`: rows that count at all.

    **Returns:** the new codes; the same with rows weighted, whose product with the activations is still missing; and
    the sums without it.
    """
    old, l1, l2 = codes.x, objective.l1_codes, objective.l2_codes
    slope = gram @ old - cross + l1
    steps = old - coordinate_step(old, slope, jnp.diagonal(gram)[:, None])
    new, plain, memory = old, old, codes.memory
    if update is not None:
        plain, memory = update(old, gram, cross, memory, l1)
        new = jnp.maximum(plain + beta * (plain - codes.previous), 0)
    difference = new - old
    # From the gradient, not as a difference of two large values: a restart has to be told from rounding.
    change = jnp.sum(difference * (slope + (gram @ difference) / 2), axis=0)
    weighed = new if counts is None else new * counts[None]
    value = jnp.sum(l1 * new + l2 / 2 * new**2, axis=0)
    sums = Sums(
        cross=jnp.zeros((len(new), 0), new.dtype),
        gram=weighed @ new.T,
        change=jnp.sum(change if counts is None else change * counts),
        value=jnp.sum(value if counts is None else value * counts),
        move=jnp.sum(steps**2 if fresh is None else steps**2 * fresh[None], axis=1),
    )
    return Iterate(new, plain, memory), weighed, sums


def _completed(block: Block, codes: CodesT, dictionary: Dictionary) -> Activations:
    """The activations, filled by the present fit as far as an entry's weight is below 1.

    Least squares on it is an upper bound of the weighted error that touches it here (for weights up to 1).
    """
    if block.weights is None:
        return block.activations
    fit = codes.T @ dictionary
    return fit + block.weights * (block.activations - fit)

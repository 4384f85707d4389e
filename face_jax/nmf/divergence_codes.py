"""Codes of a β-divergence for a dictionary that stands still, to rounding, with their derivative.

Each row's quadratic model is minimized by coordinate sweeps, which find the codes that are zero, and then exactly on
the others; where the objective falls short of what the model says, the step is cut. For 1 ≤ β ≤ 2 a row's problem is
convex and that is Newton's method; elsewhere it ends in a local minimum, the lowest of those from several starts.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ..linalg.control_flow import fori_loop, while_loop
from ..linalg.row_blocks import RowBlocks
from ..linalg.row_shards import row_shards
from ..support.scaling import positive
from . import divergence
from .beta_divergence import BetaDivergence
from .misfit_steps import Entries, Side, damped, multiplied, searched
from .nnls.masked_systems import masked_cholesky, masked_solve
from .shapes import Activations, Codes, Columns, Dictionary
from .steps import promised, sweep

_BLOCK_ROWS = 1024  # rows whose matrices are held at a time
_SWEEPS, _MAX_STEPS, _POLISHES = 8, 200, 3
_ARRIVED = 16  # roundings that a row's codes may be away
SOFTENED = 30  # multiplicative updates of a start, after which no code is 0 yet


@jax.jit
def codes_of(
    activations: Activations, dictionary: Dictionary, objective: BetaDivergence, begun: Codes | None = None
) -> Codes:
    """The codes; rows of weight 0 have those that they'd have alone, rows without any weighted entry have none.

    From `begun`, too, where a row's problem isn't convex: none ends above the codes given.

    Differentiable in both modes with respect to activations, dictionary, weights and penalties: on the codes above 0,
    by the second derivative there; a code of zero stays zero.
    """
    rows = activations.shape[0]
    objective = objective.in_dtype(activations.dtype)
    if row_shards(rows) > 1:
        return _some(activations, dictionary, objective, objective.weights, begun)
    blocks = RowBlocks.of(rows, _BLOCK_ROWS)
    if blocks.count == 1:
        return _some(activations, dictionary, objective, objective.weights, begun)

    def one(start: Array) -> Codes:
        taken, weights, first = blocks.take((activations, objective.weights, begun), start)
        return _some(taken, dictionary, objective, weights, first)

    each = jax.lax.map(
        one,
        jnp.minimum(jnp.arange(blocks.count) * blocks.size, rows - blocks.size),
    )
    # The last block begins where it still has all its rows; those that the one before had, too, are the same.
    last = rows - (blocks.count - 1) * blocks.size
    return jnp.concatenate([each[:-1].reshape(-1, each.shape[2]), each[-1, blocks.size - last :]])


def _some(
    activations: Activations,
    dictionary: Dictionary,
    objective: BetaDivergence,
    weights: Activations | None,
    begun: Codes | None,
) -> Codes:
    """The codes of some rows."""

    def side_of(given: tuple[Any, ...]) -> Side:
        activations, dictionary, weights, l1, l2 = given
        x = activations
        if weights is not None and objective.beta < 1:
            x = jnp.where((weights > 0) | (x > 0), x, 1)
        return Side(Entries(x, weights, divergence.floor_of(x), objective.beta), dictionary, l1, l2, rows=True)

    given = activations, dictionary, weights, objective.l1_codes, objective.l2_codes
    fixed = side_of(jax.lax.stop_gradient(given))
    codes = _lowest(fixed, None if begun is None else jax.lax.stop_gradient(begun.T))
    free = codes > 0
    grams = _grams(fixed, codes)
    # A step whose right-hand side is a function of everything: none is taken, only its derivative.
    side = side_of(given)
    slope = jnp.where(free, side.slope(codes, side.product(codes)), 0)

    def solve(_: object, rhs: Columns) -> Columns:
        return masked_solve(masked_cholesky(grams, free), jnp.where(free, rhs, 0))

    def product(v: Columns) -> Columns:
        return jnp.where(free, jnp.einsum("kln,ln->kn", grams, jnp.where(free, v, 0)), v)

    step = jax.lax.custom_linear_solve(product, slope, solve, symmetric=True)
    return (codes - (step - jax.lax.stop_gradient(step))).T


def _lowest(side: Side, begun: Columns | None) -> Columns:
    """Each row's codes from the start that leads it lowest; there is one start where all lead to the same."""
    first = _first(side)
    if 1 <= side.entries.beta <= 2:
        return _polished(side, _minimized(side, first))
    # The convex divergence's, which has no other minimum, and its own, before any code is 0.
    near = dataclasses.replace(side, entries=dataclasses.replace(side.entries, beta=1.0))
    starts = [first, _softened(near, first), _softened(side, first), *([] if begun is None else [begun])]

    def one(begun: Columns) -> tuple[Columns, Array]:
        codes = _polished(side, _minimized(side, begun))
        return codes, side.values(codes)

    found, values = jax.lax.map(one, jnp.stack(starts))
    best = jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf), axis=0)
    return jnp.take_along_axis(found, best[None, None], axis=0)[0]


def _softened(side: Side, codes: Columns) -> Columns:
    def step(_: int | Array, carry: tuple[Columns, Activations]) -> tuple[Columns, Activations]:
        return multiplied(side, *carry, 1)[:2]

    return fori_loop(0, SOFTENED, step, (codes, side.product(codes)))[0]


def _first(side: Side) -> Columns:
    """Every concept alike, each row with its own sum."""
    total = side.totals(side.entries.weighed(side.entries.activations))
    shape = jnp.sum(side.other, axis=0)[None] * jnp.ones_like(side.entries.activations)
    whole = side.totals(side.entries.weighed(shape))
    alive = jnp.any(side.other > 0, axis=1)
    return jnp.where(alive[:, None], (total / positive(whole))[None], 0)


def _minimized(side: Side, codes: Columns) -> Columns:
    eps = float(jnp.finfo(codes.dtype).eps)
    sizes = side.totals(side.entries.weighed(divergence.size(side.entries.beta, side.entries.activations)))

    def step(carry: tuple[Any, ...]) -> tuple[Any, ...]:
        codes, product, _, count = carry
        slope = side.slope(codes, product)
        grams = damped(side.grams(product), slope, codes)
        moves = jnp.sum(promised(codes, slope, jnp.diagonal(grams).T), axis=0)
        far = moves > (_ARRIVED * eps) ** 2 * sizes
        cross = jnp.einsum("kln,ln->kn", grams, codes) - slope
        target = codes
        for _ in range(_SWEEPS):
            target = sweep(target, grams, cross)
        support = target > 0
        exact = masked_solve(masked_cholesky(grams, support), jnp.where(support, cross, 0))
        usable = jnp.all((exact > 0) == support, axis=0) & jnp.all(jnp.isfinite(exact), axis=0)
        target = jnp.where(far[None], jnp.where(usable[None], exact, target), codes)
        new, _ = searched(side, codes, product, target, slope)
        moved = far & jnp.any(new != codes, axis=0)
        return new, side.product(new), moved, count + 1

    def going(carry: tuple[Any, ...]) -> Bool[Array, ""]:
        return jnp.any(carry[2]) & (carry[3] < _MAX_STEPS)

    begun = codes, side.product(codes), jnp.ones(codes.shape[1], bool), jnp.zeros((), jnp.int32)
    return while_loop(going, step, begun)[0]


def _polished(side: Side, codes: Columns) -> Columns:
    """Newton's own steps on the codes above 0, for rows where they bring the slopes nearer to zero."""
    free = codes > 0

    def slopes(codes: Columns) -> Columns:
        return jnp.where(free, side.slope(codes, side.product(codes)), 0)

    off = slopes(codes)
    for _ in range(_POLISHES):
        step = masked_solve(masked_cholesky(_grams(side, codes), free), off)
        new = codes - step
        there = slopes(new)
        better = jnp.all((new > 0) == free, axis=0) & (jnp.sum(there**2, axis=0) < jnp.sum(off**2, axis=0))
        codes, off = jnp.where(better[None], new, codes), jnp.where(better[None], there, off)
    return codes


def _grams(side: Side, codes: Columns) -> Array:
    """The second derivative of each row."""
    entries, product = side.entries, side.product(codes)
    exact = entries.weighed(divergence.second(entries.beta, entries.activations, product, entries.floor))
    return side.grams_of(exact)

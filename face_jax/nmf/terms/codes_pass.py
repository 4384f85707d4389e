"""The step that changes the codes, and the measure of both factors: rows gone through block by block."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .block_solver import Groups, minimize_model
from .problem import DESCENT, TRIALS, Codes, Dictionary, Problem, Sums, layout, ratio


def codes_pass(
    problem: Problem, codes: Codes, dictionary: Dictionary, before: Codes, *, improve: bool
) -> tuple[Codes, Float[Array, " group"], Sums]:
    """Improve all codes, or only measure them; `before` is where the change of the squared error counts from."""
    size, count = layout(problem.rows, problem.group)
    if count == 1:
        return _codes_block(problem.recalled(), codes, dictionary, before, None, improve)

    def body(i: Array, carry: tuple[Codes, Array, Sums]) -> tuple[Codes, Array, Sums]:
        # The last block is moved back so that all are equally long; rows seen before don't count again.
        start = jnp.minimum(i * size, problem.rows - size)
        fresh = (start + jnp.arange(size) >= i * size).astype(codes.dtype)
        mine = jax.lax.dynamic_slice_in_dim(codes, start, size)
        old = jax.lax.dynamic_slice_in_dim(before, start, size)
        block = problem.take(start, size).recalled()
        new, values, sums = _codes_block(block, mine, dictionary, old, fresh, improve)
        out, all_values, totals = carry
        return (
            jax.lax.dynamic_update_slice_in_dim(out, new, start, axis=0),
            jax.lax.dynamic_update_slice_in_dim(all_values, values, start // problem.group, axis=0),
            jax.tree.map(jnp.add, totals, sums),
        )

    zero = jnp.zeros((), codes.dtype)
    nothing = jnp.zeros_like(dictionary)
    sums = Sums(jnp.zeros((dictionary.shape[0],) * 2, codes.dtype), nothing, nothing, zero, zero)
    values = jnp.zeros(problem.rows // problem.group, codes.dtype)
    return jax.lax.fori_loop(0, count, body, (codes, values, sums))


def measure(problem: Problem, codes: Codes, dictionary: Dictionary) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The objective and its scaled KKT residual."""
    _, values, sums = codes_pass(problem, codes, dictionary, codes, improve=False)
    _, slope, gram = problem.dictionary_slope(sums, dictionary)
    moves = sums.moves + problem.dictionary_moves(slope, gram, dictionary)
    return problem.objective(codes, dictionary, sums, values), ratio(moves, problem.size)


def _codes_block(
    problem: Problem,
    codes: Codes,
    dictionary: Dictionary,
    before: Codes,
    fresh: Float[Array, " row"] | None,
    improve: bool,
) -> tuple[Codes, Float[Array, " group"], Sums]:
    settings, groups = problem.settings, Groups(problem.group)
    concepts = codes.shape[1]
    weights = jnp.ones(codes.shape[0], codes.dtype)
    if problem.quadratic.row_weights is not None:
        weights = problem.quadratic.row_weights
    gram = dictionary @ dictionary.T + problem.penalty("l2_codes") * jnp.eye(concepts, dtype=codes.dtype)
    cross = problem.activations @ dictionary.T - problem.penalty("l1_codes")
    quadratic = (codes @ gram - cross) * weights[:, None]
    models = [(part.weight, part.term.local_codes(part.prepared, codes, dictionary)) for part in problem.parts]
    slope = sum((weight * model.slope for weight, model in models), quadratic)
    values = problem.values(codes, dictionary)
    moves = jnp.maximum(
        codes - slope / jnp.where(weights > 0, weights, 1)[:, None] / _positive(jnp.diagonal(gram))[None], 0
    )
    moves = weights * jnp.sum(jnp.diagonal(gram)[None] * (codes - moves) ** 2, axis=1)

    new = codes
    shift = codes - before
    change = groups.total(jnp.sum(shift * (quadratic - (shift @ gram) * weights[:, None] / 2), axis=1))
    if improve:

        def product(v: Codes) -> Codes:
            return sum((weight * model.product(v) for weight, model in models), (v @ gram) * weights[:, None])

        # Rows weigh differently and share a matrix: the mean row's.
        of_terms = (weight * model.gram for weight, model in models if model.gram is not None)
        like = sum(of_terms, jnp.mean(weights) * gram)
        target = minimize_model(
            codes, slope, product, like, lambda matrix, v: v @ matrix, groups,
            signed=False, inner=settings.inner, steps=settings.steps, rtol=settings.cg_rtol,
        )  # fmt: skip
        direction = target - codes
        linear = groups.dot(quadratic, direction)
        square = groups.dot(direction, (direction @ gram) * weights[:, None])

        def trial(t: Float[Array, " group"]) -> tuple[Array, Array]:
            found = problem.values(codes + groups.spread(t) * direction, dictionary)
            return t * linear + t**2 / 2 * square + (found - values), found

        t, found = _search(trial, groups.dot(slope, direction), values)
        # Written so that a whole step lands on the target's exact zeros.
        new = jnp.where(groups.spread(t) == 1, target, codes + groups.spread(t) * direction)
        values, change = found, change + t * linear + t**2 / 2 * square

    counted = new if fresh is None else new * fresh[:, None]
    counted = counted * weights[:, None]
    slopes = jnp.zeros_like(dictionary)
    if fresh is None:
        for part in problem.parts:
            slopes = slopes + part.weight * part.term.local_dictionary(part.prepared, new, dictionary).slope
    else:
        # Rows that don't count again are left out by what they prepared being of no weight.
        for part in problem.parts:
            masked = part.term.counted(part.prepared, fresh[:: part.rows])
            slopes = slopes + part.weight * part.term.local_dictionary(masked, new, dictionary).slope
        change = change * fresh[:: problem.group]
        moves = moves * fresh
    sums = Sums(counted.T @ new, counted.T @ problem.activations, slopes, jnp.sum(change), jnp.sum(moves))
    return new, values, sums


def _positive(x: Array) -> Array:
    return jnp.where(x > 0, x, 1)


def _search(trial: Any, slope: Float[Array, " group"], values: Float[Array, " group"]) -> tuple[Array, Array]:
    """The first of the shrinking steps that lowers each group's objective enough; none where nothing does."""
    descending = slope < 0

    def going(carry: tuple[Array, ...]) -> Array:
        _, _, bad, count = carry
        return jnp.any(bad) & (count < TRIALS)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        t, found, bad, count = carry
        change, new = trial(t)
        good = jnp.isfinite(change) & (change <= DESCENT * t * slope)
        done = bad & good
        # The parabola through what is known; a step that changes nothing is given up for good.
        vertex = -slope * t**2 / (2 * jnp.maximum(change - slope * t, jnp.finfo(t.dtype).tiny))
        vertex = jnp.where(jnp.isfinite(vertex), vertex, 0)
        smaller = jnp.clip(vertex, 0.1 * t, 0.5 * t)
        bad = bad & ~good
        return jnp.where(bad, smaller, t), jnp.where(done, new, found), bad, count + 1

    first = jnp.where(descending, jnp.ones_like(slope), 0)
    t, found, bad, _ = jax.lax.while_loop(going, step, (first, values, descending, jnp.zeros((), jnp.int32)))
    return jnp.where(bad, 0, t), found

"""The step that changes the codes, and the measure of both factors: rows gone through block by block."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ...linalg.inner_products import RowGroups
from ...linalg.line_search import armijo, backtrack, shorter_by_parabola
from ...linalg.row_blocks import fold_blocks, put_rows
from ...support.scaling import positive
from ..shapes import Codes, Dictionary, Number
from ..steps import coordinate_step, share
from .block_solver import minimize_model
from .problem import TRIALS, Problem, Sums


def codes_pass(
    problem: Problem, codes: Codes, dictionary: Dictionary, before: Codes, *, improve: bool
) -> tuple[Codes, Float[Array, " group"], Sums]:
    """Improve all codes, or only measure them; `before` is where the change of the squared error counts from."""
    if problem.at_once:
        return _codes_block(problem.recalled(), codes, dictionary, before, None, improve)

    def alone(part: Problem, codes: Codes, before: Codes) -> tuple[tuple[Codes, Array], Sums]:
        return _in_blocks(part, codes, dictionary, before, improve)

    (new, values), sums = problem.on_each_device(alone, codes, before)
    return new, values, sums


def _in_blocks(
    problem: Problem, codes: Codes, dictionary: Dictionary, before: Codes, improve: bool
) -> tuple[tuple[Codes, Float[Array, " group"]], Sums]:
    blocks = problem.blocks

    def one(start: Array, fresh: Float[Array, " row"]) -> tuple[tuple[Codes, Array], Sums]:
        block = problem.take(start, blocks.size).recalled()
        mine, old = blocks.take((codes, before), start)
        new, values, sums = _codes_block(block, mine, dictionary, old, fresh, improve)
        return (new, values), sums

    def put(out: Any, piece: Any, start: Array) -> Any:
        return put_rows(out[0], piece[0], start), problem.put_groups(out[1], piece[1], start)

    zero = jnp.zeros((), codes.dtype)
    nothing = jnp.zeros_like(dictionary)
    sums = Sums(jnp.zeros((dictionary.shape[0],) * 2, codes.dtype), nothing, nothing, zero, zero)
    out = codes, jnp.zeros(problem.rows // problem.group, codes.dtype)
    return fold_blocks(blocks, one, out, sums, dtype=codes.dtype, put=put)


def measure(problem: Problem, codes: Codes, dictionary: Dictionary) -> tuple[Number, Number]:
    """The objective and its scaled KKT residual."""
    _, values, sums = codes_pass(problem, codes, dictionary, codes, improve=False)
    _, slope, gram = problem.dictionary_slope(sums, dictionary)
    moves = sums.moves + problem.dictionary_moves(slope, gram, dictionary)
    return problem.objective(codes, dictionary, sums, values), share(moves, problem.size)


def _codes_block(
    problem: Problem,
    codes: Codes,
    dictionary: Dictionary,
    before: Codes,
    fresh: Float[Array, " row"] | None,
    improve: bool,
) -> tuple[Codes, Float[Array, " group"], Sums]:
    settings, groups = problem.settings, RowGroups(problem.group)
    weights, gram = problem.weights(codes), problem.codes_gram(dictionary)
    cross = problem.activations @ dictionary.T - problem.quadratic.l1_codes
    quadratic = (codes @ gram - cross) * weights[:, None]
    models = [(part.weight, part.term.local_codes(part.prepared, codes, dictionary)) for part in problem.parts]
    slope = sum((weight * model.slope for weight, model in models), quadratic)
    values = problem.values(codes, dictionary)
    target = coordinate_step(codes, slope / positive(weights)[:, None], jnp.diagonal(gram)[None])
    moves = weights * jnp.sum(jnp.diagonal(gram)[None] * (codes - target) ** 2, axis=1)

    new = codes
    shift = codes - before
    change = groups.total(jnp.sum(shift * (quadratic - (shift @ gram) * weights[:, None] / 2), axis=1))
    if improve:

        def product(v: Codes) -> Codes:
            return sum((weight * model.product(v) for weight, model in models), (v @ gram) * weights[:, None])

        # Rows weigh differently and share a matrix: the mean row's.
        of_terms = (weight * model.gram for weight, model in models if model.gram is not None)
        like = sum(of_terms, jnp.mean(weights) * gram)
        by = lambda matrix, v: v @ matrix  # noqa: E731
        target = minimize_model(codes, slope, product, like, by, groups, settings=settings)
        direction = target - codes
        linear = groups.dot(quadratic, direction)
        square = groups.dot(direction, (direction @ gram) * weights[:, None])

        along = groups.dot(slope, direction)

        def trial(t: Float[Array, " group"], _: Array) -> tuple[Array, Array, Array]:
            found = problem.values(codes + groups.spread(t) * direction, dictionary)
            change = t * linear + t**2 / 2 * square + (found - values)
            return armijo(change, t * along), shorter_by_parabola(t, change, along), found

        t, found, none = backtrack(trial, values, along < 0, trials=TRIALS, dtype=codes.dtype)
        t = jnp.where(none | (along >= 0), 0, t)
        # Written so that a whole step lands on the target's exact zeros.
        new = jnp.where(groups.spread(t) == 1, target, codes + groups.spread(t) * direction)
        values, change = found, change + t * linear + t**2 / 2 * square

    counted = weights
    if fresh is not None:
        counted, change, moves = fresh * weights, change * fresh[:: problem.group], moves * fresh
    weighed = new * counted[:, None]
    slopes = _slopes(problem, new, dictionary, fresh)
    sums = Sums(weighed.T @ new, weighed.T @ problem.activations, slopes, jnp.sum(change), jnp.sum(moves))
    return new, values, sums


def _slopes(problem: Problem, codes: Codes, dictionary: Dictionary, fresh: Float[Array, " row"] | None) -> Dictionary:
    """The terms' slopes in the dictionary, of the rows that count."""
    total = jnp.zeros_like(dictionary)
    for part in problem.parts:
        # Rows that don't count again are left out by what they prepared being of no weight.
        prepared = part.prepared if fresh is None else part.term.counted(part.prepared, fresh[:: part.rows])
        total = total + part.weight * part.term.local_dictionary(prepared, codes, dictionary).slope
    return total

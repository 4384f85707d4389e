"""An objective with terms, as the functions of the factors that a solver needs.

Rows are gone through block by block, so that the predictions of one block are all that is held at a time; what rows
of other blocks have to know is added up on the way.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .inner import Groups, minimize_model
from .linear import ConjugateGradient
from .objective import Objective, SquaredError, Term
from .solvers import ADMM, SemiNMF

Codes = Float[Array, "row concept"]
Dictionary = Float[Array, "concept channel"]

BLOCK_ROWS = 1024  # rows whose predictions are held at a time
SAMPLE_ROWS = 2048  # rows that the dictionary's curvature is taken from; gradients and values see all
JOINT_STEPS = 15
TRIALS = 10
DESCENT = 1e-4  # Armijo's share of the slope


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the loop takes from a solver: numbers of iterations, and whether the dictionary is signed."""

    inner: int
    steps: int
    joint: int
    cg_rtol: Any
    rtol: Any
    max_steps: int
    extrapolate: bool
    signed: bool


def settings_of(solver: ADMM | SemiNMF) -> Settings:
    """The loop's settings by a solver's."""
    rule = solver.codes if isinstance(solver, SemiNMF) else solver
    linear = rule.linear if isinstance(rule, ADMM) else None
    steps, cg_rtol = (linear.steps, linear.rtol) if isinstance(linear, ConjugateGradient) else (6, 0.1)
    inner = rule.inner if isinstance(rule, ADMM) else 3
    return Settings(
        inner, steps, JOINT_STEPS, cg_rtol, solver.rtol, solver.max_steps, solver.extrapolate, solver.signed_dictionary
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """What a pass over the rows adds up; the codes are those that it returns."""

    gram: Float[Array, "concept concept"]
    cross: Dictionary
    slope: Dictionary
    change: Float[Array, ""]
    moves: Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class Part:
    """A term with its weight and with what it has prepared."""

    weight: Float[Array, ""]
    term: Term
    prepared: Any
    rows: int


@dataclasses.dataclass(frozen=True)
class Problem:
    """Activations, objective and settings, with the functions of the factors that the loop needs."""

    activations: Float[Array, "row channel"]
    quadratic: SquaredError
    parts: tuple[Part, ...]
    settings: Settings
    group: int
    size: Float[Array, ""]

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.activations.shape[0]

    def penalty(self, name: str) -> Float[Array, ""]:
        """A penalty of the squared error, in the activations' dtype."""
        return jnp.asarray(getattr(self.quadratic, name), self.activations.dtype)

    def take(self, start: Array | int, size: int) -> Problem:
        """Some consecutive rows."""
        weights = self.quadratic.row_weights
        if weights is not None:
            weights = jax.lax.dynamic_slice_in_dim(weights, start, size)
        parts = tuple(
            dataclasses.replace(
                part,
                prepared=jax.tree.map(
                    lambda x, rows=part.rows: jax.lax.dynamic_slice_in_dim(x, start // rows, size // rows),
                    part.prepared,
                ),
            )
            for part in self.parts
        )
        return dataclasses.replace(
            self,
            activations=jax.lax.dynamic_slice_in_dim(self.activations, start, size),
            quadratic=dataclasses.replace(self.quadratic, row_weights=weights),
            parts=parts,
        )

    def recalled(self) -> Problem:
        """With all that the terms have to know of these rows."""
        parts = tuple(
            dataclasses.replace(part, prepared=part.term.recalled(part.prepared, self.activations))
            for part in self.parts
        )
        return dataclasses.replace(self, parts=parts)

    def sample(self, codes: Codes, offset: Array) -> tuple[tuple[Part, ...], Float[Array, "some concept"], float]:
        """Terms and codes of evenly spread groups of rows, and how many rows each stands for."""
        groups = self.rows // self.group
        count = max(1, SAMPLE_ROWS // self.group)
        if groups <= count:
            return self.recalled().parts, codes, 1.0
        chosen = (jnp.arange(count, dtype=offset.dtype) * groups // count + offset) % groups

        def taken(x: Array) -> Array:
            return x.reshape(groups, -1, *x.shape[1:])[chosen].reshape(-1, *x.shape[1:])

        parts = tuple(dataclasses.replace(part, prepared=jax.tree.map(taken, part.prepared)) for part in self.parts)
        some = dataclasses.replace(self, activations=taken(self.activations), parts=parts)
        return some.recalled().parts, taken(codes), groups / count

    def like(self, codes: Codes, dictionary: Dictionary) -> Float[Array, "concept concept"]:
        """A matrix that resembles the curvature of a row's codes."""
        gram = dictionary @ dictionary.T + self.penalty("l2_codes") * jnp.eye(codes.shape[1], dtype=codes.dtype)
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
        size, count = layout(self.rows, self.group)
        if count == 1:
            return self.recalled().values(codes, dictionary)

        def body(i: Array, out: Array) -> Array:
            start = jnp.minimum(i * size, self.rows - size)
            block = self.take(start, size).recalled()
            found = block.values(jax.lax.dynamic_slice_in_dim(codes, start, size), dictionary)
            return jax.lax.dynamic_update_slice_in_dim(out, found, start // self.group, axis=0)

        return jax.lax.fori_loop(0, count, body, jnp.zeros(self.rows // self.group, codes.dtype))

    def codes_pass(
        self, codes: Codes, dictionary: Dictionary, before: Codes, *, improve: bool
    ) -> tuple[Codes, Float[Array, " group"], Sums]:
        """Improve all codes, or only measure them; `before` is where the change of the squared error counts from."""
        size, count = layout(self.rows, self.group)
        if count == 1:
            return _codes_block(self.recalled(), codes, dictionary, before, None, improve)

        def body(i: Array, carry: tuple[Codes, Array, Sums]) -> tuple[Codes, Array, Sums]:
            # The last block is moved back so that all are equally long; rows seen before don't count again.
            start = jnp.minimum(i * size, self.rows - size)
            fresh = (start + jnp.arange(size) >= i * size).astype(codes.dtype)
            mine = jax.lax.dynamic_slice_in_dim(codes, start, size)
            old = jax.lax.dynamic_slice_in_dim(before, start, size)
            block = self.take(start, size).recalled()
            new, values, sums = _codes_block(block, mine, dictionary, old, fresh, improve)
            out, all_values, totals = carry
            return (
                jax.lax.dynamic_update_slice_in_dim(out, new, start, axis=0),
                jax.lax.dynamic_update_slice_in_dim(all_values, values, start // self.group, axis=0),
                jax.tree.map(jnp.add, totals, sums),
            )

        zero = jnp.zeros((), codes.dtype)
        nothing = jnp.zeros_like(dictionary)
        sums = Sums(jnp.zeros((dictionary.shape[0],) * 2, codes.dtype), nothing, nothing, zero, zero)
        values = jnp.zeros(self.rows // self.group, codes.dtype)
        return jax.lax.fori_loop(0, count, body, (codes, values, sums))

    def dictionary_slope(self, sums: Sums, dictionary: Dictionary) -> tuple[Dictionary, Dictionary, Array]:
        """Slopes of the squared error and of all, and the Gram matrix."""
        eye = jnp.eye(sums.gram.shape[0], dtype=sums.gram.dtype)
        gram = sums.gram + self.penalty("l2_dictionary") * eye
        quadratic = gram @ dictionary - sums.cross + self.penalty("l1_dictionary")
        return quadratic, quadratic + sums.slope, gram

    def dictionary_moves(self, slope: Dictionary, gram: Array, dictionary: Dictionary) -> Float[Array, ""]:
        """The squared change of the fit if each entry went to its own optimum."""
        return _moves(dictionary, slope, jnp.diagonal(gram)[:, None], self.settings.signed)

    def measure(self, codes: Codes, dictionary: Dictionary) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The objective and its scaled KKT residual."""
        _, values, sums = self.codes_pass(codes, dictionary, codes, improve=False)
        _, slope, gram = self.dictionary_slope(sums, dictionary)
        moves = sums.moves + self.dictionary_moves(slope, gram, dictionary)
        return self.objective(codes, dictionary, sums, values), ratio(moves, self.size)

    def objective(
        self, codes: Codes, dictionary: Dictionary, sums: Sums, values: Float[Array, " group"]
    ) -> Float[Array, ""]:
        """The whole objective, from sums that belong to these codes."""
        fit = jnp.sum(sums.gram * (dictionary @ dictionary.T)) / 2 - jnp.sum(sums.cross * dictionary)
        penalty = jnp.sum(self.penalty("l1_codes") * codes + self.penalty("l2_codes") / 2 * codes**2, axis=1)
        if self.quadratic.row_weights is not None:
            penalty = penalty * self.quadratic.row_weights
        other = self.penalty("l1_dictionary") * dictionary + self.penalty("l2_dictionary") / 2 * dictionary**2
        return self.size / 2 + fit + jnp.sum(penalty) + jnp.sum(other) + jnp.sum(values)


def problem_of(
    activations: Float[Array, "row channel"], objective: Objective, prepared: tuple[Any, ...], settings: Settings
) -> Problem:
    """The problem, with what its terms have prepared."""
    dtype, rows = activations.dtype, activations.shape[0]
    parts = tuple(
        Part(jnp.asarray(weighted.weight, dtype), weighted.term, mine, weighted.term.rows_together(rows))
        for weighted, mine in zip(objective.terms, prepared, strict=True)
    )
    # Without terms each row stands alone.
    group = math.lcm(1, *(part.rows for part in parts))
    squares = jnp.sum(activations**2, axis=1)
    weights = objective.quadratic.row_weights
    size = jnp.sum(squares if weights is None else squares * weights)
    return Problem(activations, objective.quadratic, parts, settings, rows if rows % group else group, size)


def layout(rows: int, group: int) -> tuple[int, int]:
    """Rows of a block, and how many blocks there are; the last one overlaps if they don't come out even."""
    groups = rows // group
    count = -(-groups // max(1, BLOCK_ROWS // group))
    size = -(-groups // count)
    return size * group, -(-groups // size)


def _moves(x: Array, slope: Array, diagonal: Array, signed: bool) -> Float[Array, ""]:
    target = x - slope / jnp.where(diagonal > 0, diagonal, 1)
    if not signed:
        target = jnp.maximum(target, 0)
    return jnp.sum(diagonal * (x - target) ** 2)


def ratio(moves: Float[Array, ""], size: Float[Array, ""]) -> Float[Array, ""]:
    """Moves as a share of the activations' length: the scaled KKT residual."""
    return jnp.sqrt(moves / jnp.where(size > 0, size, 1))


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

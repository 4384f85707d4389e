"""The loop for a squared error with further terms: alternating blocks that never raise the whole objective.

Each block's quadratic model (exact for the squared error, a positive semidefinite curvature for the terms) is solved
by ADMM; the way to its solution is a descent direction, on which a line search looks at the objective itself. The
codes are improved block of rows by block of rows, each group of rows with its own step length.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .inner import Groups, minimize_model
from .joint import newton_direction
from .linear import ConjugateGradient
from .objective import Objective, SquaredError, Term
from .results import RESULTS, Result
from .solution import Solution, Stats, count_dead, count_duplicated, normalized
from .solvers import ADMM, SemiNMF

Codes = Float[Array, "row concept"]
Dictionary = Float[Array, "concept channel"]

_BLOCK_ROWS = 1024  # rows whose predictions are held at a time
_SAMPLE_ROWS = 2048  # rows that the dictionary's curvature is taken from; gradients and values see all
_JOINT_ROWS = 8192  # up to this many rows both factors also move together, which holds all predictions at once
_JOINT_STEPS = 15
_TRIALS = 10
_DESCENT = 1e-4  # Armijo's share of the slope
# As in the plain loop (Ang & Gillis 2019, section 3.3).
_FIRST, _GROWTH, _BOUND_GROWTH, _CUT = 0.5, 1.05, 1.01, 1.5


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the loop takes from a solver: numbers of iterations, and whether the dictionary is signed."""

    inner: int
    steps: int
    joint: int
    cg_rtol: float
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
        inner, steps, _JOINT_STEPS, cg_rtol, solver.rtol, solver.max_steps, solver.extrapolate, solver.signed_dictionary
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


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Where the loop is."""

    codes: Codes
    dictionary: Dictionary
    previous_codes: Codes
    previous_dictionary: Dictionary
    gram: Float[Array, "concept concept"]
    cross: Dictionary
    values: Float[Array, " group"]
    objective: Float[Array, ""]
    beta: Float[Array, ""]
    bound: Float[Array, ""]
    rejected: Int[Array, ""]
    restarts: Int[Array, ""]
    step: Int[Array, ""]
    code: Int[Array, ""]
    objectives: Float[Array, " step"]
    residuals: Float[Array, " step"]


def solve(problem: Problem, codes: Codes, dictionary: Dictionary) -> Solution:
    """Run the loop from the given factors: a pure function of arrays, ready for `jit` and `vmap`.

    **Arguments:**

    - `problem`: what's minimized, and how.
    - `codes`, `dictionary`: first factors.

    **Returns:** the solution.
    """
    settings = problem.settings
    state = _first(problem, codes, dictionary)

    def going(state: State) -> Array:
        return (state.code < 0) & (state.step < settings.max_steps)

    state = jax.lax.while_loop(going, lambda state: _step(problem, state), state)
    value, residual = problem.measure(state.codes, state.dictionary)
    ended = jnp.where(state.code < 0, RESULTS.max_steps_reached.value, state.code)
    ended = jnp.where(jnp.isfinite(value), ended, RESULTS.nonfinite.value).astype(jnp.int32)
    columns, dictionary, scale = normalized(state.codes.T, state.dictionary)
    stats = Stats(
        objective=state.objectives,
        residual=state.residuals,
        steps=state.step,
        restarts=state.restarts,
        final_objective=value,
        final_residual=residual,
        dead=count_dead(columns),
        duplicated=count_duplicated(dictionary),
    )
    return Solution(columns.T, dictionary, scale, Result(ended), stats)


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

    def sample(self, codes: Codes, offset: Array) -> tuple[tuple[Part, ...], Codes, float]:
        """Terms and codes of evenly spread groups of rows, and how many rows each stands for."""
        groups = self.rows // self.group
        count = max(1, _SAMPLE_ROWS // self.group)
        if groups <= count:
            return self.parts, codes, 1.0
        chosen = (jnp.arange(count) * groups // count + offset) % groups
        parts = tuple(
            dataclasses.replace(
                part,
                prepared=jax.tree.map(
                    lambda x: x.reshape(groups, -1, *x.shape[1:])[chosen].reshape(-1, *x.shape[1:]), part.prepared
                ),
            )
            for part in self.parts
        )
        concepts = codes.shape[1]
        return parts, codes.reshape(groups, -1, concepts)[chosen].reshape(-1, concepts), groups / count

    def values(self, codes: Codes, dictionary: Dictionary) -> Float[Array, " group"]:
        """The weighted terms of each group of rows."""
        total = jnp.zeros(codes.shape[0] // self.group, codes.dtype)
        for part in self.parts:
            found = part.weight * part.term.values(part.prepared, codes, dictionary)
            total = total + jnp.sum(found.reshape(total.shape[0], -1), axis=1)
        return total

    def all_values(self, codes: Codes, dictionary: Dictionary) -> Float[Array, " group"]:
        """The same for all rows, block by block."""
        size, count = _layout(self.rows, self.group)
        if count == 1:
            return self.values(codes, dictionary)

        def body(i: Array, out: Array) -> Array:
            start = jnp.minimum(i * size, self.rows - size)
            found = self.take(start, size).values(jax.lax.dynamic_slice_in_dim(codes, start, size), dictionary)
            return jax.lax.dynamic_update_slice_in_dim(out, found, start // self.group, axis=0)

        return jax.lax.fori_loop(0, count, body, jnp.zeros(self.rows // self.group, codes.dtype))

    def codes_pass(
        self, codes: Codes, dictionary: Dictionary, before: Codes, *, improve: bool
    ) -> tuple[Codes, Float[Array, " group"], Sums]:
        """Improve all codes, or only measure them; `before` is where the change of the squared error counts from."""
        size, count = _layout(self.rows, self.group)
        if count == 1:
            return _codes_block(self, codes, dictionary, before, None, improve)

        def body(i: Array, carry: tuple[Codes, Array, Sums]) -> tuple[Codes, Array, Sums]:
            # The last block is moved back so that all are equally long; rows seen before don't count again.
            start = jnp.minimum(i * size, self.rows - size)
            fresh = (start + jnp.arange(size) >= i * size).astype(codes.dtype)
            mine = jax.lax.dynamic_slice_in_dim(codes, start, size)
            old = jax.lax.dynamic_slice_in_dim(before, start, size)
            new, values, sums = _codes_block(self.take(start, size), mine, dictionary, old, fresh, improve)
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
        return self.objective(codes, dictionary, sums, values), _ratio(moves, self.size)

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


def _layout(rows: int, group: int) -> tuple[int, int]:
    groups = rows // group
    count = -(-groups // max(1, _BLOCK_ROWS // group))
    size = -(-groups // count)
    return size * group, -(-groups // size)


def _moves(x: Array, slope: Array, diagonal: Array, signed: bool) -> Float[Array, ""]:
    target = x - slope / jnp.where(diagonal > 0, diagonal, 1)
    if not signed:
        target = jnp.maximum(target, 0)
    return jnp.sum(diagonal * (x - target) ** 2)


def _ratio(moves: Float[Array, ""], size: Float[Array, ""]) -> Float[Array, ""]:
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
    moves = jnp.sum(jnp.diagonal(gram)[None] * (codes - moves) ** 2, axis=1)

    new = codes
    shift = codes - before
    change = groups.total(jnp.sum(shift * (quadratic - (shift @ gram) * weights[:, None] / 2), axis=1))
    if improve:

        def product(v: Codes) -> Codes:
            return sum((weight * model.product(v) for weight, model in models), (v @ gram) * weights[:, None])

        like = sum((weight * model.gram for weight, model in models if model.gram is not None), gram)
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
        return jnp.any(bad) & (count < _TRIALS)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        t, found, bad, count = carry
        change, new = trial(t)
        good = jnp.isfinite(change) & (change <= _DESCENT * t * slope)
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


def _improve_dictionary(
    problem: Problem, codes: Codes, dictionary: Dictionary, sums: Sums, values: Array, offset: Array
) -> tuple[Dictionary, Array, Float[Array, ""], Float[Array, ""]]:
    """The new dictionary, the terms' values there, the squared error's change, and how far the old one was off."""
    settings = problem.settings
    quadratic, slope, gram = problem.dictionary_slope(sums, dictionary)
    parts, some, times = problem.sample(codes, offset)
    models = [(part.weight * times, part.term.local_dictionary(part.prepared, some, dictionary)) for part in parts]

    def product(v: Dictionary) -> Dictionary:
        return sum((weight * model.product(v) for weight, model in models), gram @ v)

    groups = Groups(dictionary.shape[0])
    target = minimize_model(
        dictionary, slope, product, gram, lambda matrix, v: matrix @ v, groups,
        signed=settings.signed, inner=settings.inner, steps=settings.steps, rtol=settings.cg_rtol,
    )  # fmt: skip
    direction = target - dictionary
    linear, square = jnp.sum(quadratic * direction), jnp.sum(direction * (gram @ direction))

    def going(carry: tuple[Array, ...]) -> Array:
        _, _, _, bad, count = carry
        return bad & (count < _TRIALS)

    total = jnp.sum(slope * direction)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        t, _, _, _, count = carry
        found = problem.all_values(codes, dictionary + t * direction)
        change = t * linear + t**2 / 2 * square + jnp.sum(found - values)
        bad = ~(jnp.isfinite(change) & (change <= _DESCENT * t * total))
        vertex = -total * t**2 / (2 * jnp.maximum(change - total * t, jnp.finfo(t.dtype).tiny))
        vertex = jnp.where(jnp.isfinite(vertex), vertex, 0)
        return jnp.where(bad, jnp.clip(vertex, 0.1 * t, 0.5 * t), t), t, found, bad, count + 1

    one = jnp.ones((), dictionary.dtype)
    t, tried, found, bad, _ = jax.lax.while_loop(going, step, (one, one, values, total < 0, jnp.zeros((), jnp.int32)))
    del t
    moved = (total < 0) & ~bad
    t = jnp.where(moved, tried, 0)
    new = jnp.where(t == 1, target, dictionary + t * direction)
    values = jnp.where(moved, found, values)
    return new, values, t * linear + t**2 / 2 * square, problem.dictionary_moves(slope, gram, dictionary)


def _move_together(
    problem: Problem, codes: Codes, dictionary: Dictionary, values: Array
) -> tuple[Codes, Dictionary, Array, Float[Array, ""]]:
    """Better codes and dictionary, the terms' values there, and the squared error's change."""
    quadratic, signed = problem.quadratic, problem.settings.signed
    weights = jnp.ones(codes.shape[0], codes.dtype) if quadratic.row_weights is None else quadratic.row_weights
    eye = jnp.eye(codes.shape[1], dtype=codes.dtype)
    l2_codes, l2_dictionary = problem.penalty("l2_codes"), problem.penalty("l2_dictionary")
    weighed = codes * weights[:, None]
    inner, outer = dictionary @ dictionary.T, weighed.T @ codes
    slope_codes = codes @ inner - problem.activations @ dictionary.T + l2_codes * codes + problem.penalty("l1_codes")
    slope_codes = slope_codes * weights[:, None]
    slope_dictionary = outer @ dictionary - weighed.T @ problem.activations
    slope_dictionary = slope_dictionary + l2_dictionary * dictionary + problem.penalty("l1_dictionary")
    all_codes, all_dictionary, like = slope_codes, slope_dictionary, inner + l2_codes * eye
    products = []
    for part in problem.parts:
        model = part.term.local_codes(part.prepared, codes, dictionary)
        other = part.term.local_dictionary(part.prepared, codes, dictionary)
        all_codes = all_codes + part.weight * model.slope
        all_dictionary = all_dictionary + part.weight * other.slope
        if model.gram is not None:
            like = like + part.weight * model.gram
        products.append((part.weight, part.term.local_both(part.prepared, codes, dictionary)))

    def product(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        v, x = pair
        of_codes = (v @ inner + codes @ (x @ dictionary.T) + l2_codes * v) * weights[:, None]
        of_dictionary = outer @ x + (weighed.T @ v) @ dictionary + l2_dictionary * x
        for weight, term in products:
            more = term(v, x)
            of_codes, of_dictionary = of_codes + weight * more[0], of_dictionary + weight * more[1]
        return of_codes, of_dictionary

    direction = newton_direction(
        (codes, dictionary), (all_codes, all_dictionary), product, (like, outer + l2_dictionary * eye),
        signed=signed, steps=problem.settings.joint, rtol=problem.settings.cg_rtol,
    )  # fmt: skip

    def moved(t: Array) -> tuple[Array, Array]:
        new = dictionary + t * direction[1]
        return jnp.maximum(codes + t * direction[0], 0), new if signed else jnp.maximum(new, 0)

    def squared_change(new_codes: Array, new_dictionary: Array) -> Float[Array, ""]:
        # From the slopes: a difference of two large values would drown in rounding.
        v, x = new_codes - codes, new_dictionary - dictionary
        mixed = codes @ (dictionary @ x.T) - problem.activations @ x.T
        linear = jnp.sum(slope_codes * v) + jnp.sum(slope_dictionary * x) + jnp.sum(mixed * v * weights[:, None])
        stacked, beside = jnp.concatenate([v, new_codes], axis=1), jnp.concatenate([dictionary, x])
        square = jnp.sum(((stacked * weights[:, None]).T @ stacked) * (beside @ beside.T))
        penalty = l2_codes * jnp.sum(v**2 * weights[:, None]) + l2_dictionary * jnp.sum(x**2)
        return linear + (square + penalty) / 2

    def going(carry: tuple[Array, ...]) -> Array:
        _, _, _, bad, count = carry
        return bad & (count < _TRIALS)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        t, _, _, _, count = carry
        new = moved(t)
        found = problem.values(*new)
        quadratic_change = squared_change(*new)
        expected = jnp.sum(all_codes * (new[0] - codes)) + jnp.sum(all_dictionary * (new[1] - dictionary))
        change = quadratic_change + jnp.sum(found - values)
        good = jnp.isfinite(change) & (expected < 0) & (change <= _DESCENT * expected)
        return jnp.where(good, t, t / 4), found, quadratic_change, ~good, count + 1

    one, zero = jnp.ones((), codes.dtype), jnp.zeros((), codes.dtype)
    t, found, change, bad, _ = jax.lax.while_loop(
        going, step, (one, values, zero, jnp.ones((), bool), jnp.zeros((), jnp.int32))
    )
    t = jnp.where(bad, 0, t)
    new_codes, new_dictionary = moved(t)
    return new_codes, new_dictionary, jnp.where(bad, values, found), jnp.where(bad, 0, change)


def _first(problem: Problem, codes: Codes, dictionary: Dictionary) -> State:
    settings, dtype = problem.settings, codes.dtype
    _, values, sums = problem.codes_pass(codes, dictionary, codes, improve=False)
    objective = problem.objective(codes, dictionary, sums, values)
    _, slope, gram = problem.dictionary_slope(sums, dictionary)
    residual = _ratio(sums.moves + problem.dictionary_moves(slope, gram, dictionary), problem.size)
    empty = jnp.full((settings.max_steps + 1,), jnp.nan, dtype)
    arrived = jnp.where(residual <= settings.rtol, RESULTS.successful.value, -1)
    return State(
        codes=codes,
        dictionary=dictionary,
        previous_codes=codes,
        previous_dictionary=dictionary,
        gram=sums.gram,
        cross=sums.cross,
        values=values,
        objective=objective,
        beta=jnp.asarray(_FIRST if settings.extrapolate else 0.0, dtype),
        bound=jnp.ones((), dtype),
        rejected=jnp.zeros((), jnp.int32),
        restarts=jnp.zeros((), jnp.int32),
        step=jnp.zeros((), jnp.int32),
        code=jnp.where(jnp.isfinite(objective), arrived, RESULTS.nonfinite.value).astype(jnp.int32),
        objectives=empty.at[0].set(objective),
        residuals=empty.at[0].set(residual),
    )


def _step(problem: Problem, state: State) -> State:
    settings = problem.settings
    beta = jnp.where(state.rejected > 0, 0, state.beta)
    codes = jnp.maximum(state.codes + beta * (state.codes - state.previous_codes), 0)
    dictionary = state.dictionary + beta * (state.dictionary - state.previous_dictionary)
    if not settings.signed:
        dictionary = jnp.maximum(dictionary, 0)
    shift = dictionary - state.dictionary
    l1, l2 = problem.penalty("l1_dictionary"), problem.penalty("l2_dictionary")
    middle = (state.dictionary + dictionary) / 2
    moved = jnp.sum(shift * (state.gram @ middle - state.cross + l1 + l2 * middle))

    new_codes, values, sums = problem.codes_pass(codes, dictionary, state.codes, improve=True)
    new_dictionary, values, last, moves = _improve_dictionary(
        problem, new_codes, dictionary, sums, values, state.step * 37
    )
    gram, cross, together = sums.gram, sums.cross, jnp.zeros_like(last)
    if settings.joint and problem.rows <= _JOINT_ROWS:
        new_codes, new_dictionary, values, together = _move_together(problem, new_codes, new_dictionary, values)
        weights = problem.quadratic.row_weights
        weighed = new_codes if weights is None else new_codes * weights[:, None]
        gram, cross = weighed.T @ new_codes, weighed.T @ problem.activations
    change = moved + sums.change + last + together + jnp.sum(values - state.values)
    residual = _ratio(sums.moves + moves, problem.size)

    accepted = change <= 0
    keep = lambda new, old: jnp.where(accepted, new, old)  # noqa: E731
    rejected = jnp.where(accepted, 0, state.rejected + 1).astype(jnp.int32)
    code = jnp.where(accepted & (residual <= settings.rtol), RESULTS.successful.value, -1)
    # Without extrapolation no block can raise the objective by more than rounding.
    code = jnp.where((rejected > 1) | (accepted & (change == 0) & (beta == 0)), RESULTS.stalled.value, code)
    code = jnp.where(jnp.isfinite(change), code, RESULTS.nonfinite.value)
    objective = state.objective + jnp.where(accepted, change, 0)
    grown = jnp.minimum(state.bound, _GROWTH * state.beta)
    return State(
        codes=keep(new_codes, state.codes),
        dictionary=keep(new_dictionary, state.dictionary),
        previous_codes=state.codes,
        previous_dictionary=state.dictionary,
        gram=keep(gram, state.gram),
        cross=keep(cross, state.cross),
        values=keep(values, state.values),
        objective=objective,
        beta=keep(jnp.where(state.rejected > 0, state.beta, grown), state.beta / _CUT),
        bound=keep(jnp.minimum(1, _BOUND_GROWTH * state.bound), state.beta),
        rejected=rejected,
        restarts=state.restarts + (~accepted).astype(jnp.int32),
        step=state.step + 1,
        code=code.astype(jnp.int32),
        objectives=state.objectives.at[state.step + 1].set(objective),
        residuals=state.residuals.at[state.step + 1].set(jnp.where(accepted, residual, state.residuals[state.step])),
    )


ENCODING = Settings(inner=3, steps=10, joint=0, cg_rtol=0.01, rtol=0.0, max_steps=50, extrapolate=False, signed=False)


def encode(problem: Problem, codes: Codes, dictionary: Dictionary) -> Codes:
    """Codes that minimize the whole objective for a dictionary that stands still, from the given ones."""
    scale = jnp.sqrt(jnp.finfo(codes.dtype).eps)

    def going(carry: tuple[Codes, Array, Array]) -> Array:
        _, moving, step = carry
        return moving & (step < problem.settings.max_steps)

    def step(carry: tuple[Codes, Array, Array]) -> tuple[Codes, Array, Array]:
        codes, _, count = carry
        new, _, sums = problem.codes_pass(codes, dictionary, codes, improve=True)
        far = _ratio(sums.moves, problem.size) > scale * 1e-3
        return new, far & jnp.any(new != codes), count + 1

    start = (codes, jnp.ones((), bool), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(going, step, start)[0]

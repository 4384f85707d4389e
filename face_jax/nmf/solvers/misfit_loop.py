"""The loop for β-divergences and for squared errors with weights of single entries.

One step improves all codes, then the dictionary, from where both are extrapolated to; it's taken back if the objective
would rise. The product of the factors is kept beside them: it is what slopes, curvatures and changes are made of.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...linalg.control_flow import while_loop
from ...linalg.line_search import select
from ...linalg.row_blocks import RowBlocks, fold_blocks, put_columns, put_rows
from ...support.scaling import positive
from .. import divergence
from ..beta_divergence import BetaDivergence
from ..derivative.conditions import Conditions
from ..derivative.kkt import scaled_residual
from ..history import History, begun
from ..misfit_steps import Entries, Improved, Side
from ..shapes import Activations, CodesT, Columns, Dictionary, Number, Scalar
from ..solution import Solution
from ..steps import share
from .passes import usual_rows

Improve = Callable[[Side, Columns, Activations], Improved]
_LEAST = 0.1  # of an entry that extrapolation leaves: where a product is zero a divergence may be infinite


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Where the loop is: the accepted factors, what they are extrapolated from, their product, and the history."""

    codes: CodesT
    dictionary: Dictionary
    previous_codes: CodesT
    previous_dictionary: Dictionary
    product: Activations
    history: History


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is minimized, as the loop needs it."""

    entries: Entries
    objective: Any
    improve: Improve
    size: Number

    def codes_step(
        self, codes: CodesT, dictionary: Dictionary, product: Activations
    ) -> tuple[CodesT, Activations, Number]:
        """All codes improved, some rows at a time; the product, and how far the codes were from their minimum."""
        objective, entries = self.objective, self.entries
        counts = objective.row_weights

        def one(some: Entries, codes: CodesT, product: Activations) -> Improved:
            return self.improve(Side(some, dictionary, objective.l1_codes, objective.l2_codes, True), codes, product)

        rows, channels = entries.activations.shape
        blocks = RowBlocks.of(rows, usual_rows(rows, channels, codes.dtype))
        if blocks.count == 1:
            codes, product, moves = one(entries, codes, product)
            return codes, product, jnp.sum(moves if counts is None else moves * counts)

        def block(start: Array, fresh: Array) -> tuple[tuple[CodesT, Activations], Number]:
            taken, mine = blocks.take((entries.activations, entries.weights), start), blocks.take(product, start)
            some = dataclasses.replace(entries, activations=taken[0], weights=taken[1])
            new, found, moves = one(some, blocks.take(codes, start, axis=1), mine)
            weighed = fresh if counts is None else fresh * blocks.take(counts, start)
            return (new, found), jnp.sum(moves * weighed)

        def put(out: Any, piece: Any, start: Array) -> Any:
            return put_columns(out[0], piece[0], start), put_rows(out[1], piece[1], start)

        zero = jnp.zeros((), codes.dtype)
        (codes, product), moves = fold_blocks(blocks, block, (codes, product), zero, dtype=codes.dtype, put=put)
        return codes, product, moves

    def dictionary_step(
        self, codes: CodesT, dictionary: Dictionary, product: Activations
    ) -> tuple[Dictionary, Activations, Number]:
        """The dictionary improved; the product, and how far it was from its minimum."""
        objective, entries = self.objective, self.entries
        if objective.row_weights is not None:
            rows = jnp.broadcast_to(objective.row_weights[:, None], entries.activations.shape)
            weights = rows if entries.weights is None else rows * entries.weights
            entries = dataclasses.replace(entries, weights=weights)
        side = Side(entries, codes, objective.l1_dictionary, objective.l2_dictionary, False)
        dictionary, product, moves = self.improve(side, dictionary, product)
        return dictionary, product, jnp.sum(moves)

    def change(self, old: State, codes: CodesT, dictionary: Dictionary, product: Activations) -> Number:
        """How the objective changes from a state to factors whose product is known."""
        objective = self.objective
        entries = jnp.sum(self.entries.changes(old.product, product - old.product), axis=1)
        step, middle = codes - old.codes, (codes + old.codes) / 2
        rows = entries + jnp.sum(step * (objective.l1_codes + objective.l2_codes * middle), axis=0)
        if objective.row_weights is not None:
            rows = rows * objective.row_weights
        step, middle = dictionary - old.dictionary, (dictionary + old.dictionary) / 2
        return jnp.sum(rows) + jnp.sum(step * (objective.l1_dictionary + objective.l2_dictionary * middle))


def solve(
    activations: Activations,
    objective: Any,
    improve: Improve,
    codes: CodesT,
    dictionary: Dictionary,
    *,
    rtol: Scalar,
    max_steps: int,
    extrapolate: bool,
) -> Solution:
    """Run the loop from the given factors: a pure function of arrays, ready for `jit` and `vmap`.

    **Arguments:**

    - `activations`, `objective`: the problem, a squared error or a divergence without further terms.
    - `improve`: improves the items of one factor.
    - `codes`, `dictionary`: first factors, concepts first.
    - `rtol`, `max_steps`, `extrapolate`: of the loop.

    **Returns:** the solution.
    """
    objective = objective.in_dtype(activations.dtype)
    entries = entries_of(activations, objective)
    problem = Problem(entries, objective, improve, positive(objective.fit.size(activations)))
    if objective.weights is not None:
        # Rows of which nothing is known have no codes.
        codes = jnp.where(jnp.any(objective.weights > 0, axis=1)[None], codes, 0)
    state = _first(problem, activations, codes, dictionary, rtol, max_steps, extrapolate)
    state = while_loop(lambda state: state.history.going(max_steps), lambda state: _step(problem, state, rtol), state)
    factors = state.codes.T, state.dictionary
    residual = scaled_residual(Conditions(activations, objective), factors)
    return state.history.solution(state.codes, state.dictionary, objective.fit.value(activations, *factors), residual)


def entries_of(activations: Activations, objective: Any) -> Entries:
    """What is fitted entry by entry."""
    if isinstance(objective, BetaDivergence):
        x, beta = objective.counted(activations), objective.beta
    else:
        x, beta = activations, 2.0
    return Entries(x, objective.weights, divergence.floor_of(x), beta)


def _first(
    problem: Problem,
    activations: Activations,
    codes: CodesT,
    dictionary: Dictionary,
    rtol: Scalar,
    max_steps: int,
    extrapolate: bool,
) -> State:
    objective = problem.objective
    if problem.entries.beta <= 1:
        codes, dictionary = _reaching(problem.entries, codes, dictionary)
    found = objective.fit.value(activations, codes.T, dictionary)
    residual = scaled_residual(Conditions(activations, objective), (codes.T, dictionary))
    history = begun(found, residual, rtol, max_steps, extrapolate)
    return State(codes, dictionary, codes, dictionary, codes.T @ dictionary, history)


def _reaching(entries: Entries, codes: CodesT, dictionary: Dictionary) -> tuple[CodesT, Dictionary]:
    """Factors with a product above 0 where one is needed: at 0 the divergence is infinite, and far from quadratic."""
    wanted = entries.activations > 0
    if entries.weights is not None:
        wanted = wanted & (entries.weights > 0)
    none = ~jnp.any(dictionary > 0, axis=0) & jnp.any(wanted, axis=0)
    dictionary = jnp.where(none[None], positive(jnp.mean(dictionary)), dictionary)
    missed = jnp.any(wanted & (codes.T @ dictionary <= entries.floor), axis=1)
    return jnp.where(missed[None], jnp.maximum(codes, positive(jnp.mean(codes)) / 100), codes), dictionary


def _step(problem: Problem, state: State, rtol: Scalar) -> State:
    history = state.history
    length = history.extrapolation

    def ahead(x: Columns, previous: Columns) -> Columns:
        return jnp.maximum(x + length * (x - previous), _LEAST * x)

    codes = ahead(state.codes, state.previous_codes)
    dictionary = ahead(state.dictionary, state.previous_dictionary)
    product = codes.T @ dictionary
    codes, product, of_codes = problem.codes_step(codes, dictionary, product)
    dictionary, product, of_dictionary = problem.dictionary_step(codes, dictionary, product)
    change = problem.change(state, codes, dictionary, product)
    accepted = change <= 0
    history = history.after(
        accepted,
        jnp.maximum(history.objective + change, 0),  # a sum of differences, which rounding may bring below
        share(of_codes + of_dictionary, problem.size),
        rtol=rtol,
        # Without extrapolation neither step can raise the objective by more than rounding.
        patience=1,
        still=accepted & (change == 0) & (length == 0),
        finite=jnp.isfinite(change) | (length > 0),
    )
    new = State(codes, dictionary, state.codes, state.dictionary, product, history)
    old = State(state.codes, state.dictionary, state.codes, state.dictionary, state.product, history)
    return select(accepted, new, old)

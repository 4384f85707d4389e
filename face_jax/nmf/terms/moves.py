"""The steps that change the dictionary: alone, or together with the codes; neither raises the objective."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ...linalg.inner_products import RowGroups
from ...linalg.line_search import armijo, backtrack, shorter_by_parabola
from ..shapes import Codes, Dictionary, Factors, Number, Scalar
from ..steps import ridged
from .block_solver import minimize_model
from .joint import newton_direction
from .problem import JOINT_STEPS, TRIALS, Part, Problem, Sums


def improve_dictionary(
    problem: Problem, codes: Codes, dictionary: Dictionary, sums: Sums, values: Array, offset: Array
) -> tuple[Dictionary, Array, Number, Number]:
    """The new dictionary, the terms' values there, the squared error's change, and how far the old one was off."""
    way = dictionary_way(problem, problem.sample(codes, offset), dictionary, sums)

    def trial(t: Array, _: Array) -> tuple[Array, Array, Array]:
        found = problem.all_values(codes, dictionary + t * way.direction)
        change = way.squared_change(t) + jnp.sum(found - values)
        return armijo(change, t * way.total), shorter_by_parabola(t, change, way.total), found

    t, values, none = backtrack(trial, values, way.total < 0, trials=TRIALS, dtype=dictionary.dtype)
    t = jnp.where(none | (way.total >= 0), 0, t)
    return way.end(dictionary, t), values, way.squared_change(t), way.moves


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Way:
    """From a dictionary to the minimizer of its model.

    **Arguments:**

    - `target`, `direction`: the minimizer, and the way there.
    - `linear`, `square`: the squared error's slope and curvature along it.
    - `total`: the whole objective's slope.
    - `moves`: how far the dictionary is off.
    """

    target: Dictionary
    direction: Dictionary
    linear: Number
    square: Number
    total: Number
    moves: Number

    def squared_change(self, t: Array) -> Array:
        """How the squared error changes by a share of the way."""
        return t * self.linear + t**2 / 2 * self.square

    def end(self, dictionary: Dictionary, t: Array) -> Dictionary:
        """Where a share of the way ends; written so that all of it lands on the target's exact zeros."""
        return jnp.where(t == 1, self.target, dictionary + t * self.direction)


def dictionary_way(
    problem: Problem, sample: tuple[tuple[Part, ...], Codes, Scalar], dictionary: Dictionary, sums: Sums
) -> Way:
    """The way from the dictionary, with curvatures from a sample of the rows: terms, codes, how many rows each is."""
    settings = problem.settings
    quadratic, slope, gram = problem.dictionary_slope(sums, dictionary)
    parts, some, times = sample
    models = [(part.weight * times, part.term.local_dictionary(part.prepared, some, dictionary)) for part in parts]

    def product(v: Dictionary) -> Dictionary:
        return sum((weight * model.product(v) for weight, model in models), gram @ v)

    groups = RowGroups(dictionary.shape[0])
    by = lambda matrix, v: matrix @ v  # noqa: E731
    target = minimize_model(dictionary, slope, product, gram, by, groups, settings=settings, signed=settings.signed)
    direction = target - dictionary
    return Way(
        target=target,
        direction=direction,
        linear=jnp.sum(quadratic * direction),
        square=jnp.sum(direction * (gram @ direction)),
        total=jnp.sum(slope * direction),
        moves=problem.dictionary_moves(slope, gram, dictionary),
    )


def move_together(
    problem: Problem, codes: Codes, dictionary: Dictionary, values: Array
) -> tuple[Codes, Dictionary, Array, Number]:
    """Better codes and dictionary, the terms' values there, and the squared error's change."""
    problem = problem.recalled()
    signed = problem.settings.signed
    weights = problem.weights(codes)
    l2_codes, l2_dictionary = problem.quadratic.l2_codes, problem.quadratic.l2_dictionary
    weighed = codes * weights[:, None]
    inner, outer = dictionary @ dictionary.T, weighed.T @ codes
    slope_codes = codes @ inner - problem.activations @ dictionary.T + l2_codes * codes + problem.quadratic.l1_codes
    slope_codes = slope_codes * weights[:, None]
    slope_dictionary = outer @ dictionary - weighed.T @ problem.activations
    slope_dictionary = slope_dictionary + l2_dictionary * dictionary + problem.quadratic.l1_dictionary
    all_codes, all_dictionary, like = slope_codes, slope_dictionary, jnp.mean(weights) * ridged(inner, l2_codes)
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
        (codes, dictionary), (all_codes, all_dictionary), product, (like, ridged(outer, l2_dictionary)),
        signed=signed, steps=JOINT_STEPS, rtol=problem.settings.cg_rtol,
    )  # fmt: skip

    def moved(t: Array) -> tuple[Array, Array]:
        new = dictionary + t * direction[1]
        return jnp.maximum(codes + t * direction[0], 0), new if signed else jnp.maximum(new, 0)

    squared_change = partial(_squared_change, problem, (codes, dictionary), (slope_codes, slope_dictionary))

    def trial(t: Array, _: Array) -> tuple[Array, Array, tuple[Array, ...]]:
        new = moved(t)
        found, quadratic_change = problem.values(*new), squared_change(new)
        expected = jnp.sum(all_codes * (new[0] - codes)) + jnp.sum(all_dictionary * (new[1] - dictionary))
        good = (expected < 0) & armijo(quadratic_change + jnp.sum(found - values), expected)
        return good, t / 4, (found, quadratic_change)

    nothing = values, jnp.zeros((), codes.dtype)
    t, (found, change), none = backtrack(trial, nothing, jnp.ones((), bool), trials=TRIALS, dtype=codes.dtype)
    return *moved(jnp.where(none, 0, t)), found, change


def _squared_change(problem: Problem, old: Factors, slopes: Factors, new: Factors) -> Number:
    """How the squared error changes, from its slopes: a difference of two large values would drown in rounding."""
    (codes, dictionary), weights = old, problem.weights(old[0])[:, None]
    v, x = new[0] - codes, new[1] - dictionary
    mixed = codes @ (dictionary @ x.T) - problem.activations @ x.T
    linear = jnp.sum(slopes[0] * v) + jnp.sum(slopes[1] * x) + jnp.sum(mixed * v * weights)
    stacked, beside = jnp.concatenate([v, new[0]], axis=1), jnp.concatenate([dictionary, x])
    square = jnp.sum(((stacked * weights).T @ stacked) * (beside @ beside.T))
    penalty = problem.quadratic.l2_codes * jnp.sum(v**2 * weights)
    penalty = penalty + problem.quadratic.l2_dictionary * jnp.sum(x**2)
    return linear + (square + penalty) / 2

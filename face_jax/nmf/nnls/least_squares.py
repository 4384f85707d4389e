"""Codes that minimize the squared error with its weights and penalties, in whatever units its parts are given.

Concepts and rows are brought to a length of about 1 by powers of two before anything is squared, and codes back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ...linalg.control_flow import alike, cond, fori_loop
from ...support.precision import full_precision
from ...support.scaling import bound, exponent, shifted, widest
from ..objective import SquaredError
from ..shapes import Activations, Codes, Columns, Dictionary, Number
from .block_pivoting import Rows, nnls, nnls_or_nan


def codes_of(
    activations: Activations, dictionary: Dictionary, quadratic: SquaredError, *, finished: bool = True
) -> tuple[Codes, Bool[Array, " row"]]:
    """The codes; and in which rows some leave the dtype's range, which are infinite or 0 then.

    Unless `finished`, rows that products of the concepts alone don't decide have codes of NaN, seldom any; there is no
    derivative then, and a third to compile.
    """
    dtype, concepts = activations.dtype, dictionary.shape[0]
    limit = jnp.asarray(bound(dtype), dtype)
    l1, l2 = jnp.asarray(quadratic.l1_codes, dtype), jnp.asarray(quadratic.l2_codes, dtype)
    activations, dictionary, given_weights, l1, l2 = alike(activations, dictionary, quadratic.weights, l1, l2)
    of_concepts = concept_exponents(dictionary, l2)
    units = shifted(dictionary, -of_concepts[:, None])
    # A multiple of another concept is never needed, and without it the others may be independent.
    units = jnp.where(repeated(units, of_concepts, l1, l2)[:, None], 0, units)
    eye = jnp.eye(concepts, dtype=dtype)
    if given_weights is None:
        cross, of_rows = products(units, activations)
        ridge = shifted(l2, -2 * of_concepts)[:, None]
        penalty = shifted(l1, -of_concepts[:, None] - of_rows[None])
        gram, cross = units @ units.T + ridge * eye, cross - penalty
        weights = equal = None
    else:
        of_weights = exponent(jnp.max(given_weights, axis=1))
        weights = shifted(given_weights, -of_weights[:, None])
        cross, of_rows = products(units, weights * activations)
        ridge = jnp.minimum(shifted(l2, -2 * of_concepts[:, None] - of_weights[None]), limit)
        penalty = shifted(l1, -of_concepts[:, None] - (of_rows + of_weights)[None])
        gram = jnp.einsum("kp,lp,np->kln", units, units, weights, optimize="optimal") + ridge[:, None] * eye[:, :, None]
        # What a row's weights leave of a concept can be of any length.
        equal = _nearest(jnp.sqrt(jnp.diagonal(gram).T))
        gram, cross = shifted(gram, -equal[:, None] - equal[None]), shifted(cross - penalty, -equal)
    of_columns = exponent(jnp.maximum(jnp.max(cross, axis=0), 0))
    # What's far below zero there keeps its concept at zero, however far it is.
    cross = jnp.maximum(shifted(cross, -of_columns[None]), -limit)
    rows = Rows(units, activations, weights, jnp.sqrt(ridge), penalty, of_rows, of_columns, equal)
    x = nnls(gram, cross, jax.lax.stop_gradient(rows)) if finished else nnls_or_nan(gram, cross)
    by = (of_rows + of_columns)[None] - of_concepts[:, None]
    codes = shifted(x, by if equal is None else by - equal)
    return codes.T, _lost(jax.lax.stop_gradient(x), jax.lax.stop_gradient(codes), of_rows)


def finished_if_needed(program: Callable[..., tuple[Any, ...]], *given: Any) -> tuple[Any, ...]:
    """What a compiled function with `codes_of`'s `finished` returns, codes first: its short form's where that's all."""
    found = program(*given, finished=False)
    return program(*given, finished=True) if bool(_undecided(found[0])) else found


@jax.jit
def _undecided(codes: Codes) -> Bool[Array, ""]:
    return jnp.any(jnp.isnan(codes))


def repeated(units: Dictionary, of_concepts: Int[Array, " concept"], l1: Number, l2: Number) -> Bool[Array, " concept"]:
    """Which concepts are multiples of an earlier one, to rounding in each entry, and penalized like it."""
    units, l1, l2 = jax.lax.stop_gradient((units, l1, l2))
    concepts, eps = units.shape[0], float(jnp.finfo(units.dtype).eps)
    gram = units @ units.T
    squares = jnp.diagonal(gram)
    order = jnp.arange(concepts)
    alike = (gram > 0) & (gram**2 >= 0.99 * squares[:, None] * squares[None]) & (order[:, None] < order[None])

    def look(i: Array, known: Bool[Array, " concept"]) -> Bool[Array, " concept"]:
        mine = units[i]
        largest = jnp.argmax(jnp.abs(mine))
        factor = units[:, largest] / jnp.where(mine[largest] == 0, 1, mine[largest])
        multiple = jnp.all(jnp.abs(units - factor[:, None] * mine[None]) <= 4 * eps * jnp.abs(units), axis=1)
        as_long = jnp.abs(shifted(factor, of_concepts - of_concepts[i]) - 1) <= 4 * eps
        return known | (alike[i] & ~known[i] & multiple & (as_long | (l1 == 0)))

    some = jnp.any(alike) & (l2 == 0)
    return fori_loop(0, jnp.where(some, concepts, 0), look, jnp.zeros(concepts, bool))


def _lost(x: Columns, codes: Columns, of_rows: Int[Array, " item"]) -> Bool[Array, " item"]:
    kind = jnp.finfo(x.dtype)
    matters = x > float(kind.eps) * jnp.max(x, axis=0, keepdims=True)
    # A row at the range's lower end has such codes whatever the dictionary's units: it's as good as zero.
    small = (codes < float(kind.tiny)) & (of_rows >= 0)[None]
    return jnp.any(matters & (small | ~(codes <= float(kind.max))), axis=0)


def concept_exponents(dictionary: Dictionary, l2: Number) -> Int[Array, " concept"]:
    """The powers of two that bring each concept, its share of the penalty included, to a length of 0.7 to 1.4."""
    dictionary, l2 = jax.lax.stop_gradient((dictionary, l2))
    largest = jnp.maximum(jnp.max(jnp.abs(dictionary), axis=1), jnp.sqrt(l2))
    first = exponent(largest)
    squares = jnp.sum(shifted(dictionary, -first[:, None]) ** 2, axis=1) + shifted(jnp.sqrt(l2), -first) ** 2
    return first + _nearest(jnp.sqrt(squares))


def _nearest(length: Float[Array, "..."]) -> Int[Array, "..."]:
    """The power of two that's nearest, so that concepts of unit length stay alike: others would take longer."""
    return exponent(length * jnp.asarray(2**0.5, length.dtype)) - 1


def products(units: Dictionary, rows: Activations) -> tuple[Columns, Int[Array, " row"]]:
    """`W Aᵀ`, each row of A divided by a power of two where its own size would cost digits; and these powers."""
    cross, by = _products(units, rows)
    return cross, jax.lax.stop_gradient(by).astype(jnp.int32)


@jax.custom_jvp
def _products(units: Dictionary, rows: Activations) -> tuple[Columns, Float[Array, " row"]]:
    cross = units @ rows.T
    most = widest(rows.dtype)
    low, high = (jnp.asarray(2.0**e, rows.dtype) for e in (-most, most))
    largest = jnp.max(jnp.abs(cross), axis=0)

    def again() -> tuple[Columns, Float[Array, " row"]]:
        e = exponent(jnp.max(jnp.abs(rows), axis=1))
        by = jnp.where(jnp.abs(e) >= most - 4, e, 0)
        return units @ shifted(rows, -by[:, None]).T, by.astype(rows.dtype)

    # Looking at the activations once more costs as much as the product, so it's done only where the product is odd.
    odd = jnp.any(~(largest <= high) | (largest < low))
    return cond(odd, again, lambda: (cross, jnp.zeros(rows.shape[0], rows.dtype)))


@_products.defjvp
@full_precision
def _products_jvp(primals: tuple, tangents: tuple) -> tuple:
    (units, rows), (d_units, d_rows) = primals, tangents
    cross, by = _products(units, rows)
    change = d_units @ rows.T + units @ d_rows.T
    # Zero, and as different between devices as `by` is.
    return (cross, by), (shifted(change, -by.astype(jnp.int32)[None]), 0 * by)

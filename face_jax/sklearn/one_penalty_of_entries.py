"""A penalty on one factor alone beside a β-divergence, or with missing values, the other one's components being of unit
length, as in `one_penalty`.

With `l1 Σ U + ½ l2 ‖U‖²` measured where components d have unit length, the objective is the loss and
`Σ_k l1 ‖d_k‖ Σ u_k + ½ l2 ‖d_k‖² Σ u_k²`, which doesn't depend on how length is shared between the factors. As
`‖d‖ ≤ (‖d‖² + 1) / 2`, with equality at unit length, a square penalty on each component, `l1 Σ u_k + l2 Σ u_k²`, bounds
that: a step beside it, brought back to unit length, never raises the objective.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..linalg.sparse_rows import SparseRows
from ..nmf import divergence
from ..nmf.beta_divergence import BetaDivergence
from ..nmf.misfit_steps import Entries, Side
from ..nmf.shapes import CodesT, Dictionary, Number
from ..nmf.steps import share
from ..nmf.stored_entries import stored_entries
from ..nmf.stored_misfit import misfit
from ..nmf.stored_steps import StoredSide
from ..support.scaling import positive
from .one_penalty import Ended, ended

Step = Callable[[Any, Any], tuple[Any, Any, Any, Any]]


def solve(
    rows: Any,
    seen: Any,
    codes: CodesT,
    dictionary: Dictionary,
    counts: Float[np.ndarray, " row"],
    penalties: tuple[float, float],
    solver: Any,
    beta: float,
) -> Ended:
    """The factors, penalties on codes alone.

    **Arguments:**

    - `rows`: `row × channel`, dense or sparse; `seen`: what of it was observed, as `fitting.observed` has it.
    - `codes`, `dictionary`: where to start, concepts first.
    - `counts`: weights of rows.
    - `penalties`: l1 and l2.
    - `solver`: which improves one factor, with its tolerance and number of steps.
    - `beta`: which divergence.

    **Returns:** where it ended.
    """
    lengths = jnp.linalg.norm(dictionary, axis=1)
    codes, dictionary = codes * lengths[:, None], dictionary / positive(lengths)[:, None]
    limits: dict[str, Any] = {"tol": float(solver.rtol), "max_iter": solver.max_steps}
    if isinstance(rows, SparseRows):
        step = _stored_step(rows, seen, counts, penalties, solver, beta)
        begun = np.array(solver.begin(codes).T), np.array(solver.begin(dictionary).T)
        with np.errstate(all="ignore"):
            codes, dictionary, told = ended(step, *begun, **limits)
        return Ended(jnp.asarray(codes.T), jnp.asarray(dictionary.T), *told)
    step = _dense_step(rows, seen, counts, penalties, solver, beta)
    codes, dictionary, told = ended(step, solver.begin(codes), solver.begin(dictionary), **limits)
    return Ended(codes, dictionary, *told)


def _dense_step(rows: Any, seen: Any, counts: Any, penalties: Any, solver: Any, beta: float) -> Step:
    values = jnp.asarray(rows if seen is None else jnp.where(seen, rows, 1))
    weights = None if seen is None else jnp.asarray(seen, values.dtype)
    given = jnp.asarray(counts, values.dtype)
    size = positive(BetaDivergence(beta, weights, given).size(values))
    entries = Entries(values, weights, divergence.floor_of(values), beta)
    numbers = tuple(jnp.asarray(value, values.dtype) for value in penalties)
    return lambda codes, dictionary: _step(entries, given, solver, codes, dictionary, *numbers, size)


@jax.jit
def _step(
    entries: Entries,
    counts: Float[Array, " row"],
    solver: Any,
    codes: CodesT,
    dictionary: Dictionary,
    l1: Number,
    l2: Number,
    size: Number,
) -> tuple[CodesT, Dictionary, Number, Number]:
    """Better factors, the scaled residual of those before, and the objective."""
    side = Side(entries, dictionary, l1, l2, rows=True)
    codes, product, moves = solver.improve_items(side, codes, codes.T @ dictionary)
    moved = jnp.sum(moves * counts)
    ridge = jnp.sum(counts[None] * codes * (l1 + l2 * codes), axis=1, keepdims=True)
    weights = jnp.broadcast_to(counts[:, None], entries.activations.shape)
    weighted = dataclasses.replace(entries, weights=entries.weighed(weights))
    across = Side(weighted, codes, jnp.zeros_like(l1), ridge, rows=False)
    new, _, moves = solver.improve_items(across, dictionary, product)
    lengths = jnp.linalg.norm(new, axis=1)[:, None]
    codes, dictionary = codes * lengths, jnp.where(lengths > 0, new / positive(lengths), dictionary)
    value = jnp.sum(counts * Side(entries, dictionary, l1, l2, rows=True).values(codes))
    return codes, dictionary, share(moved + jnp.sum(moves), size), value


def _stored_step(rows: SparseRows, seen: Any, counts: Any, penalties: Any, solver: Any, beta: float) -> Step:
    entries = stored_entries("X", rows, BetaDivergence(beta), seen)
    across = entries.transposed
    order, dtype = entries.places.transposed[1], rows.dtype
    l1, l2 = (dtype.type(value) for value in penalties)
    given = counts.astype(dtype)
    size = jnp.asarray(float(entries.places.sums(entries.sizes()) @ given) or 1.0, dtype)

    def step(codes: np.ndarray, dictionary: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any, Any]:
        side = StoredSide(entries, dictionary, l1, l2)
        codes, y, moves = solver.improve_items(side, codes, side.product(codes))
        moved = float(moves @ given)
        ridge = np.sum(given[:, None] * codes * (l1 + l2 * codes), axis=0)
        other = StoredSide(across, codes, dtype.type(0), ridge, given)
        new, _, moves = solver.improve_items(other, dictionary, y[order])
        lengths = np.linalg.norm(new, axis=0)[None]
        codes, dictionary = codes * lengths, np.where(lengths > 0, new / np.where(lengths > 0, lengths, 1), dictionary)
        price = np.sum(given[:, None] * codes * (l1 + l2 / 2 * codes), dtype=np.float64)
        value = misfit(entries, codes, dictionary, given) + price
        return codes, dictionary, share(jnp.asarray(moved + float(np.sum(moves)), dtype), size), value

    return step

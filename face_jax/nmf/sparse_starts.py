"""Where the factorization of sparse rows starts: as in `starts` and `warmup`, by products with the matrix alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..linalg.sparse_rows import SparseRows
from ..support.arguments import native
from ..support.scaling import positive
from .objective import SquaredError
from .shapes import CodesT, Dictionary, FactorsT
from .solvers.minibatch import MiniBatch
from .solvers.starts import NNDSVD, Given, NNDSVDa, NNDSVDar, Random, fill, halves, signs_kept
from .solvers.update_rules import HALS
from .solvers.warmup import Warmup, spread

Solve = Callable[..., Any]
_SWEEPS = 10  # from zero to rough codes


def begin(start: Any, rows: SparseRows, rank: int, *, signed: bool, key: Key[Array, ""], solve: Solve) -> FactorsT:
    """First codes (concepts first) and dictionary.

    **Arguments:**

    - `start`: one of face_jax's.
    - `rows`, `rank`: of what.
    - `signed`: whether the dictionary may be negative.
    - `key`: for random numbers.
    - `solve`: the loop that samples are factorized by: of rows, objective, rule, codes and dictionary.

    **Returns:** both. Raises `ValueError` for a start that needs all entries.
    """
    if isinstance(start, Given):
        codes, dictionary = native("start.codes", start.codes), native("start.dictionary", start.dictionary)
        return jnp.asarray(codes, rows.dtype).T, jnp.asarray(dictionary, rows.dtype)
    if isinstance(start, Random):
        return _random(rows, rank, signed, key)
    if isinstance(start, NNDSVD):
        return _nndsvd(start, rows, rank, signed, key)
    if isinstance(start, Warmup | MiniBatch):
        return _from_samples(start, rows, rank, signed, key, solve)
    raise ValueError(
        f"start={type(start).__name__}() looks at all entries, and activations are sparse; give Warmup(), NNDSVD(), "
        "Random() or Given(codes, dictionary)"
    )


def _from_samples(start: Any, rows: SparseRows, rank: int, signed: bool, key: Key[Array, ""], solve: Solve) -> FactorsT:
    counts = start.counts(rows.shape[0], rank)
    if not counts:
        return begin(start.start, rows, rank, signed=signed, key=key, solve=solve)
    rule, inner, dictionary = start.rule(signed=signed), start.start, None
    for count, steps in counts:
        chosen = spread(rows.shape[0], count)
        sample = rows.taken(chosen)
        if dictionary is None:
            if isinstance(inner, Given):
                inner = Given(np.asarray(inner.codes)[chosen], inner.dictionary)
            codes, dictionary = begin(inner, sample, rank, signed=signed, key=key, solve=solve)
        else:
            codes = _roughly(sample, dictionary)
        found = solve(sample, SquaredError(), dataclasses.replace(rule, max_steps=steps), codes, dictionary)
        # Equal shares of length for both factors: the solvers' steps treat them alike then.
        lengths = jnp.sqrt(jnp.sqrt(jnp.sum(found.codes**2, axis=0) * (rows.shape[0] / count)))
        dictionary = found.dictionary * positive(lengths)[:, None]
    assert dictionary is not None
    return _roughly(rows, dictionary), dictionary


def _roughly(rows: SparseRows, dictionary: Dictionary) -> CodesT:
    """Codes after some coordinate sweeps from zero."""
    return _swept(jnp.asarray(rows.times(np.asarray(dictionary).T)), dictionary)


@jax.jit
def _swept(cross: Float[Array, "row concept"], dictionary: Dictionary) -> CodesT:
    return HALS(sweeps=_SWEEPS).update(jnp.zeros_like(cross.T), dictionary @ dictionary.T, cross.T, ())[0]


def _random(rows: SparseRows, rank: int, signed: bool, key: Key[Array, ""]) -> FactorsT:
    first, second = jax.random.split(key)
    scale = jnp.asarray(np.sqrt(rows.mean(magnitudes=True) / rank), rows.dtype)
    codes = jnp.abs(jax.random.normal(first, (rank, rows.shape[0]), rows.dtype))
    dictionary = jax.random.normal(second, (rank, rows.shape[1]), rows.dtype)
    return scale * codes, scale * (dictionary if signed else jnp.abs(dictionary))


def _nndsvd(start: NNDSVD, rows: SparseRows, rank: int, signed: bool, key: Key[Array, ""]) -> FactorsT:
    sketch, other, filling = jax.random.split(key, 3)
    count = min(rank + start.oversample, *rows.shape)
    found = min(rank, count)
    left, values, right = singular_triplets(rows, count, start.passes, sketch)
    u, s, v = (jnp.asarray(part, rows.dtype) for part in (left[:, :found].T, values[:found], right[:found]))
    plus, minus = halves(u)
    choice = signs_kept(s, v, jnp.stack([jnp.linalg.norm(part, axis=1) for part in (plus, minus)]), signed=signed)
    codes = jnp.where(choice.positive[:, None], plus, minus) * choice.codes[:, None]
    dictionary = choice.dictionary
    if found < rank:
        # A rank beyond min(row, channel) has no singular pairs left to start from.
        more = _random(rows, rank - found, signed, other)
        codes, dictionary = jnp.concatenate([codes, more[0]]), jnp.concatenate([dictionary, more[1]])
    mean = abs(rows.mean())
    if isinstance(start, NNDSVDa):
        return jnp.where(codes > 0, codes, mean), fill(dictionary, jnp.full_like(dictionary, mean), signed)
    if isinstance(start, NNDSVDar):
        first, second = jax.random.split(filling)
        small = [mean / 100 * jax.random.uniform(key, each.shape, each.dtype)
                 for key, each in ((first, codes), (second, dictionary))]  # fmt: skip
        return jnp.where(codes > 0, codes, small[0]), fill(dictionary, small[1], signed)
    return codes, dictionary


def singular_triplets(
    rows: SparseRows, count: int, passes: int, key: Key[Array, ""]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The largest singular values and vectors by randomized subspace iteration, as for dense rows."""
    if rows.shape[0] < rows.shape[1]:
        left, values, right = singular_triplets(rows.T, count, passes, key)
        return right.T, values, left.T
    basis = np.asarray(jax.random.normal(key, (rows.shape[1], count), rows.dtype))
    for _ in range(passes):
        basis = np.linalg.qr(np.asarray(rows.transposed_times(rows.times(basis))))[0]
    image = np.asarray(rows.times(basis))
    squares, vectors = np.linalg.eigh(image.T @ image)
    values, vectors = np.sqrt(np.maximum(squares[::-1], 0)), vectors[:, ::-1]
    return (image @ vectors) / np.where(values > 0, values, 1), values, (basis @ vectors).T

"""One factorization for an estimator, whatever its rows and penalties are."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, Key
from sklearn.utils.validation import _check_sample_weight

from ..linalg.sparse_rows import SparseRows, squared_error
from ..nmf import RESULTS, Given, Result, Solution, factorize, factorize_many
from ..nmf.beta_divergence import BetaDivergence
from ..nmf.solution import normalized
from ..nmf.stored_entries import NUMBERS, STORED
from ..nmf.stored_misfit import value_of
from ..support.scaling import positive
from . import one_penalty, one_penalty_of_entries
from .arrays import namespace, on_host
from .settings import UNSTORED, Penalties

_TOGETHER = 256  # rows whose misfit stays in the processor's cache
_WARM = 20  # steps without the penalty that a penalty on one factor starts from


@dataclasses.dataclass(frozen=True)
class Fitted:
    """What a fit found.

    **Arguments:**

    - `components`: at the length that they have in the objective.
    - `directions`: the same at unit length.
    - `codes`: those that belong to the components, on the rows' device; None where they are exact ones anyway.
    - `steps`: passes over the data.
    - `objectives`, `residuals`: at the start and after each step.
    - `objective`, `residual`: in the end.
    - `result`, `stats`: how it ended; None where there are no statistics.
    """

    components: Float[np.ndarray, "component feature"]
    directions: Float[np.ndarray, "component feature"]
    codes: Any
    steps: int
    objectives: Float[np.ndarray, " step"]
    residuals: Float[np.ndarray, " step"]
    objective: float
    residual: float
    result: Any
    stats: Any


def factorized(
    rows: Any,
    rank: int,
    penalties: Penalties,
    weights: Float[np.ndarray, " sample"] | None,
    solver: Any,
    starts: Sequence[Any],
    keys: Sequence[Key[Array, ""]],
    *,
    beta: float = 2.0,
    missing: str | None = None,
) -> list[Fitted]:
    """Components of rows, dense or sparse, from each of some starts; `missing` is the estimator's.

    The arguments are already checked.
    """
    seen, each = observed(rows, missing), list(zip(starts, keys, strict=True))
    if penalties.one_sided:
        return [_one_sided(rows, rank, penalties, weights, solver, *one, beta, seen) for one in each]
    objective = penalties.objective(beta, None if weights is None else jnp.asarray(weights))
    values, given = on_device(rows), {"objective": objective, "solver": solver}
    if len(each) > 1 and beta == 2 and seen is None and not scipy.sparse.issparse(rows):
        # One program; on an accelerator all of them side by side.
        found = factorize_many(values, rank, **given, start=list(starts), key=list(keys), progress=False)
    else:
        found = [factorize(values, rank, **given, start=start, key=key, observed=seen) for start, key in each]
    return [_of_solution(solution, rank, penalties, there=isinstance(rows, jax.Array)) for solution in found]


def _of_solution(solution: Solution, rank: int, penalties: Penalties, *, there: bool) -> Fitted:
    directions, stats = np.array(solution.dictionary), solution.stats
    # With penalties the length of a component is part of the answer.
    lengths = np.asarray(solution.scale) if penalties.some else np.ones(rank, directions.dtype)
    codes = (solution.codes if there else np.asarray(solution.codes)) / np.where(lengths > 0, lengths, 1)[None]
    steps = int(stats.steps)
    return Fitted(
        directions * lengths[:, None], directions, codes, steps, np.asarray(stats.objective)[: steps + 1],
        np.asarray(stats.residual)[: steps + 1], float(stats.final_objective), float(stats.final_residual),
        solution.result, stats,
    )  # fmt: skip


def _one_sided(
    rows: Any,
    rank: int,
    penalties: Penalties,
    weights: Float[np.ndarray, " sample"] | None,
    solver: Any,
    start: Any,
    key: Key[Array, ""],
    beta: float,
    seen: Any,
) -> Fitted:
    """A penalty on codes alone, or on components alone, which is the same of the transposed matrix."""
    if solver.signed_dictionary or not getattr(solver, "fits_entries", False):
        raise ValueError(
            f"solver={type(solver).__name__}() beside a penalty on one factor alone isn't offered; give alpha_W and "
            "alpha_H both, or alpha_H='same', or solver=ADMM(), HALS() or MultiplicativeUpdate()"
        )
    if isinstance(start, Given):
        codes, dictionary = jnp.asarray(start.codes).T, jnp.asarray(start.dictionary)
    else:
        warm = dataclasses.replace(solver, max_steps=min(_WARM, solver.max_steps))
        weighted = Penalties((0.0, 0.0), (0.0, 0.0)).objective(beta, None if weights is None else jnp.asarray(weights))
        begun = factorize(on_device(rows), rank, objective=weighted, solver=warm, start=start, key=key, observed=seen)
        codes, dictionary = jnp.asarray(begun.codes).T, begun.dictionary
    on_codes = any(penalties.codes)
    counts = np.ones(rows.shape[0], rows.dtype) if weights is None else weights.astype(rows.dtype)
    if beta != 2 or seen is not None:
        return _of_entries(rows, seen, codes, dictionary, counts, penalties, solver, beta)
    if not on_codes and weights is not None:
        root = np.sqrt(counts)
        rows = rows * root[:, None] if not scipy.sparse.issparse(rows) else scipy.sparse.diags_array(root) @ rows
        codes, counts = codes * root[None], np.ones_like(counts)
    by_rows, by_channels, size = products(rows, counts)
    if on_codes:
        problem = by_rows, by_channels, size, codes, dictionary, jnp.asarray(counts), penalties.codes
    else:
        ones = jnp.ones(rows.shape[1], dictionary.dtype)
        problem = by_channels, by_rows, size, dictionary, codes, ones, penalties.components
    ended = one_penalty.solve(*problem, tol=float(solver.rtol), max_iter=solver.max_steps)
    return _fitted(ended, ended.dictionary if on_codes else ended.codes, None)


def _of_entries(
    rows: Any, seen: Any, codes: Any, dictionary: Any, counts: Any, penalties: Penalties, solver: Any, beta: float
) -> Fitted:
    """The same where the loss isn't one Gram matrix for all rows."""
    on_codes = any(penalties.codes)
    if not on_codes and (counts != 1).any():
        raise ValueError(
            "sample_weight beside a penalty on components alone isn't offered for this loss, or with missing values; "
            "give alpha_W and alpha_H both, or alpha_H='same'"
        )
    sparse = scipy.sparse.issparse(rows)
    if on_codes:
        given, problem = rows, (codes, dictionary, counts, penalties.codes)
    else:
        given = rows.T.tocsr() if sparse else rows.T
        seen = seen if isinstance(seen, str) or seen is None else seen.T
        problem = dictionary, codes, np.ones(rows.shape[1], rows.dtype), penalties.components
    values = SparseRows(given, rows.dtype) if sparse else given
    ended = one_penalty_of_entries.solve(values, seen, *problem, solver, beta)
    found = (ended.codes, ended.dictionary) if on_codes else (ended.dictionary, ended.codes)
    return _fitted(ended, found[1], found[0].T if isinstance(rows, jax.Array) else np.asarray(found[0]).T)


def _fitted(ended: one_penalty.Ended, components: Any, codes: Any) -> Fitted:
    directions = normalized(components, components)[1]
    code = RESULTS.successful if ended.converged else RESULTS.max_steps_reached
    return Fitted(
        np.array(components), np.asarray(directions), codes, ended.steps, ended.objectives, ended.residuals,
        float(ended.objectives[-1]), float(ended.residuals[-1]), Result(jnp.asarray(code.value, jnp.int32)), None,
    )  # fmt: skip


def products(
    rows: Any, counts: Float[np.ndarray, " sample"]
) -> tuple[Callable[[Any], Any], Callable[[Any], Any], float]:
    """`Wᵀ ↦ Wᵀ Aᵀ`, `Uᵀ ↦ Uᵀ diag(counts) A`, and `‖A‖²`, rows weighted; sparse matrices stay sparse."""
    if scipy.sparse.issparse(rows):
        transposed = rows.T.tocsr()
        size = float(counts.astype(np.float64) @ np.asarray(rows.multiply(rows).sum(axis=1), np.float64).ravel())
        return (
            lambda dictionary: jnp.asarray((rows @ np.asarray(dictionary).T).T),
            lambda codes: jnp.asarray((transposed @ (np.asarray(codes) * counts).T).T),
            size,
        )
    values, given = jnp.asarray(rows), jnp.asarray(counts)
    with jax.enable_x64(True):
        there = isinstance(rows, jax.Array)
        squares = np.asarray(_squares(rows)) if there else (np.asarray(rows, np.float64) ** 2).sum(axis=1)
    size = float(counts.astype(np.float64) @ squares)
    return lambda dictionary: dictionary @ values.T, lambda codes: (codes * given[None]) @ values, size


def on_device(rows: Any) -> Any:
    """An array of JAX; sparse ones as they are."""
    return rows if scipy.sparse.issparse(rows) else jnp.asarray(rows)


def sample_weights(rows: Any, value: Any) -> Float[np.ndarray, " sample"] | None:
    """Weights of samples, checked; None without."""
    if value is None:
        return None
    given = on_host("sample_weight", value)
    found = np.asarray(_check_sample_weight(given, rows, dtype=rows.dtype, ensure_non_negative=True))
    if not found.any():
        raise ValueError("sample_weight is 0 everywhere, which leaves no sample; give some that are above 0")
    return found


def observed(rows: Any, missing: str | None) -> Any:
    """Where there is a value, as `factorize` takes it; None if there is one everywhere."""
    if missing is None:
        return None
    if scipy.sparse.issparse(rows):
        return STORED if missing == UNSTORED else NUMBERS if np.isnan(rows.data).any() else None
    gone = namespace(rows).isnan(rows)
    return ~gone if gone.any() else None


def objective_of(
    rows: Any, codes: Float[Any, "sample component"], components: np.ndarray, penalties: Penalties,
    weights: Float[np.ndarray, " sample"] | None, beta: float, missing: str | None,
) -> float:  # fmt: skip
    """What a fit minimizes, at any factors."""
    (l1, l2), (l1_components, l2_components) = penalties.codes, penalties.components
    counts = np.ones(len(codes)) if weights is None else weights
    with jax.enable_x64(True):
        prices = namespace(codes).sum(codes * (l1 + l2 / 2 * codes), axis=1, dtype=np.float64)
    price = float(counts.astype(np.float64) @ np.asarray(prices))
    price += float(np.sum(components * (l1_components + l2_components / 2 * components), dtype=np.float64))
    return price + _misfit(rows, codes, components, weights, beta, observed(rows, missing))


def _misfit(rows: Any, codes: Any, components: np.ndarray, weights: Any, beta: float, seen: Any) -> float:
    if scipy.sparse.issparse(rows):
        known = SparseRows(rows, components.dtype)
        if beta == 2 and seen is None:
            return squared_error(known, codes, components, weights)
        return value_of(known, codes, np.ascontiguousarray(components.T), beta, seen, weights)
    entries = None if seen is None else jnp.asarray(seen.astype(rows.dtype))
    filled = rows if seen is None else namespace(rows).where(seen, rows, 1)
    with precision(rows):
        counts = None if weights is None else jnp.asarray(weights.astype(rows.dtype))
        loss = BetaDivergence(beta, entries, counts)
        return float(loss.value(jnp.asarray(filled), jnp.asarray(codes), jnp.asarray(components)))


def length(
    rows: Any, codes: Float[Any, "sample component"], components: np.ndarray, beta: float, missing: str | None
) -> float:
    """`√(2 D(X | W H))`, for the squared error `‖X − W H‖`: of the values observed."""
    seen = observed(rows, missing)
    if beta == 2 and isinstance(rows, jax.Array):
        with precision(rows):
            largest, rest = _rest(rows, codes, jnp.asarray(components), seen)
        return float(largest) * float(rest)
    if beta == 2 and not scipy.sparse.issparse(rows):
        parts = []
        for first in range(0, len(rows), _TOGETHER):
            some = slice(first, first + _TOGETHER)
            rest = rows[some] - codes[some] @ components
            parts.append(_length(rest if seen is None else np.where(seen[some], rest, 0)))
        return _length(np.asarray(parts))
    return float(np.sqrt(max(0.0, 2 * _misfit(rows, codes, components, None, beta, seen))))


@jax.jit
def _squares(rows: Float[Array, "sample feature"]) -> Float[Array, " sample"]:
    return jnp.sum(rows.astype(jnp.float64) ** 2, axis=1)


@jax.jit
def _rest(
    rows: Float[Array, "sample feature"], codes: Float[Array, "sample component"],
    components: Float[Array, "component feature"], seen: Any,
) -> tuple[Float[Array, ""], Float[Array, ""]]:  # fmt: skip
    """The largest difference, and the length of all as a multiple of it."""
    rest = rows - codes @ components
    rest = rest if seen is None else jnp.where(seen, rest, 0)
    largest = jnp.max(jnp.abs(rest))
    return largest, jnp.sqrt(jnp.sum(jnp.sum((rest / positive(largest)) ** 2, axis=1)))


def precision(rows: Any) -> contextlib.AbstractContextManager[Any]:
    """Float64 data is computed in float64, whatever JAX is set to."""
    return jax.enable_x64(rows.dtype == np.float64 or jax.config.read("jax_enable_x64"))


def _length(rest: Float[np.ndarray, "..."]) -> float:
    exponent = int(np.frexp(np.abs(rest).max())[1])
    return float(np.ldexp(np.float64(np.linalg.norm(np.ldexp(rest, -exponent))), exponent))

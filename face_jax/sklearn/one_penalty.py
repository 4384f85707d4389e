"""A penalty on one factor alone, the other one's components having unit length.

Without that bound there is no minimum: all length would move out of the penalized factor into the other one, and the
penalty would come to nothing. With it both steps are exact: codes by coordinate descent, and each component of the
dictionary at once, as its length is known (Hoyer 2002; Le Roux, Weninger & Hershey 2015).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..linalg.control_flow import fori_loop
from ..nmf.shapes import CodesT, Dictionary, Number
from ..nmf.steps import ridged, share, sweep
from ..support.scaling import positive

_SWEEPS = 2


@dataclasses.dataclass(frozen=True)
class Ended:
    """Where the loop ended.

    **Arguments:**

    - `codes`, `dictionary`: the factors.
    - `steps`: passes over the data.
    - `objectives`, `residuals`: after each of them.
    - `converged`: whether the last residual is at most the tolerance.
    """

    codes: CodesT
    dictionary: Dictionary
    steps: int
    objectives: Float[np.ndarray, " step"]
    residuals: Float[np.ndarray, " step"]
    converged: bool


def solve(
    by_rows: Callable[[Dictionary], CodesT],
    by_channels: Callable[[CodesT], Dictionary],
    size: float,
    codes: CodesT,
    dictionary: Dictionary,
    counts: Float[Array, " row"],
    penalties: tuple[float, float],
    *,
    tol: float,
    max_iter: int,
) -> Ended:
    """`min ½‖A − U Wᵀ‖² + l1 Σ U + ½ l2 ‖U‖²` with `U, W ≥ 0` and concepts of unit length, rows weighted.

    **Arguments:**

    - `by_rows`, `by_channels`: `Wᵀ ↦ Wᵀ Aᵀ` and `Uᵀ ↦ Uᵀ A`, rows weighted.
    - `size`: `‖A‖²`.
    - `codes`, `dictionary`: where to start, concepts first.
    - `counts`: weights of rows.
    - `penalties`: l1 and l2.
    - `tol`: the share of `‖A‖` that coordinate steps may still move the fit by.
    - `max_iter`: passes at most.

    **Returns:** where it ended.
    """
    dtype = dictionary.dtype
    lengths = positive(jnp.linalg.norm(dictionary, axis=1))
    codes, dictionary = codes * lengths[:, None], dictionary / lengths[:, None]
    l1, l2 = (jnp.asarray(value, dtype) for value in penalties)
    step = partial(_dictionary_step, size=jnp.asarray(size, dtype), l1=l1, l2=l2)

    def both(codes: CodesT, dictionary: Dictionary) -> tuple[CodesT, Dictionary, Number, Number]:
        codes, moved = _codes_step(codes, dictionary, by_rows(dictionary), counts, l1, l2)
        return codes, *step(codes, dictionary, by_channels(codes), moved, counts)

    codes, dictionary, told = ended(both, codes, dictionary, tol=tol, max_iter=max_iter)
    return Ended(codes, dictionary, *told)


def ended(
    step: Callable[[Any, Any], tuple[Any, Any, Any, Any]], codes: Any, dictionary: Any, *, tol: float, max_iter: int
) -> tuple[Any, Any, tuple[int, Float[np.ndarray, " step"], Float[np.ndarray, " step"], bool]]:
    """Step after step, until the residual is at most the tolerance.

    **Arguments:**

    - `step`: codes and dictionary to better ones, the scaled residual and the objective.
    - `codes`, `dictionary`: where to start.
    - `tol`, `max_iter`: as for `solve`.

    **Returns:** both factors, and what `Ended` tells of them.
    """
    objectives, residuals = list[float](), list[float]()
    for _ in range(max_iter):
        codes, dictionary, residual, objective = step(codes, dictionary)
        objectives.append(float(objective))
        residuals.append(float(residual))
        if residuals[-1] <= tol:
            break
    told = len(objectives), np.asarray(objectives), np.asarray(residuals), residuals[-1] <= tol
    return codes, dictionary, told


@jax.jit
def _codes_step(
    codes: CodesT, dictionary: Dictionary, cross: CodesT, counts: Float[Array, " row"], l1: Number, l2: Number
) -> tuple[CodesT, Number]:
    """Better codes, and the squared length by which they moved the fit."""
    gram, new = ridged(dictionary @ dictionary.T, l2), codes
    for _ in range(_SWEEPS):
        new = sweep(new, gram, cross - l1)
    return new, jnp.sum(jnp.diagonal(gram)[:, None] * counts[None] * (new - codes) ** 2)


@jax.jit
def _dictionary_step(
    codes: CodesT,
    dictionary: Dictionary,
    cross: Dictionary,
    moved: Number,
    counts: Float[Array, " row"],
    *,
    size: Number,
    l1: Number,
    l2: Number,
) -> tuple[Dictionary, Number, Number]:
    """Each concept in its turn at its best, at unit length; the scaled residual; the objective."""
    gram = (codes * counts[None]) @ codes.T

    def one(k: int | Array, found: Dictionary) -> Dictionary:
        towards = jnp.maximum(cross[k] - gram[k] @ found + gram[k, k] * found[k], 0)
        length = jnp.linalg.norm(towards)
        return found.at[k].set(jnp.where(length > 0, towards / positive(length), found[k]))

    new = fori_loop(0, dictionary.shape[0], one, dictionary)
    moved = moved + jnp.sum(jnp.diagonal(gram)[:, None] * (new - dictionary) ** 2)
    fit = size / 2 - jnp.sum(cross * new) + jnp.sum(gram * (new @ new.T)) / 2
    return new, share(moved, size), fit + jnp.sum(counts[None] * (l1 * codes + l2 / 2 * codes**2))

"""One step of the mini-batch factorization: codes of a batch, then components from what all batches have added up."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array

from ..linalg.sparse_rows import SparseRows
from ..nmf import divergence
from ..nmf.beta_divergence import BetaDivergence
from ..nmf.steps import ridged, sweep
from ..nmf.stored_entries import stored_entries
from ..nmf.stored_misfit import misfit
from ..nmf.stored_steps import StoredSide
from .fitting import observed
from .settings import Penalties

_H_SWEEPS = 2


@dataclasses.dataclass
class Sums:
    """What batches have added up, earlier ones counting less: `∂/∂H` of the loss is known from it for any H.

    **Arguments:**

    - `gram`, `cross`: `Σ WᵀW` and `Σ WᵀX`; for other losses the numerator and denominator of the multiplicative rule.
    - `count`: how many samples they stand for.
    """

    gram: Array
    cross: Array
    count: float = 0.0

    @staticmethod
    def begun(H: np.ndarray, *, multiplied: bool) -> Sums:
        """Of no batches; `multiplied`: for the multiplicative rule."""
        rank = len(H)
        if multiplied:
            return Sums(jnp.asarray(H), jnp.ones_like(jnp.asarray(H)))
        return Sums(jnp.zeros((rank, rank), H.dtype), jnp.zeros_like(jnp.asarray(H)))

    def of(self, dtype: Any) -> Sums:
        """The same beside batches of a dtype."""
        return Sums(jnp.asarray(self.gram, dtype), jnp.asarray(self.cross, dtype), self.count)


def multiplied(beta: float, missing: str | None) -> bool:
    """Whether it's for the multiplicative rule: other losses, and values that weren't observed."""
    return beta != 2 or missing is not None


def step(
    rows: Any, W: np.ndarray, H: Any, sums: Sums, *, beta: float, penalties: Penalties, rho: float, sweeps: int,
    weights: np.ndarray | None = None, missing: str | None = None,
) -> tuple[np.ndarray, Any, float]:  # fmt: skip
    """One batch.

    **Arguments:**

    - `rows`: of the batch, dense or sparse.
    - `W`, `H`: its codes and the components, as they are.
    - `sums`: of the batches before, which are changed.
    - `beta`, `penalties`: the loss; penalties for the batch.
    - `rho`: what the batches before count.
    - `sweeps`: how often codes are gone through.
    - `weights`: of samples; None if all count once.
    - `missing`: the estimator's.

    **Returns:** the new codes and components, and the loss of the batch before the components changed.
    """
    samples = rows.shape[0]
    l1w, l2w = penalties.codes
    l1h, l2h = penalties.components
    counts = np.ones(samples, W.dtype) if weights is None else weights.astype(W.dtype)
    if multiplied(beta, missing):
        if scipy.sparse.issparse(rows):
            W_, H, cost = _of_stored(rows, W, np.asarray(H), sums, counts, beta, penalties, rho, sweeps, missing)
            return W_, jnp.asarray(H), cost / samples
        numbers = tuple(jnp.asarray(x, H.dtype) for x in (l1w, l2w, l1h, l2h, rho))
        seen = observed(rows, missing)
        mask = None if seen is None else jnp.asarray(seen, H.dtype)
        # Any number will do where there is none, and each loss has a value for 1.
        values = jnp.asarray(rows if seen is None else np.where(seen, rows, 1))
        W_, H, sums.gram, sums.cross, cost = _multiplicative(
            values, jnp.asarray(W), jnp.asarray(H), sums.gram, sums.cross, numbers, jnp.asarray(counts), mask, beta,
            sweeps,
        )  # fmt: skip
        return np.asarray(W_), H, float(cost) / samples
    sums.count = rho * sums.count + samples
    more = sums.count / samples
    numbers = tuple(jnp.asarray(x, H.dtype) for x in (l1w, l2w, l1h * more, l2h * more, rho, l1h, l2h))
    given = jnp.asarray(counts)
    if scipy.sparse.issparse(rows):
        cross = jnp.asarray((rows @ np.asarray(H).T).T)
        W_, value = _codes(cross, jnp.asarray(W).T, jnp.asarray(H), numbers, given, sweeps)
        squares = SparseRows(rows, rows.dtype).squares()
        size = float(squares @ counts)
        by_feature = jnp.asarray((rows.T @ (np.asarray(W_) * counts).T).T)
        H, sums.gram, sums.cross = _components(by_feature, W_, jnp.asarray(H), sums.gram, sums.cross, numbers, given)
    else:
        W_, H, sums.gram, sums.cross, value, size = _dense(
            jnp.asarray(rows), jnp.asarray(W).T, jnp.asarray(H), sums.gram, sums.cross, numbers, given, sweeps
        )
    return np.asarray(W_).T, H, (float(size) / 2 + float(value)) / samples


def _of_stored(
    rows: Any, W: np.ndarray, H: np.ndarray, sums: Sums, counts: np.ndarray, beta: float, penalties: Penalties,
    rho: float, sweeps: int, missing: str | None,
) -> tuple[np.ndarray, np.ndarray, float]:  # fmt: skip
    """`_multiplicative` of sparse rows, which aren't made dense."""
    entries = stored_entries("X", SparseRows(rows, W.dtype), BetaDivergence(beta), observed(rows, missing))
    l1h, l2h = (H.dtype.type(value) for value in penalties.components)
    with np.errstate(all="ignore"):
        side = StoredSide(entries, np.ascontiguousarray(H.T), *(W.dtype.type(value) for value in penalties.codes))
        W, y, _ = side.multiplied(W, side.product(W), sweeps)
        cost = misfit(entries, W, side.other, counts) + float(
            np.sum(counts[:, None] * W * (side.l1 + side.l2 / 2 * W)) + np.sum(H * (l1h + l2h / 2 * H))
        )
        across = StoredSide(entries.transposed, W, H.dtype.type(0), H.dtype.type(0), counts)
        up, down = across.pulls(side.other, y[entries.places.transposed[1]])
        raised = H if divergence.descent_exponent(beta) == 1 else H ** (1 / divergence.descent_exponent(beta))
        above = rho * np.asarray(sums.gram) + up.T * raised
        below = rho * np.asarray(sums.cross) + down.T + l1h + l2h * H
        found = (above / np.maximum(below, np.finfo(H.dtype).eps)) ** divergence.descent_exponent(beta)
    sums.gram, sums.cross = jnp.asarray(above, H.dtype), jnp.asarray(below, H.dtype)
    return W, found.astype(H.dtype), cost


def _codes_in(cross: Array, W: Array, H: Array, numbers: tuple, counts: Array, sweeps: int) -> tuple[Array, Array]:
    l1w, l2w, _, _, _, l1h, l2h = numbers
    plain = H @ H.T
    gram = ridged(plain, l2w)
    for _ in range(sweeps):
        W = sweep(W, gram, cross - l1w)
    value = jnp.sum(counts[None] * W * (plain @ W / 2 - cross + l1w + l2w / 2 * W))
    return W, value + jnp.sum(l1h * H + l2h / 2 * H**2)


def _components_in(
    by_feature: Array, W: Array, H: Array, gram: Array, cross: Array, numbers: tuple, counts: Array
) -> tuple[Array, Array, Array]:
    _, _, l1h, l2h, rho, _, _ = numbers
    gram, cross = rho * gram + (W * counts[None]) @ W.T, rho * cross + by_feature
    for _ in range(_H_SWEEPS):
        H = sweep(H, ridged(gram, l2h), cross - l1h)
    return H, gram, cross


_codes = partial(jax.jit, static_argnums=5)(_codes_in)
_components = jax.jit(_components_in)


@partial(jax.jit, static_argnums=7)
def _dense(
    rows: Array, W: Array, H: Array, gram: Array, cross: Array, numbers: tuple, counts: Array, sweeps: int
) -> tuple:
    W, value = _codes_in(H @ rows.T, W, H, numbers, counts, sweeps)
    H, gram, cross = _components_in((W * counts[None]) @ rows, W, H, gram, cross, numbers, counts)
    return W, H, gram, cross, value, jnp.sum(counts[:, None] * rows**2)


@partial(jax.jit, static_argnums=(8, 9))
def _multiplicative(
    rows: Array, W: Array, H: Array, above: Array, below: Array, numbers: tuple, counts: Array, mask: Array | None,
    beta: float, sweeps: int,
) -> tuple:  # fmt: skip
    """Févotte & Idier's rule (2011), numerators and denominators of all batches added up."""
    l1w, l2w, l1h, l2h, rho = numbers
    tiny = jnp.finfo(rows.dtype).eps
    power = divergence.descent_exponent(beta)

    def fit(W: Array) -> tuple[Array, Array]:
        product = jnp.maximum(W @ H, tiny)
        parts = rows * product ** (beta - 2), product ** (beta - 1)
        return parts if mask is None else (parts[0] * mask, parts[1] * mask)

    for _ in range(sweeps):
        first, second = fit(W)
        W = W * ((first @ H.T) / jnp.maximum(second @ H.T + l1w + l2w * W, tiny)) ** power
    cost = BetaDivergence(beta, mask, counts, l1w, l2w, l1h, l2h).value(rows, W, H)
    first, second = fit(W)
    raised = H ** (1 / power)
    weighed = W * counts[:, None]
    above = rho * above + (weighed.T @ first) * raised
    below = rho * below + weighed.T @ second + l1h + l2h * H
    return W, (above / jnp.maximum(below, tiny)) ** power, above, below, cost

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

from ..nmf.beta_divergence import BetaDivergence
from ..nmf.steps import ridged, sweep
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
    def begun(H: np.ndarray, beta: float) -> Sums:
        """Of no batches."""
        rank = len(H)
        if beta != 2:
            return Sums(jnp.asarray(H), jnp.ones_like(jnp.asarray(H)))
        return Sums(jnp.zeros((rank, rank), H.dtype), jnp.zeros_like(jnp.asarray(H)))


def step(
    rows: Any, W: np.ndarray, H: Any, sums: Sums, *, beta: float, penalties: Penalties, rho: float, sweeps: int
) -> tuple[np.ndarray, Any, float]:
    """One batch.

    **Arguments:**

    - `rows`: of the batch, dense or sparse.
    - `W`, `H`: its codes and the components, as they are.
    - `sums`: of the batches before, which are changed.
    - `beta`, `penalties`: the loss; penalties for the batch.
    - `rho`: what the batches before count.
    - `sweeps`: how often codes are gone through.

    **Returns:** the new codes and components, and the loss of the batch before the components changed.
    """
    samples = rows.shape[0]
    l1w, l2w = penalties.codes
    l1h, l2h = penalties.components
    if beta != 2:
        numbers = tuple(jnp.asarray(x, H.dtype) for x in (l1w, l2w, l1h, l2h, rho))
        W_, H, sums.gram, sums.cross, cost = _multiplicative(
            jnp.asarray(rows), jnp.asarray(W), jnp.asarray(H), sums.gram, sums.cross, numbers, beta, sweeps
        )
        return np.asarray(W_), H, float(cost) / samples
    sums.count = rho * sums.count + samples
    more = sums.count / samples
    numbers = tuple(jnp.asarray(x, H.dtype) for x in (l1w, l2w, l1h * more, l2h * more, rho, l1h, l2h))
    if scipy.sparse.issparse(rows):
        cross = jnp.asarray((rows @ np.asarray(H).T).T)
        W_, value = _codes(cross, jnp.asarray(W).T, jnp.asarray(H), numbers, sweeps)
        size = float((rows.data.astype(np.float64) ** 2).sum())
        by_feature = jnp.asarray((rows.T @ np.asarray(W_).T).T)
        H, sums.gram, sums.cross = _components(by_feature, W_, jnp.asarray(H), sums.gram, sums.cross, numbers)
    else:
        W_, H, sums.gram, sums.cross, value, size = _dense(
            jnp.asarray(rows), jnp.asarray(W).T, jnp.asarray(H), sums.gram, sums.cross, numbers, sweeps
        )
    return np.asarray(W_).T, H, (float(size) / 2 + float(value)) / samples


def _codes_in(cross: Array, W: Array, H: Array, numbers: tuple, sweeps: int) -> tuple[Array, Array]:
    l1w, l2w, _, _, _, l1h, l2h = numbers
    plain = H @ H.T
    gram = ridged(plain, l2w)
    for _ in range(sweeps):
        W = sweep(W, gram, cross - l1w)
    value = jnp.sum(W * (plain @ W / 2 - cross)) + jnp.sum(l1w * W + l2w / 2 * W**2)
    return W, value + jnp.sum(l1h * H + l2h / 2 * H**2)


def _components_in(
    by_feature: Array, W: Array, H: Array, gram: Array, cross: Array, numbers: tuple
) -> tuple[Array, Array, Array]:
    _, _, l1h, l2h, rho, _, _ = numbers
    gram, cross = rho * gram + W @ W.T, rho * cross + by_feature
    for _ in range(_H_SWEEPS):
        H = sweep(H, ridged(gram, l2h), cross - l1h)
    return H, gram, cross


_codes = partial(jax.jit, static_argnums=4)(_codes_in)
_components = jax.jit(_components_in)


@partial(jax.jit, static_argnums=6)
def _dense(rows: Array, W: Array, H: Array, gram: Array, cross: Array, numbers: tuple, sweeps: int) -> tuple:
    W, value = _codes_in(H @ rows.T, W, H, numbers, sweeps)
    H, gram, cross = _components_in(W @ rows, W, H, gram, cross, numbers)
    return W, H, gram, cross, value, jnp.sum(rows**2)


@partial(jax.jit, static_argnums=(6, 7))
def _multiplicative(
    rows: Array, W: Array, H: Array, above: Array, below: Array, numbers: tuple, beta: float, sweeps: int
) -> tuple:
    """Févotte & Idier's rule (2011), numerators and denominators of all batches added up."""
    l1w, l2w, l1h, l2h, rho = numbers
    tiny = jnp.finfo(rows.dtype).eps
    power = 1 / (2 - beta) if beta < 1 else 1 / (beta - 1) if beta > 2 else 1.0

    def fit(W: Array) -> tuple[Array, Array]:
        product = jnp.maximum(W @ H, tiny)
        return rows * product ** (beta - 2), product ** (beta - 1)

    for _ in range(sweeps):
        first, second = fit(W)
        W = W * ((first @ H.T) / jnp.maximum(second @ H.T + l1w + l2w * W, tiny)) ** power
    cost = BetaDivergence(beta, None, None, l1w, l2w, l1h, l2h).value(rows, W, H)
    first, second = fit(W)
    raised = H ** (1 / power)
    above = rho * above + (W.T @ first) * raised
    below = rho * below + W.T @ second + l1h + l2h * H
    return W, (above / jnp.maximum(below, tiny)) ** power, above, below, cost

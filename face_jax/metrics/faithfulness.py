"""How far the classifier's predictions move when activations are replaced by their concepts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..outputs import AnyOutputs, MultiClass, Outputs
from ..support.arguments import instance, real_array
from ..support.precision import full_precision
from ..support.reprs import short_repr

_SQUARED = 400  # binary exponents whose squares float64 holds


@dataclasses.dataclass(frozen=True)
class Certificates:
    """Prediction on the activations (p) against prediction on the rebuilt activations (q), image by image.

    **Arguments:**

    - `kl`: `KL(p ‖ q)`, in nats.
    - `l1`: `Σ|p − q|`, from 0 to 2 (twice the total variation).
    - `pinsker`: the bound `l1 ≤ √(2 KL)`.
    - `bretagnolle_huber`: the bound `l1 ≤ 2 √(1 − exp(−KL))`, the tighter of the two where KL exceeds about 1.59.
    - `agreement`: whether both predict the same class.

    Of several labels (`MultiLabel`), `kl` is the sum of their Bernoulli divergences, and `agreement` the share of
    labels that are predicted by both or by neither. `l1` is `2 |p − q|` of the label for which it's largest, which both
    bounds are above, as every label's is.
    """

    kl: Float[np.ndarray, " image"]
    l1: Float[np.ndarray, " image"]
    pinsker: Float[np.ndarray, " image"]
    bretagnolle_huber: Float[np.ndarray, " image"]
    agreement: Bool[np.ndarray, " image"] | Float[np.ndarray, " image"]

    __repr__ = short_repr


@full_precision
def certificates(
    original: Float[np.ndarray, "image class"],
    rebuilt: Float[np.ndarray, "image class"],
    outputs: AnyOutputs = MultiClass(),  # noqa: B008 (settings: frozen)
) -> Certificates:
    """Compares the logits of activations with those of the same activations rebuilt from concepts.

        ‖p − q‖₁ ≤ √(2 KL(p ‖ q)),   ‖p − q‖₁ ≤ 2 √(1 − exp(−KL(p ‖ q)))

    p and q being the softmax of both.

    **Arguments:**

    - `original`, `rebuilt`: logits.
    - `outputs`: what the logits mean, `model.outputs`: `MultiClass()`, or `MultiLabel()` for labels.

    **Returns:** divergences and their bounds (FACE, theorem 1), computed in float64.

    **Example:**

    >>> logits = np.asarray([[2.0, 0.0], [0.0, 1.0]])
    >>> fj.metrics.certificates(logits, logits).kl.tolist()
    [0.0, 0.0]
    """
    original, rebuilt = (
        real_array(name, value, "image × class") for name, value in (("original", original), ("rebuilt", rebuilt))
    )
    if original.shape != rebuilt.shape:
        raise ValueError(f"original has shape {original.shape} and rebuilt {rebuilt.shape}; give the same images")
    instance("outputs", outputs, Outputs, "MultiClass() or MultiLabel()")
    kl, l1 = outputs.divergence(original, rebuilt)
    return Certificates(
        kl=kl,
        l1=l1,
        pinsker=np.sqrt(2 * kl),
        bretagnolle_huber=2 * np.sqrt(-np.expm1(-kl)),
        agreement=outputs.agreement(original, rebuilt),
    )


@full_precision
def mean_squared_error(activations: Float[np.ndarray, "..."], rebuilt: Float[np.ndarray, "..."]) -> float:
    """`‖A − Â‖² / (n p)`, the mean over all entries (FACE, appendix L.1): in the activations' unit squared.

    **Example:**

    >>> fj.metrics.mean_squared_error(np.asarray([3.0, 4.0]), np.asarray([3.0, 3.0]))
    0.5
    """
    activations, rebuilt = _pair(activations, rebuilt)
    if not activations.size:
        raise ValueError("activations is empty; give at least one")
    return float(np.square(activations.astype(np.float64) - rebuilt).mean())


@full_precision
def relative_squared_error(activations: Float[np.ndarray, "..."], rebuilt: Float[np.ndarray, "..."]) -> float:
    """`‖A − Â‖² / ‖A‖²`, in any unit: 0 is perfect, 1 no better than no concepts. NaN if all activations are zero.

    **Example:**

    >>> fj.metrics.relative_squared_error(np.asarray([3.0, 4.0]), np.asarray([3.0, 3.0]))
    0.04
    """
    activations, rebuilt = _pair(activations, rebuilt)
    exponent = int(np.frexp(max(np.abs(activations).max(initial=0), np.abs(rebuilt).max(initial=0)))[1])
    if abs(exponent) > _SQUARED:
        # By a power of two, which changes no digit, before squares leave the range.
        activations, rebuilt = (np.ldexp(x.astype(np.float64), -exponent) for x in (activations, rebuilt))
    total = float(np.square(activations, dtype=np.float64).sum())
    missed = float(np.square(activations.astype(np.float64) - rebuilt).sum())
    return missed / total if total > 0 else math.nan


def mean_error(errors: Sequence[float], squares: Sequence[float]) -> float:
    """The relative squared error of several parts together, from theirs and from what theirs are relative to."""
    known = [(error, size) for error, size in zip(errors, squares, strict=True) if size > 0]
    total = math.fsum(size for _, size in known)
    return math.fsum(error * size for error, size in known) / total if total > 0 else math.nan


def _pair(activations: Any, rebuilt: Any) -> tuple[np.ndarray, np.ndarray]:
    activations = real_array("activations", activations, finite=False)
    rebuilt = real_array("rebuilt", rebuilt, finite=False)
    if activations.shape != rebuilt.shape:
        raise ValueError(f"activations have shape {activations.shape} and rebuilt {rebuilt.shape}; give the same")
    return activations, rebuilt

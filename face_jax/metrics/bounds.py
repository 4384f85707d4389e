"""Whether concepts say all that the classifier needs: measured errors of the logits, and the bounds above them."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Float

from ..heads.affine import affine_map
from ..importance.checks import check_asked
from ..model import Head
from ..support.arguments import Real, Whole, native, real, real_array
from ..support.precision import full_precision
from .predictions import logits_of

# Of each head's kernel, by a digest of its numbers.
_LARGEST: dict[bytes, float] = {}


@dataclasses.dataclass(frozen=True)
class Completeness:
    """Errors of the logits when activations are replaced by concepts, and what they can be at most.

    All are means over images. The chain is `target_error ≤ fidelity_error ≤ bound`: a head that isn't steep can't lose
    more than the reconstruction does. What is left of a logit when concepts are added up one by one is
    `additivity_error`, 0 behind an affine head.

    **Arguments:**

    - `fidelity_error`: `‖h(A) − h(Â)‖₂` over the classes.
    - `reconstruction_error`: `‖A − Â‖₂` of what the head sees: averages behind an affine head, else whole maps.
    - `lipschitz`: the largest `‖h(A) − h(B)‖₂ / ‖A − B‖₂`: the kernel's largest singular value behind an affine head;
        NaN behind any other, where nobody knows it.
    - `bound`: `lipschitz × reconstruction_error`.
    - `target_error`: `|h(A) − h(Â)|` of the target's logit.
    - `target_bound`: `‖w‖ ‖Ā − Â‖`, w being the target's column of an affine head (Cauchy & Schwarz); NaN else.
    - `additivity_error`: `‖h(Â) − h(0) − Σₖ (h(Uₖ wₖ) − h(0))‖₂`.
    """

    fidelity_error: float
    reconstruction_error: float
    lipschitz: float
    bound: float
    target_error: float
    target_bound: float
    additivity_error: float


@full_precision
def completeness_bounds(
    head: Head,
    maps: Float[np.ndarray, "picture height width _"],
    codes: Float[np.ndarray, "image y x concept"],
    dictionary: Float[np.ndarray, "concept channel"],
    target: Whole,
) -> Completeness:
    """How much of the logits concepts lose, beside the bounds that a head's slope gives.

    **Arguments:**

    - `head`: from activations to logits. Behind `heads.shifted` give maps without their offset.
    - `maps`: the activations.
    - `codes`: how much of each concept is at each place.
    - `dictionary`: the concepts.
    - `target`: the class.

    **Returns:** errors and bounds. Raises `ValueError` for shapes that don't fit, `UnknownClassError` for a class that
    the head doesn't have.

    **Example:**

    >>> maps, codes = explanation.pictures.collected.maps, explanation.codes
    >>> found = fj.metrics.completeness_bounds(model.head, maps, codes, explanation.dictionary, 0)
    >>> found.target_error <= found.fidelity_error <= found.bound * (1 + 1e-5)
    True
    """
    codes, dictionary = native("codes", codes), native("dictionary", dictionary)
    target = check_asked(head, codes, dictionary, target)
    maps = real_array("maps", maps, "image × y × x × channel")
    if maps.shape != (*codes.shape[:3], dictionary.shape[1]):
        raise ValueError(
            f"maps has shape {maps.shape}, and codes and dictionary rebuild {(*codes.shape[:3], dictionary.shape[1])}; "
            "give the maps that were encoded"
        )
    rebuilt = np.asarray(codes) @ np.asarray(dictionary)
    missed = maps.astype(np.float64) - rebuilt
    lost = _logits(head, maps) - _logits(head, rebuilt)
    fidelity = np.linalg.norm(lost, axis=1)
    lipschitz = steepness = math.nan
    if head.affine:
        missed = missed.mean(axis=(1, 2))
        kernel = np.asarray(affine_map(head, maps.shape[-1], jnp.result_type(float))[0], np.float64)
        lipschitz, steepness = _largest_singular_value(kernel), float(np.linalg.norm(kernel[:, target]))
    error = float(np.linalg.norm(missed.reshape(len(missed), -1), axis=1).mean())
    return Completeness(
        fidelity_error=float(fidelity.mean()),
        reconstruction_error=error,
        lipschitz=lipschitz,
        bound=lipschitz * error,
        target_error=float(np.abs(lost[:, target]).mean()),
        target_bound=steepness * error,
        additivity_error=_additivity(head, np.asarray(codes), np.asarray(dictionary)),
    )


@full_precision
def completeness(accuracy: Real, original: Real, random: Real) -> float:
    """Completeness of concepts (Yeh et al. 2020): the share of the accuracy above chance that they keep.

    `(accuracy − random) / (original − random)`. Yeh et al. train a map from codes back to activations; here it is the
    dictionary's own.

    **Arguments:**

    - `accuracy`: on activations rebuilt from concepts.
    - `original`: on the activations.
    - `random`: of a prediction that knows nothing, such as that of no activations.

    **Returns:** the share; NaN where the original accuracy isn't above chance.

    **Example:**

    >>> fj.metrics.completeness(0.75, 1.0, 0.5)
    0.5
    """
    accuracy, original, random = (
        real(name, value, "share", least=0, most=1 + 1e-6)
        for name, value in (("accuracy", accuracy), ("original", original), ("random", random))
    )
    return (accuracy - random) / (original - random) if original > random else math.nan


def _largest_singular_value(kernel: Float[np.ndarray, "channel class"]) -> float:
    """From the smaller matrix of products: all singular values of a thousand classes' kernel would take seconds.

    Known of each kernel once it has been computed: banks are compared behind one head.
    """
    unit = float(np.abs(kernel).max(initial=0))
    if unit == 0 or not math.isfinite(unit):
        return unit
    known = hashlib.sha256(repr(kernel.shape).encode() + np.ascontiguousarray(kernel).tobytes()).digest()
    if known not in _LARGEST:
        some = kernel / unit
        some = some if len(some) < some.shape[1] else some.T
        last = len(some) - 1
        _LARGEST[known] = unit * math.sqrt(scipy.linalg.eigvalsh(some @ some.T, subset_by_index=[last, last])[0])
    return _LARGEST[known]


def _additivity(
    head: Any, codes: Float[np.ndarray, "image y x concept"], dictionary: Float[np.ndarray, "concept channel"]
) -> float:
    nothing = _logits(head, np.zeros((*codes.shape[:3], dictionary.shape[1]), dictionary.dtype))
    summed = nothing.copy()
    for concept in range(len(dictionary)):
        summed += _logits(head, codes[..., [concept]] @ dictionary[[concept]]) - nothing
    return float(np.linalg.norm(_logits(head, codes @ dictionary) - summed, axis=1).mean())


def _logits(head: Any, maps: Float[np.ndarray, "image y x channel"]) -> Float[np.ndarray, "image class"]:
    return logits_of(head, maps).astype(np.float64)

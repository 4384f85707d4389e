"""Total Sobol indices of concepts: how much of a logit's variation would be gone without each."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, Int, Key

from ..heads import Affine
from ..model import Head
from ..progress import Advance, nobody


@dataclasses.dataclass(frozen=True)
class Sobol:
    """Total Sobol indices per image.

    **Arguments:**

    - `total`: each concept's index in each image.
    - `low`, `high`: ends of the 95 % confidence interval; equal to `total` where the index is exact.
    - `exact`: whether it's a closed form, not an estimate.
    """

    total: Float[np.ndarray, "image concept"]
    low: Float[np.ndarray, "image concept"]
    high: Float[np.ndarray, "image concept"]
    exact: bool


def total_sobol(
    head: Head,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: int,
    *,
    designs: int = 32,
    scrambles: int = 4,
    advance: Advance = nobody,
    key: Key[Array, ""],
) -> Sobol:
    """Total Sobol indices of concepts for one class's logit, image by image (CRAFT, section 3.3).

    Concept i of an image is multiplied at all places by `mᵢ`, independent and uniform in 0…1. For an affine head
    the index is the closed form `cᵢ² / Σⱼ cⱼ²`, with `cᵢ` the concept's contribution to the logit. Any other head
    is sampled: Jansen's estimator on scrambled Sobol' points, the interval from independent scrambles.

    **Arguments:**

    - `head`: from activations to logits.
    - `codes`: how much of each concept is at each place of each image.
    - `dictionary`: the concepts.
    - `target`: the class whose logit is looked at.
    - `designs`: points of each scramble, a power of two; `designs × (concepts + 2) × scrambles` calls of the head
        an image.
    - `scrambles`: independent repetitions, at least 2.
    - `advance`: told after each scramble.
    - `key`: for the scrambles.

    **Returns:** the indices. An image whose logit doesn't depend on any concept has zeros.
    """
    if isinstance(head, Affine):
        total = exact_total_sobol(contributions(head, codes, dictionary, target))
        return Sobol(total, total, total, exact=True)
    if designs < 2 or designs & (designs - 1):
        raise ValueError(f"designs={designs} is no power of two, which Sobol' points need; try 64")
    if scrambles < 2:
        raise ValueError(f"scrambles={scrambles} leaves no interval; give at least 2")
    masks = _masks(dictionary.shape[0], designs, scrambles, key)
    dtype = codes.dtype
    estimates = []
    for part in masks:
        estimate = _jansen(head, codes, dictionary, jnp.asarray(target), jnp.asarray(part, dtype))
        estimates.append(np.asarray(estimate))
        advance(1)
    estimates = np.stack(estimates)
    total = estimates.mean(0)
    half = scipy.stats.t.ppf(0.975, scrambles - 1) * estimates.std(0, ddof=1) / np.sqrt(scrambles)
    return Sobol(total, total - half, total + half, exact=False)


def exact_total_sobol(contribution: Float[np.ndarray, "image concept"]) -> Float[np.ndarray, "image concept"]:
    """`cᵢ² / Σⱼ cⱼ²`: the total index of `Σ mᵢ cᵢ` for independent masks of equal variance."""
    squares = contribution**2
    total = squares.sum(-1, keepdims=True)
    return np.divide(squares, total, out=np.zeros_like(squares), where=total > 0)


def contributions(
    head: Affine, codes: Float[Array, "image y x concept"], dictionary: Float[Array, "concept channel"], target: int
) -> Float[np.ndarray, "image concept"]:
    """What each concept adds to (or takes from) the class's logit through an affine head."""
    weights = np.asarray(dictionary) @ np.asarray(head.kernel[:, target])
    return np.asarray(codes).mean(axis=(1, 2)) * weights


def _masks(concepts: int, designs: int, scrambles: int, key: Key[Array, ""]) -> list[Float[np.ndarray, "mask concept"]]:
    """For each scramble the points A, B, and for each concept A with that concept's column from B."""
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())
    masks = []
    for _ in range(scrambles):
        points = scipy.stats.qmc.Sobol(2 * concepts, scramble=True, rng=generator).random(designs)
        first, second = points[:, :concepts], points[:, concepts:]
        swapped = np.repeat(first[None], concepts, axis=0)
        for concept in range(concepts):
            swapped[concept, :, concept] = second[:, concept]
        masks.append(np.concatenate([first, second, swapped.reshape(-1, concepts)]))
    return masks


@jax.jit
def _jansen(
    head: Any,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Int[Array, ""],
    masks: Float[Array, "mask concept"],
) -> Float[Array, "image concept"]:
    """Jansen's estimator, `Sᵢ = E[(f(A) − f(A with Bᵢ))²] / 2 Var f`."""
    concepts = dictionary.shape[0]
    designs = masks.shape[0] // (concepts + 2)

    def logit(mask: Float[Array, " concept"]) -> Float[Array, " image"]:
        return head((codes * mask[None, None, None, :]) @ dictionary)[:, target]

    values = jax.lax.map(logit, masks)
    plain, swapped = values[:designs], values[2 * designs :].reshape(concepts, designs, -1)
    variance = jnp.var(values[: 2 * designs], axis=0)
    differences = jnp.mean((plain[None] - swapped) ** 2, axis=1) / 2
    safe = jnp.where(variance > 0, variance, 1)
    return jnp.where(variance[None] > 0, differences / safe[None], 0).T

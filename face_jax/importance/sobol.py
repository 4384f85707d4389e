"""Total Sobol indices of concepts: how much of a logit's variation would be gone without each."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..choices import native
from ..heads import Affine
from ..model import Head
from ..progress import Advance, nobody
from .checks import check_asked, check_contributions
from .gradient_times_code import gradient_times_code
from .indices import Sobol, binary_exponents
from .sampled import sampled_total_sobol


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
    is sampled: Jansen's estimator on scrambled Sobol' points, the interval from independent scrambles
    (`sampled_total_sobol`).

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

    **Returns:** the indices, as NumPy arrays: it can't be part of a program under `jax.jit`. An image whose logit
    doesn't depend on any concept has zeros. Raises `ValueError` for concepts that don't fit the head and for a head
    that isn't finite for masked concepts, `UnknownClassError` for a class that the head doesn't have.
    """
    codes, dictionary = native("codes", codes), native("dictionary", dictionary)
    if head.affine:
        total = exact_total_sobol(contributions(head, codes, dictionary, target))
        return Sobol(total, total, total, exact=True)
    check_asked(head, codes, dictionary, target)
    if getattr(head, "pools_first", False):
        # Masks are the same at all places, so that averages of masked codes are masked averages.
        codes = codes.mean((1, 2), keepdims=True)
    return sampled_total_sobol(
        jax.tree_util.Partial(_masked_logit, head, codes, dictionary, jnp.asarray(target)),
        dictionary.shape[0],
        designs=designs,
        scrambles=scrambles,
        dtype=codes.dtype,
        advance=advance,
        key=key,
    )


def exact_total_sobol(contribution: Float[np.ndarray, "image concept"]) -> Float[np.ndarray, "image concept"]:
    """`cᵢ² / Σⱼ cⱼ²`: the total index of `Σ mᵢ cᵢ` for independent masks of equal variance. NaN stays NaN."""
    # Before squares leave the range.
    squares = np.ldexp(contribution, -binary_exponents(contribution, -1)) ** 2
    total = squares.sum(-1, keepdims=True)
    return np.divide(squares, total, out=np.zeros_like(squares), where=total != 0)


def contributions(
    head: Head, codes: Float[Array, "image y x concept"], dictionary: Float[Array, "concept channel"], target: int
) -> Float[np.ndarray, "image concept"]:
    """What each concept adds to (or takes from) the class's logit through an affine head.

    Raises what `gradient_times_code` raises, which it is behind such a head.
    """
    codes, dictionary = native("codes", codes), native("dictionary", dictionary)
    if not isinstance(head, Affine):
        return gradient_times_code(head, codes, dictionary, target).contribution
    check_asked(head, codes, dictionary, target)
    column = np.asarray(head.kernel[:, target])
    if not np.isfinite(column).all():
        raise ValueError(f"head.kernel has NaN or infinity in class {target}'s column; load the model's weights again")
    one, two = np.asarray(codes), np.asarray(dictionary)
    with np.errstate(over="ignore", invalid="ignore"):
        found = one.mean(axis=(1, 2)) * (two @ column)
    if not np.isfinite(found).all():
        # Products that leave float32 don't leave float64.
        wide = two.astype(np.float64) @ column.astype(np.float64)
        found = one.astype(np.float64).mean(axis=(1, 2)) * wide
    check_contributions(found, target)
    return found


def _masked_logit(
    head: Any,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Int[Array, ""],
    mask: Float[Array, " concept"],
) -> Float[Array, " image"]:
    return head((codes * mask[None, None, None, :]) @ dictionary)[:, target]

"""Total Sobol indices of concepts: how much of a logit's variation would be gone without each."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..heads import Affine
from ..model import Head, check_head
from ..support.arguments import Seed, Whole, native, real_array
from ..support.precision import full_precision
from ..support.progress import Advance, nobody
from ..support.scaling import of_order_one
from .checks import check_asked, check_contributions
from .first_order import gradient_times_code
from .indices import Sobol
from .sampled import checked_designs, sampled_total_sobol


@full_precision
def total_sobol(
    head: Head,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Whole,
    *,
    designs: Whole = 32,
    scrambles: Whole = 4,
    advance: Advance = nobody,
    key: Seed = None,
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
    - `key`: for the scrambles, or a seed; `jax.random.key(0)` if None.

    **Returns:** the indices, as NumPy arrays: it can't be part of a program under `jax.jit`. An image whose logit
    doesn't depend on any concept has zeros. Raises `ValueError` for concepts that don't fit the head and for a head
    that isn't finite for masked concepts, `UnknownClassError` for a class that the head doesn't have.

    **Example:**

    >>> codes, dictionary = explanation.codes, explanation.dictionary
    >>> indices = fj.total_sobol(model.head, jnp.asarray(codes), jnp.asarray(dictionary), 0)
    >>> indices.exact, indices.total.shape
    (True, (14, 4))
    """
    designs, scrambles, key = checked_designs(designs, scrambles, key)
    check_head(head)
    codes, dictionary = native("codes", codes), native("dictionary", dictionary)
    if head.affine:
        total = exact_total_sobol(contributions(head, codes, dictionary, target))
        return Sobol(total, total, total, exact=True)
    target = check_asked(head, codes, dictionary, target)
    codes, dictionary = jnp.asarray(codes), jnp.asarray(dictionary)
    if getattr(head, "pools_first", False):
        # Masks are the same at all places, so that averages of masked codes are masked averages.
        codes = codes.mean((1, 2), keepdims=True)
    return sampled_total_sobol(
        jax.tree_util.Partial(masked_logit, head, codes, dictionary, jnp.asarray(target)),
        dictionary.shape[0],
        designs=designs,
        scrambles=scrambles,
        dtype=codes.dtype,
        advance=advance,
        key=key,
    )


@full_precision
def exact_total_sobol(contribution: Float[np.ndarray, "image concept"]) -> Float[np.ndarray, "image concept"]:
    """`cᵢ² / Σⱼ cⱼ²`: the total index of `Σ mᵢ cᵢ` for independent masks of equal variance. NaN stays NaN.

    Raises `ValueError` for what isn't real numbers, `image concept`.

    **Example:**

    >>> fj.importance.exact_total_sobol(np.asarray([[3.0, 4.0]])).round(2).tolist()
    [[0.36, 0.64]]
    """
    found = real_array("contribution", contribution, finite=False)
    if not found.ndim or 0 in found.shape:
        raise ValueError(f"contribution has shape {found.shape}; give image × concept")
    squares = of_order_one(found, -1) ** 2
    total = squares.sum(-1, keepdims=True)
    return np.divide(squares, total, out=np.zeros_like(squares), where=total != 0)


@full_precision
def contributions(
    head: Head, codes: Float[Array, "image y x concept"], dictionary: Float[Array, "concept channel"], target: Whole
) -> Float[np.ndarray, "image concept"]:
    """What each concept adds to (or takes from) the class's logit through an affine head.

    `cₖ = Σ_places Uₖ (wₖ · v)`, v being the head's weights for the class at that place. Raises what
    `gradient_times_code` raises, which it is behind such a head.

    **Example:**

    >>> codes, dictionary = explanation.codes, explanation.dictionary
    >>> fj.importance.contributions(model.head, jnp.asarray(codes), jnp.asarray(dictionary), 0).shape
    (14, 4)
    """
    codes, dictionary = native("codes", codes), native("dictionary", dictionary)
    if not isinstance(head, Affine):
        return gradient_times_code(head, codes, dictionary, target).contribution
    target = check_asked(head, codes, dictionary, target)
    column = np.asarray(head.kernel[:, target])
    if not np.isfinite(column).all():
        raise ValueError(f"head.kernel has NaN or infinity in class {target}'s column; load the model's weights again")
    with np.errstate(over="ignore", invalid="ignore"):
        found = np.asarray(codes).mean(axis=(1, 2)) * (np.asarray(dictionary) @ column)
        if not np.isfinite(found).all():
            # Products that leave float32 don't leave float64.
            exact = [np.asarray(x, np.float64) for x in (codes, dictionary, column)]
            found = exact[0].mean(axis=(1, 2)) * (exact[1] @ exact[2])
    check_contributions(found, target)
    return found


def masked_logit(
    head: Any,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Int[Array, ""],
    mask: Float[Array, " concept"],
) -> Float[Array, " image"]:
    """A class's logit with codes multiplied by a mask of concepts."""
    return head((codes * mask[None, None, None, :]) @ dictionary)[:, target]

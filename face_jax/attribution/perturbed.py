"""Codes of pictures that are hidden in part: all that black-box methods ask of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..concepts import encode_maps
from ..model import SplitModel
from .method import parts


def picture_codes(
    model: SplitModel, dictionary: Any, pictures: Float[Array, "image height width colour"], pooled: bool
) -> Float[np.ndarray, "image concept"]:
    """The codes that are explained, of all concepts: of the average activations, else summed over places."""
    maps = np.asarray(model.features(pictures))
    if pooled:
        maps = maps.mean(axis=(1, 2), keepdims=True)
    return encode_maps(maps, np.asarray(dictionary)).sum(axis=(1, 2))


def perturbed_codes(
    model: SplitModel,
    dictionary: Any,
    images: Float[Array, "image height width colour"],
    baselines: Float[Array, "image height width colour"],
    *,
    count: int,
    masks: Callable[[slice], Float[Array, "mask height width"]],
    pooled: bool,
    batch: int,
) -> Iterator[tuple[slice, Float[Array, "mask height width"], Float[np.ndarray, "image mask concept"]]]:
    """Codes of `X₀ + m (X − X₀)` for every mask m and picture, some masks at a time.

    The same masks serve all pictures and all concepts: a forward pass tells the codes of all of them.

    **Arguments:**

    - `baselines`: X₀ of each picture.
    - `count`: how many masks there are.
    - `masks`: those with these numbers; 1 shows a pixel, 0 hides it.
    - `batch`: pictures that go through the network together.
    - the others: as for `Method`.

    **Returns:** which masks, the masks, and the codes.
    """
    for part in parts(count, batch):
        some = masks(part)
        codes = []
        for image, baseline in zip(images, baselines, strict=True):
            codes.append(picture_codes(model, dictionary, _seen_through(some, image, baseline), pooled))
        yield part, some, np.stack(codes)


def all_perturbed_codes(
    model: SplitModel,
    dictionary: Any,
    images: Float[Array, "image height width colour"],
    baselines: Float[Array, "image height width colour"],
    regions: np.ndarray,
    design: Float[np.ndarray, "mask region"],
    *,
    pooled: bool,
    batch: int,
) -> Float[np.ndarray, "image mask concept"]:
    """`perturbed_codes` for masks that are constant in each region, all at once, in float64."""
    values = jnp.asarray(design, images.dtype)
    found = perturbed_codes(
        model,
        dictionary,
        images,
        baselines,
        count=len(design),
        masks=lambda part: values[part][:, regions],
        pooled=pooled,
        batch=batch,
    )
    return np.concatenate([codes for _, _, codes in found], axis=1).astype(np.float64)


@jax.jit
def _seen_through(
    masks: Float[Array, "mask height width"],
    image: Float[Array, "height width colour"],
    baseline: Float[Array, "height width colour"],
) -> Float[Array, "mask height width colour"]:
    return baseline[None] + masks[..., None] * (image - baseline)[None]

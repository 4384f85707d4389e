"""Codes of pictures that are hidden in part: all that black-box methods ask of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..nmf.encoding import encode_maps
from .baseline import Baseline, baseline_like
from .method import Asked, parts


def picture_codes(
    asked: Asked, pictures: Float[Array, "image height width colour"]
) -> Float[np.ndarray, "image concept"]:
    """The codes that are explained, of all concepts: of the average activations, else summed over places."""
    maps = np.asarray(asked.model.features(pictures))
    if asked.pooled:
        maps = maps.mean(axis=(1, 2), keepdims=True)
    return encode_maps(maps, np.asarray(asked.dictionary)).sum(axis=(1, 2))


def perturbed_codes(
    asked: Asked,
    baseline: Baseline,
    *,
    count: int,
    masks: Callable[[slice], Float[Array, "mask height width"]],
    batch: int,
) -> Iterator[tuple[slice, Float[Array, "mask height width"], Float[np.ndarray, "image mask concept"]]]:
    """Codes of `X₀ + m (X − X₀)` for every mask m and picture, some masks at a time.

    The same masks serve all pictures and all concepts: a forward pass tells the codes of all of them.

    **Arguments:**

    - `asked`: the pictures X, and what is asked of them.
    - `baseline`: X₀.
    - `count`: how many masks there are.
    - `masks`: those with these numbers; 1 shows a pixel, 0 hides it.
    - `batch`: pictures that go through the network together.

    **Returns:** which masks, the masks, and the codes.
    """
    baselines = baseline_like(baseline, asked.pictures)
    with asked.progress("Pictures hidden in part", count * len(asked.pictures)) as advance:
        for part in parts(count, batch):
            some = masks(part)
            codes = []
            for image, hidden in zip(asked.pictures, baselines, strict=True):
                codes.append(picture_codes(asked, _seen_through(some, image, hidden)))
                advance(len(some))
            yield part, some, np.stack(codes)


def region_maps(
    asked: Asked,
    baseline: Baseline,
    regions: Int[np.ndarray, "height width"],
    design: Float[np.ndarray, "mask region"],
    value: Callable[[Float[np.ndarray, "mask output"]], Float[np.ndarray, "output region"]],
    *,
    batch: int,
) -> Float[np.ndarray, "wanted image height width"]:
    """Maps of what the codes behind masks that are constant in each region say of the regions.

    **Arguments:**

    - `asked`, `baseline`, `batch`: as for `perturbed_codes`.
    - `regions`: each pixel's region.
    - `design`: the masks.
    - `value`: the regions' values, from the codes of all pictures' concepts, which are its outputs, in float64.

    **Returns:** each region's value at each of its pixels.
    """
    shown = jnp.asarray(design, asked.pictures.dtype)
    found = perturbed_codes(asked, baseline, count=len(design), masks=lambda part: shown[part][:, regions], batch=batch)
    codes = np.concatenate([codes for _, _, codes in found], axis=1).astype(np.float64)[..., asked.concepts]
    values = value(np.moveaxis(codes, 1, 0).reshape(len(design), -1)).reshape(*codes.shape[::2], -1)
    return np.moveaxis(values[..., regions], 1, 0).astype(asked.pictures.dtype)


@jax.jit
def _seen_through(
    masks: Float[Array, "mask height width"],
    image: Float[Array, "height width colour"],
    baseline: Float[Array, "height width colour"],
) -> Float[Array, "mask height width colour"]:
    return baseline[None] + masks[..., None] * (image - baseline)[None]

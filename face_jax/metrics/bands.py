"""Curves with bands: over several runs, and over the images of one."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.special
from jaxtyping import Float

from ..support.arguments import Real, Whole, check_count, real_array, share
from ..support.reprs import short_repr


@dataclasses.dataclass(frozen=True)
class Band:
    """A curve and what surrounds it.

    **Arguments:**

    - `mean`: the curve.
    - `low`, `high`: the band.
    """

    mean: Float[np.ndarray, " step"]
    low: Float[np.ndarray, " step"]
    high: Float[np.ndarray, " step"]

    __repr__ = short_repr


def band_over_runs(curves: Float[np.ndarray, "run step"]) -> Band:
    """The mean of several runs' curves, and one standard deviation of a run on each side (CRAFT, appendix F).

    **Arguments:**

    - `curves`: accuracies or probabilities of at least two runs (seeds, folds), such as
        `[fidelity.insertion.accuracy for fidelity in …]`.

    **Returns:** the band. The deviation is the sample's, over `runs − 1`; it isn't cut off at 0 and 1.

    **Example:**

    >>> fj.metrics.band_over_runs(np.asarray([[0.0, 0.5], [0.0, 1.0]])).mean.tolist()
    [0.0, 0.75]
    """
    found = real_array("curves", curves, "run × step").astype(np.float64)
    if len(found) < 2:
        raise ValueError(f"curves has {len(found)} run, which has no spread; give at least 2, or band_over_images")
    mean, spread = found.mean(axis=0), found.std(axis=0, ddof=1)
    return Band(mean, mean - spread, mean + spread)


def band_over_images(accuracy: Float[np.ndarray, " step"], images: Whole, *, level: Real = 0.95) -> Band:
    """An accuracy curve with the interval that so many images leave it (Wilson 1927), each step by itself.

    **Arguments:**

    - `accuracy`: shares of images, from 0 to 1.
    - `images`: how many images they are shares of.
    - `level`: how probable it is that a step's interval has the accuracy among all images in it.

    **Returns:** the band, within 0 and 1.

    **Example:**

    >>> fj.metrics.band_over_images(np.asarray([0.5]), 10).low.round(3).tolist()
    [0.237]
    """
    found = real_array("accuracy", accuracy, "step").astype(np.float64)
    count, level = check_count("images", images, "images"), share("level", level, 0.95)
    if ((found < 0) | (found > 1 + 1e-6)).any():
        raise ValueError(f"accuracy goes from {found.min():g} to {found.max():g}; give shares, from 0 to 1")
    found = np.minimum(found, 1)
    z = float(scipy.special.ndtri((1 + level) / 2))
    middle = (found + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(found * (1 - found) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return Band(found, np.maximum(middle - half, 0), np.minimum(middle + half, 1))

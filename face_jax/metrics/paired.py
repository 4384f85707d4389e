"""Whether two methods can be told apart by a number that both have of the same runs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int

# Of float32 through a network's head.
_ROUNDING = 1e-4


def half_width(differences: Float[np.ndarray, "*method run"]) -> Float[np.ndarray, "..."]:
    """Half the width of the 95 % interval of a mean over runs, the last axis, by Student's t.

    Runs count as independent. Folds share most of what they were fitted on: their intervals are a little too narrow.
    """
    from scipy.stats import t

    count = differences.shape[-1]
    return np.asarray(t.ppf(0.975, count - 1) * differences.std(axis=-1, ddof=1) / np.sqrt(count))


def same_to_rounding(first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Whether numbers are equal to rounding in every run, the last axis: of PCA and ICA, say, which have one span."""
    return np.asarray(np.isclose(first, second, rtol=_ROUNDING, atol=1e-7).all(axis=-1))


def told_apart(first: Float[np.ndarray, "..."], second: Float[np.ndarray, "..."]) -> Int[np.ndarray, "..."]:
    """1 where the first has more, −1 where it has less, 0 where the runs, the last axis, leave that open.

    It's open where the 95 % interval of the mean difference within a run (`half_width`) has 0 in it, and where numbers
    are equal to rounding.
    """
    differences = first - second
    mean = differences.mean(axis=-1)
    apart = (np.abs(mean) > half_width(differences)) & ~same_to_rounding(first, second)
    return np.where(apart, np.sign(mean), 0).astype(np.int64)

"""Matching of the concepts of two dictionaries, one to one."""

from __future__ import annotations

import numpy as np
import scipy.optimize
from jaxtyping import Float, Int


def matched(
    first: Float[np.ndarray, "concept channel"], second: Float[np.ndarray, "concept channel"]
) -> tuple[Int[np.ndarray, " concept"], float]:
    """For each concept of the first the second's, one to one (Hungarian method), and the mean cosine between them."""
    cosines = first.astype(np.float64) @ second.T.astype(np.float64)
    pairs = scipy.optimize.linear_sum_assignment(cosines, maximize=True)
    return np.asarray(pairs[1]), float(cosines[pairs].mean())

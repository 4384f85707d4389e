"""Whether two measures put concepts in the same order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rank_correlation(first: Sequence[float] | np.ndarray, second: Sequence[float] | np.ndarray) -> float:
    """Spearman's rank correlation; NaN where one of the two is the same everywhere."""
    from scipy.stats import rankdata

    one, two = (rankdata(values) - (len(values) + 1) / 2 for values in (np.asarray(first), np.asarray(second)))
    lengths = float(np.sqrt((one @ one) * (two @ two)))
    return float(one @ two) / lengths if lengths > 0 else float("nan")

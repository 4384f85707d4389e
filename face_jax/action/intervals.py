"""Means over photographs with their intervals, each group as much as any other."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from ..pictures.labels import Labels


@dataclasses.dataclass(frozen=True)
class Interval:
    """A number, and its 95 % interval over photographs (bootstrap)."""

    value: float
    low: float
    high: float


class Resampled:
    """Means over photographs, each group as much as any other, with intervals of a bootstrap within groups."""

    def __init__(self, labels: Labels, resamples: int, random: np.random.Generator) -> None:
        self.labels, self.random, self.resamples = labels, random, resamples
        members = [np.flatnonzero(labels.group == group) for group in np.unique(labels.group)]
        self.weights = np.zeros(len(labels.group))
        drawn = np.zeros((resamples, len(labels.group)))
        for some in members:
            self.weights[some] = 1 / (len(members) * len(some))
            drawn[:, some] = self._counts(len(some)) * self.weights[some]
        self.drawn = drawn

    def _counts(self, size: int) -> Float[np.ndarray, "resample member"]:
        return _counts(size, self.resamples, self.random)

    def mean(self, values: Float[np.ndarray, " image"]) -> Interval:
        """The mean of values, one a photograph."""
        return _interval(float(self.weights @ values), self.drawn @ values)

    def of_some(self, values: Float[np.ndarray, " image"], some: Bool[np.ndarray, " image"]) -> Interval:
        """The plain mean over some of the photographs."""
        inside = values[some]
        return _interval(float(inside.mean()), self._counts(len(inside)) @ inside / len(inside))


def means(values: Float[np.ndarray, "image _"], resamples: int, random: np.random.Generator) -> tuple[Interval, ...]:
    """The mean of each column over photographs; all columns are drawn together."""
    drawn = _counts(len(values), resamples, random) @ values / len(values)
    return tuple(_interval(float(one), some) for one, some in zip(values.mean(0), drawn.T, strict=True))


def _counts(size: int, resamples: int, random: np.random.Generator) -> Float[np.ndarray, "resample member"]:
    """How often each of some photographs is drawn."""
    return random.multinomial(size, np.full(size, 1 / size), resamples).astype(np.float64)


def _interval(value: float, resampled: Float[np.ndarray, " resample"]) -> Interval:
    low, high = np.quantile(resampled, [0.025, 0.975])
    # Weights that add up to 1 do so to rounding.
    return Interval(*(round(float(each), 12) for each in (value, low, high)))

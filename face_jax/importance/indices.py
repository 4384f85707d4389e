"""Estimates of total Sobol indices, with their intervals."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from ..support.fields import within
from ..support.reprs import short_repr


@dataclasses.dataclass(frozen=True)
class Sobol:
    """Total Sobol indices per image, `Sᵢ = E[Var(y | m₋ᵢ)] / Var(y)` of a logit y and masks m of the concepts.

    **Arguments:**

    - `total`: each concept's index in each image.
    - `low`, `high`: ends of the 95 % confidence interval; equal to `total` where the index is exact.
    - `exact`: whether it's a closed form, not an estimate.
    """

    total: Float[np.ndarray, "image concept"] = dataclasses.field(metadata=within(-1e3, 1e3))
    low: Float[np.ndarray, "image concept"] = dataclasses.field(metadata=within(-1e4, 1e4))
    high: Float[np.ndarray, "image concept"] = dataclasses.field(metadata=within(-1e4, 1e4))
    exact: bool

    __repr__ = short_repr

    @property
    def per_image(self) -> Float[np.ndarray, "image concept"]:
        """Each concept's importance in each image: its index there."""
        return self.total

    @property
    def per_class(self) -> Float[np.ndarray, " concept"]:
        """Each concept's importance for the class: its index averaged over images (CRAFT, section 3.3)."""
        return self.total.mean(0)

"""The gradient of a concept's code times the picture: what each pixel adds, to first order."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from ..support.arguments import Count
from .averaged import averaged_gradients
from .baseline import Baseline, baseline_like
from .method import Asked, CheckedMethod, at_least


@dataclasses.dataclass(frozen=True)
class GradientTimesInput(CheckedMethod):
    """`(X − X₀) ∂U_k/∂X`, summed over colours (Shrikumar et al. 2016, with a baseline X₀).

    Signed: where it's negative, the pixel speaks against the concept. Of a code that is affine in the picture, the
    map adds up to the code's rise over the baseline's.

    **Arguments:**

    - `baseline`: network input that stands for nothing: a number, a colour, pictures, or a function of the pictures
        such as `Blurred`. 0 is the mean colour in the usual preprocessing.
    - `batch`: pictures that go through the network together.
    """

    baseline: Baseline = 0.0
    batch: Count = 32

    def __post_init__(self) -> None:
        at_least("batch", self.batch, 1)

    def maps(self, asked: Asked) -> Float[np.ndarray, "wanted image height width"]:
        """Maps in codes, of either sign. Nothing is random."""
        pictures = asked.pictures
        away = pictures - baseline_like(self.baseline, pictures)
        return averaged_gradients(
            asked,
            variants=1,
            vary=lambda part, _: pictures[part][:, None],
            reduce=lambda part, gradient: (away[part].astype(gradient.dtype) * gradient).sum(-1),
            batch=self.batch,
        )

"""How alike two maps look."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

# Wang et al. 2004: a Gaussian window of 11 × 11 pixels with a standard deviation of 1.5, and the constants that keep
# flat places from dividing by zero, for values in 0…1.
_WIDTH, _RADIUS = 1.5, 5
_LIGHTNESS, _CONTRAST = 0.01**2, 0.03**2


def structural_similarity(
    first: Float[np.ndarray, "*batch y x"], second: Float[np.ndarray, "..."]
) -> Float[np.ndarray, "*batch"]:
    """The structural similarity index (SSIM) of maps with values in 0…1, map by map.

        SSIM = (2 μ₁μ₂ + C₁)(2 σ₁₂ + C₂) / ((μ₁² + μ₂² + C₁)(σ₁² + σ₂² + C₂)),  C₁ = 0.01², C₂ = 0.03²

    Lightness, contrast and structure are compared in a Gaussian window (11 × 11 pixels, standard deviation 1.5)
    around each pixel, and averaged over the pixels whose window lies inside (Wang et al. 2004).

    **Arguments:**

    - `first`, `second`: maps of the same shape, at least 11 × 11 pixels.

    **Returns:** 1 for equal maps, about 0 for unrelated ones, negative for opposite ones.
    """
    from scipy.ndimage import gaussian_filter

    least = 2 * _RADIUS + 1
    if first.shape != second.shape or min(first.shape[-2:]) < least:
        raise ValueError(
            f"first has shape {first.shape} and second {second.shape}; give the same, {least} × {least} pixels or more"
        )
    axes = (first.ndim - 2, first.ndim - 1)

    def local(values: np.ndarray) -> np.ndarray:
        mean = gaussian_filter(values, _WIDTH, radius=_RADIUS, axes=axes, mode="reflect")
        return mean[..., _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]

    one, two = first.astype(np.float64), second.astype(np.float64)
    mean_one, mean_two = local(one), local(two)
    spread_one, spread_two = local(one * one) - mean_one**2, local(two * two) - mean_two**2
    together = local(one * two) - mean_one * mean_two
    index = (2 * mean_one * mean_two + _LIGHTNESS) * (2 * together + _CONTRAST)
    index /= (mean_one**2 + mean_two**2 + _LIGHTNESS) * (spread_one + spread_two + _CONTRAST)
    return np.asarray(index.mean(axis=(-2, -1)))

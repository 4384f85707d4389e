"""Photographs that need no download: those that scikit-image and scikit-learn carry in their packages."""

from __future__ import annotations

from ..pictures.photographs import Photograph
from ..support.extras import installing

NAMES = ("chelsea", "coffee", "motorcycle", "china", "flower")


def embedded_photograph(name: str) -> Photograph:
    """One of the photographs in `NAMES`: a cat, a cup of coffee, a motorcycle, a palace in China, a flower."""
    if name not in NAMES:
        raise ValueError(f"photograph {name!r} isn't embedded; choose one of {', '.join(NAMES)}")
    try:
        if name in ("china", "flower"):
            from sklearn.datasets import load_sample_image

            return Photograph(name, load_sample_image(f"{name}.jpg"))
        from skimage import data

        pixels = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
        return Photograph(name, pixels)
    except ImportError as error:
        raise ImportError(
            f"the embedded photographs need {error.name or 'more packages'}; {installing('demo')}"
        ) from error

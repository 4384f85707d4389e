"""Packages that some methods need, asked for when they are used."""

from __future__ import annotations

import importlib

from ..support.extras import installing


def scikit_learn(what: str) -> None:
    """Raises `ImportError` that says what to install where scikit-learn is missing."""
    _needed("sklearn", "scikit-learn", what)


def scikit_image(what: str) -> None:
    """Raises `ImportError` that says what to install where scikit-image is missing."""
    _needed("skimage", "scikit-image", what)


def _needed(module: str, package: str, what: str) -> None:
    try:
        importlib.import_module(module)
    except ImportError as error:
        raise ImportError(f"{what} needs {package}; {installing('methods')}") from error

"""Missing values: entries that weren't observed are left out, whatever stands in their place."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from ..support.arguments import native
from . import validate
from .shapes import Activations


def observed_alone(
    activations: Activations, objective: Any, observed: Any, *, channels: bool
) -> tuple[Activations, Any]:
    """Activations with zeros where nothing was observed, and the objective with no weight there.

    **Arguments:**

    - `activations`, `objective`: what's given.
    - `observed`: a mask of truth values, `row channel`.
    - `channels`: whether each channel needs an observed entry.

    **Returns:** both. Raises `ValueError` for masks that don't fit, terms that see whole rows, and empty channels.
    """
    mask = _mask(observed, activations)
    if getattr(objective, "terms", ()):
        raise ValueError(
            "observed= can't be combined with further terms of the objective, which see whole rows; leave one out"
        )
    if not isinstance(mask, Tracer):
        seen = np.asarray(jnp.any(mask, axis=0))
        empty = np.flatnonzero(~seen)
        if channels and len(empty):
            raise ValueError(
                f"observed leaves {len(empty)} channels without any entry, the first {int(empty[0])}; leave them out "
                "of activations and observed, such as with activations[:, observed.any(axis=0)]"
            )
    weights = mask.astype(activations.dtype)
    if objective.weights is not None:
        whole = validate.weights_of(objective, activations).weights
        weights = jnp.where(mask, whole, 0)
    return jnp.where(mask, activations, 0), dataclasses.replace(objective.fit, weights=weights)


def _mask(observed: Any, activations: Array) -> Array:
    if isinstance(observed, str):
        if observed == "numbers":
            return ~jnp.isnan(activations)
        why = "is for sparse activations, and these are dense" if observed == "stored" else "isn't known"
        raise ValueError(f"observed={observed!r} {why}; give truth values, or 'numbers' where NaN wasn't observed")
    mask = native("observed", observed)
    if mask.dtype != bool:
        raise ValueError(
            f"observed has dtype {mask.dtype}; give truth values, such as ~np.isnan(activations), or entries' weights "
            "as SquaredError(weights=...)"
        )
    if mask.shape != activations.shape:
        raise ValueError(
            f"observed has shape {mask.shape} and activations {activations.shape}; give one value an entry"
        )
    return jnp.asarray(mask)

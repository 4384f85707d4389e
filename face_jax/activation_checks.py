"""What activations and logits of a split model have to be: refused in words where they are something else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .model import SplitModel
from .nmf.options import AnySolver


class SignedActivationsError(ValueError):
    """Activations below zero where a non-negative factorization was asked for, which can't represent them."""


def refuse_no_maps(found: Any, images: int, model: SplitModel) -> None:
    """Raises `ValueError` for what features give, unless it is the activations of so many images."""
    known = isinstance(found, jax.Array | np.ndarray)
    real = known and jnp.issubdtype(found.dtype, jnp.floating)
    if not real or len(found.shape) != 4 or found.shape[0] != images or 0 in found.shape:
        given = f"shape {found.shape}, {found.dtype}," if known else f"a {type(found).__name__}"
        raise ValueError(
            f"features of {model.name} give {given} for {images} images; they have to give activations alone, an array "
            "of real numbers of JAX or NumPy, image × y × x × channel"
        )


def refuse_other_logits(said: Any, images: int, model: SplitModel) -> None:
    """Raises `ValueError` for what a head gives, unless it is the logits of so many images."""
    shape, dtype = getattr(said, "shape", None), getattr(said, "dtype", object)
    if shape is not None and len(shape) == 2 and shape[0] == images and jnp.issubdtype(dtype, jnp.floating):
        return
    given = f"a {type(said).__name__}" if shape is None else f"shape {tuple(shape)}, {dtype},"
    raise ValueError(
        f"head of {model.name} gives {given} for {images} images; it has to give logits alone, real numbers, "
        "image × class"
    )


def refuse_other_count(logits: np.ndarray, model: SplitModel) -> None:
    """Raises `ValueError` for more or fewer logits than the model has classes."""
    count = logits.shape[1]
    if count == len(model.classes):
        return
    raise ValueError(
        f"the head of {model.name} gives {count} logit{'s' * (count != 1)} and classes has {len(model.classes)} names; "
        + (
            'for a binary classifier give the name of its one logit alone, classes=["cat"], or head='
            "face_jax.heads.binary(head) with both names"
            if count == 1 and len(model.classes) == 2
            else "give one name for each logit"
        )
    )


def refuse_not_finite(maps: np.ndarray, model: SplitModel) -> None:
    """Raises `ValueError` for activations that are NaN or infinite."""
    # NaN survives both, infinity one of them.
    if np.isfinite(float(maps.min())) and np.isfinite(float(maps.max())):
        return
    lost = int((~np.isfinite(maps)).any((1, 2, 3)).sum())
    raise ValueError(
        f"layer={model.layer!r} of {model.name} has activations that are NaN or infinite in {lost} of {len(maps)} "
        "pictures of a batch; look at the model's weights and its preprocessing, and compute in float32 if it's coarser"
    )


def below_zero(*found: np.ndarray) -> bool:
    """Whether any activation is."""
    return any(float(each.min(initial=0)) < 0 for each in found)


def check_signs(model: SplitModel, solver: AnySolver | None, *found: np.ndarray) -> None:
    """Raises `SignedActivationsError` if a solver that was chosen can't represent the activations.

    **Arguments:**

    - `model`: whose; without activations what it knows of its layer's signs counts.
    - `solver`: None if it is chosen by the signs.
    - `found`: activations.
    """
    if solver is None or solver.signed_dictionary:
        return
    lowest = min(float(each.min()) for each in found) if found else model.lowest
    if lowest is None or lowest >= 0:
        return
    others = tuple(model.non_negative_layers()) if model.non_negative_layers else ()
    raise SignedActivationsError(
        f"layer={model.layer!r} of {model.name} has activations below zero (down to {lowest:.3g}), which the "
        f"non-negative concepts of solver={type(solver).__name__}() can't represent; leave solver out, or give "
        "SemiNMF(), whose concepts may have entries of either sign, or signs='apart', for positive and negative parts "
        "as channels of their own" + (f", or choose a layer without such: {', '.join(others)}" if others else "")
    )

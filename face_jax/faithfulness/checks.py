"""What's refused before any work: heads, weights and activations that don't fit together."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..heads import Affine

if TYPE_CHECKING:
    from .term import Faithfulness, Prepared, Unkept


def check(term: Faithfulness, activations: Float[Array, "row channel"]) -> None:
    """Raise `ValueError` that says what doesn't fit and what to do."""
    rows, channels = activations.shape
    if not callable(term.head):
        raise ValueError(
            f"head={term.head!r} can't be called; give a function from activations to logits, such as model.head"
        )
    if rows % term.places:
        raise ValueError(
            f"activations has {rows} rows, which is no multiple of the {term.places} places of an image; give all "
            "places of each image, one image after the other"
        )
    images = rows // term.places
    if isinstance(term.head, Affine):
        _check_affine(term.head, channels)
    classes = _check_traceable(term, activations, images)
    if term.weights is not None and jnp.shape(term.weights) != (images,):
        raise ValueError(
            f"weights has shape {jnp.shape(term.weights)}, but there are {images} images of {term.places} rows; give "
            "one weight an image"
        )
    if term.weights is not None and not isinstance(term.weights, jax.core.Tracer):
        known = np.asarray(term.weights)
        if not np.isfinite(known).all() or (known < 0).any():
            raise ValueError("weights has entries that are negative, NaN or infinite; give numbers of at least 0")
    if classes < 1:
        raise ValueError("head gives no logits; give a classifier with one class or more")


def check_prepared(prepared: Prepared | Unkept) -> None:
    """Raise `ValueError` if the predictions on the original activations aren't finite, as far as they are known."""
    finite = prepared.finite
    if isinstance(finite, jax.core.Tracer):
        return
    bad = ~np.asarray(finite)
    if not bad.any():
        return
    raise ValueError(
        f"head gives logits that are NaN or infinite for {int(bad.sum())} of {bad.size} images, the first is image "
        f"{int(bad.argmax())}; look for NaN in the head's weights, or activations that it wasn't trained for"
    )


def _check_affine(head: Affine, channels: int) -> None:
    kernel, bias = jnp.shape(head.kernel), jnp.shape(head.bias)
    if len(kernel) != 2 or len(bias) != 1:
        raise ValueError(
            f"head has a kernel of shape {kernel} and a bias of shape {bias}; give (channel, class), (class,)"
        )
    if kernel[0] != channels:
        raise ValueError(
            f"head takes {kernel[0]} channels and activations has {channels}; give the activations of the layer that "
            "the head was cut behind" + (", or transpose the kernel" if kernel[1] == channels else "")
        )
    if kernel[1] != bias[0]:
        raise ValueError(
            f"head's kernel has {kernel[1]} classes and its bias {bias[0]}; give the kernel as channel × class and one "
            "bias a class"
        )


def _check_traceable(term: Faithfulness, activations: Float[Array, "row channel"], images: int) -> int:
    """How many classes the head gives, found by tracing it (and its derivative) without computing anything."""
    shape = jax.ShapeDtypeStruct(activations.shape, activations.dtype)
    plain = dataclasses.replace(term, weights=None)
    try:
        logits = jax.eval_shape(plain.logits, shape)
    except Exception as error:
        raise ValueError(
            f"head can't be traced by JAX on activations of shape {activations.shape} and dtype {activations.dtype}: "
            f"{_first_line(error)}. It has to be a pure JAX function of the layer's activations: no NumPy or torch on "
            "its input, no branching on values (face_jax.bridges.to_flax imports a torch head); give grid=(y, x) if "
            "it takes maps"
        ) from error
    if len(logits.shape) != 2 or logits.shape[0] != images:
        raise ValueError(
            f"head gives shape {logits.shape} for {images} images of {term.places} rows; it has to give image × "
            "class. Give grid=(y, x) if it takes maps"
        )
    if not term.affine:
        try:
            jax.eval_shape(lambda x: jax.jvp(plain.logits, (x,), (x,)), shape)
        except Exception as error:
            raise ValueError(
                f"head has no forward derivative, which Gauss–Newton needs: {_first_line(error)}. Import a torch head "
                "with face_jax.bridges.to_flax, or define its derivative with jax.custom_jvp"
            ) from error
    return logits.shape[1]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"

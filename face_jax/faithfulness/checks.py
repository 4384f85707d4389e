"""Checks of the faithfulness term: its settings, and that head, weights and activations fit together."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..heads import Affine, NetworkHead, TokenHead
from ..support.arguments import flag, index_or_none, native, shown
from .lambda_units import Unit
from .losses import Loss

# What is checked: a term that compares predictions. Its class is defined on these checks, so that it can't be named.
Compared = Any


def weights_as_array(weights: Any) -> Any:
    """Weights as one array, whatever gave them; what JAX has in an array's place while it takes a term apart stays."""
    if weights is None or type(weights) is object or isinstance(weights, numbers.Number | jax.core.Tracer):
        return weights
    if type(weights).__module__.startswith("jax") or getattr(weights, "dtype", None) == jax.dtypes.float0:
        return weights
    found = native("weights", weights)
    if not _are_real(found):
        raise ValueError(f"weights={shown(weights)} are no real numbers; give one number of at least 0 an image")
    return found


def _are_real(weights: Any) -> bool:
    dtype = getattr(weights, "dtype", object)
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def check_settings(term: Compared) -> None:
    """Raise `ValueError` for a loss, a unit or a grid that isn't valid."""
    for name, value, kind, choices in (
        ("loss", term.loss, Loss, "ForwardKL(), ReverseKL(), SquaredLogits() or SigmoidKL()"),
        ("unit", term.unit, Unit, "InSums() or InMeans()"),
    ):
        if not isinstance(value, kind):
            given = f"{value.__name__} is a class" if isinstance(value, type) else f"{value!r} isn't a {name}"
            raise ValueError(f"{name}={given}; give an object: {choices}")
    flag("keep_predictions", term.keep_predictions)
    grid = term.grid
    if grid is None or (isinstance(grid, tuple) and len(grid) == 2 and all(_counts(size) for size in grid)):
        return
    raise ValueError(f"grid={grid!r} isn't a height and width of a map; give two numbers, such as grid=(7, 7)")


def _counts(size: object) -> bool:
    number = index_or_none(size)
    return number is not None and number >= 1


def check(term: Compared, activations: Any, name: str = "activations") -> None:
    """Raise `ValueError` that says what doesn't fit and what to do; `name` is what the caller calls the rows.

    Of the rows, which may be in blocks, shape and type are looked at.
    """
    if len(activations.shape) != 2:
        raise ValueError(
            f"{name} has shape {activations.shape}; give a matrix of rows, one a pooled crop or a place of a map"
        )
    rows, channels = activations.shape
    if not callable(term.head):
        raise ValueError(
            f"head={term.head!r} can't be called; give a function from activations to logits, such as model.head"
        )
    if rows % term.places:
        raise ValueError(
            f"{name} has {rows} rows, which isn't a multiple of the {term.places} places of an image; give all "
            "places of each image, one image after the other"
        )
    images = rows // term.places
    if isinstance(term.head, Affine):
        _check_affine(term.head, channels, name)
    if isinstance(term.head, NetworkHead | TokenHead) and term.head.channels not in (None, channels):
        raise ValueError(
            f"head takes {term.head.channels} channels and {name} has {channels}; give the activations of the "
            "layer that the head was cut behind"
        )
    classes = _check_traceable(term, activations, images)
    if term.weights is not None and np.shape(term.weights) != (images,):
        raise ValueError(
            f"weights has shape {np.shape(term.weights)}, but there are {images} images of {term.places} rows; give "
            "one weight an image"
        )
    if term.weights is not None and not isinstance(term.weights, jax.core.Tracer):
        known = np.asarray(native("weights", term.weights))
        if not _are_real(known):
            raise ValueError(f"weights={shown(term.weights)} are no real numbers; give numbers of at least 0")
        if not np.isfinite(known).all() or (known < 0).any():
            raise ValueError("weights has entries that are negative, NaN or infinite; give numbers of at least 0")
    if classes < 1:
        raise ValueError("head gives no logits; give a classifier with one class or more")


def check_finite(finite: Bool[Array, " image"], name: str) -> None:
    """Raise `ValueError` if the head's logits of some images aren't finite, as far as that's known."""
    if isinstance(finite, jax.core.Tracer):
        return
    bad = ~np.asarray(finite)
    if not bad.any():
        return
    raise ValueError(
        f"head gives logits that are NaN or infinite for {int(bad.sum())} of {bad.size} images of {name}, the first is "
        f"image {int(bad.argmax())}; look for NaN in the head's weights, or activations that it wasn't trained for"
    )


def _check_affine(head: Affine, channels: int, name: str) -> None:
    kernel, bias = jnp.shape(head.kernel), jnp.shape(head.bias)
    if len(kernel) != 2 or len(bias) != 1:
        raise ValueError(
            f"head has a kernel of shape {kernel} and a bias of shape {bias}; give (channel, class), (class,)"
        )
    if kernel[0] != channels:
        raise ValueError(
            f"head takes {kernel[0]} channels and {name} has {channels}; give the activations of the layer that "
            "the head was cut behind" + (", or transpose the kernel" if kernel[1] == channels else "")
        )
    if kernel[1] != bias[0]:
        raise ValueError(
            f"head's kernel has {kernel[1]} classes and its bias {bias[0]}; give the kernel as channel × class and one "
            "bias a class"
        )


def _check_traceable(term: Compared, activations: Any, images: int) -> int:
    """How many classes the head gives, found by tracing it (and its derivative) without computing anything."""
    shape = jax.ShapeDtypeStruct(activations.shape, activations.dtype)
    plain = dataclasses.replace(term, weights=None)
    said = None
    try:
        # An affine head gives its kernel; what it's asked for then has another shape than the rows.
        said = jax.ShapeDtypeStruct((), shape.dtype) if term.affine else jax.eval_shape(plain.said, shape)
        known = isinstance(said, jax.ShapeDtypeStruct)
        real = known and jnp.issubdtype(said.dtype, jnp.floating)
        logits = jax.eval_shape(plain.logits, shape) if real else None
    except Exception as error:
        if (taken := _type_taken(plain, shape)) is not None:
            raise ValueError(
                f"head takes activations of dtype {taken} and these are {activations.dtype}; give "
                f"activations.astype({taken.name!r}), or a head whose weights are {activations.dtype}"
            ) from error
        raise ValueError(
            f"head can't be traced by JAX on activations of shape {activations.shape} and dtype {activations.dtype}: "
            f"{_first_line(error)}. It has to be a pure JAX function of the layer's activations: no NumPy or torch on "
            "its input, no branching on values (face_jax.bridges.to_flax imports a torch head); give grid=(y, x) if "
            "it takes maps"
        ) from error
    if logits is None:
        given = f"an array of {said.dtype}" if isinstance(said, jax.ShapeDtypeStruct) else f"a {type(said).__name__}"
        raise ValueError(f"head returns {given}; it has to give logits alone, real numbers, image × class")
    if any(isinstance(known, jax.core.Tracer) for known in jax.make_jaxpr(_called)(plain, shape).consts):
        raise ValueError(
            "head closes over values that are being traced or differentiated, which it would keep constant; give them "
            "to it: jax.tree_util.Partial(function, kernel), Affine(kernel, bias) or another pytree"
        )
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


def _called(term: Compared, activations: Float[Array, "row channel"]) -> Array:
    return term.logits(activations)


def _type_taken(term: Compared, shape: jax.ShapeDtypeStruct) -> np.dtype | None:
    """A floating type that the head can be traced on where it can't be on the activations' own."""
    names = ("float32", "bfloat16", "float16", *(["float64"] if jax.config.read("jax_enable_x64") else []))
    for other in map(jnp.dtype, names):
        if other != shape.dtype:
            try:
                jax.eval_shape(term.logits, jax.ShapeDtypeStruct(shape.shape, other))
            except Exception:  # whatever a head raises, this type isn't the one
                continue
            return other
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"

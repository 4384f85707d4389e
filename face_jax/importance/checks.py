"""Checks of arguments of importance measures."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..heads.beside import Beside, of_pictures
from ..model import check_head
from ..support.arguments import index_or_none, shown
from ..support.classes import UnknownClassError


def check_asked(head: Any, codes: Any, dictionary: Any, target: Any) -> int:
    """Refuses concepts that don't fit together or to the head, entries that aren't finite, and unknown classes.

    **Arguments:**

    - `head`: from activations to logits; it's only traced.
    - `codes`: should be `image y x concept`.
    - `dictionary`: should be `concept channel`.
    - `target`: should be the number of one of the head's classes. JAX would take the last for any greater one.

    **Returns:** the class.
    """
    check_head(head, affine=False)
    for name, values in (("codes", codes), ("dictionary", dictionary)):
        _check_numbers(name, values)
    shape, bank = np.shape(codes), np.shape(dictionary)
    if len(bank) != 2 or 0 in bank:
        raise ValueError(f"dictionary has shape {bank}; give concept × channel")
    if len(shape) != 4 or 0 in shape:
        raise ValueError(
            f"codes has shape {shape}; give image × y × x × concept, codes[:, None, None, :] where they are of averages"
        )
    if shape[3] != bank[0]:
        raise ValueError(
            f"codes has {shape[3]} concepts and dictionary has {bank[0]}; give the codes of this dictionary, "
            "face_jax.encode(activations, dictionary)"
        )
    for name, values in (("codes", codes), ("dictionary", dictionary)):
        bad = int((~np.isfinite(np.asarray(values))).sum())
        if bad:
            raise ValueError(f"{name} has {bad} entries that are NaN or infinite; leave their images or concepts out")
    if isinstance(head, Beside) and head.kept.shape[0] not in (1, shape[0]):
        raise ValueError(
            f"head keeps the tokens of {head.kept.shape[0]} pictures and codes has {shape[0]}; take those of these "
            "pictures, head[index]"
        )
    classes = _classes(head, (1, *shape[1:3], bank[1]), jnp.result_type(codes))
    number = index_or_none(target)
    if number is None:
        raise UnknownClassError(
            f"target={shown(target)} isn't a number of a class, and a head has no names; give 0 to {classes - 1} "
            "(face_jax.support.classes.class_index finds a name's)"
        )
    if not 0 <= number < classes:
        raise UnknownClassError(f"target={number} is out of range: the head has {classes} classes (0 to {classes - 1})")
    return number


def _check_numbers(name: str, values: Any) -> None:
    try:
        dtype = values.dtype if isinstance(values, jax.Array) else np.asarray(values).dtype
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} can't be read as an array ({error})") from error
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {dtype}; give real numbers, such as np.asarray({name}, np.float32)")


def check_contributions(contribution: np.ndarray, target: int) -> None:
    """Refuses contributions that are beyond the largest number."""
    bad = int((~np.isfinite(contribution)).sum())
    if bad:
        raise ValueError(
            f"head: {bad} of {contribution.size} contributions to class {target}'s logit are beyond the largest "
            f"{contribution.dtype}; divide the head's weights by a power of two, which changes no importance"
        )


def _classes(head: Any, shape: tuple[int, ...], dtype: Any) -> int:
    """How many classes the head has."""
    try:
        logits = _logits.eval_shape(of_pictures(head, slice(1)), jax.ShapeDtypeStruct(shape, dtype))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"head doesn't take activations of shape {shape} (image × y × x × channel), which codes and dictionary "
            f"rebuild: {error}; give the concepts of the layer that it was cut behind"
        ) from error
    if logits.ndim != 2:
        raise ValueError(f"head gives shape {logits.shape} for one image; it should give logits, image × class")
    return logits.shape[1]


@jax.jit
def _logits(head: Any, maps: Any) -> Any:
    return head(maps)

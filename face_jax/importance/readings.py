"""What a head says of a concept by itself: the classes that it reads in it, and those that speak least for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..heads.affine import affine_map
from ..heads.beside import of_pictures
from ..outputs import Outputs
from ..support.arguments import native
from ..support.fields import within
from ..support.precision import full_precision
from .checks import check_asked

# Behind a head that isn't affine a concept is looked at alone in so many pictures that have most of it.
_PICTURES = 4
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class Reading:
    """A class, and what a concept alone adds to its logit.

    **Arguments:**

    - `index`: the class's number.
    - `score`: behind an affine head, of one unit of the concept at every place, which is the class's entry of
        `dictionary @ kernel`; behind any other, of as much of it as the pictures have that have most.
    """

    index: int = dataclasses.field(metadata=within(0, "class"))
    score: float = dataclasses.field(metadata=within())


@full_precision
def class_readings(
    head: Any, codes: Float[Array, "image y x concept"], dictionary: Float[Array, "concept channel"]
) -> Float[np.ndarray, "concept class"]:
    """What each concept adds to each class's logit by itself.

    Behind an affine head exactly, of one unit of it at every place: `dictionary @ kernel`. Behind any other the logits
    of the concept alone, less those of no activations at all, averaged over the four pictures that have most of it,
    each with as much of it as it has, and where it has it.

    **Arguments:**

    - `head`: from activations to logits.
    - `codes`: how much of each concept is at each place of each picture.
    - `dictionary`: the concepts.

    **Returns:** one number for each concept and class. Raises `ValueError` for concepts that don't fit the head.

    **Example:**

    >>> codes, dictionary = jnp.asarray(explanation.codes), jnp.asarray(explanation.dictionary)
    >>> fj.importance.class_readings(model.head, codes, dictionary).shape
    (4, 2)
    """
    codes, dictionary = native("codes", codes), native("dictionary", dictionary)
    check_asked(head, codes, dictionary, 0)
    if head.affine:
        kernel, _ = affine_map(head, dictionary.shape[1], dictionary.dtype)
        return np.asarray(dictionary, np.float64) @ np.asarray(kernel, np.float64)
    strength = np.asarray(codes).mean((1, 2))
    count = min(_PICTURES, len(codes))
    found = []
    for concept in range(len(dictionary)):
        most = np.argsort(-strength[:, concept], kind="stable")[:count]
        alone = _alone(
            of_pictures(head, most), jnp.asarray(codes[most, :, :, concept]), jnp.asarray(dictionary[concept])
        )
        found.append(np.asarray(alone, np.float64))
    return np.stack(found)


@jax.jit
def _alone(head: Any, codes: Float[Array, "image y x"], concept: Float[Array, " channel"]) -> Float[Array, " class"]:
    maps = codes[..., None] * concept[None, None, None, :]
    return jnp.mean(head(maps) - head(jnp.zeros_like(maps)), axis=0)


def named(scores: Float[np.ndarray, " class"], outputs: Outputs) -> tuple[tuple[Reading, ...], tuple[Reading, ...]]:
    """The classes that a concept speaks for, strongest first, and those that it speaks against, likewise.

    Of exclusive classes only differences count: for those above their mean, against those below. Of labels each by
    itself: for those above zero, against those below.
    """
    middle = float(scores.mean()) if outputs.exclusive else 0.0
    most = max(1, min(_NAMED, len(scores) // 2))
    order = np.argsort(-scores, kind="stable")
    above = [at for at in order[:most].tolist() if scores[at] > middle]
    below = [at for at in order[::-1][:most].tolist() if scores[at] < middle]
    return tuple(tuple(Reading(at, float(scores[at])) for at in some) for some in (above, below))  # pyright: ignore[reportReturnType]

"""What each concept says by itself, and what happens without it: in the photographs that are explained."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from ..activations import Collected
from ..explanation.concepts import Concept
from ..importance.readings import class_readings, named
from ..metrics.removal import removals
from ..model import SplitModel
from .ranking import looked_at

# Behind an affine head they cost nothing.
_DRAWS = {True: 20, False: 2}


def with_effects(
    concepts: tuple[Concept, ...],
    model: SplitModel,
    photographs: Collected,
    codes: Float[np.ndarray, "image y x concept"],
    dictionary: Float[np.ndarray, "concept channel"],
    target: int,
    key: Key[Array, ""],
) -> tuple[Concept, ...]:
    """Concepts with what the head reads in each alone, and what its removal does.

    **Arguments:**

    - `concepts`: as they are described so far.
    - `model`: the split classifier.
    - `photographs`: what it makes of those that are explained; behind a head that isn't affine some are looked at.
    - `codes`, `dictionary`: of these photographs.
    - `target`: the class.
    - `key`: for random directions.

    **Returns:** the concepts.
    """
    some = looked_at(model, len(photographs))
    seen, codes = (photographs, codes) if len(some) == len(photographs) else (photographs[some], codes[some])
    head = seen.head(model.head)
    scores = class_readings(head, jnp.asarray(codes), jnp.asarray(dictionary))
    without = removals(
        head, seen.maps, codes, dictionary, target, model.outputs, draws=_DRAWS[bool(model.head.affine)], key=key
    )
    found = []
    for concept, each, removal in zip(concepts, scores, without, strict=True):
        speaks_for, speaks_against = named(each, model.outputs)
        found.append(
            dataclasses.replace(concept, speaks_for=speaks_for, speaks_against=speaks_against, without=removal)
        )
    return tuple(found)

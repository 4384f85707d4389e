"""Importance of concepts in pictures, and concepts in its order."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..activations import Collected
from ..explanation.concepts import Concept, coverage, strongest_crops
from ..explanation.parts import Importance, PaperImportance
from ..importance import Sobol, contributions, gradient_times_code, tcav, total_sobol
from ..model import SplitModel
from ..nmf.encoding import encode_maps
from ..support.progress import Progress
from .fitting import Fitted
from .material import Keys, Material
from .presets import Preset

# Behind a head that isn't affine, importance takes hundreds of calls of the head for each picture: how many pictures,
# scrambles, and points of each. One that averages maps before anything else is cheap; behind others (half of a small
# vision transformer takes a minute on two cores for 8 concepts) there are twice the 32 points of CRAFT.
_SAMPLED, _SAMPLED_OF_POOLED = (8, 8, 8), (12, 4, 32)


def _sampled(head: Any) -> tuple[int, int, int]:
    return _SAMPLED_OF_POOLED if getattr(head, "pools_first", False) else _SAMPLED


def looked_at(model: SplitModel, count: int) -> Int[np.ndarray, " some"]:
    """Which of the pictures fitted have indices: behind a head that isn't affine, some of them."""
    every = np.arange(count)
    most = _sampled(model.head)[0]
    if model.head.affine or count <= most:
        return every
    return every[np.linspace(0, count - 1, most).round().astype(np.int64)]


def importance_of(
    model: SplitModel,
    units: Collected,
    dictionary: Float[np.ndarray, "concept channel"],
    target: int,
    key: Key[Array, ""],
    progress: Progress,
) -> Sobol:
    """Total Sobol indices of concepts in the pictures that are looked at."""
    codes, head = _codes(model, units, dictionary), _head(model, units, target)
    _, scrambles, designs = _sampled(head)
    with progress("Importance", scrambles) as advance:
        return total_sobol(
            head, codes, jnp.asarray(dictionary), target, designs=designs, scrambles=scrambles, advance=advance, key=key
        )


def codes_by(
    preset: Preset, model: SplitModel, pictures: Collected, dictionary: Float[np.ndarray, "concept channel"]
) -> Float[np.ndarray, "image y x concept"]:
    """Codes of pictures by the paper's rule; they may be below zero."""
    found = preset.paper.inference(pictures.maps, dictionary, pictures.head(model.head))
    return np.asarray(found, pictures.maps.dtype)


def importance_by(
    preset: Preset,
    model: SplitModel,
    pictures: Collected,
    dictionary: Float[np.ndarray, "concept channel"],
    target: int,
    key: Key[Array, ""],
) -> PaperImportance:
    """What the paper's measure says of concepts in the pictures that are looked at."""
    some, measure = pictures[looked_at(model, len(pictures))], preset.paper.importance
    codes = codes_by(preset, model, some, dictionary)
    head = some.head(model.head_for(target))
    return PaperImportance(repr(measure), np.asarray(measure(head, some.maps, codes, dictionary, target, key)))


def weighed(
    model: SplitModel,
    material: Material,
    fitting: Fitted,
    target: int,
    keys: Keys,
    progress: Progress,
    preset: Preset | None = None,
) -> tuple[Importance, Float[np.ndarray, "concept channel"], Float[np.ndarray, "crop concept"]]:
    """What each concept weighs, with what else is called importance: one gradient of the head a picture.

    With a preset its own measure says in which order they are.

    **Returns:** that, the concepts and the crops' codes, all in the order of importance.
    """
    pictures, dictionary = material.fitted, np.asarray(fitting.solution.dictionary)
    sobol = importance_of(model, pictures, dictionary, target, keys["importance"], progress)
    by_paper = None
    if preset is not None:
        by_paper = importance_by(preset, model, pictures, dictionary, target, keys["importance"])
    order, sobol, by_paper = in_order(sobol, by_paper)
    dictionary, crop_codes = dictionary[order], fitting.crop_codes[:, order]
    codes, bank = _codes(model, pictures, dictionary), jnp.asarray(dictionary)
    head = _head(model, pictures, target)
    measured = Importance(
        sobol=sobol,
        index=material.index[looked_at(model, len(material.index))],
        tcav=tcav(head, codes, bank, target, key=keys["directions"]),
        gradient_times_code=gradient_times_code(head, codes, bank, target),
        by_paper=by_paper,
    )
    return measured, dictionary, crop_codes


def _codes(
    model: SplitModel, units: Collected, dictionary: Float[np.ndarray, "concept channel"]
) -> Float[Array, "image y x concept"]:
    """Codes of the pictures that are looked at."""
    return jnp.asarray(encode_maps(units[looked_at(model, len(units))].maps, dictionary))


def _head(model: SplitModel, units: Collected, target: int) -> Any:
    """The head whose logit says what decides for the class, for the pictures that are looked at."""
    return units[looked_at(model, len(units))].head(model.head_for(target))


def in_order(
    sobol: Sobol, by_paper: PaperImportance | None
) -> tuple[Int[np.ndarray, " concept"], Sobol, PaperImportance | None]:
    """The order of concepts, the most important for the class first, and what both measures say in it."""
    deciding = sobol.per_class if by_paper is None else by_paper.per_class
    order = np.argsort(-deciding, kind="stable")
    sorted_ = {name: getattr(sobol, name)[:, order] for name in ("total", "low", "high")}
    if by_paper is not None:
        by_paper = dataclasses.replace(by_paper, per_class=by_paper.per_class[order])
    return order, dataclasses.replace(sobol, **sorted_), by_paper


def describe(
    model: SplitModel,
    material: Material,
    sobol: Sobol,
    dictionary: Float[np.ndarray, "concept channel"],
    crop_codes: Float[np.ndarray, "crop concept"],
    target: int,
    strongest: int,
    one_each: bool,
) -> tuple[Concept, ...]:
    """Concepts as one looks at them; everything is in their order already."""
    crops = material.pictures.crops
    share = coverage(crop_codes, crops)
    total, low, high = (values.mean(0) for values in (sobol.total, sobol.low, sobol.high))
    added = None
    if model.head.affine:
        codes = jnp.asarray(encode_maps(material.fitted.maps, dictionary))
        added = contributions(model.head_for(target), codes, jnp.asarray(dictionary), target).mean(0)
    return tuple(
        Concept(
            number=number + 1,
            importance=float(total[number]),
            low=float(low[number]),
            high=float(high[number]),
            contribution=None if added is None else float(added[number]),
            coverage=float(share[number]),
            strongest=strongest_crops(crop_codes[:, number], crops, strongest, one_each=one_each),
        )
        for number in range(len(total))
    )

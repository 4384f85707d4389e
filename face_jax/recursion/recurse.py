"""Concepts taken apart: the crops that have most of one, factorized again at an earlier layer (CRAFT, section 3.2)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..activation_checks import check_signs
from ..explanation.record import Explanation
from ..explanation.sub_concepts import Recursion, spreads
from ..model import SplitModel, check_model
from ..nmf import NNDSVD
from ..nmf.options import AnySolver, AnyStart
from ..nmf.settings import solver_or, start_or
from ..pipeline.checks import Folder, room_of
from ..signs import Signs, are_apart, signs_for
from ..support.arguments import (
    Concepts,
    Real,
    Seed,
    Whole,
    callable_with,
    check_count,
    index_or_none,
    instance,
    key_of,
    real,
    several,
    shown,
    whole,
)
from ..support.cache import no_cache
from ..support.concepts import concepts_of
from ..support.interrupts import interruptible
from ..support.precision import full_precision
from ..support.progress_line import Watched, progress_of
from .dividing import Level, Settings, Task, divide

# Concepts below this share of the importance aren't suggested: nobody looks at them.
_MINOR = 0.01


@interruptible()
@full_precision
def recurse(
    explanation: Explanation,
    earlier: SplitModel | Sequence[SplitModel] | Callable[[int], SplitModel],
    *,
    depth: Whole | None = None,
    concepts: Concepts = None,
    rank: Whole = 3,
    percentile: Real = 90.0,
    fewest: Whole = 12,
    threshold: Real = 0.7,
    strongest: Whole = 8,
    solver: AnySolver | None = None,
    start: AnyStart | None = None,
    signs: Signs | None = None,
    batch: Whole = 32,
    key: Seed = None,
    cache: Callable[..., Any] = no_cache,
    memory: Real | None = None,
    store: Folder = None,
    progress: Watched = None,
) -> Explanation:
    """The explanation with concepts taken apart: sub-concepts at earlier layers, to any depth.

    A concept of a late layer may mix several things. The crops at or above the 90th percentile of its code go through
    an earlier cut of the same model, and their averaged activations are factorized again; so are the sub-concepts'
    own top crops, one layer earlier still (CRAFT, section 3.2).

    A concept is taken apart when its top crops spread: `(1 − cosine within them) / (1 − cosine within all crops)`, mean
    cosines between activations at the earlier layer, is at least `threshold` (0: they are all the same there; 1: as
    different as any crops of the class), and it has at least 1 % of the importance. A sub-concept is when its top
    crops spread, at the next layer, beside the crops that it was found in.

    **Arguments:**

    - `explanation`: whose concepts; its photographs must be at hand.
    - `earlier`: the same model cut at an earlier layer, or at several, the nearest first; or a function from the level
        (1 is the first) to the cut, called when a level is reached. `face_jax.bridges.layers` lists a torch model's.
    - `depth`: how many levels; by default one for each model in `earlier`, and 1 if that's a function.
    - `concepts`: which concepts, or which one, counted from 0, whether they spread or not (measuring that takes every
        crop through the network again); by default those that spread.
    - `rank`: sub-concepts of each.
    - `percentile`: 90 is the paper's: a tenth of the crops.
    - `fewest`: crops that are used at least, where so many have the concept.
    - `threshold`: from which spread on a concept, or a sub-concept, is taken apart; 0 for all. Of the concepts of eight
        ImageNet classes in an EfficientNet-Lite0, 22 of the 56 that mattered reached 0.7.
    - `strongest`: strongest crops named for each sub-concept.
    - `solver`, `start`: for `factorize`; as `explain` has it, `ADMM()`, or `SemiNMF()` for concepts of either sign, and
        `NNDSVD()` by default.
    - `signs`: what becomes of activations below zero at the earlier layers, as for `explain`; by default as the
        explanation has it.
    - `batch`, `cache`, `progress`: as for `explain`.
    - `memory`, `store`: as for `explain`, of the crops' activations at the earlier layers, averaged.
    - `key`: for starts that are random.

    **Returns:** the explanation with `recursion` filled in. Raises `ValueError` for a cut of another model, and
    `SignedActivationsError` for a non-negative `solver` at a layer with activations below zero.

    **Example:**

    >>> parts = fj.recurse(explanation, earlier, concepts=[0], rank=2, fewest=4).recursion
    >>> len(parts.divisions[0].parts)
    2
    """
    key, progress, room = key_of(key), progress_of(progress), room_of(memory, store)
    instance("explanation", explanation, Explanation, "the result of explain or load")
    earlier = _cuts((earlier,) if isinstance(earlier, SplitModel) else earlier)
    cut = functools.cache(earlier if callable(earlier) else _in_order(earlier))
    levels = (1 if callable(earlier) else len(earlier)) if depth is None else whole("depth", depth, "levels")
    rank = _check(earlier, levels, rank)
    percentile, threshold = _check_measure(percentile, threshold)
    fewest, strongest = (
        check_count(name, value, "crops") for name, value in (("fewest", fewest), ("strongest", strongest))
    )
    batch = check_count("batch", batch, "pictures")
    callable_with("cache", cache, "give an object such as ArrayCache(folder)", [], dict)
    solver, start = solver_or(None, solver), start_or(NNDSVD(), start)
    given = () if callable(earlier) else earlier
    signs = signs_for(signs, solver, given, "apart" if are_apart(explanation.model) else "mixed")
    for model in given if signs == "mixed" else ():
        check_signs(model, solver)
    settings = Settings(rank, percentile, fewest, threshold, strongest, solver, start, signs, batch, cache, progress,
                        room)  # fmt: skip
    # A concept that was named is taken apart whether it spreads or not; measuring that takes all crops.
    named = concepts is not None
    wanted = (
        () if isinstance(concepts, (list, tuple)) and not concepts else concepts_of(concepts, len(explanation.concepts))
    )
    every = np.arange(len(explanation.crops))
    tasks = [Task((number + 1,), every, explanation.crop_codes[:, number]) for number in wanted]
    matters = {(concept.number,) for concept in explanation.concepts if named or concept.importance >= _MINOR}
    level = Level(1, levels, cut, named)
    notes: list[str] = []
    divisions, measured = divide(explanation, level, tasks, matters, settings, key, notes)
    spread = np.asarray([measured.get((concept.number,), np.nan) for concept in explanation.concepts])
    recursion = Recursion(
        spread=spread,
        layer=cut(1).layer,
        threshold=threshold,
        suggested=_suggested(explanation, spread, threshold),
        divisions=tuple(divisions.values()),
        notes=tuple(notes),
    )
    return dataclasses.replace(explanation, recursion=recursion)


@full_precision
def suggest_recursion(
    explanation: Explanation, *, percentile: Real = 90.0, fewest: Whole = 12, threshold: Real = 0.7
) -> Recursion:
    """Which concepts may want taking apart, as far as the explanation's own layer tells: a hint that costs nothing.

    The measure is that of `recurse`, on the activations that the explanation has. It finds concepts whose top crops
    have different things beside the concept; those that the layer has merged altogether are found by `recurse` only,
    which measures at the earlier layer.

    **Arguments:**

    - `explanation`: whose concepts.
    - `percentile`, `fewest`, `threshold`: as for `recurse`.

    **Returns:** a recursion without divisions.

    **Example:**

    >>> suggestion = fj.suggest_recursion(explanation)
    >>> len(suggestion.spread)
    4
    """
    instance("explanation", explanation, Explanation, "the result of explain or load")
    percentile, threshold = _check_measure(percentile, threshold)
    fewest = check_count("fewest", fewest, "crops")
    spread = spreads(
        explanation.crop_codes, explanation.pictures.crop_activations, percentile=percentile, fewest=fewest
    )
    suggested = _suggested(explanation, spread, threshold)
    return Recursion(spread, explanation.model.layer, threshold, suggested, ())


def _suggested(explanation: Explanation, spread: Float[np.ndarray, " concept"], threshold: float) -> tuple[int, ...]:
    return tuple(
        concept.index
        for concept, value in zip(explanation.concepts, spread, strict=True)
        if value >= threshold and concept.importance >= _MINOR
    )


def _cuts(earlier: Any) -> tuple[SplitModel, ...] | Callable[[int], SplitModel]:
    if isinstance(earlier, type):
        raise ValueError(f"earlier=the class {earlier.__name__} isn't valid; give a model, or several")
    if callable(earlier):
        return callable_with("earlier", earlier, "give a function of the level, 1 or more, or models", 1)
    models = several("earlier", earlier, "models cut at earlier layers")
    for model in models:
        check_model(model, "earlier")
    return models


def _in_order(models: Sequence[SplitModel]) -> Callable[[int], SplitModel]:
    return lambda level: models[level - 1]


def _check(earlier: Any, levels: int, rank: Any) -> int:
    if levels < 1 or (not callable(earlier) and levels > len(earlier)):
        given = "a function" if callable(earlier) else f"{len(earlier)} models"
        raise ValueError(f"depth={levels} with {given} in earlier; give a cut for each level, and at least one")
    number = index_or_none(rank)
    if number is None or number < 2:
        raise ValueError(f"rank={shown(rank)} takes nothing apart; give at least 2")
    return number


def _check_measure(percentile: Any, threshold: Any) -> tuple[float, float]:
    percentile, threshold = real("percentile", percentile, "percentile"), real("threshold", threshold, "spread")
    if not 0 <= percentile < 100:
        raise ValueError(f"percentile={percentile} leaves no crops; give 0 to less than 100, such as 90")
    if threshold < 0:
        raise ValueError(f"threshold={threshold} isn't a spread; give 0 for all concepts, or about 0.7")
    return percentile, threshold

"""Photographs of a class and crops of them through a model: what methods are compared on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Int

from ..activation_checks import below_zero
from ..activations import Collected
from ..model import SplitModel, check_model, photographs_for
from ..pictures.photographs import Photograph
from ..pipeline.checks import check_cache, check_rule
from ..pipeline.material import cropping_for, crops_in, keys_of
from ..pipeline.provenance import on_photographs
from ..pipeline.selection import Activator, check_alive, choose_class, place_average
from ..support.arguments import Seed, Whole, check_count, key_of
from ..support.cache import no_cache
from ..support.classes import Target as Class
from ..support.classes import class_index
from ..support.memory import exhaustion_in_words
from ..support.precision import full_precision
from ..support.progress import Stopwatch
from ..support.progress_line import Watched, progress_of
from ..support.reprs import short_repr


@dataclasses.dataclass(frozen=True)
class PicturesAndCrops:
    """A class's photographs and crops of them, through a model.

    **Arguments:**

    - `target`: the class's number.
    - `photographs`: those that the model puts in the class.
    - `pictures`: their activations.
    - `crops`: activations of crops of them, averaged over places where the head averages first.
    - `crop_of`: for each crop the number of its photograph.
    - `notes`: what took no part, and why.
    """

    target: int
    photographs: tuple[Photograph, ...]
    pictures: Collected
    crops: Collected
    crop_of: Int[np.ndarray, " crop"]
    notes: tuple[str, ...] = ()

    __repr__ = short_repr

    @property
    def signed(self) -> bool:
        """Whether any activation is below zero: `methods.CRAFT` and others can't represent such."""
        return below_zero(self.pictures.maps, self.crops.maps)


@full_precision
def pictures_and_crops(
    model: SplitModel,
    images: Any,
    target: Class | None = None,
    *,
    crops: Any = None,
    batch: Whole = 32,
    key: Seed = None,
    cache: Callable[..., Any] = no_cache,
    progress: Watched = None,
) -> PicturesAndCrops:
    """Photographs and crops of them for `compare_methods`, taken as `explain` takes them (CRAFT, section 3.1).

    Photographs are kept when the model predicts the class, whatever they show; a second copy of one isn't.

    **Arguments:**

    - `model`: the split classifier.
    - `images`: anything that `face_jax.photographs` takes.
    - `target`: the class, by name or number; by default what the model predicts most often here.
    - `crops`: which crops are taken; by default `RandomCrops`, at least ten a photograph and 300 in all.
    - `batch`: pictures that go through the network together.
    - `key`: for crops, or a seed.
    - `cache`: keeps activations between runs, such as `face_jax.ArrayCache(folder)`.
    - `progress`: as for `explain`.

    **Returns:** them, with notes on what took no part. Raises `NoneOfTheClassError` where the model puts no photograph
    in the class, and `ValueError` for a layer without activations.

    **Example:**

    >>> seen = fj.evaluation.pictures_and_crops(model, images, "warm", crops=fj.RandomCrops(per_image=2))
    >>> found = fj.compare_methods(
    ...     model, seen.pictures, [fj.methods.NMF()], target=seen.target, rank=2, folds=2, starts=1, controls=(),
    ...     crops=seen.crops, crop_of=seen.crop_of,
    ... )
    >>> len(seen.crops) == 2 * len(seen.photographs) == 2 * found.pictures
    True
    """
    check_model(model)
    check_rule(crops)
    check_cache(cache)
    batch, key, report = check_count("batch", batch, "pictures"), key_of(key), progress_of(progress)
    activator = Activator(model, batch, cache, report, Stopwatch())
    with exhaustion_in_words("images and crops", "give fewer photographs or crops, or a later layer"):
        every = photographs_for(model, images)
        wanted = None if target is None else class_index(model.classes, target)
        number, _, seen = choose_class(model, activator.survey(every, wanted), wanted)
        kept = tuple(every[index] for index in seen.index)
        shapes = [photograph.pixels(model.preprocess.reads).shape[:2] for photograph in kept]
        rule = cropping_for(crops, shapes, seen.kept, model.preprocess)
        where = crops_in(rule, shapes, np.arange(len(kept)), keys_of(key)["crops"])
        found = activator.crops(kept, where, maps=not model.head.affine)
        check_alive(model, place_average(found), seen.kept)
    notes = tuple(on_photographs(model, number, every, seen))
    return PicturesAndCrops(number, kept, seen.kept, found, np.asarray(where.image), notes)

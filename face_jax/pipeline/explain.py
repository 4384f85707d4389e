"""From a model and photographs to an explanation: every stage, in order."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from .. import metrics
from ..activations import Cropping, Crops, RandomCrops, check_crops
from ..explanation.record import Explanation
from ..model import SplitModel, check_model
from ..nmf import rank_scan
from ..nmf.encoding import encode_maps
from ..nmf.settings import solver_or, start_or
from ..nmf.validate import squared_error
from ..pictures.photographs import photographs
from ..support import arguments
from ..support.arguments import (
    Real,
    Seed,
    Whole,
    callable_with,
    check_faithfulness,
    check_rank,
    check_settings,
    flag,
    function,
    instance,
    key_of,
)
from ..support.cache import no_cache
from ..support.classes import Target, class_index, other_reading
from ..support.interrupts import interruptible
from ..support.memory import exhaustion_in_words
from ..support.progress import Stopwatch
from ..support.progress_line import Watched, progress_of
from .controls import control_banks, control_scores
from .fitting import fit
from .provenance import fit_summary, notes_on, settings_of
from .ranking import by_importance, describe, importance_of, looked_at, other_measures
from .selection import Activator, check_alive, choose_class, of_class, place_average, split, units

_CACHES = "an object such as ArrayCache(folder)"
_LESS = "give fewer photographs, fewer crops (crops=RandomCrops(per_image=…)), a smaller rank or a later layer"


@interruptible()
def explain(
    model: SplitModel,
    images: Any,
    target: Target | None = None,
    *,
    rank: Whole | Literal["auto"] = 25,
    crops: Any = None,
    faithfulness: Real | Literal["auto"] | None = None,
    objective: Any = None,
    solver: Any = None,
    start: Any = None,
    held_out: Real = 0.2,
    strongest: Whole = 8,
    one_each: bool = True,
    batch: Whole = 32,
    key: Seed = None,
    cache: Callable[..., Any] = no_cache,
    progress: Watched = None,
) -> Explanation:
    """Which concepts a classifier uses for a class: from photographs to an explanation with every stage in it.

    Photographs are kept when the *model* predicts the class, whatever they show (CRAFT, section 3.1). Concepts are
    found in crops of most of them, and scored on the rest.

    **Arguments:**

    - `model`: a classifier split at a layer whose activations are not negative.
    - `images`: anything that `face_jax.photographs` takes: a folder, files, an `.npz`, arrays.
    - `target`: the class, by name or number. A string that is a class's name means that class; else digits are a
        number, as integers always are. By default, the class that the model predicts most often here.
    - `rank`: number of concepts. `"auto"` scans ranks by the error on entries left out (`rank_scan`).
    - `crops`: which crops are taken; by default `RandomCrops`, at least ten a photograph and 300 in all.
    - `faithfulness`: λ of FACE's term, in the formula's unit (`½ ‖A − U Wᵀ‖² + λ Σ KL`), which keeps the predictions
        of the whole photographs fitted; `"auto"` chooses it on some of them by a path. None: no such term.
    - `objective`, `solver`, `start`: for `factorize`; an objective of your own excludes `faithfulness`. The start is
        `NNDSVD()` unless another one is given: the control "no steps taken" is then the very start of this fit.
    - `held_out`: share of the photographs that is only scored on. A single one is scored on as many other crops.
    - `strongest`: strongest crops named for each concept, one of each photograph if `one_each`.
    - `batch`: pictures that go through the network together.
    - `key`: for crops, the split, the start and the controls; the same key, or seed, gives the same explanation.
    - `cache`: keeps activations between runs, such as `face_jax.ArrayCache(folder)`; nothing is kept by default.
        `face_jax.keep_compilations()` keeps compiled programs, which save a minute or two of each new process.
    - `progress`: whom to tell how far it is: True for a line on standard error, False for nobody, or a
        `face_jax.support.progress.Progress`. By default a line where a person watches, on a terminal or in a notebook.

    **Returns:** the explanation. Raises `ValueError`s that say what to do when it can't be had.
    """
    key = key_of(key)
    keys = dict(
        zip(
            ["split", "crops", "more crops", "start", "importance", "controls", "ranks", "directions"],
            jax.random.split(key, 8),
            strict=True,
        )
    )
    rank, held_out, strongest, batch = check_settings(rank, held_out, strongest, batch, crops)
    faithfulness = check_faithfulness(faithfulness, objective)
    check_model(model)
    solver, start = solver_or(None, solver), start_or(None, start)
    if objective is not None:
        squared_error(objective)
    flag("one_each", one_each)
    progress = progress_of(progress)
    function("cache", cache, _CACHES)
    callable_with("cache", cache, f"give {_CACHES}", [], dict)
    stopwatch = Stopwatch()
    with stopwatch("everything else"), exhaustion_in_words(f"images, crops and rank={rank}", _LESS):
        every = photographs(images)
        wanted = None if target is None else class_index(model.classes, target)
        activator = Activator(model, batch, cache, progress, stopwatch)
        target_number, chosen, seen = choose_class(model, activator.survey(every, wanted), wanted)
        kept = tuple(every[number] for number in seen.index)
        fitted, held = split(len(kept), held_out, key=keys["split"])
        with stopwatch("reading and resizing pictures"):
            shapes = [photograph.pixels().shape[:2] for photograph in kept]
        crops = crops or RandomCrops(per_image=max(10, math.ceil(300 / len(fitted))))
        check_crops(crops, [shapes[number] for number in fitted], seen.kept)
        boxes = _crops_of(crops, shapes, fitted, keys["crops"])
        most = min(len(boxes), seen.kept.maps.shape[-1])
        check_rank(rank, len(boxes), seen.kept.maps.shape[-1])
        affine, single = model.head.affine, len(kept) == 1
        crop_data = activator.crops(kept, boxes, maps=single and not affine)
        rows = place_average(crop_data)
        if single:
            others = _crops_of(crops, shapes, held, keys["more crops"])
            other_data = activator.crops(kept, others, maps=not affine)
            pictures, crop_of = of_class(crop_data, target_number), np.arange(len(rows))
            fit_units, score_units = crop_data[pictures], other_data[of_class(other_data, target_number)]
            crops_seen = (crop_data, other_data)
        else:
            pictures, crop_of, crops_seen = fitted, boxes.image, ()
            fit_units, score_units = (units(seen.kept, index, affine=affine) for index in (fitted, held))

        check_alive(model, rows, fit_units)
        scan = None
        if rank == "auto":
            with stopwatch("choice of the rank"), progress("Comparing ranks", 1) as advance:
                ranks = [candidate for candidate in arguments.RANKS if candidate <= most]
                scan = rank_scan(jnp.asarray(rows), ranks, key=keys["ranks"])
                rank = scan.suggested
                advance(1)
        with stopwatch("factorization"), progress("Factorizing", 1) as advance:
            fitting = fit(
                model.head, rows, crop_of, fit_units, pictures, rank,
                faithfulness=faithfulness, objective=objective, solver=solver, start=start, progress=progress,
                stopwatch=stopwatch,
                key=keys["start"], path_key=jax.random.fold_in(keys["controls"], 1),
            )  # fmt: skip
            dictionary, crop_codes = np.asarray(fitting.solution.dictionary), fitting.crop_codes
            advance(1)
        with stopwatch("importance"):
            importance = importance_of(model, fit_units, dictionary, target_number, keys["importance"], progress)
            order, importance = by_importance(importance)
            dictionary, crop_codes = dictionary[order], crop_codes[:, order]
            directions, gradients = other_measures(model, fit_units, dictionary, target_number, keys["directions"])
        with stopwatch("scores and controls"):
            banks = control_banks(fitting, rank, keys)
            own = metrics.score(
                "this explanation", model.head, score_units, dictionary, target_number, importance.per_class
            )
            controls = control_scores(model, fit_units, score_units, banks, target_number, keys["importance"], progress)
            scores = (own, *controls)
        with stopwatch("codes of whole photographs"):
            codes = encode_maps(seen.kept.maps, dictionary)
        concepts = describe(
            model, importance, fit_units, dictionary, crop_codes, boxes, target_number, strongest, one_each
        )
        nothing = np.asarray(model.head(jnp.zeros_like(jnp.asarray(score_units.maps[:1]))))
    return Explanation(
        model=model,
        target=target_number,
        target_chosen=chosen,
        photographs=kept,
        collected=seen.kept,
        fitted=fitted,
        held_out=held,
        crops=boxes,
        crop_activations=rows,
        crop_codes=crop_codes,
        dictionary=dictionary,
        codes=codes,
        importance=importance,
        importance_index=pictures[looked_at(model, len(pictures))],
        tcav=directions,
        gradient_times_code=gradients,
        concepts=concepts,
        scores=scores,
        accuracy_of_nothing=float(nothing.argmax(-1)[0] == target_number),
        fit=fit_summary(fitting.solution),
        notes=notes_on(
            model,
            target_number,
            other_reading(model.classes, target),
            every,
            seen,
            fitted=len(fit_units),
            scored=score_units,
            crops=crops_seen,
            fitting=fitting,
            scan=scan,
        ),
        settings=settings_of(model, rank, crops, fitting, held_out, key, target_number),
        path=fitting.path,
        rank_scan=scan,
        seconds=dict(stopwatch.seconds),
    )


def _crops_of(cropping: Cropping, shapes: list[tuple[int, int]], index: np.ndarray, key: Key[Array, ""]) -> Crops:
    """Crops of some of the photographs, which still count all of them."""
    found = cropping([shapes[number] for number in index], key=key)
    instance("crops", found, Crops, "RandomCrops(), whose results are Crops")
    return dataclasses.replace(found, image=index[found.image])

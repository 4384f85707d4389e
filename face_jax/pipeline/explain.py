"""From a model and photographs to an explanation: every stage, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ..explanation.parts import Bank, Provenance, Target
from ..explanation.record import Explanation
from ..model import SplitModel, photographs_for
from ..nmf.encoding import encode_maps
from ..nmf.options import AnyObjective, AnySolver, AnyStart
from ..signs import Signs
from ..support.arguments import Real, Seed, Whole, flag, key_of
from ..support.cache import no_cache
from ..support.classes import Target as Class
from ..support.classes import class_index
from ..support.interrupts import interruptible
from ..support.memory import exhaustion_in_words
from ..support.progress import Stopwatch
from ..support.progress_line import Watched, progress_of
from .checks import check_faithfulness, check_objects, check_rank, check_settings
from .controls import scores_of
from .effects import with_effects
from .fitting import choose_rank, fit
from .material import keys_of, material_of, places_in
from .provenance import fit_of, notes_on, settings_of
from .ranking import describe, weighed
from .selection import Activator, apart_if_signed, choose_class

_LESS = "give fewer photographs, fewer crops (crops=RandomCrops(per_image=…)), a smaller rank or a later layer"


@interruptible()
def explain(
    model: SplitModel,
    images: Any,
    target: Class | None = None,
    *,
    rank: Whole | Literal["auto"] = 25,
    crops: Any = None,
    faithfulness: Real | Literal["auto"] | None = None,
    objective: AnyObjective | None = None,
    solver: AnySolver | None = None,
    start: AnyStart | None = None,
    signs: Signs | None = None,
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
    found in crops of most of them, and scored on the rest. Of a model of several labels (`model.outputs` is
    `MultiLabel()`) a label is explained: where "class" stands below.

    **Arguments:**

    - `model`: a classifier split at a layer. Where its activations have entries below zero, `signs` says how they are
        explained, and a note does; codes are at least 0 everywhere.
    - `images`: anything that `face_jax.photographs` takes: a folder, files, an `.npz`, arrays.
    - `target`: the class, by name or number. A string that is a class's name means that class; else digits are a
        number, as integers always are. By default, the class that the model predicts most often here.
    - `rank`: number of concepts. `"auto"` scans ranks by the error on entries left out (`rank_scan`).
    - `crops`: which crops are taken; by default `RandomCrops`, at least ten a photograph and 300 in all.
    - `faithfulness`: λ of FACE's term, in the formula's unit (`½ ‖A − U Wᵀ‖² + λ Σ KL`), which keeps the predictions
        of the whole photographs fitted (of labels each one's); `"auto"` chooses it on some of them by a path. None: no
        such term.
    - `objective`, `solver`, `start`: for `factorize`; an objective of your own excludes `faithfulness`. The solver is
        `ADMM()` unless another one is given, or `SemiNMF()` for concepts of either sign. The start is `NNDSVD()` unless
        another one is given: the control "no steps taken" is then the very start of this fit.
    - `signs`: what becomes of activations below zero, if the photographs or crops have any. `"mixed"`, the default:
        concepts have entries of either sign (`SemiNMF`), which rebuild activations and predictions more closely.
        `"apart"`: positive and negative parts are channels of their own (`signs_apart`), and concepts are at least 0,
        which are found again more often in other photographs.
    - `held_out`: share of the photographs that is only scored on. A single one is scored on as many other crops.
    - `strongest`: strongest crops named for each concept, one of each photograph if `one_each`.
    - `batch`: pictures that go through the network together.
    - `key`: for crops, the split, the start and the controls; the same key, or seed, gives the same explanation.
    - `cache`: keeps activations between runs, such as `face_jax.ArrayCache(folder)`; nothing is kept by default.
        `face_jax.keep_compilations()` keeps compiled programs, which save a minute or two of each new process.
    - `progress`: whom to tell how far it is: True for a line on standard error, False for nobody, or a
        `face_jax.support.progress.Progress`. By default a line where a person watches, on a terminal or in a notebook.

    **Returns:** the explanation. Raises `ValueError`s that say what to do when it can't be had, among them
    `SignedActivationsError` for a non-negative `solver` at a layer with activations below zero.

    **Example:**

    >>> explanation = fj.explain(model, images, "warm", rank=3)
    >>> len(explanation.concepts), explanation.target_name
    (3, 'warm')
    """
    keys = keys_of(key := key_of(key))
    rank, held_out, strongest, batch = check_settings(rank, held_out, strongest, batch, crops)
    faithfulness = check_faithfulness(faithfulness, objective)
    solver, start, signs = check_objects(model, objective, solver, start, signs, cache)
    flag("one_each", one_each)
    progress, stopwatch = progress_of(progress), Stopwatch()
    with stopwatch("everything else"), exhaustion_in_words(f"images, crops and rank={rank}", _LESS):
        every = photographs_for(model, images)
        wanted = None if target is None else class_index(model.classes, target)
        activator = Activator(model, batch, cache, progress, stopwatch, solver if signs == "mixed" else None)
        number, chosen, seen = choose_class(model, activator.survey(every, wanted), wanted)
        if signs == "apart":
            activator, seen = apart_if_signed(activator, seen)
        places = places_in(every, seen, crops, held_out, keys, stopwatch, model.preprocess)
        check_rank(rank, len(places.crops), seen.kept.maps.shape[-1])
        activator, seen, material = material_of(activator, places, seen, number, keys, signs)
        model, rows = activator.model, material.pictures.crop_activations
        signed = material.signed if solver is None else solver.signed_dictionary
        rank, scan = choose_rank(rank, rows, signed=signed, key=keys["ranks"], progress=progress, stopwatch=stopwatch)
        fitting = fit(
            model.head, material, rank, faithfulness=faithfulness, objective=objective, signed=signed, solver=solver,
            start=start, keys=keys, progress=progress, stopwatch=stopwatch, outputs=model.outputs,
        )  # fmt: skip
        with stopwatch("importance"):
            importance, dictionary, crop_codes = weighed(model, material, fitting, number, keys, progress)
        with stopwatch("scores and controls"):
            scores = scores_of(model, material, fitting, dictionary, importance.sobol, number, keys, progress)
        with stopwatch("codes of whole photographs"):
            codes = encode_maps(seen.kept.maps, dictionary)
        concepts = describe(model, material, importance.sobol, dictionary, crop_codes, number, strongest, one_each)
        with stopwatch("what each concept does"):
            concepts = with_effects(concepts, model, seen.kept, codes, dictionary, number, keys["removals"])
    notes = notes_on(model, number, target, every, seen, material=material, fitting=fitting, scan=scan)
    settings = settings_of(model, rank, places.cropping, fitting, held_out, key, number)
    return Explanation(
        model=model,
        target=Target(number, chosen),
        pictures=material.pictures,
        bank=Bank(dictionary, crop_codes, codes, concepts),
        importance=importance,
        scores=scores,
        fit=fit_of(fitting, scan),
        provenance=Provenance(settings, notes, dict(stopwatch.seconds)),
    )

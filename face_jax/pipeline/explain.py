"""From a model and photographs to an explanation: every stage, in order."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal

from ..explanation.parts import Provenance, Target
from ..explanation.record import Explanation
from ..faithfulness.rows import streamed
from ..methods import Published
from ..methods.bank import places_of
from ..model import SplitModel, photographs_for
from ..nmf.options import AnyObjective, AnySolver, AnyStart
from ..signs import Signs
from ..support.arguments import Real, Seed, Whole, flag, key_of
from ..support.cache import no_cache
from ..support.classes import Target as Class
from ..support.classes import class_index
from ..support.interrupts import interruptible
from ..support.memory import exhaustion_in_words
from ..support.precision import full_precision
from ..support.progress import Stopwatch
from ..support.progress_line import Watched, progress_of
from .checks import check_faithfulness, check_objects, check_rank, check_settings, room_of, streams
from .finishing import finished
from .fitting import choose_rank, fit
from .material import keys_of, material_of, places_in
from .presets import fit_by_scikit, note_on, preset_of
from .provenance import fit_of, notes_on, settings_of
from .selection import Activator, apart_if_signed, choose_class

if TYPE_CHECKING:
    PresetName = Literal["face", "craft", "ice"] | Published | None
    Folder = str | os.PathLike[str] | None
else:
    # Whoever gives something else is told so in words.
    PresetName = Folder = Any
_RANK = 25
_LESS = "give fewer photographs, fewer crops (crops=RandomCrops(per_image=…)), a smaller rank or a later layer"


@interruptible()
@full_precision
def explain(
    model: SplitModel,
    images: Any,
    target: Class | None = None,
    *,
    rank: Whole | Literal["auto"] | None = None,
    crops: Any = None,
    faithfulness: Real | Literal["auto", "usual"] | None = "usual",
    objective: AnyObjective | None = None,
    solver: AnySolver | None = None,
    start: AnyStart | None = None,
    signs: Signs | None = None,
    preset: PresetName = None,
    held_out: Real = 0.2,
    strongest: Whole = 8,
    one_each: bool = True,
    batch: Whole = 32,
    key: Seed = None,
    cache: Callable[..., Any] = no_cache,
    memory: Real | None = None,
    store: Folder = None,
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
    - `rank`: number of concepts, 25 by default. `"auto"` scans ranks by the error on entries left out (`rank_scan`).
    - `crops`: which crops are taken; by default `RandomCrops`, at least ten a photograph and 300 in all.
    - `faithfulness`: λ of FACE's term, in the formula's unit (`½ ‖A − U Wᵀ‖² + λ Σ KL`), which keeps the predictions
        of the whole photographs fitted (of labels each one's); `"auto"` chooses it on parts of them by a path. None: no
        such term. `"usual"`, the default: as `"auto"` where the head is affine and there are photographs enough to
        choose λ on (12 that are fitted, or as many crops of a single one), else none; a note says why.
    - `objective`, `solver`, `start`: for `factorize`; an objective of your own excludes `faithfulness`. The solver is
        `ADMM()` unless another one is given, or `SemiNMF()` for concepts of either sign. The start is `NNDSVD()` unless
        another one is given: the control "no steps taken" is then the very start of this fit.
    - `signs`: what becomes of activations below zero, if the photographs or crops have any. `"mixed"`, the default:
        concepts have entries of either sign (`SemiNMF`), which rebuild activations and predictions more closely;
        without a faithfulness term they are found at all places of the photographs, with a price on codes, because
        any mixture of them would fit as well else. `"apart"`: positive and negative parts are channels of their own
        (`signs_apart`), and concepts are at least 0.
    - `preset`: a paper's settings from end to end, `"face"`, `"craft"` or `"ice"`: crops, number of concepts, solver, λ
        and its unit, codes, importance and scores; or a `methods.Published`. What is given beside it wins, λ in its
        unit; notes say so, and in what it differs from the default. Photographs are held out, as always.
    - `held_out`: share of the photographs that is only scored on. A single one is scored on as many other crops.
    - `strongest`: strongest crops named for each concept, one of each photograph if `one_each`.
    - `batch`: pictures that go through the network together.
    - `key`: for crops, the split, the start and the controls; the same key, or seed, gives the same explanation.
    - `cache`: keeps activations between runs, such as `face_jax.ArrayCache(folder)`; nothing is kept by default.
        `face_jax.keep_compilations()` keeps compiled programs, which save a minute or two of each new process.
    - `memory`: GiB of memory that activations may take; by default half of what is free. More of them are kept in
        files and read in blocks; a note says so, and results are those in memory, to rounding. Beside them a run needs
        the network's own memory, and that of averages, logits and codes.
    - `store`: the folder of these files, which go with the explanation; by default the system's for temporary files.
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
    paper = preset_of(
        preset, rank=rank, crops=crops, faithfulness=faithfulness, objective=objective, solver=solver, start=start
    )
    if rank is None:
        rank = _RANK if paper is None else paper.paper.rank
    rank, held_out, strongest, batch = check_settings(rank, held_out, strongest, batch, crops)
    faithfulness = check_faithfulness(faithfulness, objective)
    flag("one_each", one_each)
    room = room_of(memory, store)
    progress, stopwatch = progress_of(progress), Stopwatch()
    with (
        stopwatch("everything else"),
        exhaustion_in_words(f"images, crops and rank={rank}", _LESS),
        nullcontext() if paper is None else paper.refusing_signs(),
    ):
        if paper is not None:
            solver, start, faithfulness = paper.solver, paper.start, paper.faithfulness
        solver, start, signs = check_objects(model, objective, solver, start, signs, cache)
        if paper is not None:
            paper.check(model)
        every = photographs_for(model, images)
        wanted = None if target is None else class_index(model.classes, target)
        activator = Activator(model, batch, cache, progress, stopwatch, solver if signs == "mixed" else None,
                              room, streams(solver, start, paper))  # fmt: skip
        number, chosen, seen = choose_class(model, activator.survey(every, wanted), wanted)
        if signs == "apart":
            activator, seen = apart_if_signed(activator, seen)
        if paper is not None:
            paper.check_photographs(len(seen.index))
            crops = paper.cropping(model.preprocess)
        places = places_in(every, seen, crops, held_out, keys, stopwatch, model.preprocess,
                           room if activator.streams else None)  # fmt: skip
        maps = seen.kept.maps
        each = maps.shape[1] * maps.shape[2]
        count = len(places.fitted) * each if paper is not None and paper.of_places else len(places.crops)
        check_rank(rank, count, maps.shape[-1])
        averaged = None if paper is None or not model.head.affine else paper.paper.averaged
        activator, seen, material = material_of(activator, places, seen, number, keys, signs, averaged=averaged)
        model, rows = activator.model, material.pictures.crop_activations
        whole = None
        if paper is not None and paper.of_places:
            rows = whole = places_of(seen.kept.maps[places.fitted])
        signed = material.signed if solver is None else solver.signed_dictionary
        rank, scan = choose_rank(
            rank, streamed(rows), signed=signed, key=keys["ranks"], progress=progress, stopwatch=stopwatch
        )
        if paper is not None and paper.by_scikit:
            with stopwatch("factorization"), progress("Factorizing", 1) as advance:
                fitting = fit_by_scikit(paper.method, rows, material.pictures.crop_activations, rank, keys["start"])
                advance(1)
        else:
            fitting = fit(
                model.head, material, rank, faithfulness=faithfulness, signed=signed, solver=solver, start=start,
                objective=objective if paper is None else paper.objective(model.head, model.outputs), keys=keys,
                progress=progress, stopwatch=stopwatch, outputs=model.outputs, rows=whole,
            )  # fmt: skip
        found = finished(
            model, Target(number, chosen), material, fitting, seen, keys, strongest=strongest, one_each=one_each,
            progress=progress, stopwatch=stopwatch, preset=paper,
        )  # fmt: skip
    notes = notes_on(model, number, target, every, seen, material=material, fitting=fitting, scan=scan, preset=paper,
                     room=room)  # fmt: skip
    if paper is not None:
        notes = (note_on(paper, found.scores.own), *notes)
    settings = settings_of(model, rank, places.cropping, fitting, held_out, key, number, paper)
    return found.explanation(fit_of(fitting, scan), Provenance(settings, notes, dict(stopwatch.seconds)))

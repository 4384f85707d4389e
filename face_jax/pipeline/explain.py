"""From a model and photographs to an explanation: every stage, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from ..explanation.record import Explanation
from ..model import SplitModel, photographs_for
from ..nmf.options import AnyObjective, AnySolver, AnyStart
from ..signs import Signs
from ..support.arguments import Real, Seed, Whole
from ..support.cache import no_cache
from ..support.classes import Target as Class
from ..support.classes import class_index
from ..support.interrupts import interruptible
from ..support.memory import exhaustion_in_words
from ..support.precision import full_precision
from ..support.progress import Stopwatch, open_stage
from ..support.progress_line import Watched
from .checks import Folder
from .fitting import solved
from .one_class import PresetName, asked_for, begun, explained, ready_of

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
    asked = asked_for(
        model, rank=rank, crops=crops, faithfulness=faithfulness, objective=objective, solver=solver, start=start,
        signs=signs, preset=preset, held_out=held_out, strongest=strongest, one_each=one_each, batch=batch, key=key,
        cache=cache, memory=memory, store=store, progress=progress,
    )  # fmt: skip
    stopwatch = Stopwatch()
    with (
        # Whoever is to be told is told by `asked`, and nobody else by what is called inside.
        open_stage(),
        stopwatch("everything else"),
        exhaustion_in_words(f"images, crops and rank={asked.rank}", _LESS),
        asked.refusing_signs(),
    ):
        every = photographs_for(model, images)
        wanted = None if target is None else class_index(model.classes, target)
        activator = asked.activator(stopwatch)
        ready = ready_of(asked, activator, every, activator.survey(every, wanted), wanted, word=target)
        problem, scan = begun(asked, ready.material, ready.model, ready.keys, stopwatch)
        fitting = solved(problem, progress=asked.progress, stopwatch=stopwatch)
        return explained(asked, ready, fitting, scan)

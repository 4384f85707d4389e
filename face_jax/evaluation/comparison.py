"""`compare_methods`: methods and controls on folds of the same pictures, each fitted, scored and fitted again."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from .. import metrics
from ..activations import Collected
from ..methods import CONTROLS, Bank, BySobol, Inference, Method, Weighing
from ..metrics import Stability
from ..model import SplitModel, check_model
from ..nmf.validate import rank_of
from ..support.arguments import Seed, Whole, flag, function, instance, key_of, real_array, several, whole
from ..support.classes import Target as Class
from ..support.classes import class_index
from ..support.precision import full_precision
from ..support.progress_line import Watched, progress_of
from ..support.randomness import generator
from .bank_scores import score_bank
from .kept_results import Kept
from .pictures import as_scored, pictures_of, same_pictures
from .results import Comparison, MethodResult

if TYPE_CHECKING:
    Methods = Sequence[Method]
    Measure = Weighing | None
    Rule = Inference | None
else:
    # Whoever gives something else is told so by the checks below.
    Methods = Measure = Rule = Any


@full_precision
def compare_methods(
    model: SplitModel,
    pictures: Any,
    methods: Methods,
    *,
    target: Class,
    rank: Whole = 25,
    folds: Whole = 5,
    starts: Whole = 2,
    crops: Collected | None = None,
    crop_of: Any = None,
    controls: Methods = CONTROLS,
    importance: Measure = BySobol(),  # noqa: B008 (settings: frozen)
    inference: Rule = None,
    own: bool = False,
    folder: Any = None,
    key: Seed = None,
    progress: Watched = None,
) -> Comparison:
    """Methods and controls on folds of the same pictures: each is fitted without a fold, and scored on it.

    All have the same rank, folds, inference and importance, so that numbers differ by the concepts alone.

    **Arguments:**

    - `model`: the split classifier.
    - `pictures`: photographs, of which those are kept that the model puts in the class, or `Collected` activations.
    - `methods`: any objects with a name and `fit`; see `methods.Method`.
    - `target`: the class.
    - `rank`: how many concepts.
    - `folds`: how many parts the pictures are divided into, at random, at least 2.
    - `starts`: how many fits of the first fold's pictures are compared, each with another key, and from random starts
        where a method begins always at the same place otherwise; 1 for none.
    - `crops`: activations of crops, whole maps unless the head averages first; methods are fitted on them, except
        those that take whole pictures. Without them all are fitted on pictures.
    - `crop_of`: for each crop the number of its picture.
    - `controls`: methods to be beaten.
    - `importance`: the measure, for all methods.
    - `inference`: the rule for codes, for all methods; None for non-negative least squares, and least squares where
        codes have signs.
    - `own`: whether each method has its own inference and importance instead, where it names such.
    - `folder`: keeps each result in a JSON file, and takes what is there already of the same model, pictures,
        settings, code of methods and measures, and face_jax: a comparison that was stopped goes on, and an edited
        method is fitted anew. A field of a dataclass with `compare=False`, such as a cache, tells no two apart.
    - `key`: for folds and fits, or a seed.
    - `progress`: as for `explain`.

    **Returns:** means and deviations over the folds, with the controls and the ceilings. Raises `ValueError` before any
    fit for pictures that are there twice, too few pictures, methods with the same name, objects that aren't methods, a
    rank that one of them refuses (`check_rank`), and with `folder` for methods that can't be told apart from others,
    such as compiled functions of one's own.

    **Example:**

    >>> from face_jax.methods import NMF
    >>> found = fj.compare_methods(model, images, [NMF()], target="warm", rank=2, folds=2, starts=1, controls=())
    >>> [row["method"] for row in found.table()]
    ['NMF']
    """
    check_model(model)
    compared, controlled = _methods("methods", methods), _methods("controls", controls)
    chosen = [*compared, *controlled]
    names = [method.name for method in chosen]
    double = [name for name in names if names.count(name) > 1]
    if double or not chosen:
        said = f"has {double[0]!r} twice; give each a name of its own" if chosen else "is empty; give at least one"
        raise ValueError(f"methods {said}")
    rank, target, key = rank_of(rank), class_index(model.classes, target), key_of(key)
    folds, starts = whole("folds", folds, "parts", least=2), whole("starts", starts, "fits", least=1)
    if not flag("own", own) or importance is not None:
        function("importance", importance, "a measure such as methods.BySobol()")
    if inference is not None:
        function("inference", inference, "a rule such as methods.LeastSquares()")
    seen = pictures_of(model, pictures, target, "pictures")
    _check_pictures(seen, folds)
    crop_of = _check_crops(crops, crop_of, seen, model)
    parts = np.array_split(generator(jax.random.fold_in(key, 0)).permutation(len(seen)), folds)
    _check_ranks(chosen, rank, parts, seen, crops, crop_of)
    kept = Kept(folder)
    common = [
        model.fingerprint,
        kept.digest([seen, None if crops is None else crops.maps, crop_of], "pictures"),
        kept.digest([model.outputs, target, rank, folds, key, own], "model.outputs"),
        kept.digest(importance, "importance"),
        kept.digest(inference, "inference"),
    ]
    # All of them before any fit, which may change what a method holds.
    digests = [kept.digest(method, f"methods, {method.name!r},") for method in chosen]
    report, results = progress_of(progress), []
    repeats = range(1, starts + 1) if starts > 1 else ()
    fits = [*((fold, 0) for fold in range(folds)), *((0, repeat) for repeat in repeats)]
    rows = as_scored(seen, averaged=True).maps[:, 0, 0]
    with report("Comparing methods", len(chosen) * len(fits)) as advance:
        for number, method in enumerate(chosen):
            found = []
            for fold, repeat in fits:
                of_fit = jax.random.fold_in(jax.random.fold_in(key, 1 + repeat), fold)

                def computed(fold: int = fold, repeat: int = repeat, method: Any = method, of_fit: Any = of_fit) -> Any:
                    training = np.sort(np.concatenate([part for other, part in enumerate(parts) if other != fold]))
                    random = getattr(method, "started_at_random", None) if repeat else None
                    method = method if random is None else random()
                    fitted, bank, seconds = _fit(model, seen, crops, crop_of, training, method, rank, of_fit)
                    if repeat:
                        return {"dictionary": bank.dictionary, "signed": bank.signed_codes, "offset": bank.offset}
                    measured = bank.importance if own and bank.importance is not None else importance
                    rule = bank.inference if own and bank.inference is not None else inference
                    score = score_bank(
                        model, seen[np.sort(parts[fold])], bank, target=target, fitted=fitted,
                        importance=BySobol() if measured is None else measured, inference=rule, key=of_fit,
                    )  # fmt: skip
                    curves = score.score.fidelity
                    return {
                        "numbers": score.table(), "insertion": curves.insertion.accuracy,
                        "deletion": curves.deletion.accuracy, "dictionary": bank.dictionary,
                        "signed": bank.signed_codes, "offset": bank.offset, "seconds": seconds,
                    }  # fmt: skip

                depends = [*common, digests[number], method.name, str(fold), str(repeat)]
                found.append(kept(f"{method.name} fold {fold} start {repeat}", depends, computed))
                advance(1)
            results.append(_result(method, number >= len(compared), found, folds, rows, key))
    return Comparison(
        tuple(results), rank, len(seen), tuple(np.sort(part) for part in parts), model.name, model.layer,
        model.classes[target], model.outputs.exclusive, bool(own),
    )  # fmt: skip


def _fit(
    model: SplitModel,
    seen: Collected,
    crops: Collected | None,
    crop_of: Any,
    training: Int[np.ndarray, " picture"],
    method: Any,
    rank: int,
    key: Key[Array, ""],
) -> tuple[Collected, Bank, float]:
    """The pictures fitted, the bank, and how long it took."""
    fitted = seen[training]
    activations, of_pictures = fitted.maps, np.arange(len(fitted))
    if crops is not None and getattr(method, "crops", True):
        some = np.isin(crop_of, training)
        # Numbers of pictures count those fitted.
        activations, of_pictures = crops.maps[some], np.searchsorted(training, crop_of[some])
    prepared = getattr(method, "prepared", None)
    if prepared is not None:
        method = prepared(model, fitted if not model.head.affine else as_scored(fitted, averaged=True), of_pictures)
    begun = time.perf_counter()
    bank = method.fit(activations, rank, key)
    seconds = time.perf_counter() - begun
    instance(f"{method.name}.fit's result", bank, Bank, "methods.Bank(dictionary, name)")
    if bank.dictionary.shape != (rank, seen.maps.shape[-1]):
        raise ValueError(
            f"{method.name} gives a dictionary of shape {bank.dictionary.shape}; give {(rank, seen.maps.shape[-1])}"
        )
    return fitted, dataclasses.replace(bank, name=method.name), seconds


def _result(
    method: Any, control: bool, found: list[dict[str, Any]], folds: int, rows: Any, key: Key[Array, ""]
) -> MethodResult:
    of_folds, of_starts = found[:folds], found[folds:]

    def likeness(some: list[dict[str, Any]]) -> Stability:
        dictionaries = [each["dictionary"] for each in some]
        offsets = [each["offset"] for each in some if each["offset"] is not None]
        # Concepts about an offset lie where rows less the offset do.
        about = rows if not offsets else rows - np.mean(offsets, axis=0)
        return metrics.stability(dictionaries, rows=about, either_sign=bool(some[0]["signed"]), key=key)

    return MethodResult(
        name=method.name,
        control=control,
        folds=tuple(each["numbers"] for each in of_folds),
        insertion=np.stack([each["insertion"] for each in of_folds]),
        deletion=np.stack([each["deletion"] for each in of_folds]),
        over_folds=likeness(of_folds),
        over_starts=likeness(of_starts) if len(of_starts) > 1 else None,
        seconds=tuple(float(each["seconds"]) for each in of_folds),
        dictionaries=tuple(each["dictionary"] for each in of_folds),
        learned=bool(getattr(method, "learned", not control)),
    )


def _methods(name: str, given: Any) -> list[Any]:
    found = list(several(name, given, "methods"))
    for each in found:
        if isinstance(each, type) or not isinstance(each, Method) or not isinstance(each.name, str):
            raise ValueError(
                f"{name} has {each!r}, which isn't a method; give objects with a name and fit(activations, rank, key), "
                "such as methods.NMF()"
            )
    return found


def _check_pictures(seen: Collected, folds: int) -> None:
    if len(seen) < folds:
        raise ValueError(
            f"folds={folds} of {len(seen)} pictures; give at most {len(seen)}, or more pictures of the class"
        )
    if same := same_pictures(seen):
        first, second = same[0]
        raise ValueError(
            f"{len(same)} pictures are there twice, the first two are {first} and {second}; leave one of each out, so "
            "that none is scored on that was fitted"
        )


def _check_ranks(
    chosen: Sequence[Any], rank: int, parts: Sequence[Any], seen: Collected, crops: Collected | None, crop_of: Any
) -> None:
    """Asks all methods whether they find so many concepts in what they'll be fitted on, where the least is."""
    pictures = len(seen) - max(len(part) for part in parts)
    of_crops = None if crops is None else len(crops) - max(int(np.isin(crop_of, part).sum()) for part in parts)
    for method in chosen:
        check = getattr(method, "check_rank", None)
        if check is not None:
            if crops is None or not getattr(method, "crops", True):
                check(rank, (pictures, *seen.maps.shape[1:]))
            else:
                check(rank, (of_crops, *crops.maps.shape[1:]))


def _check_crops(crops: Any, crop_of: Any, seen: Collected, model: SplitModel) -> Any:
    pictures, channels = len(seen), seen.maps.shape[-1]
    if crops is None:
        if crop_of is not None:
            raise ValueError("crop_of is given and crops isn't; give both, or neither")
        return None
    instance("crops", crops, Collected, "activations of crops")
    numbers = real_array("crop_of", np.zeros(0) if crop_of is None else crop_of)
    if numbers.shape != (len(crops),) or (numbers != numbers.astype(np.int64)).any():
        raise ValueError(
            f"crop_of has shape {numbers.shape} for {len(crops)} crops; give each crop's picture, a number"
        )
    if crops.maps.shape[-1] != channels:
        raise ValueError(f"crops has {crops.maps.shape[-1]} channels and pictures {channels}; give those of one layer")
    if not len(crops) or numbers.min() < 0 or numbers.max() >= pictures:
        raise ValueError(f"crop_of names pictures beyond the {pictures} given; count them from 0")
    if crops.logits.shape[1] != len(model.classes):
        raise ValueError(f"crops has logits of {crops.logits.shape[1]} classes; give what {model.name} makes of crops")
    return numbers.astype(np.int64)

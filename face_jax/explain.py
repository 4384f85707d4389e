"""The whole river: a model and photographs in, an explanation out."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import math
import platform
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from . import metrics
from .activations import Collected, Cropping, Crops, RandomCrops, Survey
from .cache import no_cache
from .classes import class_index
from .concepts import Concept, coverage, encode_maps, strongest_crops
from .explanation import Explanation
from .factorize import ADMM, NNDSVD, SquaredError, encode, factorize, rank_scan
from .faithfulness import Path, faithful_rows, faithfulness_path
from .faithfulness.path import SOLVER as FAITHFUL_SOLVER
from .heads import Affine
from .importance import Sobol, contributions, total_sobol
from .model import SplitModel
from .photographs import Photograph, photographs
from .progress import Progress, Stopwatch, silent
from .selection import Activator, choose_class, of_class, place_average, split, units

# Behind a head that isn't affine, importance takes thousands of calls of the head for each picture.
_SAMPLED_PICTURES = 12
# Ranks that are compared when none is given.
_RANKS = (2, 4, 6, 8, 10, 15, 20, 25, 30, 40)
# Below this many pictures held out, a score's last digit is one picture.
_FEW_HELD_OUT = 10


def explain(
    model: SplitModel,
    images: Any,
    target: int | str | None = None,
    *,
    rank: int | Literal["auto"] = 25,
    crops: Cropping | None = None,
    faithfulness: float | Literal["auto"] | None = None,
    objective: Any = None,
    solver: Any = None,
    start: Any = None,
    held_out: float = 0.2,
    strongest: int = 8,
    batch: int = 32,
    key: Key[Array, ""] | None = None,
    cache: Callable[..., Any] = no_cache,
    progress: Progress = silent,
) -> Explanation:
    """Which concepts a classifier uses for a class: from photographs to an explanation with every stage in it.

    Photographs are kept when the *model* predicts the class, whatever they show (CRAFT, section 3.1). Concepts are
    found in crops of most of them, and scored on the rest.

    **Arguments:**

    - `model`: a classifier split at a layer whose activations are not negative.
    - `images`: anything that `face_jax.photographs` takes: a folder, files, an `.npz`, arrays.
    - `target`: the class, by name or number. By default, the class that the model predicts most often here.
    - `rank`: number of concepts. `"auto"` scans ranks by the error on entries left out (`rank_scan`).
    - `crops`: which crops are taken; by default `RandomCrops`, at least ten a photograph and 300 in all.
    - `faithfulness`: λ of FACE's term, in the formula's unit (`½ ‖A − U Wᵀ‖² + λ Σ KL`), which keeps the predictions
        of the whole photographs fitted; `"auto"` chooses it on some of them by a path. None: no such term.
    - `objective`, `solver`, `start`: for `factorize`; an objective of your own excludes `faithfulness`.
    - `held_out`: share of the photographs that is only scored on. A single one is scored on as many other crops.
    - `strongest`: strongest crops named for each concept.
    - `batch`: pictures that go through the network together.
    - `key`: for crops, the split, the start and the controls; the same key gives the same explanation.
    - `cache`: keeps activations between runs (`ArrayCache`).
    - `progress`: told how far it is.

    **Returns:** the explanation. Raises `ValueError`s that say what to do when it can't be had.
    """
    key = jax.random.key(0) if key is None else key
    keys = dict(
        zip(
            ["split", "crops", "more crops", "start", "importance", "controls", "ranks"],
            jax.random.split(key, 7),
            strict=True,
        )
    )
    _check(rank, held_out, batch)
    _check_faithfulness(faithfulness, objective)
    stopwatch = Stopwatch()
    with stopwatch("everything else"):
        every = photographs(images)
        wanted = None if target is None else class_index(model.classes, target)
        activator = Activator(model, batch, cache, progress, stopwatch)
        target_number, chosen, seen = choose_class(model, activator.survey(every, wanted), wanted)
        kept = tuple(every[number] for number in seen.index)
        fitted, held = split(len(kept), held_out, key=keys["split"])
        with stopwatch("reading and resizing pictures"):
            shapes = [photograph.pixels().shape[:2] for photograph in kept]
        crops = crops or RandomCrops(per_image=max(10, math.ceil(300 / len(fitted))))
        boxes = _crops_of(crops, shapes, fitted, keys["crops"])
        most = min(len(boxes), seen.kept.maps.shape[-1])
        _check_rank(rank, len(boxes), seen.kept.maps.shape[-1])
        affine, single = model.head.affine, len(kept) == 1
        crop_data = activator.crops(kept, boxes, maps=single and not affine)
        rows = place_average(crop_data)
        if single:
            others = _crops_of(crops, shapes, held, keys["more crops"])
            fit_units = of_class(crop_data, target_number)
            score_units = of_class(activator.crops(kept, others, maps=not affine), target_number)
        else:
            fit_units, score_units = (units(seen.kept[index], affine=affine) for index in (fitted, held))

        scan = None
        if rank == "auto":
            with stopwatch("choice of the rank"), progress("Comparing ranks", 1) as advance:
                ranks = [candidate for candidate in _RANKS if candidate <= most]
                scan = rank_scan(jnp.asarray(rows), ranks, key=keys["ranks"])
                rank = scan.suggested
                advance(1)
        with stopwatch("factorization"), progress("Factorizing", 1) as advance:
            objective = SquaredError() if objective is None else objective
            solver = (ADMM() if faithfulness is None else FAITHFUL_SOLVER) if solver is None else solver
            start = NNDSVD() if start is None else start
            fit_rows, path = rows, None
            if faithfulness is not None:
                fit_rows, term = faithful_rows(model.head, rows, fit_units.maps)
                if faithfulness == "auto":
                    path = _path(model, rows, fit_units, rank, solver, start, keys)
                objective = SquaredError() + (float(faithfulness) if path is None else path.weight) * term
            solution = factorize(
                jnp.asarray(fit_rows), rank, objective=objective, solver=solver, start=start, key=keys["start"]
            )
            dictionary = np.asarray(solution.dictionary)
            # Rows that the term needed are behind the crops', or in their place.
            crop_codes = np.asarray(solution.codes)[: len(rows)]
            if not (affine or faithfulness is None):
                crop_codes = np.asarray(encode(jnp.asarray(rows), solution.dictionary))
            advance(1)
        with stopwatch("importance"):
            importance = _importance(model, fit_units, dictionary, target_number, keys["importance"], progress)
            order = np.argsort(-importance.total.mean(0), kind="stable")
            dictionary, crop_codes = dictionary[order], crop_codes[:, order]
            importance = dataclasses.replace(
                importance, **{name: getattr(importance, name)[:, order] for name in ("total", "low", "high")}
            )
        with stopwatch("scores and controls"):
            banks = _controls(fit_rows, rank, objective, solver, start, keys)
            own = metrics.score(
                "this explanation", model.head, score_units, dictionary, target_number, importance.total.mean(0)
            )
            controls = _scores(model, fit_units, score_units, banks, target_number, keys["importance"], progress)
            scores = (own, *controls)
        with stopwatch("codes of whole photographs"):
            codes = encode_maps(seen.kept.maps, dictionary)
        concepts = _describe(model, importance, fit_units, dictionary, crop_codes, boxes, target_number, strongest)
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
        concepts=concepts,
        scores=scores,
        accuracy_of_nothing=float(nothing.argmax(-1)[0] == target_number),
        fit=_fit_summary(solution),
        notes=_notes(every, seen, len(fit_units), len(score_units), solution),
        settings=_settings(model, rank, crops, objective, solver, start, held_out, key, target_number),
        path=path,
        rank_scan=scan,
        seconds=dict(stopwatch.seconds),
    )


def _crops_of(cropping: Cropping, shapes: list[tuple[int, int]], index: np.ndarray, key: Key[Array, ""]) -> Crops:
    """Crops of some of the photographs, which still count all of them."""
    found = cropping([shapes[number] for number in index], key=key)
    return Crops(image=index[found.image], box=found.box)


def _path(
    model: SplitModel,
    rows: Float[np.ndarray, "row channel"],
    pictures: Collected,
    rank: int,
    solver: Any,
    start: Any,
    keys: dict[str, Any],
) -> Path:
    """Solutions along λ, judged on a quarter of the pictures fitted; those held out are for the scores alone."""
    if len(pictures) < 2:
        raise ValueError(
            'faithfulness="auto" chooses λ on some of the pictures, and there is only one; give λ as a number, such as '
            "faithfulness=1e3, or more photographs"
        )
    learned, judged = split(len(pictures), 0.25, key=jax.random.fold_in(keys["controls"], 1))
    learned_rows, term = faithful_rows(model.head, rows, pictures.maps[learned])
    other, other_term = faithful_rows(model.head, rows[:0], pictures.maps[judged])
    return faithfulness_path(
        jnp.asarray(learned_rows),
        rank,
        term,
        jnp.asarray(other),
        held_out_term=other_term,
        solver=solver,
        start=start,
        key=keys["start"],
    )


def _importance(
    model: SplitModel,
    units: Collected,
    dictionary: Float[np.ndarray, "concept channel"],
    target: int,
    key: Key[Array, ""],
    progress: Progress,
) -> Sobol:
    if not model.head.affine and len(units) > _SAMPLED_PICTURES:
        units = units[np.linspace(0, len(units) - 1, _SAMPLED_PICTURES).round().astype(np.int64)]
    codes = jnp.asarray(encode_maps(units.maps, dictionary))
    scrambles = 4
    with progress("Importance", scrambles) as advance:
        return total_sobol(
            model.head, codes, jnp.asarray(dictionary), target, scrambles=scrambles, advance=advance, key=key
        )


def _scores(
    model: SplitModel,
    fit_units: Collected,
    score_units: Collected,
    banks: dict[str, Float[np.ndarray, "concept channel"]],
    target: int,
    key: Key[Array, ""],
    progress: Progress,
) -> tuple[metrics.Score, ...]:
    rows = []
    with progress("Controls", len(banks)) as advance:
        for name, dictionary in banks.items():
            importance = _importance(model, fit_units, dictionary, target, key, silent).total.mean(0)
            rows.append(metrics.score(name, model.head, score_units, dictionary, target, importance))
            advance(1)
    return tuple(rows)


def _describe(
    model: SplitModel,
    importance: Sobol,
    fit_units: Collected,
    dictionary: Float[np.ndarray, "concept channel"],
    crop_codes: Float[np.ndarray, "crop concept"],
    boxes: Crops,
    target: int,
    strongest: int,
) -> tuple[Concept, ...]:
    share = coverage(crop_codes, boxes)
    total, low, high = (values.mean(0) for values in (importance.total, importance.low, importance.high))
    added = None
    if isinstance(model.head, Affine):
        codes = jnp.asarray(encode_maps(fit_units.maps, dictionary))
        added = contributions(model.head, codes, jnp.asarray(dictionary), target).mean(0)
    return tuple(
        Concept(
            number=number + 1,
            importance=float(total[number]),
            low=float(low[number]),
            high=float(high[number]),
            contribution=None if added is None else float(added[number]),
            coverage=float(share[number]),
            strongest=strongest_crops(crop_codes[:, number], boxes, strongest),
        )
        for number in range(len(total))
    )


def _controls(
    rows: Float[np.ndarray, "row channel"], rank: int, objective: Any, solver: Any, start: Any, keys: dict[str, Any]
) -> dict[str, Float[np.ndarray, "concept channel"]]:
    """Banks whose scores say what this explanation's are worth."""
    first, second = jax.random.split(keys["controls"])
    activations = jnp.asarray(rows)
    banks = {}
    if objective.terms:
        plain = factorize(activations, rank, objective=SquaredError(), solver=solver, start=start, key=keys["start"])
        banks["λ = 0: the same without the faithfulness term"] = np.asarray(plain.dictionary)
    begun = np.asarray(NNDSVD()(activations, rank, signed=False, key=keys["start"])[1])
    banks["NNDSVD start, no steps taken"] = metrics.unit_length(begun)
    banks["mean activation and noise"] = metrics.mean_direction(rows, rank, key=first)
    banks["random directions"] = metrics.random_dictionary(rows.shape[1], rank, key=second).astype(rows.dtype)
    return banks


def _notes(every: tuple[Photograph, ...], seen: Survey, fitted: int, scored: int, solution: Any) -> tuple[str, ...]:
    notes = []
    if seen.skipped:
        named = "; ".join(seen.skipped[:10]) + (" …" if len(seen.skipped) > 10 else "")
        notes.append(f"{len(seen.skipped)} of {len(every)} files were skipped, because they can't be read: {named}")
    if len(seen.index) == 1:
        notes.append(
            "One photograph: these are the concepts of this picture, not of the class. They are found in crops of it "
            "and scored on other crops of it, which overlap. Give 20 photographs or more to explain the class."
        )
    elif scored < _FEW_HELD_OUT:
        notes.append(
            f"Only {scored} photographs are held out to score on, {fitted} are fitted: a share moves by "
            f"{1 / scored:.0%} with each of them. Give 50 photographs or more for scores that can be compared."
        )
    if not bool(solution.result.successful):
        notes.append(f"The factorization didn't converge: {solution.result.message}")
    return tuple(notes)


def _settings(
    model: SplitModel,
    rank: int,
    crops: Any,
    objective: Any,
    solver: Any,
    start: Any,
    held_out: float,
    key: Key[Array, ""],
    target: int,
) -> dict[str, Any]:
    packages = ("face-jax", "jax", "jaxlib", "numpy", "flax", "torch", "torchvision")
    return {
        "model": model.name,
        "layer": model.layer,
        "fingerprint": model.fingerprint,
        "target": target,
        "rank": rank,
        "crops": repr(crops),
        "objective": repr(objective),
        "faithfulness": bool(objective.terms),
        "solver": repr(solver),
        "start": repr(start),
        "held_out": held_out,
        "key": np.asarray(jax.random.key_data(key)).tolist(),
        "preprocess": dataclasses.asdict(model.preprocess),
        "versions": {name: version for name in packages if (version := _version(name))},
        "python": platform.python_version(),
        "device": str(jax.devices()[0]),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _check(rank: int | str, held_out: float, batch: int) -> None:
    if rank != "auto" and (isinstance(rank, str) or rank < 1):
        raise ValueError(f"rank={rank!r} is no number of concepts; give 1 or more, or 'auto'")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out={held_out} is no share; give a number between 0 and 1, such as 0.2")
    if batch < 1:
        raise ValueError(f"batch={batch} is no number of pictures; give 1 or more")


def _check_faithfulness(faithfulness: Any, objective: Any) -> None:
    if faithfulness is None or (isinstance(faithfulness, str) and faithfulness == "auto" and objective is None):
        return
    if objective is not None:
        raise ValueError(
            "faithfulness and objective are both given; write the term into the objective, SquaredError() + λ * "
            "Faithfulness(model.head), or leave one out"
        )
    if isinstance(faithfulness, (str, bool)) or not (math.isfinite(faithfulness) and faithfulness >= 0):
        raise ValueError(f'faithfulness={faithfulness!r} is no λ; give a number of at least 0, or "auto"')


def _check_rank(rank: int | str, crops: int, channels: int) -> None:
    least = _RANKS[0] if isinstance(rank, str) else rank
    if least > min(crops, channels):
        raise ValueError(
            f"rank={least} is more than {crops} crops of {channels} channels allow; give at most "
            f"{min(crops, channels)}, or more photographs or crops"
        )


def _fit_summary(solution: Any) -> dict[str, Any]:
    stats = solution.stats
    return {
        "result": solution.result.message,
        "steps": int(stats.steps),
        "objective": float(stats.final_objective),
        "scaled_kkt_residual": float(stats.final_residual),
        "dead_concepts": int(stats.dead),
        "duplicated_concepts": int(stats.duplicated),
    }

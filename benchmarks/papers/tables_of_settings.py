"""Figures for the rank and the size of crops, CRAFT's sanity check, time and memory, and rankings by seed."""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import scipy.stats
from peak_memory import forget_peak, peak_mib

import face_jax as fj
from face_jax import bridges, methods
from face_jax.evaluation.kept_results import Kept
from face_jax.metrics.paired import same_to_rounding, told_apart

from .materials import Material
from .own_methods import AtShare
from .photographs import HEADS_OF_OURS
from .runs import Asked, compared, family, rows
from .tables_of_scores import AGREEMENT, DELETION, ERROR, GINI, INSERTION, KL, NOTHING, ONE_RULE, OVER_FOLDS, SCORES
from .written import Column, Curve, Made, Panel

RANKS, SIDES = (5, 10, 15, 25, 40), (40, 64, 96, 120)
_DRAWN = (INSERTION, DELETION, GINI, KL, AGREEMENT, ERROR)


def _along_settings(asked: Asked) -> list[Any]:
    """FACE at the λ that keeps predictions without a search, plain NMF, and methods of one's own."""
    return [AtShare(0.3), methods.NMF(), *asked.methods]


def rank(asked: Asked, materials: Sequence[Material]) -> Made:
    """Methods and controls along the rank."""
    ranks = RANKS if not asked.quick else (2, 4)
    made = {
        each: rows(compared(dataclasses.replace(asked, rank=each, starts=1), materials, _along_settings(asked)))
        for each in ranks
    }
    note = "Ceilings of C-Ins, C-Del and C-Gini rise with the rank by themselves: 1 − 1/2r, r/(r+1) and 1 − 1/r."
    return _along("concepts", made, (ONE_RULE, note))


def patch(asked: Asked, materials: Sequence[Material]) -> Made:
    """Crops of the network's input at their own size, each the next but a fifth."""
    if not materials[0].model.head.affine:
        return Made([], SCORES, notes=("Only a head that averages first takes smaller maps.",))
    sides = SIDES if not asked.quick else (64, 120)
    made = {}
    for side in sides:
        cropped = {
            each.label: each.cropped(fj.NativeCrops(each.model.preprocess, size=side, overlap=0.2))
            for each in materials
        }
        given = lambda material, known=cropped: dict(zip(("crops", "crop_of"), known[material.label], strict=True))  # noqa: E731
        made[side] = rows(compared(dataclasses.replace(asked, starts=1), materials, _along_settings(asked), given))
    return _along("side of crops, pixels of the network's input", made, (ONE_RULE,))


def _along(what: str, made: dict[int, list[dict[str, Any]]], notes: tuple[str, ...]) -> Made:
    """Curves and rows along a number."""
    panels = []
    for column in _DRAWN:
        lines = []
        for number, row in enumerate(next(iter(made.values()))):
            some = [each[number] for each in made.values()]
            mean, std = ([each[f"{column.number}{part}"] for each in some] for part in ("", "_std"))
            lines.append(Curve(row["method"], list(made), mean, std, row["control"]))
        panels.append(Panel(what, column.title, lines))
    found = []
    for number, each in made.items():
        for row in each:
            found.append({**row, "method": f"{number}: {row['method']}"})
    return Made(found, (*SCORES, OVER_FOLDS), tuple(panels), notes)


def sanity(asked: Asked, materials: Sequence[Material]) -> Made:
    """What remains of an explanation when the network forgets: CRAFT's check, several times."""
    runs, steps = (5, 4) if not asked.quick else (1, 1)
    kept, found, material = Kept(asked.folder / "runs"), {}, materials[0]
    if material.setting in HEADS_OF_OURS:
        return Made([], SCORES, notes=("The network is drawn again with ImageNet's head alone.",))
    digests = [one.digest() for one in material.photographs]
    for seed in range(runs):
        depends = [
            kept.digest([_forgetting, seed, steps, asked.rank, asked.quick, bridges.randomized], "sanity"),
            material.model.fingerprint, *digests,
        ]  # fmt: skip
        computed = functools.partial(_forgetting, asked, material, seed, steps)
        one = kept(f"sanity {seed}", depends, computed)
        for name, numbers in one["stages"].items():
            found.setdefault(name, []).append(numbers)
        found.setdefault("floor", []).append([*one["floors"], float("nan")])
    table, columns = [], ("dictionary", "importance", "maps", "logits")
    for name, numbers in found.items():
        values = np.asarray(numbers, float)
        row: dict[str, Any] = {"method": name, "control": name == "floor"}
        for number, column in enumerate(columns):
            row[column] = float(values[:, number].mean())
            row[f"{column}_std"] = float(values[:, number].std(ddof=1)) if len(values) > 1 else None
        table.append(row)
    titles = ("concepts' cosine", "importance, rank correlation", "maps, similarity", "photographs still in the class")
    note = (
        f"{material.label}, {runs} runs that differ in crops, in the photographs held out and in the weights drawn. An "
        "explanation that depends on what was learned comes down to the floor."
    )
    return Made(table, tuple(map(Column, columns, titles)), notes=(note,))


def _forgetting(asked: Asked, material: Material, seed: int, steps: int) -> dict[str, Any]:
    """One run: what remains at each stage, and the floors."""
    settings = {"rank": asked.rank, "progress": asked.progress, "key": seed}
    photographs = material.photographs[: 12 if asked.quick else 24]
    crops = fj.RandomCrops(per_image=6)
    explanation = fj.explain(material.model, photographs, material.target, crops=crops, **settings)
    stages = bridges.randomized(
        material.network.module, material.model.layer, steps=steps, seed=seed,
        preprocess=material.model.preprocess, classes=material.model.classes,
    )  # fmt: skip
    check = fj.sanity_check(explanation, stages, pictures=4, progress=asked.progress, key=seed)
    found = {each.name: [each.dictionary, each.importance, each.maps, each.logit_agreement] for each in check.stages}
    return {"stages": found, "floors": [check.dictionary_floor, check.importance_floor, check.maps_floor]}


def cost(asked: Asked, materials: Sequence[Material]) -> Made:
    """Seconds and memory of a fit, compiled before."""
    kept, material, table = Kept(asked.folder / "runs"), materials[0], []
    chosen = [*family(materials, asked), *methods.CONTROLS]
    for method in chosen:
        depends = [
            kept.digest([_spent, asked.rank, asked.quick], "cost"), kept.digest(method, f"method {method.name!r}"),
            kept.digest([material.pictures, material.crops.maps, material.crop_of], "material"),
            material.model.fingerprint,
        ]  # fmt: skip
        computed = functools.partial(_spent, asked, material, method)
        found = kept(f"cost {method.name}", depends, computed)
        row: dict[str, Any] = {"method": method.name, "control": method in methods.CONTROLS}
        for name in ("seconds", "memory"):
            values = [float(each) for each in found[name].values()]
            row[name], row[f"{name}_std"] = statistics.median(values), statistics.stdev(values)
        table.append(row)
    count = len(material.crops)
    note = (
        f"{material.label}: {len(material.pictures)} photographs, {count} crops, {asked.rank} concepts; medians of "
        "fits after the first, which compiles. Activations are computed before, and the same for all."
    )
    return Made(table, (Column("seconds", "seconds"), Column("memory", "MiB besides", 0)), notes=(note,))


def _spent(asked: Asked, material: Material, method: Any) -> dict[str, Any]:
    """Seconds and memory of some fits after the first."""
    if hasattr(method, "prepared"):
        method = method.prepared(material.model, material.pictures, material.crop_of)
    given = material.pictures if not getattr(method, "crops", True) else material.crops
    seconds, memory = [], []
    for number in range(4 if asked.quick else 6):
        forget_peak()
        before, begun = peak_mib(), time.perf_counter()
        method.fit(given.maps, asked.rank, jax.random.key(number))
        seconds.append(time.perf_counter() - begun)
        memory.append(peak_mib() - before)
    return {"seconds": dict(enumerate(seconds[1:])), "memory": dict(enumerate(memory[1:]))}


def ranking(asked: Asked, materials: Sequence[Material]) -> Made:
    """Whether methods come out in the same order with other folds, starts and draws."""
    found = rows(compared(asked, materials, family(materials, asked)))
    return ranked(found, asked.seeds, asked.folds)


def ranked(found: list[dict[str, Any]], seeds: Sequence[int], folds: int) -> Made:
    """Orders by the first two seeds, of what can be told apart.

    **Arguments:**

    - `found`: one row a method, with each run's numbers: the folds of the first seed, then those of the next.
    - `seeds`, `folds`: of the runs.
    """
    # One seed alone is compared with itself.
    seeds = (*seeds, *seeds)[:2] if len(seeds) == 1 else tuple(seeds[:2])
    table = []
    for column, sign in ((ERROR, 1), (KL, 1), (AGREEMENT, -1), (INSERTION, -1), (DELETION, -1), (GINI, -1)):
        groups = distinct(found, column.number)
        runs = np.stack([np.asarray(group[0][f"{column.number}_runs"]) for group in groups]) * sign
        first, second = runs[:, :folds], runs[:, folds : 2 * folds]
        values = np.stack([first, second if second.size else first])
        told = np.stack([told_apart(each[:, None], each[None]) for each in values])
        pairs = np.triu_indices(len(groups), 1)
        both, same = (told != 0).all(axis=0)[pairs], (told[0] == told[1])[pairs]
        learned = [number for number, group in enumerate(groups) if not all(row["control"] for row in group)]
        row: dict[str, Any] = {
            "method": column.title, "control": False, "distinct": f"{len(groups)} of {len(found)}",
            "tau": float(scipy.stats.kendalltau(*values.mean(axis=2)).statistic),
            "apart": f"{both.sum()} of {len(both)}", "same": f"{(both & same).sum()} of {both.sum()}",
        }  # fmt: skip
        for number, (means, known) in enumerate(zip(values.mean(axis=2), told, strict=True)):
            order = sorted(learned, key=lambda each, means=means: means[each])
            best = [each for each in order if not known[order[0], each]]
            row[f"best{number}"] = ", ".join(" = ".join(one["method"] for one in groups[each]) for each in best)
        table.append(row)
    columns = (
        Column("distinct", "distinct"), Column("tau", "Kendall's τ of these"), Column("apart", "pairs told apart"),
        Column("same", "of these in the same order"), Column("best0", f"best, seed {seeds[0]}"),
        Column("best1", f"best, seed {seeds[1]}"),
    )  # fmt: skip
    note = (
        f"{len(found)} methods and controls. Those that are equal to rounding in all runs, such as PCA and ICA, which "
        "have the same span, count once. A pair is told apart where the mean difference of its runs is beyond its 95 % "
        "interval (Student's t over folds, which share fitted pictures) with both seeds. Best: the best with those "
        f"that aren't told apart from it. At U = 0: see {NOTHING.title}."
    )
    return Made(table, columns, notes=(note,))


def distinct(found: list[dict[str, Any]], number: str) -> list[list[dict[str, Any]]]:
    """Rows in groups whose numbers are equal to rounding in every run."""
    groups: list[list[dict[str, Any]]] = []
    for row in found:
        runs = row[f"{number}_runs"]
        same = [each for each in groups if same_to_rounding(np.asarray(runs), np.asarray(each[0][f"{number}_runs"]))]
        if same:
            same[0].append(row)
        else:
            groups.append([row])
    return groups

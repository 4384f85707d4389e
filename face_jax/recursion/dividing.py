"""One level of concepts after another: which spread, and their crops factorized again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..activation_checks import below_zero, check_signs
from ..blocks.room import Room, chosen
from ..explanation.concepts import clearly_have, strongest_crops
from ..explanation.record import Explanation
from ..explanation.sub_concepts import Division, SubConcept, coherence, spreads, top_crops
from ..faithfulness.rows import in_jax, streamed
from ..model import SplitModel
from ..nmf import factorize
from ..nmf.options import AnySolver, AnyStart
from ..nmf.settings import usual_solver
from ..pipeline.checks import streams
from ..signs import Signs
from ..support.progress import Progress
from .earlier_layers import check_same_model, crop_rows


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is the same at all levels, as `recurse` takes it; the solver is None if the signs choose it.

    `room` is where activations of crops go.
    """

    rank: int
    percentile: float
    fewest: int
    threshold: float
    strongest: int
    solver: AnySolver | None
    start: AnyStart
    signs: Signs
    batch: int
    cache: Callable[..., Any]
    progress: Progress
    room: Room


@dataclasses.dataclass(frozen=True)
class Task:
    """A concept to take apart: its numbers, the crops it lives in, and its code in them."""

    path: tuple[int, ...]
    crops: Int[np.ndarray, " crop"]
    codes: Float[np.ndarray, " crop"]


@dataclasses.dataclass(frozen=True)
class Level:
    """How deep it is, how deep it goes, the cuts, and whether all tasks are taken apart without being measured."""

    number: int
    last: int
    cut: Callable[[int], SplitModel]
    named: bool


def divide(
    explanation: Explanation,
    level: Level,
    tasks: list[Task],
    matters: set[tuple[int, ...]],
    settings: Settings,
    key: Key[Array, ""],
    notes: list[str],
) -> tuple[dict[tuple[int, ...], Division], dict[tuple[int, ...], float]]:
    """The concepts of one level that spread and matter, taken apart, and so their parts; how much each spreads."""
    top = {task.path: task.crops[top_crops(task.codes, settings.percentile, settings.fewest)] for task in tasks}
    # A crop that several concepts share goes through the network once.
    needed = np.unique(np.concatenate([top[task.path] if level.named else task.crops for task in tasks] or [[]]))
    if not len(needed):
        notes += [_too_few(task, 0) for task in tasks]
        return {}, {}
    model = level.cut(level.number)
    if settings.signs == "mixed":
        check_signs(model, settings.solver)
    check_same_model(explanation, model, level.number)
    model, rows = crop_rows(
        explanation,
        model,
        needed.astype(np.int64),
        batch=settings.batch,
        cache=settings.cache,
        progress=settings.progress,
        signs=settings.signs,
        solver=settings.solver,
        room=settings.room,
    )
    solver = usual_solver(signed=below_zero(rows)) if settings.solver is None else settings.solver
    found, measured, parts = {}, {}, []
    for task in tasks:
        crops = top[task.path]
        if not level.named:
            around = chosen(rows, np.searchsorted(needed, task.crops))
            (measured[task.path],) = spreads(
                task.codes[:, None], around, percentile=settings.percentile, fewest=settings.fewest
            ).tolist()
        spread = measured.get(task.path, np.nan)
        if task.path not in matters or not (level.named or spread >= settings.threshold):
            continue
        if len(crops) <= settings.rank:
            notes.append(_too_few(task, len(crops)))
            continue
        key, own = jax.random.split(key)
        division = _division(
            explanation, model, task, crops, chosen(rows, np.searchsorted(needed, crops)), float(spread), settings,
            solver, own,
        )  # fmt: skip
        found[task.path] = division
        parts += [Task(part.path, crops, division.codes[:, at]) for at, part in enumerate(division.parts)]
    if level.number < level.last and parts:
        below = Level(level.number + 1, level.last, level.cut, named=False)
        deeper, _ = divide(explanation, below, parts, {part.path for part in parts}, settings, key, notes)
        for path, division in found.items():
            kept = tuple(dataclasses.replace(part, division=deeper.get(part.path)) for part in division.parts)
            found[path] = dataclasses.replace(division, parts=kept)
    return found, measured


def _too_few(task: Task, count: int) -> str:
    return f"{'.'.join(map(str, task.path))} was not taken apart: only {count} crops have it"


def _division(
    explanation: Explanation,
    model: SplitModel,
    task: Task,
    crops: Int[np.ndarray, " crop"],
    rows: Float[np.ndarray, "crop channel"],
    spread: float,
    settings: Settings,
    solver: AnySolver,
    key: Key[Array, ""],
) -> Division:
    """One concept taken apart: its crops' activations at the earlier layer, factorized."""
    activations = in_jax(streamed(rows)) if streams(solver, settings.start, None) else jnp.asarray(rows)
    solution = factorize(activations, min(settings.rank, rows.shape[1]), solver=solver, start=settings.start, key=key)
    codes, dictionary = np.asarray(solution.codes), np.asarray(solution.dictionary)
    mass = codes.sum(axis=0)
    order = [number for number in np.argsort(-mass, kind="stable") if mass[number] > 0]
    codes, dictionary, mass = codes[:, order], dictionary[order], mass[order]
    boxes = explanation.crops[crops]
    own = np.asarray(task.codes)[np.searchsorted(task.crops, crops)]
    # Of few crops the eighth strongest may have next to nothing of a part: such crops don't show it.
    shown = np.where(clearly_have(codes), codes, 0)
    parts = []
    for number in range(len(order)):
        best = np.asarray(strongest_crops(shown[:, number], boxes, settings.strongest), np.int64)
        parts.append(
            SubConcept(
                path=(*task.path, number + 1),
                share=float(mass[number] / mass.sum()),
                strongest=tuple(crops[best].tolist()),
                coherence=coherence(rows[best]),
            )
        )
    return Division(
        path=task.path,
        layer=model.layer,
        fingerprint=model.fingerprint,
        crops=crops,
        dictionary=dictionary,
        codes=codes,
        coherence=coherence(rows[list(strongest_crops(own, boxes, settings.strongest))]),
        floor=coherence(rows),
        spread=spread,
        parts=tuple(parts),
    )

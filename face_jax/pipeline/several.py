"""Several classes in one call: one bank of concepts for all of them, or one bank each."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from ..blocks.room import filed, squares
from ..explanation.record import Explanation
from ..explanation.several import ClassExplanations
from ..faithfulness.chosen_lambda import leading_to
from ..model import SplitModel
from ..nmf import RankScan
from ..nmf.options import AnyObjective, AnySolver, AnyStart
from ..signs import Signs
from ..support.arguments import Real, Seed, Whole, flag
from ..support.cache import no_cache
from ..support.interrupts import interruptible
from ..support.precision import full_precision
from ..support.progress import open_stage
from ..support.progress_line import Watched
from .checks import Folder, check_no_weights
from .class_folders import Kept, kept_in
from .class_groups import Group, groups_of
from .controls import control_banks
from .fitting import Fitted, Problem, solved, solved_together, why_plain
from .one_class import Asked, PresetName, Ready, asked_for, begun, explained
from .one_of_several import Surveys, failing, on_weight, ready_in
from .shared_bank import Outcome, bank_of, with_one_bank

_MOST_BYTES = 2**29  # of what classes hold that wait for others


@interruptible()
@full_precision
def explain_classes(
    model: SplitModel,
    images: Any,
    targets: Any = None,
    *,
    shared: bool = False,
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
    folder: str | pathlib.Path | None = None,
    memory: Real | None = None,
    store: Folder = None,
    progress: Watched = None,
) -> ClassExplanations:
    """Explain several classes of a classifier together: which uses which concepts, and what tells them apart.

    Each photograph goes through the network once. Time grows with the photographs of the classes, and so does memory
    until `memory`. A class that can't be explained doesn't keep the others from it: the result says why.

    On accelerators up to 16 classes with a bank each are factorized by one call of `factorize_many`, where they take
    512 MiB at most: each as it is by itself, to rounding.

    **Arguments:**

    - `model`: a classifier split at a layer.
    - `images`: a folder with a folder for each class, named as the class is (`_` and `-` may stand for spaces); or a
        mapping from classes to whatever `face_jax.photographs` takes; or, with `targets`, anything that it takes.
    - `targets`: the classes, by name or number. Photographs are then those that the *model* puts in each class,
        whatever they show. By default the classes of the folders, or of the mapping: of each folder, the photographs
        that the model puts in its class.
    - `shared`: one bank of concepts for all classes, found in the crops of all of them, whose concepts each class
        weighs for itself; else each class has a bank of its own.
    - `rank`: how many concepts, 25 by default, or as the preset has it: of each class, or of the shared bank. `"auto"`
        scans ranks.
    - `faithfulness`: as for `explain`. λ is chosen once: on the class with the most photographs, or with a shared bank
        on 60 photographs of all classes, and taken for the others in proportion to their activations. Notes say so.
    - `objective`: as for `explain`, the same for each class, or of the shared bank. It can't have weights of entries or
        rows: classes have different numbers of them.
    - `preset`: as for `explain`. A shared bank is what the paper's method finds in the crops (ICE: the places) of all
        classes; each class weighs and scores it by the paper's rules.
    - `crops`, `solver`, `start`, `signs`, `held_out`, `strongest`, `one_each`, `batch`, `key`, `cache`: as for
        `explain`.
    - `folder`: where each class's explanation is saved as soon as it's there, in a folder of its own. Called again with
        the same settings and photographs, what is there already is loaded.
    - `memory`: GiB of memory that activations of all classes together may take, those that are loaded from `folder`
        included; by default half of what is free. More of them are kept in files and read in blocks, as for `explain`.
    - `store`: the folder of these files, which go with the explanations; by default the system's for temporary files.
    - `progress`: told how far it is.

    **Returns:** the explanations, by class. Raises `ValueError` if no class at all can be explained, for arguments that
    aren't valid, and `UnknownClassError` for `targets` that the model doesn't have.

    **Example:**

    >>> found = fj.explain_classes(model, images, ["warm", "cold"], rank=3, shared=True)
    >>> found["warm"].target_name, found.bank.shape[0]
    ('warm', 3)
    """
    shared = flag("shared", shared)
    asked = asked_for(
        model, rank=rank, crops=crops, faithfulness=faithfulness, objective=objective, solver=solver, start=start,
        signs=signs, preset=preset, held_out=held_out, strongest=strongest, one_each=one_each, batch=batch, key=key,
        cache=cache, memory=memory, store=store, progress=progress,
    )  # fmt: skip
    if objective is not None:
        check_no_weights(objective)
    groups, unknown = groups_of(model, images, targets)
    numbers = tuple(group.number for group in groups)
    surveys = Surveys(asked, groups)
    kept = None if folder is None else kept_in(folder, groups, asked.words(), numbers if shared else None, asked.room)
    explain_all = with_one_bank if shared else _with_a_bank_each
    with open_stage():
        explanations, failed, more = explain_all(asked, groups, surveys, kept)
    reasons = unknown | {name: str(error) for name, error in failed.items()}
    if not explanations:
        some = "; ".join(f"{name}: {reason}" for name, reason in list(reasons.items())[:5])
        raise ValueError(f"none of {len(reasons)} classes can be explained: {some}") from next(iter(failed.values()))
    order = [group.name for group in groups if group.name in explanations]
    found = {name: explanations[name] for name in order}
    return ClassExplanations(
        model, found, reasons, bank_of(list(found.values())) if shared else None, (*surveys.notes, *more)
    )


def _with_a_bank_each(asked: Asked, groups: list[Group], surveys: Surveys, kept: Kept | None) -> Outcome:
    """Those with the most photographs first: on the first, λ is chosen for all, and then some are fitted together."""
    found: dict[str, Explanation] = {}
    failed: dict[str, Exception] = {}
    waiting: list[_Begun] = []
    chooser: Explanation | None = None

    def end() -> None:
        for one, fitting in zip(waiting, _fitted(asked, waiting), strict=True):
            with failing(failed, one.group.name):
                found[one.group.name] = _ended(asked, one, fitting, kept)
        waiting.clear()

    for group in sorted(groups, key=surveys.size, reverse=True):
        along = None if chooser is None else leading_to(chooser.fit.path)  # pyright: ignore[reportArgumentType]
        one: _Begun | None = None
        with failing(failed, group.name):
            explanation = None if kept is None else kept.load(group, asked.model, along)
            if explanation is None:
                one = _begun(asked, group, surveys, chooser, along)
                explanation = _ended(asked, one, None, kept) if one.alone else None
            if explanation is not None:
                found[group.name] = explanation
                if chooser is None and explanation.fit.path is not None:
                    chooser = explanation
        if one is not None and not one.alone:
            if waiting and not _go_together(waiting, one):
                end()
            waiting.append(one)
    end()
    return found, failed, ()


@dataclasses.dataclass(frozen=True)
class _Begun:
    """A class whose concepts are to be found.

    **Arguments:**

    - `group`, `ready`: it, and its photographs and crops through the network.
    - `problem`, `scan`: what is to be solved, or was by a method of its own; and the scan of ranks.
    - `along`: λ on the way to the one that was chosen elsewhere, as it was there.
    - `more`: notes.
    """

    group: Group
    ready: Ready
    problem: Problem | Fitted
    scan: RankScan | None
    along: list[float] | None
    more: tuple[str, ...]

    @property
    def alone(self) -> bool:
        """Whether it's fitted by itself, as all are on a processor, or because λ is chosen on it for others."""
        problem = self.problem
        return _at_a_time() < 2 or isinstance(problem, Fitted) or problem.alone or problem.path is not None

    @property
    def size(self) -> int:
        """Bytes that are held until it's fitted, beside what an explanation has."""
        material, rows = self.ready.material, getattr(self.problem, "filled", None)
        held = (rows, material.fitted.maps, material.scored.maps)
        return sum(each.nbytes for each in held if isinstance(each, np.ndarray) and not filed(each))


def _at_a_time() -> int:
    """How many classes are fitted together.

    A processor solves them one after another anyway, and a stack of them is one more program to compile.
    """
    return 1 if jax.default_backend() == "cpu" else 16


def _go_together(waiting: list[_Begun], one: _Begun) -> bool:
    """Whether a class is fitted with those that wait already."""
    return (
        len(waiting) < _at_a_time()
        and sum(each.size for each in (*waiting, one)) <= _MOST_BYTES
        and repr(waiting[0].problem.solver) == repr(one.problem.solver)
    )


def _begun(
    asked: Asked, group: Group, surveys: Surveys, chooser: Explanation | None, along: list[float] | None
) -> _Begun:
    ready = ready_in(asked, group, surveys, alone=True)
    material, more, known = ready.material, (), along
    plain = asked.faithfulness == "usual" and why_plain(ready.model.head, material, 1, asked.solver, chosen=True)
    if chooser is not None and along is not None and not plain:
        pictures = chooser.pictures
        count = len(chooser.crops) if chooser.single else len(pictures.fitted)
        size = squares(pictures.crop_activations) / count
        own = squares(material.pictures.crop_activations) / len(material.fitted)
        along = [weight * own / size for weight in along]
        more = (on_weight(along, f"photographs of {chooser.target_name}"),)
    else:
        along = None
    with ready.stopwatch("everything else"), asked.refusing_signs():
        problem, scan = begun(asked, material, ready.model, ready.keys, ready.stopwatch, along=along, alike=True)
    return _Begun(group, ready, problem, scan, known, more)


def _fitted(asked: Asked, waiting: list[_Begun]) -> list[Fitted | None]:
    """Classes' factorizations in one call; None for those that are by themselves, or can't be had so."""
    if len(waiting) < 2:
        return [None] * len(waiting)
    begun_at = time.perf_counter()
    problems = [one.problem for one in waiting if isinstance(one.problem, Problem)]
    found = solved_together(problems, asked.progress)
    for one in waiting:
        one.ready.stopwatch.seconds["factorization"] += (time.perf_counter() - begun_at) / len(waiting)
    return found


def _ended(asked: Asked, one: _Begun, fitting: Fitted | None, kept: Kept | None) -> Explanation:
    """A class's explanation, once its concepts are there, or by itself."""
    ready = one.ready
    with ready.stopwatch("everything else"), asked.refusing_signs():
        if fitting is None:
            fitting = solved(one.problem, progress=asked.progress, stopwatch=ready.stopwatch)
        with ready.stopwatch("scores and controls"):
            banks = control_banks(fitting, len(fitting.solution.dictionary), ready.keys, alike=True)
    explanation = explained(asked, ready, fitting, one.scan, banks=banks, more=one.more)
    if kept is not None:
        kept.save(one.group, explanation, one.along)
    return explanation

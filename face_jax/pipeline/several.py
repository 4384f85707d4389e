"""Several classes in one call: one bank of concepts for all of them, or one bank each."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, Literal

from ..blocks.room import squares
from ..explanation.record import Explanation
from ..explanation.several import ClassExplanations
from ..faithfulness.chosen_lambda import leading_to
from ..model import SplitModel
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
from .fitting import why_plain
from .one_class import Asked, PresetName, asked_for, explained, fitted
from .one_of_several import Surveys, failing, on_weight, ready_in
from .shared_bank import Outcome, bank_of, with_one_bank


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
    """Class by class, those with the most photographs first: on the first, λ is chosen for all."""
    found: dict[str, Explanation] = {}
    failed: dict[str, Exception] = {}
    chooser: Explanation | None = None
    for group in sorted(groups, key=surveys.size, reverse=True):
        along = None if chooser is None else leading_to(chooser.fit.path)  # pyright: ignore[reportArgumentType]
        with failing(failed, group.name):
            explanation = None if kept is None else kept.load(group, asked.model, along)
            if explanation is None:
                explanation = _alone(asked, group, surveys, chooser, along)
                if kept is not None:
                    kept.save(group, explanation, along)
            found[group.name] = explanation
            if chooser is None and explanation.fit.path is not None:
                chooser = explanation
    return found, failed, ()


def _alone(
    asked: Asked, group: Group, surveys: Surveys, chooser: Explanation | None, along: list[float] | None
) -> Explanation:
    ready = ready_in(asked, group, surveys, alone=True)
    material, more = ready.material, ()
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
        fitting, scan = fitted(asked, material, ready.model, ready.keys, ready.stopwatch, along=along, alike=True)
        with ready.stopwatch("scores and controls"):
            banks = control_banks(fitting, len(fitting.solution.dictionary), ready.keys, alike=True)
    return explained(asked, ready, fitting, scan, banks=banks, more=more)

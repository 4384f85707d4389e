"""One bank of concepts for several classes: found in the crops of all, weighed by each for itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from ..activations import COPIES_OF_ROWS, Collected
from ..blocks.room import Room, chosen, squares
from ..explanation.class_usage import places_of
from ..explanation.record import Explanation
from ..faithfulness.chosen_lambda import leading_to
from ..faithfulness.lambda_path import SETTINGS as FAITHFUL
from ..model import SplitModel
from ..nmf import NNDSVD
from ..nmf.settings import usual_solver
from ..signs import are_apart
from ..support.memory import exhaustion_in_words
from ..support.progress import Stopwatch
from .checks import check_rank
from .class_folders import Kept
from .class_groups import Group
from .controls import control_banks
from .fitting import path_of, solved, why_plain
from .material import Keys, Material, some_places
from .one_class import Asked, Ready, begun, explained
from .one_of_several import LESS, Surveys, failing, on_weight, ready_in

# λ of a bank for many classes is chosen on so many photographs at most: a path takes many fits.
_JUDGED = 60
Outcome = tuple[dict[str, Explanation], dict[str, Exception], tuple[str, ...]]


def with_one_bank(asked: Asked, groups: list[Group], surveys: Surveys, kept: Kept | None) -> Outcome:
    """The explanations by class, why others failed, and notes on all."""
    failed: dict[str, Exception] = {}
    if kept is not None:
        loaded = {group.name: one for group in groups if (one := kept.load(group, asked.model, None)) is not None}
        if len(loaded) == len(groups):
            return loaded, failed, ()
    every: list[tuple[Group, Ready]] = []
    for group in groups:
        with failing(failed, group.name):
            every.append((group, ready_in(asked, group, surveys, alone=False)))
    if any(are_apart(one.model) for _, one in every):
        # What one class has below zero, all have in channels of their own.
        every = [
            (group, one if are_apart(one.model) else ready_in(asked, group, surveys, alone=False, apart=True))
            for group, one in every
        ]
    if not every:
        return {}, failed, ()
    model, keys, stopwatch = every[0][1].model, every[0][1].keys, Stopwatch()
    with exhaustion_in_words(f"{len(every)} classes and rank={asked.rank}", LESS):
        material = _union([one.material for _, one in every], asked.room, streams=asked.streams)
        rows, channels = material.pictures.crop_activations.shape
        check_rank(asked.rank, material.count_of_places if asked.of_places else rows, channels)
        along, more = _chosen(asked, material, model, keys, stopwatch)
        problem, scan = begun(asked, material, model, keys, stopwatch, along=along, alike=True)
        whole = solved(problem, progress=asked.progress, stopwatch=stopwatch)
        banks = control_banks(whole, len(whole.solution.dictionary), keys, alike=True)
    names = ", ".join(group.name for group, _ in every)
    more = (
        f"The concepts are those of a bank that {len(every)} classes share ({names}), in the order of their importance "
        "for this one; a concept that only others use is last here.",
        *more,
    )
    found: dict[str, Explanation] = {}
    at = 0
    for group, one in every:
        rows = one.material.pictures.crop_activations
        part = dataclasses.replace(whole, rows=rows, crop_codes=whole.crop_codes[at : at + len(rows)])
        at += len(rows)
        with failing(failed, group.name):
            explanation = explained(asked, one, part, scan, whole=whole, banks=banks, more=more)
            if kept is not None:
                kept.save(group, explanation, None)
            found[group.name] = explanation
    return found, failed, more[1:]


def _chosen(
    asked: Asked, material: Material, model: SplitModel, keys: Keys, stopwatch: Stopwatch
) -> tuple[list[float] | None, tuple[str, ...]]:
    """λ for all photographs, chosen on some of them; None where it's given, or chosen on all of few."""
    usual = asked.faithfulness == "usual" and not why_plain(model.head, material, 1, asked.solver)
    count = len(material.fitted)
    if not (usual or asked.faithfulness == "auto") or count <= _JUDGED or not model.head.affine or asked.rank == "auto":
        return None, ()
    some = _some_of(material, np.linspace(0, count - 1, _JUDGED).round().astype(np.int64))
    solver = usual_solver(signed=material.signed, **FAITHFUL) if asked.solver is None else asked.solver
    if asked.rank > len(some.pictures.crop_activations) * 3 // 4:
        return None, ()
    with stopwatch("choice of the faithfulness"):
        start = NNDSVD() if asked.start is None else asked.start
        path = path_of(model.head, some, asked.rank, solver, start, keys, asked.progress, model.outputs)
    size = [squares(each.pictures.crop_activations) / len(each.fitted) for each in (material, some)]
    along = [weight * size[0] / size[1] for weight in leading_to(path)]
    return along, (on_weight(along, f"{_JUDGED} of the {count} photographs that were fitted, of all classes"),)


def _some_of(material: Material, some: np.ndarray) -> Material:
    """Some of the pictures fitted, with their crops."""
    crops = np.isin(material.crop_of, material.index[some])
    rows = chosen(material.pictures.crop_activations, crops)
    pictures = dataclasses.replace(material.pictures, crop_activations=rows)
    return dataclasses.replace(
        material, pictures=pictures, fitted=material.fitted[some], index=material.index[some],
        crop_of=material.crop_of[crops],
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Union(Material):
    """Several classes' material, of which one is asked for crops and pictures fitted alone."""

    parts: tuple[Material, ...] = ()

    @property
    def places(self) -> Float[np.ndarray, "row channel"] | None:
        """Places of all classes' photographs; None where a class has a single one, which has none."""
        every = [part.pictures for part in self.parts]
        if any(len(pictures.photographs) == 1 for pictures in every):
            return None
        return some_places([pictures.collected.maps for pictures in every], [pictures.fitted for pictures in every])

    @property
    def every_map(self) -> Float[np.ndarray, "image y x channel"]:
        """Whole maps of all classes' photographs."""
        return np.concatenate([part.every_map for part in self.parts])

    @property
    def count_of_places(self) -> int:
        """How many these are."""
        return sum(
            len(part.pictures.fitted) * math.prod(part.pictures.collected.maps.shape[1:3]) for part in self.parts
        )

    @property
    def signed(self) -> bool:
        """Whether any class has activations below zero."""
        return any(part.signed for part in self.parts)


def _union(parts: list[Material], room: Room, *, streams: bool) -> _Union:
    """The pictures and crops of several classes, numbered one class after another; in memory what can't be streamed."""
    index, crop_of, at = [], [], 0
    for part in parts:
        index.append(part.index + at)
        crop_of.append(part.crop_of + at)
        at += 1 + int(max(part.index.max(), part.crop_of.max()))
    of_crops = room if streams else Room(math.inf)
    pictures = dataclasses.replace(
        parts[0].pictures,
        photographs=tuple(one for part in parts for one in part.pictures.photographs),
        crop_activations=of_crops.together([part.pictures.crop_activations for part in parts], COPIES_OF_ROWS),
    )
    return _Union(
        pictures, _together([part.fitted for part in parts], room), parts[0].scored, np.concatenate(index),
        np.concatenate(crop_of), (), tuple(parts),
    )  # fmt: skip


def _together(parts: list[Collected], room: Room) -> Collected:
    kept = [part.kept for part in parts if part.kept is not None]
    # Averages stay in memory, as those of each class do.
    room = Room(math.inf) if all(part.maps.shape[1:3] == (1, 1) for part in parts) else room
    return Collected(
        room.together([part.maps for part in parts]), np.concatenate([part.logits for part in parts]),
        np.concatenate(kept) if kept else None,
    )  # fmt: skip


def bank_of(explanations: Sequence[Explanation]) -> Float[np.ndarray, "concept channel"]:
    """The concepts that explanations share, in the order of their mean importance."""
    rows = explanations[0].dictionary
    weight = np.zeros(len(rows))
    for each in explanations:
        weight[places_of(each.dictionary, rows)] += [concept.importance for concept in each.concepts]
    return rows[np.argsort(-weight, kind="stable")]

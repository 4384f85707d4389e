"""Checks of what `explain` is asked, before any work."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Literal

from ..activation_checks import check_signs
from ..activations import COPIES_OF_ROWS, Collected, Cropping
from ..blocks.room import Room
from ..faithfulness import Faithfulness
from ..faithfulness.losses import SoftmaxLoss
from ..model import SplitModel, check_model
from ..nmf import NNDSVD, Given, MiniBatch, Random, Warmup
from ..nmf.objective import WEIGHTS
from ..nmf.options import AnySolver, AnyStart
from ..nmf.settings import solver_or, start_or
from ..nmf.solvers.update_rules import Solver
from ..nmf.validate import squared_error
from ..signs import Signs, signs_for
from ..support.arguments import (
    callable_with,
    check_count,
    float_or_none,
    function,
    index_or_none,
    path_of,
    real,
    share,
    shown,
)
from ..support.memory import check_memory

if TYPE_CHECKING:
    Folder = str | os.PathLike[str] | None
else:
    # Whoever gives something else is told so in words.
    Folder = Any
# Ranks that are compared when none is given.
RANKS = (2, 4, 6, 8, 10, 15, 20, 25, 30, 40)
_CACHES = "an object such as ArrayCache(folder)"
# The place of a crop, drawn from random numbers.
_BYTES_OF_A_BOX = 200


def check_settings(
    rank: Any, held_out: Any, strongest: Any, batch: Any, crops: Any
) -> tuple[int | Literal["auto"], float, int, int]:
    """Refuses settings of `explain` that make no sense, before any work; the first four as plain numbers."""
    if not (isinstance(rank, str) and rank == "auto"):
        number = index_or_none(rank)
        if number is None or number < 1:
            raise ValueError(f"rank={shown(rank)} isn't a number of concepts; give 1 or more, or 'auto'")
        rank = number
    check_rule(crops)
    held_out = share("held_out", held_out, 0.2)
    return rank, held_out, check_count("strongest", strongest, "crops"), check_count("batch", batch, "pictures")


def check_rule(crops: Any) -> None:
    """Refuses what is no rule for crops; None stands for the usual one."""
    rules = "give an object such as RandomCrops(), GridCrops() or NativeCrops(model.preprocess)"
    if crops is not None:
        if isinstance(crops, type) or not callable(crops):
            raise ValueError(f"crops={shown(crops)} isn't a rule for crops; {rules}")
        callable_with("crops", crops, rules, [], key=None)


def check_cache(cache: Any) -> None:
    """Refuses what keeps no activations."""
    function("cache", cache, _CACHES)
    callable_with("cache", cache, f"give {_CACHES}", [], dict)


def check_faithfulness(faithfulness: Any, objective: Any) -> float | Literal["auto", "usual"] | None:
    """Refuses a λ that isn't valid, or beside an objective of one's own; gives it as a plain number."""
    if faithfulness is None:
        return None
    if isinstance(faithfulness, str) and faithfulness == "usual":
        # An objective of one's own has the terms that were wanted.
        return "usual" if objective is None else None
    if isinstance(faithfulness, str) and faithfulness == "auto" and objective is None:
        return "auto"
    if objective is not None:
        raise ValueError(
            "faithfulness and objective are both given; write the term into the objective, SquaredError() + λ * "
            "Faithfulness(model.head), or leave one out"
        )
    found = float_or_none(faithfulness)
    if found is None or not (math.isfinite(found) and found >= 0):
        raise ValueError(f"faithfulness={shown(faithfulness)} isn't a λ; give a number of at least 0, 'auto' or None")
    return found


def check_objects(
    model: Any, objective: Any, solver: Any, start: Any, signs: Any, cache: Any
) -> tuple[AnySolver | None, AnyStart | None, Signs]:
    """Refuses a model, settings and a cache that aren't valid, or don't fit together; gives solver, start and signs."""
    check_model(model)
    solver, start = solver_or(None, solver), start_or(None, start)
    signs = signs_for(signs, solver, [model])
    if signs == "mixed":
        check_signs(model, solver)
    if objective is not None:
        squared_error(objective)
        _check_losses(model, objective)
    check_cache(cache)
    return solver, start, signs


def check_no_weights(objective: Any) -> None:
    """Refuses weights of entries or rows for several classes, whose rows are others."""
    given = [name for name in WEIGHTS if getattr(objective, name, None) is not None]
    if given:
        raise ValueError(
            f"objective has {given[0]}, which belong to the crops of one class, and each class has crops of its own; "
            "leave them out, or call face_jax.explain for each class"
        )


def _check_losses(model: SplitModel, objective: Any) -> None:
    """Refuses a term that compares distributions over exclusive classes, of a model that has labels."""
    for weighted in objective.terms:
        if model.outputs.exclusive or not isinstance(weighted.term, Faithfulness):
            continue
        if isinstance(weighted.term.loss, SoftmaxLoss):
            raise ValueError(
                f"objective has a Faithfulness with loss={weighted.term.loss}, which compares probabilities of "
                f"exclusive classes, and {model.name} has labels, each by itself; give loss=SigmoidKL()"
            )


def check_rank(rank: int | str, crops: int, channels: int) -> None:
    """Refuses more concepts than the crops can have."""
    least = RANKS[0] if isinstance(rank, str) else rank
    if least > min(crops, channels):
        raise ValueError(
            f"rank={least} is more than {crops} crops of {channels} channels allow; give at most "
            f"{min(crops, channels)}, or more photographs or crops"
        )


def check_crops(cropping: Cropping, shapes: list[tuple[int, int]], seen: Collected, room: Room | None = None) -> None:
    """Raises `NotEnoughMemoryError` for more crops than could be held, where the rule says how many there are.

    **Arguments:**

    - `cropping`: the rule.
    - `shapes`: heights and widths of the photographs that are cropped.
    - `seen`: what the model makes of whole photographs, which says how many channels and classes there are.
    - `room`: where activations go that are too many for memory.
    """
    count = getattr(cropping, "count", None)
    if count is None:
        return
    crops = count(shapes)
    row, rest = seen.maps.shape[-1] * seen.maps.itemsize, 2 * seen.logits[:1].nbytes + _BYTES_OF_A_BOX
    what = f"crops={cropping!r} of {len(shapes):,} photographs, {crops:,} crops of {seen.maps.shape[-1]:,} channels,"
    if room is None or room.fits(COPIES_OF_ROWS * row * crops):
        check_memory((COPIES_OF_ROWS * row + rest) * crops, what, "take fewer crops")
        return
    # The rows, and what a run in blocks keeps of them.
    room.check(2 * row * crops, what)
    check_memory(rest * crops, what, "take fewer crops")


def room_of(memory: Any, store: Any) -> Room:
    """Where activations go; raises `ValueError` for what isn't an amount of memory or a folder."""
    folder = None if store is None else path_of("store", store, "a folder")
    if folder is not None and folder.exists() and not folder.is_dir():
        raise ValueError(f"store={str(folder)!r} is a file; give a folder, in which files without names are kept")
    return Room(None if memory is None else real("memory", memory, "number of GiB", least=0) * 2**30, folder)


def streams(solver: AnySolver | None, start: AnyStart | None, preset: Any) -> bool:
    """Whether a factorization with these can read crops in blocks."""
    if preset is not None and (preset.of_places or preset.by_method):
        return False
    return (solver is None or isinstance(solver, Solver)) and isinstance(
        start, Warmup | MiniBatch | Given | Random | NNDSVD | None
    )

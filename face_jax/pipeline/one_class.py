"""One class from photographs to its explanation, stage by stage: by itself, or as one of several."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import jax
from jaxtyping import Array, Key

from ..activations import Survey
from ..blocks.room import Room
from ..blocks.row_blocks import RowBlocks
from ..explanation.parts import Provenance, Target
from ..explanation.record import Explanation
from ..faithfulness.rows import streamed
from ..methods import Published
from ..model import SplitModel
from ..nmf import RankScan
from ..nmf.checkpoint import digest_of_tree
from ..nmf.options import AnyObjective, AnySolver, AnyStart
from ..pictures.photographs import Photograph
from ..signs import Signs
from ..support.arguments import flag, key_of
from ..support.classes import Target as Class
from ..support.contents import contents_digest
from ..support.progress import Progress, Stopwatch
from ..support.progress_line import progress_of
from .checks import check_faithfulness, check_objects, check_rank, check_settings, room_of, streams
from .controls import Banks
from .finishing import finished
from .fitting import Fitted, Problem, choose_rank, problem_of
from .material import Keys, Material, Places, keys_of, material_of, places_in
from .presets import Preset, fit_by_method, note_on, preset_of
from .provenance import fit_of, notes_on, settings_of
from .selection import Activator, apart_if_signed, choose_class

if TYPE_CHECKING:
    PresetName = Literal["face", "craft", "ice"] | Published | None
else:
    # Whoever gives something else is told so in words.
    PresetName = Any
_RANK = 25


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked for, checked; `preset` has what was given beside it, and `room` is where activations go."""

    model: SplitModel
    rank: int | Literal["auto"]
    crops: Any
    faithfulness: float | Literal["auto", "usual"] | None
    objective: AnyObjective | None
    solver: AnySolver | None
    start: AnyStart | None
    signs: Signs
    preset: Preset | None
    held_out: float
    strongest: int
    one_each: bool
    batch: int
    key: Key[Array, ""]
    cache: Callable[..., Any]
    room: Room
    progress: Progress

    def words(self) -> list[str]:
        """What an explanation depends on besides photographs and classes; memory changes it by rounding alone."""
        model = [self.model.fingerprint, self.model.layer, repr(self.model.preprocess), repr(self.model.outputs)]
        names = ("rank", "crops", "faithfulness", "solver", "signs", "held_out", "strongest", "one_each")
        # What these hold is longer than what they say of themselves.
        held = [digest_of_tree(each) for each in (self.objective, self.start)]
        if self.preset is not None:
            # Its method and rules may be the user's own, and edited.
            held.append(contents_digest(self.preset.paper, "preset").hex())
            held.append(repr((self.preset.instead, self.preset.crops)))
        key = repr(jax.random.key_data(self.key).tolist())
        return [*model, *(repr(getattr(self, name)) for name in names), *held, key]

    @property
    def streams(self) -> bool:
        """Whether the factorization can read crops in blocks."""
        return streams(self.solver, self.start, self.preset)

    @property
    def of_places(self) -> bool:
        """Whether the preset's rows are places of whole photographs."""
        return self.preset is not None and self.preset.of_places

    def activator(self, stopwatch: Stopwatch) -> Activator:
        """Runs the model."""
        solver = self.solver if self.signs == "mixed" else None
        return Activator(self.model, self.batch, self.cache, self.progress, stopwatch, solver, self.room, self.streams)

    def refusing_signs(self) -> contextlib.AbstractContextManager[None]:
        """Says it of the preset where activations below zero are refused."""
        return contextlib.nullcontext() if self.preset is None else self.preset.refusing_signs()


def asked_for(
    model: SplitModel, *, rank: Any, crops: Any, faithfulness: Any, objective: Any, solver: Any, start: Any, signs: Any,
    preset: Any, held_out: Any, strongest: Any, one_each: Any, batch: Any, key: Any, cache: Any, memory: Any,
    store: Any, progress: Any,
) -> Asked:  # fmt: skip
    """What `explain` and `explain_classes` are given, checked before any work; their arguments, by name."""
    key = key_of(key)
    paper = preset_of(
        preset, rank=rank, crops=crops, faithfulness=faithfulness, objective=objective, solver=solver, start=start
    )
    if rank is None:
        rank = _RANK if paper is None else paper.paper.rank
    rank, held_out, strongest, batch = check_settings(rank, held_out, strongest, batch, crops)
    faithfulness = check_faithfulness(faithfulness, objective)
    one_each, room, progress = flag("one_each", one_each), room_of(memory, store), progress_of(progress)
    if paper is not None:
        solver, start, faithfulness = paper.solver, paper.start, paper.faithfulness
    with contextlib.nullcontext() if paper is None else paper.refusing_signs():
        solver, start, signs = check_objects(model, objective, solver, start, signs, cache)
    if paper is not None:
        paper.check(model)
        crops = paper.cropping(model.preprocess)
    return Asked(
        model, rank, crops, faithfulness, objective, solver, start, signs, paper, held_out, strongest, one_each, batch,
        key, cache, room, progress,
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Ready:
    """A class's photographs and crops, through the network.

    **Arguments:**

    - `target`, `word`: the class, and what it was called by whoever asked.
    - `photographs`: where it was looked for.
    - `seen`, `places`, `material`: what the model makes of them, the crops' places, and all activations.
    - `model`: the classifier, with its signs apart or not.
    - `keys`, `stopwatch`: for what follows.
    """

    target: Target
    word: Class | None
    photographs: tuple[Photograph, ...]
    seen: Survey
    places: Places
    material: Material
    model: SplitModel
    keys: Keys
    stopwatch: Stopwatch


def ready_of(
    asked: Asked,
    activator: Activator,
    photographs: tuple[Photograph, ...],
    seen: Survey,
    number: int | None,
    *,
    word: Class | None = None,
    chosen: str | None = None,
    alone: bool = True,
    apart: bool = False,
) -> Ready:
    """Crops of a class's photographs through the network.

    **Arguments:**

    - `asked`: what is asked for.
    - `activator`: runs the model.
    - `photographs`, `seen`: where the class is looked for, and what the model makes of them.
    - `number`, `word`: the class, the one that is predicted most often if None; and as it was asked for.
    - `chosen`: how it was chosen, in words; by default that of the photographs given.
    - `alone`: whether its crops alone must allow so many concepts.
    - `apart`: with signs apart, whatever they are, where these are asked for.

    **Returns:** what the stages behind the network need.
    """
    keys, stopwatch = keys_of(asked.key), activator.stopwatch
    number, said, seen = choose_class(asked.model, seen, number)
    if asked.signs == "apart":
        activator, seen = apart_if_signed(activator, seen, known=apart)
    if asked.preset is not None:
        asked.preset.check_photographs(len(seen.index))
    places = places_in(photographs, seen, asked.crops, asked.held_out, keys, stopwatch, asked.model.preprocess,
                       asked.room if asked.streams else None)  # fmt: skip
    maps = seen.kept.maps
    count = len(places.fitted) * maps.shape[1] * maps.shape[2] if asked.of_places else len(places.crops)
    check_rank(asked.rank if alone else 1, count, maps.shape[-1])
    averaged = None if asked.preset is None or not asked.model.head.affine else asked.preset.paper.averaged
    activator, seen, material = material_of(activator, places, seen, number, keys, asked.signs, averaged=averaged)
    target = Target(number, said if chosen is None else chosen)
    return Ready(target, word, photographs, seen, places, material, activator.model, keys, stopwatch)


def begun(
    asked: Asked,
    material: Material,
    model: SplitModel,
    keys: Keys,
    stopwatch: Stopwatch,
    *,
    along: list[float] | None = None,
    alike: bool = False,
) -> tuple[Problem | Fitted, RankScan | None]:
    """What is to be solved for concepts, or these where a method of its own finds them; and the scan of ranks.

    **Arguments:**

    - `asked`: what is asked for.
    - `material`, `model`: what concepts are found in.
    - `keys`, `stopwatch`: as for `problem_of`.
    - `along`: λ on the way to one that was chosen elsewhere.
    - `alike`: as for `problem_of`.

    **Returns:** the problem, with λ if that was to be chosen, or the fit; and the scan if there was one.
    """
    preset, crops = asked.preset, material.pictures.crop_activations
    whole = material.every_place if asked.of_places else None
    rows = crops if whole is None else whole
    signed = material.signed if asked.solver is None else asked.solver.signed_dictionary
    rank, scan = choose_rank(
        asked.rank, streamed(rows), signed=signed, key=keys["ranks"], progress=asked.progress, stopwatch=stopwatch
    )
    if preset is not None and preset.by_method:
        with stopwatch("factorization"), asked.progress("Factorizing", 1) as advance:
            fitting = fit_by_method(preset, model, material, rank, keys["start"])
            advance(1)
        return fitting, scan
    objective = asked.objective if preset is None else preset.objective(model.head, model.outputs)
    problem = problem_of(
        model.head, material, rank, faithfulness=asked.faithfulness, objective=objective, signed=signed,
        solver=asked.solver, start=asked.start, keys=keys, progress=asked.progress, stopwatch=stopwatch,
        outputs=model.outputs, rows=whole, along=along, alike=alike,
    )  # fmt: skip
    return problem, scan


def explained(
    asked: Asked,
    ready: Ready,
    fitting: Fitted,
    scan: RankScan | None,
    *,
    whole: Fitted | None = None,
    banks: Banks | None = None,
    more: tuple[str, ...] = (),
) -> Explanation:
    """The explanation.

    **Arguments:**

    - `asked`, `ready`: what is asked for, and what concepts are weighed and scored in.
    - `fitting`, `scan`: the concepts.
    - `whole`: what was fitted, where `fitting` is the class's part of it.
    - `banks`: controls, if they are there already.
    - `more`: notes.
    """
    model, target, material, preset = ready.model, ready.target, ready.material, asked.preset
    whole = fitting if whole is None else whole
    with ready.stopwatch("everything else"):
        found = finished(
            model, target, material, fitting, ready.seen, ready.keys, strongest=asked.strongest,
            one_each=asked.one_each, progress=asked.progress, stopwatch=ready.stopwatch, preset=preset, banks=banks,
        )  # fmt: skip
    filed = material.filed or (whole.rows.shape[0] * whole.rows.shape[1] * whole.rows.dtype.itemsize
                               if isinstance(whole.rows, RowBlocks) else 0)  # fmt: skip
    notes = notes_on(model, target.index, ready.word, ready.photographs, ready.seen, material=material, fitting=whole,
                     scan=scan, preset=preset, filed=filed)  # fmt: skip
    if preset is not None:
        notes = (note_on(preset, found.scores.own), *notes)
    settings = settings_of(model, len(found.dictionary), ready.places.cropping, whole, asked.held_out, asked.key,
                           target.index, preset)  # fmt: skip
    provenance = Provenance(settings, (*notes, *more), dict(ready.stopwatch.seconds))
    return found.explanation(fit_of(whole, scan), provenance)

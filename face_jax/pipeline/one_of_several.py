"""One class of several that are explained together: its photographs through the network, and its explanation."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from ..activations import Survey
from ..explanation.parts import Provenance, Target
from ..explanation.record import Explanation
from ..model import SplitModel
from ..nmf import RankScan
from ..nmf.options import AnySolver, AnyStart
from ..nmf.results import FactorizationError
from ..signs import Signs
from ..support.interrupts import go_on
from ..support.memory import exhaustion_in_words
from ..support.progress import Progress, Stopwatch
from ..support.sentences import first_of, in_digits
from .checks import check_rank
from .class_groups import Group
from .controls import Banks
from .finishing import finished
from .fitting import Fitted, choose_rank, fit
from .material import Keys, Material, Places, keys_of, material_of, places_in
from .provenance import fit_of, notes_on, settings_of
from .selection import Activator, apart_if_signed, choose_class

LESS = "give fewer photographs of each class, fewer crops (crops=RandomCrops(per_image=…)) or a smaller rank"


@dataclasses.dataclass(frozen=True)
class Asked:
    """The settings that all classes have."""

    model: SplitModel
    rank: int | Literal["auto"]
    crops: Any
    faithfulness: float | Literal["auto", "usual"] | None
    solver: AnySolver | None
    start: AnyStart | None
    signs: Signs
    held_out: float
    strongest: int
    one_each: bool
    batch: int
    key: Key[Array, ""]
    cache: Callable[..., Any]
    progress: Progress

    def words(self) -> list[str]:
        """What an explanation depends on besides photographs and classes."""
        model = [self.model.fingerprint, self.model.layer, repr(self.model.preprocess), repr(self.model.outputs)]
        names = ("rank", "crops", "faithfulness", "solver", "start", "signs", "held_out", "strongest", "one_each")
        return [*model, *(repr(getattr(self, name)) for name in names), repr(jax.random.key_data(self.key).tolist())]

    def activator(self, stopwatch: Stopwatch) -> Activator:
        """Runs the model."""
        solver = self.solver if self.signs == "mixed" else None
        return Activator(self.model, self.batch, self.cache, self.progress, stopwatch, solver)


class Surveys:
    """Photographs through the network: of each class when it's asked for, or once for all that share photographs."""

    def __init__(self, asked: Asked, groups: list[Group]) -> None:
        self._asked, self._whole = asked, None
        self._numbers = tuple(group.number for group in groups)

    @property
    def total(self) -> int:
        """How many photographs that all classes share could be read."""
        return 0 if self._whole is None else len(self._whole.readable)

    @property
    def notes(self) -> tuple[str, ...]:
        """What should be known of photographs that all classes share."""
        if self._whole is None:
            return ()
        parts = (("can't be read", self._whole.skipped), ("are another one once more", self._whole.copies))
        return tuple(f"{len(some)} photographs {what}: {first_of(some)}" for what, some in parts if some)

    def size(self, group: Group) -> int:
        """How many photographs a class is looked for in; of photographs that all share, those it's found in."""
        if not group.together:
            return len(group.photographs)
        seen = self._look(group, self._asked.activator(Stopwatch()))
        return int(np.sum(self._asked.model.outputs.has(seen.kept.logits, group.number)))

    def _look(self, group: Group, activator: Activator) -> Survey:
        if self._whole is None:
            self._whole = activator.survey(group.photographs, self._numbers)
        return self._whole

    def of(self, group: Group, activator: Activator) -> tuple[Group, Survey]:
        """A class's photographs, and what the model makes of them."""
        if not group.together:
            return group, activator.survey(group.photographs, group.number)
        seen = self._look(group, activator)
        mask = np.asarray(self._asked.model.outputs.has(seen.kept.logits, group.number))
        index = seen.index[mask]
        if not len(index):
            return group, dataclasses.replace(seen, kept=seen.kept[mask], index=index)
        own = tuple(group.photographs[at] for at in index)
        every = np.arange(len(own))
        predicted = self._asked.model.outputs.predicted(seen.kept.logits[mask])
        return dataclasses.replace(group, photographs=own), Survey(seen.kept[mask], every, every, predicted, ())


@dataclasses.dataclass(frozen=True)
class Ready:
    """A class's photographs and crops, through the network; `group` has those of `given` that are looked at."""

    given: Group
    group: Group
    target: Target
    seen: Survey
    places: Places
    material: Material
    model: SplitModel
    keys: Keys
    stopwatch: Stopwatch


def ready_of(asked: Asked, group: Group, surveys: Surveys, *, alone: bool, apart: bool = False) -> Ready:
    """A class's photographs and crops through the network.

    **Arguments:**

    - `asked`, `group`, `surveys`: what is asked for.
    - `alone`: whether its crops alone must allow so many concepts.
    - `apart`: with signs apart, whatever they are.
    """
    keys, stopwatch = keys_of(asked.key), Stopwatch()
    with stopwatch("everything else"), exhaustion_in_words(f"photographs of {group.name}", LESS):
        activator = asked.activator(stopwatch)
        given, (group, seen) = group, surveys.of(group, activator)
        number, chosen, seen = choose_class(asked.model, seen, group.number)
        if group.together:
            chosen = f"asked for; {len(seen.index)} of {surveys.total} photographs are predicted so"
        if asked.signs == "apart":
            activator, seen = apart_if_signed(activator, seen, known=apart)
        preprocess = asked.model.preprocess
        places = places_in(group.photographs, seen, asked.crops, asked.held_out, keys, stopwatch, preprocess)
        check_rank(asked.rank if alone else 1, len(places.crops), seen.kept.maps.shape[-1])
        activator, seen, material = material_of(activator, places, seen, number, keys, asked.signs)
    return Ready(given, group, Target(number, chosen), seen, places, material, activator.model, keys, stopwatch)


def fitted(
    asked: Asked, material: Material, model: SplitModel, keys: Keys, stopwatch: Stopwatch, along: list[float] | None
) -> tuple[Fitted, RankScan | None]:
    """Concepts, and the scan of ranks if there was one; `along`: λ on the way to one that was chosen elsewhere."""
    signed = material.signed if asked.solver is None else asked.solver.signed_dictionary
    rows, progress = material.pictures.crop_activations, asked.progress
    rank, scan = choose_rank(asked.rank, rows, signed=signed, key=keys["ranks"], progress=progress, stopwatch=stopwatch)
    fitting = fit(
        model.head, material, rank, faithfulness=asked.faithfulness, objective=None, signed=signed,
        solver=asked.solver, start=asked.start, keys=keys, progress=progress, stopwatch=stopwatch,
        outputs=model.outputs, along=along, alike=True,
    )  # fmt: skip
    return fitting, scan


def explained(
    asked: Asked, ready: Ready, fitting: Fitted, whole: Fitted, scan: RankScan | None, banks: Banks,
    more: tuple[str, ...],
) -> Explanation:  # fmt: skip
    """A class's explanation; `whole` is what was fitted, of which `fitting` is the class's part."""
    model, target, material = ready.model, ready.target, ready.material
    with ready.stopwatch("everything else"):
        found = finished(
            model, target, material, fitting, ready.seen, ready.keys, strongest=asked.strongest,
            one_each=asked.one_each, progress=asked.progress, stopwatch=ready.stopwatch, banks=banks,
        )  # fmt: skip
    every = ready.group.photographs
    notes = notes_on(model, target.index, None, every, ready.seen, material=material, fitting=whole, scan=scan)
    rank = len(found.dictionary)
    settings = settings_of(model, rank, ready.places.cropping, whole, asked.held_out, asked.key, target.index)
    provenance = Provenance(settings, (*notes, *more), dict(ready.stopwatch.seconds))
    return found.explanation(fit_of(whole, scan), provenance)


@contextlib.contextmanager
def failing(failed: dict[str, Exception], name: str) -> Iterator[None]:
    """What goes wrong with one class is noted, and the others go on."""
    try:
        yield
    except (ValueError, ArithmeticError, FactorizationError) as error:
        go_on()
        failed[name] = error


def on_weight(along: list[float], where: str) -> str:
    """What to say of a λ that was chosen elsewhere."""
    weight = along[-1] if along else 0.0
    return (
        f"Faithfulness has λ={in_digits(weight)} here: it was chosen on {where}, and is taken in proportion to the "
        "size of the activations. face_jax.explain of this class alone chooses it anew."
    )


def size_of(rows: Float[np.ndarray, "row channel"]) -> float:
    """The sum of squares."""
    return float(np.sum(np.square(rows, dtype=np.float64)))

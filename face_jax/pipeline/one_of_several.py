"""One class of several that are explained together: its photographs through the network, and why it failed."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import numpy as np

from ..activations import Survey
from ..nmf.results import FactorizationError
from ..support.interrupts import go_on
from ..support.memory import exhaustion_in_words
from ..support.progress import Stopwatch
from ..support.sentences import first_of, in_digits
from .class_groups import Group
from .one_class import Asked, Ready, ready_of
from .selection import Activator

LESS = "give fewer photographs of each class, fewer crops (crops=RandomCrops(per_image=…)) or a smaller rank"


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
            with self._asked.refusing_signs():
                self._whole = activator.survey(group.photographs, self._numbers)
        return self._whole

    def of(self, group: Group, activator: Activator) -> tuple[Group, Survey]:
        """A class's photographs, and what the model makes of them."""
        if not group.together:
            return group, activator.survey(group.photographs, group.number)
        seen = self._look(group, activator)
        mask = np.asarray(self._asked.model.outputs.has(seen.kept.logits, group.number))
        index, kept = seen.index[mask], seen.kept[mask]
        if not len(index):
            return group, dataclasses.replace(seen, kept=kept, index=index)
        # Beside the activations of all, which stay for the classes to come.
        kept = dataclasses.replace(kept, maps=self._asked.room.placed(kept.maps))
        own = tuple(group.photographs[at] for at in index)
        every = np.arange(len(own))
        predicted = self._asked.model.outputs.predicted(kept.logits)
        return dataclasses.replace(group, photographs=own), Survey(kept, every, every, predicted, ())


def ready_in(asked: Asked, group: Group, surveys: Surveys, *, alone: bool, apart: bool = False) -> Ready:
    """A class's photographs and crops through the network.

    **Arguments:**

    - `asked`, `group`, `surveys`: what is asked for.
    - `alone`, `apart`: as for `ready_of`.
    """
    stopwatch = Stopwatch()
    with (
        stopwatch("everything else"),
        exhaustion_in_words(f"photographs of {group.name}", LESS),
        asked.refusing_signs(),
    ):
        activator = asked.activator(stopwatch)
        group, seen = surveys.of(group, activator)
        chosen = None
        if group.together and len(seen.index):
            chosen = f"asked for; {len(seen.index)} of {surveys.total} photographs are predicted so"
        return ready_of(
            asked, activator, group.photographs, seen, group.number, chosen=chosen, alone=alone, apart=apart
        )


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

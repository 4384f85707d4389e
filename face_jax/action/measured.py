"""What an edit does on labelled photographs: accuracy by class and by group, beside controls, with intervals."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from ..explanation.record import Explanation
from ..model import SplitModel, labelled_photographs_for
from ..pictures.photographs import Photograph
from ..support.arguments import Seed, Whole, check_count, enough, instance, key_of
from ..support.interrupts import interruptible
from ..support.precision import full_precision
from ..support.progress_line import Watched
from ..support.randomness import generator
from ..support.reprs import short_repr
from .directions import check_apart
from .edits import Codes, Factors, edit_of, in_words
from .intervals import Interval, Resampled
from .variants import least_important, logits_under, other_concepts, random_banks, through

Kind = Literal["before", "edit", "other concepts", "least important", "random directions"]
CONTROLS: dict[str, str] = {
    "other concepts": "other concepts, as much changed",
    "least important": "the least important concept, changed likewise",
    "random directions": "random directions, as much at the same places",
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How accurate the model is after one change.

    **Arguments:**

    - `kind`: what was done; of controls that are drawn, numbers are means over the draws.
    - `accuracy`: share of the photographs for which their label is predicted; where there are groups, the mean of
        the groups' accuracies. Of labels, each by itself, that is the recall of the labels that were given: what is
        predicted besides doesn't count.
    - `gain`: how far that is above the accuracy before.
    - `per_class`, `per_group`: the accuracy of each class that is there, by its number, and of each group by its name.
    - `changed`: share of the photographs whose prediction changes.
    - `draws`: the gain of each draw.
    - `most`: the largest amount of a concept, as a share of its codes, that it takes out, over all draws: above 1 more
        than there is, below 0 where it puts in; None where no concepts of the explanation are changed.
    """

    kind: Kind
    accuracy: Interval
    gain: Interval
    per_class: dict[int, Interval]
    per_group: dict[str, Interval]
    changed: float
    draws: tuple[float, ...]
    most: float | None


@dataclasses.dataclass(frozen=True)
class EditEffect:
    """What an edit does on labelled photographs.

    **Arguments:**

    - `edit`: what was done, in words.
    - `whole`: whether what goes with the concepts was taken out with them (`along`).
    - `photographs`, `labels`, `groups`: which were looked at, the class of each, and the group if there are any.
    - `before`, `after`: accuracy without and with the edit.
    - `controls`: the same for changes that know nothing of it.
    - `above`: how far the edit's gain is above that of each kind of control, photograph by photograph.
    - `predicted`: of exclusive classes what is predicted for each photograph, before and after; None of labels.
    - `label_sets`: of labels, each by itself, which are predicted for each photograph, before and after; else None.
    - `moves`: of exclusive classes predictions that change: from which class to which, and how many.
    - `amounts`: which share of each concept's codes is taken out; below 0 what is put in.
    - `strength`: how much of the edited concepts each photograph has.
    - `unread`: why photographs couldn't be read.
    """

    edit: str
    whole: bool
    photographs: tuple[Photograph, ...]
    labels: Int[np.ndarray, " image"]
    groups: tuple[str, ...]
    before: Outcome
    after: Outcome
    controls: tuple[Outcome, ...]
    above: dict[str, Interval]
    predicted: Int[np.ndarray, "image 2"] | None
    label_sets: Bool[np.ndarray, "image 2 class"] | None
    moves: tuple[tuple[int, int, int], ...]
    amounts: Float[np.ndarray, " concept"]
    strength: Float[np.ndarray, " image"]
    unread: tuple[str, ...]

    __repr__ = short_repr

    @property
    def changes(self) -> Bool[np.ndarray, " image"]:
        """For which photographs anything is predicted otherwise."""
        if self.label_sets is not None:
            return (self.label_sets[:, 0] != self.label_sets[:, 1]).any(1)
        assert self.predicted is not None
        return self.predicted[:, 0] != self.predicted[:, 1]

    @property
    def label_changes(self) -> tuple[tuple[int, int, int], ...]:
        """Labels that are predicted otherwise: which, how many photographs lose it and how many gain it."""
        if self.label_sets is None:
            return ()
        before, after = np.moveaxis(self.label_sets, 1, 0)
        lost, gained = (before & ~after).sum(0), (after & ~before).sum(0)
        order = [at for at in np.argsort(-(lost + gained), kind="stable").tolist() if lost[at] + gained[at]]
        return tuple((at, int(lost[at]), int(gained[at])) for at in order)

    @property
    def measure(self) -> str:
        """What `accuracy` is here, in words."""
        return "accuracy" if self.label_sets is None else "recall of the given labels"

    @property
    def recommended(self) -> bool:
        """Whether the edit helps here: its gain is above zero, above each kind of control, and above every draw."""
        return (
            self.after.gain.low > 0
            and all(each.low > 0 for each in self.above.values())
            and all(draw < self.after.gain.value for control in self.controls for draw in control.draws)
        )

    @property
    def verdict(self) -> str:
        """What to make of it, in a sentence or two."""
        gain, before, after = self.after.gain, self.before.accuracy, self.after.accuracy
        said = (
            f"{self.measure} goes from {100 * before.value:.1f} to {100 * after.value:.1f} % "
            f"({_points(gain.value)} points, 95 % interval {_points(gain.low)} to {_points(gain.high)})"
        )
        if self.recommended:
            return f"The model {self.edit} is recommended for photographs such as these: {said}, more than any control."
        why = "that isn't above zero beyond what chance among photographs gives"
        if gain.value <= 0:
            why = "that is no gain"
        if gain.low > 0:
            rivals = [
                CONTROLS[control.kind]
                for control in self.controls
                if self.above[control.kind].low <= 0 or max(control.draws) >= gain.value
            ]
            why = f"a control does as much: {'; '.join(rivals)}"
        return f"The model {self.edit} isn't recommended: {said}, and {why}."


def _points(gain: float) -> str:
    return f"{100 * gain:+.1f}".replace("-", "−")


@interruptible()
@full_precision
def measure_edit(
    explanation: Explanation,
    images: Any,
    labels: Any,
    *,
    remove: Any = (),
    scale: Factors = None,
    codes: Codes = "exact",
    along: Any = None,
    draws: Whole = 10,
    resamples: Whole = 2000,
    batch: Whole = 32,
    key: Seed = None,
    progress: Watched = None,
) -> EditEffect:
    """What an edit does on labelled photographs, beside controls that know nothing of it.

    Controls are other concepts that are changed the same way and as much (drawn; in the edit's proportions, with the
    same root mean square of activations, which may be more than there is of them), the least important concept, changed
    by the edit's own amounts, and random directions that are changed as much as the edited concepts, at the same
    places. Where the edit puts in, they do. Intervals are over photographs, paired, by a bootstrap that draws within
    groups.

    **Arguments:**

    - `explanation`: whose model and concepts are meant; the model of an edit isn't needed.
    - `images`: anything that `face_jax.photographs` takes, also photographs that weren't explained.
    - `labels`: the path of a CSV file with the columns `file`, `label` and, if wanted, `group`; `"folders"` where the
        photographs lie in folders named as their classes; a mapping from their names; or a list with one for each.
    - `remove`, `scale`, `codes`, `along`: as for `face_jax.edit`. Photographs from which `along` was learned are
        refused.
    - `draws`: of each control that is drawn.
    - `resamples`: of the bootstrap.
    - `batch`: photographs that go through the network together.
    - `key`: for controls and bootstrap, or a seed.
    - `progress`: whom to tell how far it is.

    **Returns:** accuracies, what changes into what, and whether the edit is to be recommended. Raises `ValueError` for
    labels that aren't valid, for fewer than two photographs, and for photographs from which `along` was learned.

    **Example:**

    >>> effect = fj.measure_edit(explanation, images, ["warm"] * 14, remove=[0], key=0)
    >>> effect.before.accuracy.value, effect.recommended
    (1.0, False)
    """
    instance("explanation", explanation, Explanation, "the result of face_jax.explain")
    change = edit_of(explanation, remove, scale, codes, along)
    draws, resamples, batch = (
        check_count("draws", draws, "draws"),
        enough("resamples", resamples, 100),
        check_count("batch", batch, "pictures"),
    )
    random = generator(key := key_of(key))
    model = explanation.model
    known = labelled_photographs_for(model, images, labels)
    check_apart(() if change.learned is None else change.learned.photographs, known.photographs, ("along", "images"))
    seen = through(model, known, change, batch, progress)
    apply = logits_under(model, seen)
    before = seen.collected.logits
    amounts, bank = change.amounts, change.along
    after = apply(amounts, bank)
    rivals = {
        "other concepts": list(other_concepts(seen, change, draws, random)),
        "least important": list(least_important(change)),
    }
    changes: dict[str, list[np.ndarray]] = {
        kind: [apply(each, bank) for each in changed] for kind, changed in rivals.items()
    }
    changes["random directions"] = [apply(amounts, each) for each in random_banks(change, draws, key)]
    changed_by = {"edit": [amounts], **rivals}
    resampled = Resampled(seen.labels, resamples, random)
    measured = {
        kind: _outcome(resampled, kind, before, logits, model, changed_by.get(kind, ()))  # pyright: ignore[reportArgumentType]
        for kind, logits in {"before": [before], "edit": [after], **changes}.items()
        if logits
    }
    right = {
        kind: _right(model, logits, seen.labels.index)
        for kind, logits in {"edit": [after], **changes}.items()
        if logits
    }
    exclusive = model.outputs.exclusive
    labelled = None if exclusive else np.stack([model.outputs.predicted(each) for each in (before, after)], axis=1)
    predicted = np.stack([before.argmax(1), after.argmax(1)], axis=1) if exclusive else None
    return EditEffect(
        edit=in_words(change),
        whole=change.directions is not None,
        photographs=seen.labels.photographs,
        labels=seen.labels.index,
        groups=tuple(seen.labels.groups[at] for at in seen.labels.group) if seen.labels.groups else (),
        before=measured["before"],
        after=measured["edit"],
        controls=tuple(measured[kind] for kind in CONTROLS if kind in measured),
        above={kind: resampled.mean(right["edit"] - right[kind]) for kind in CONTROLS if kind in measured},
        predicted=predicted,
        label_sets=labelled,
        moves=() if predicted is None else _moves(predicted),
        amounts=amounts,
        strength=np.linalg.norm(seen.codes * amounts, axis=-1).mean((1, 2)),
        unread=seen.unread,
    )


def _right(
    model: SplitModel, logits: list[Float[np.ndarray, "image class"]], labels: Int[np.ndarray, " image"]
) -> Float[np.ndarray, " image"]:
    """For each photograph the share of draws for which its label is predicted."""
    at = np.arange(len(labels))
    return np.mean([model.outputs.predicted(each)[at, labels] for each in logits], axis=0)


def _outcome(
    resampled: Resampled,
    kind: Kind,
    before: Float[np.ndarray, "image class"],
    logits: list[np.ndarray],
    model: SplitModel,
    amounts: Sequence[np.ndarray],
) -> Outcome:
    labels = resampled.labels
    was, right = (_right(model, each, labels.index) for each in ([before], logits))
    changed = [(model.outputs.predicted(before) != model.outputs.predicted(each)).any(1).mean() for each in logits]
    each_gain = [
        float(resampled.weights @ (_right(model, [each], labels.index) - was))
        for each in (logits if kind != "before" else [])
    ]
    return Outcome(
        kind=kind,
        accuracy=resampled.mean(right),
        gain=resampled.mean(right - was),
        per_class={int(at): resampled.of_some(right, labels.index == at) for at in np.unique(labels.index)},
        per_group={name: resampled.of_some(right, labels.group == at) for at, name in enumerate(labels.groups)},
        changed=float(np.mean(changed)),
        draws=tuple(each_gain),
        most=max((float(each[np.abs(each).argmax()]) for each in amounts), key=abs, default=None),
    )


def _moves(predicted: Int[np.ndarray, "image 2"]) -> tuple[tuple[int, int, int], ...]:
    pairs = collections.Counter((was, now) for was, now in predicted.tolist() if was != now)
    return tuple((first, second, count) for (first, second), count in pairs.most_common())

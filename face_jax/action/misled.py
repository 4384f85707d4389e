"""Photographs that a model gets wrong, and what misleads it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ..activations import survey
from ..explanation.reasons import Why
from ..explanation.record import Explanation
from ..model import labelled_photographs_for
from ..support.arguments import Seed, Whole, check_count, enough, instance, key_of, several
from ..support.interrupts import interruptible
from ..support.precision import full_precision
from ..support.progress_line import Watched, progress_of
from ..support.randomness import generator
from .intervals import Interval, means


@interruptible()
@full_precision
def misled(
    explanation: Explanation,
    images: Any,
    labels: Any,
    *,
    most: Whole = 24,
    batch: Whole = 32,
    permutations: Whole = 64,
    key: Seed = None,
    progress: Watched = None,
) -> tuple[Why, ...]:
    """Photographs that the model takes for the explained class wrongly, or fails to, each with what misleads it.

    **Arguments:**

    - `explanation`: whose concepts are asked.
    - `images`: anything that `face_jax.photographs` takes.
    - `labels`: what they really show, as for `face_jax.measure_edit`.
    - `most`: at most so many photographs, the most confident mistakes first.
    - `batch`: photographs that go through the network together.
    - `permutations`, `key`: as for `Explanation.why`.
    - `progress`: whom to tell how far it is.

    **Returns:** for each such photograph the parts of the difference between the logit predicted and the logit of its
    label: what adds to it misleads. Empty where there is none. Raises `ValueError` for labels that aren't valid, and
    for a model whose outputs are labels, each by itself.

    **Example:**

    >>> [each.names for each in fj.misled(explanation, images[:2], ["warm", "cold"])]
    [('warm', 'cold')]
    """
    instance("explanation", explanation, Explanation, "the result of face_jax.explain")
    most, batch = check_count("most", most, "photographs"), check_count("batch", batch, "pictures")
    model, target = explanation.model, explanation.target.index
    if not model.outputs.exclusive:
        raise ValueError(
            "explanation is of labels, each by itself, which aren't mistaken for each other; ask explanation.why"
        )
    known = labelled_photographs_for(model, images, labels)
    told = progress_of(progress)
    seen = survey(model, known.photographs, batch=min(batch, len(known.photographs)), progress=told)
    logits, truth = seen.kept.logits, known.index[seen.index]
    said = logits.argmax(1)
    wrong = np.flatnonzero((said != truth) & ((said == target) | (truth == target)))
    margin = logits[wrong, said[wrong]] - logits[wrong, truth[wrong]]
    chosen = wrong[np.argsort(-margin, kind="stable")][:most]
    with told("Photographs that are misread", len(chosen)) as advance:
        found = []
        for at in chosen:
            photograph = known.photographs[seen.index[at]]
            options: Any = {"target": int(said[at]), "permutations": permutations, "key": key}
            found.append(explanation.why(photograph, int(truth[at]), **options))
            advance(1)
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A concept by how much it misleads.

    **Arguments:**

    - `concept`: which, from 0.
    - `adds`: what it adds to the logit of the class that is predicted wrongly less that of the right one, in the mean
        of the photographs that are misread, with its 95 % interval over photographs.
    - `often`: share of these photographs in which it adds.
    """

    concept: int
    adds: Interval
    often: float

    @property
    def number(self) -> int:
        """What reports call it."""
        return self.concept + 1

    def table(self) -> dict[str, Any]:
        """All of it in plain numbers."""
        return {"number": self.number, "adds": dataclasses.asdict(self.adds), "often": self.often}


def suspects(misread: Any, *, resamples: Whole = 2000, key: Seed = None) -> tuple[Suspect, ...]:
    """Concepts by how much they mislead, the most misleading first: where to look for a shortcut.

    What a concept adds to the mistake is averaged over the photographs; its interval comes from drawing photographs
    again (bootstrap, percentiles), and is too narrow where they are few. That a concept misleads doesn't say what it
    is, nor that the model is better without it: look at its crops, and measure the edit.

    **Arguments:**

    - `misread`: the result of `face_jax.misled`, or some of its entries: those of one kind of mistake, say.
    - `resamples`: of the bootstrap.
    - `key`: for it, or a seed.

    **Returns:** every concept. Raises `ValueError` for fewer than two photographs, and for entries of explanations with
    different numbers of concepts.

    **Example:**

    >>> wrong = fj.misled(explanation, images[:3], ["cold"] * 3)
    >>> first, *_ = fj.suspects(wrong, key=0)
    >>> first.adds.low <= first.adds.value <= first.adds.high
    True
    """
    every = several("misread", misread, "the results of misled")
    for each in every:
        instance("misread", each, Why, "what face_jax.misled returns")
    if len(every) < 2:
        raise ValueError(f"misread has {len(every)} photographs, of which no mean can be said; give two or more")
    if len({len(each.parts.concepts) for each in every}) > 1:
        raise ValueError("misread has entries of explanations with different numbers of concepts; give those of one")
    adds = np.stack([each.parts.concepts for each in every]).astype(np.float64)
    found = means(adds, enough("resamples", resamples, 100), generator(key_of(key)))
    often = (adds > 0).mean(0)
    order = np.argsort([-each.value for each in found], kind="stable").tolist()
    return tuple(Suspect(at, found[at], float(often[at])) for at in order)

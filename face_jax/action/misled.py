"""Photographs that a model gets wrong, and what misleads it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..activations import survey
from ..explanation.reasons import Why
from ..explanation.record import Explanation
from ..model import labelled_photographs_for
from ..support.arguments import Seed, Whole, check_count, instance
from ..support.interrupts import interruptible
from ..support.precision import full_precision
from ..support.progress_line import Watched, progress_of


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

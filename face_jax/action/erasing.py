"""What goes with a concept: the direction in which activations change with its codes, from labelled photographs."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from ..explanation.record import Explanation
from ..model import labelled_photographs_for
from ..support.arguments import Whole, check_count, instance
from ..support.interrupts import interruptible
from ..support.precision import full_precision
from ..support.progress_line import Watched
from .directions import ErasingDirections, Learned, bank_digest, content_of
from .edits import Codes, edit_of
from .variants import through

# Of the codes' mean variance: codes that go together get no large directions that nearly cancel.
_RIDGE = 0.01


@interruptible()
@full_precision
def erasing_directions(
    explanation: Explanation,
    images: Any,
    labels: Any,
    *,
    remove: Any,
    codes: Codes = "exact",
    batch: Whole = 32,
    progress: Watched = None,
) -> ErasingDirections:
    """What goes with a concept, so that it can be taken out whole: `fj.edit(…, along=)`.

    A concept may tell exactly which photographs have a mark, and still be only a part of what the mark does to the
    activations: the rest, and what the mark covers, the class reads, too. Among photographs of the same class, with
    and without the concept, activations change with its codes along a direction, which least squares finds: codes and
    activations are averaged over places, each class's means are taken off, so that what tells classes apart stays, and
    the concepts to be removed explain the activations together. (Linear concept erasure, as in Belrose et al. 2023,
    LEACE, with codes for labels, and without whitening, for which photographs are too few.)

    **Arguments:**

    - `explanation`: whose model and concepts are meant.
    - `images`: anything that `face_jax.photographs` takes: photographs of several classes, some of which have the
        concept whatever their class. Some dozens do.
    - `labels`: what they really show, as for `face_jax.measure_edit`.
    - `remove`: the concepts that are to be edited together, as for `face_jax.edit`.
    - `codes`: as for the edit, `"exact"` or `"linear"`.
    - `batch`: photographs that go through the network together.
    - `progress`: whom to tell how far it is.

    **Returns:** a row for each concept, in units of activations per unit of its codes: of those to be removed from one
    regression, of each other one from a regression on these and itself, so that what goes with it only because it
    goes together with these isn't counted twice. It carries what it was learned from: edits of other concepts or with
    other codes refuse it, and `face_jax.measure_edit` refuses its photographs. Raises `ValueError` where classes have
    too few photographs, or a concept to be removed doesn't vary among photographs of a class.

    **Example:**

    >>> along = fj.erasing_directions(explanation, images, ["warm"] * 14, remove=[0])
    >>> along.shape == explanation.dictionary.shape
    True
    >>> fj.edit(model, explanation, remove=[0], along=along).name
    'layered without concept 1 and what goes with it'
    """
    instance("explanation", explanation, Explanation, "the result of face_jax.explain")
    change = edit_of(explanation, remove, None, codes)
    batch = check_count("batch", batch, "pictures")
    model = explanation.model
    seen = through(model, labelled_photographs_for(model, images, labels), change, batch, progress)
    means = [each.mean((1, 2)).astype(np.float64) for each in (seen.collected.maps, seen.codes)]
    rows, amounts = (_within(each, seen.labels.index) for each in means)
    wanted = np.flatnonzero(change.amounts)
    still = wanted[np.abs(amounts).max(0)[wanted] <= 1e-6 * np.abs(means[1]).max(0)[wanted]]
    if len(still):
        raise ValueError(
            f"remove names concept {still[0]}, of which photographs of the same class all have the same in images (or "
            "each class has one photograph); give photographs with and without it, several of each class"
        )
    found = np.zeros(explanation.dictionary.shape)
    found[wanted] = _regressed(rows, amounts[:, wanted])
    for at in np.flatnonzero(change.amounts == 0):
        found[at] = _regressed(rows, amounts[:, [*wanted, at]])[-1]
    learned = Learned(
        tuple(wanted.tolist()),
        change.linear,
        bank_digest(change.dictionary),
        frozenset(content_of(seen.labels.photographs)),
    )
    return ErasingDirections(found, learned)


def _within(rows: Float[np.ndarray, "image _"], labels: Any) -> Float[np.ndarray, "image _"]:
    """Without the mean of each class."""
    found = rows.copy()
    for label in np.unique(labels):
        found[labels == label] -= found[labels == label].mean(0)
    return found


def _regressed(
    rows: Float[np.ndarray, "image channel"], codes: Float[np.ndarray, "image some"]
) -> Float[np.ndarray, "some channel"]:
    gram = codes.T @ codes
    ridge = _RIDGE * np.trace(gram) / len(gram)
    # Codes that don't vary explain nothing.
    return np.linalg.solve(gram + (ridge or 1.0) * np.eye(len(gram)), codes.T @ rows)

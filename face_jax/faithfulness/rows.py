"""The rows and the term of an explanation: concepts from crops, predictions of whole pictures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..blocks.room import averaged, filed, folder_of
from ..blocks.row_blocks import RowBlocks
from ..outputs import MultiClass, Outputs
from .losses import loss_for
from .term import Faithfulness

Rows = Float[np.ndarray, "row channel"] | RowBlocks


def faithful_rows(
    head: Any,
    crops: Float[np.ndarray, "crop channel"],
    pictures: Float[np.ndarray, "image y x channel"],
    outputs: Outputs = MultiClass(),  # noqa: B008 (settings: frozen)
) -> tuple[Float[np.ndarray, "row channel"], Faithfulness]:
    """What is factorized when whole pictures' predictions are to be kept, and the term that keeps them.

    The loss is fitted where it will be scored. A head that averages first sees the pictures' averages, which become
    rows behind the crops'; any other head sees maps, whose places are the rows then.

    **Arguments:**

    - `head`: from activations to logits.
    - `crops`: averaged activations of the crops.
    - `pictures`: activations of the pictures fitted; averaged ones, of one place, if the head is affine.
    - `outputs`: what the logits mean, which says what loss keeps predictions.

    **Returns:** the rows, and the term.
    """
    channels, loss = pictures.shape[-1], loss_for(outputs)
    if not getattr(head, "affine", False):
        return pictures.reshape(-1, channels), Faithfulness(head, loss, grid=pictures.shape[1:3])
    averages = averaged(pictures)
    return np.concatenate([crops, averages]), _of_averages(head, loss, crops, averages)


def rows_where_they_lie(
    head: Any,
    crops: Float[np.ndarray, "crop channel"],
    pictures: Float[np.ndarray, "image y x channel"],
    outputs: Outputs = MultiClass(),  # noqa: B008 (settings: frozen)
) -> tuple[Rows, Faithfulness]:
    """`faithful_rows`, but in blocks where they lie in files."""
    if getattr(head, "affine", False) and len(crops) and filed(crops):
        averages = averaged(pictures)
        rows = RowBlocks([RowBlocks(crops), RowBlocks(averages)], scratch=folder_of(crops))
        return rows, _of_averages(head, loss_for(outputs), crops, averages)
    rows, term = faithful_rows(head, crops, pictures, outputs)
    return streamed(rows), term


def _of_averages(head: Any, loss: Any, crops: np.ndarray, averages: np.ndarray) -> Faithfulness:
    """The term that keeps what is said of averages behind crops."""
    weights = np.concatenate([np.zeros(len(crops)), np.ones(len(averages))]).astype(crops.dtype)
    return Faithfulness(head, loss, weights=jnp.asarray(weights))


def streamed(rows: Float[np.ndarray, "row channel"]) -> Rows:
    """Rows in blocks where they lie in a file, else as they are."""
    return RowBlocks(rows, scratch=folder_of(rows)) if len(rows) and filed(rows) else rows


def in_jax(rows: Rows) -> Any:
    """What is factorized: rows in blocks, or an array of JAX."""
    return rows if isinstance(rows, RowBlocks) else jnp.asarray(rows)


class ZeroedRows:
    """Rows, some of which are zeros in place of what they are.

    **Arguments:**

    - `rows`: all of them.
    - `zeroed`: which are zeros.
    """

    def __init__(self, rows: RowBlocks, zeroed: Bool[np.ndarray, " row"]) -> None:
        self.rows, self.zeroed, self.shape, self.dtype = rows, zeroed, rows.shape, rows.dtype

    def __getitem__(self, index: slice) -> np.ndarray:
        """Some consecutive rows."""
        return np.where(self.zeroed[index][:, None], np.zeros((), self.dtype), self.rows[index])


def weighed_parts(
    term: Faithfulness, activations: Any
) -> Iterator[tuple[Any, Float[Array, "row channel"], Faithfulness]]:
    """Which rows, the rows and their term: of rows in blocks a part after the other, the images that weigh anything.

    **Arguments:**

    - `term`: of all images.
    - `activations`: rows in memory, which are a single part, or in blocks.
    """
    if not isinstance(activations, RowBlocks):
        yield slice(None), activations, term
        return
    places, rows = term.places, activations.shape[0]
    total, each = rows // places, max(1, activations.rows // places)
    weights = np.ones(total) if term.weights is None else np.asarray(term.weights)
    for first, block in zip(
        range(0, total, each),
        activations.parts([min(total, end) * places for end in range(each, total + each, each)]),
        strict=True,
    ):
        counted = first + np.flatnonzero(weights[first : first + each] > 0)
        if not len(counted):
            continue
        index = (counted[:, None] * places + np.arange(places)[None]).reshape(-1)
        some = jnp.asarray(block[index - first * places]).astype(activations.computed)
        yield index, some, term.of_groups(counted, total)

"""The rows and the term of an explanation: concepts from crops, predictions of whole pictures."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..outputs import MultiClass, Outputs
from .losses import loss_for
from .term import Faithfulness


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
    averages = pictures.mean(axis=(1, 2))
    weights = np.concatenate([np.zeros(len(crops)), np.ones(len(averages))]).astype(crops.dtype)
    return np.concatenate([crops, averages]), Faithfulness(head, loss, weights=jnp.asarray(weights))

"""How many concepts, and how much faithfulness: what may be asked for, and how it's chosen when it isn't."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .activations import Collected
from .faithfulness import Path, faithful_rows, faithfulness_path
from .model import SplitModel
from .selection import split

# Ranks that are compared when none is given.
RANKS = (2, 4, 6, 8, 10, 15, 20, 25, 30, 40)


def check_settings(rank: int | str, held_out: float, batch: int) -> None:
    """Refuses settings of `explain` that make no sense, before any work."""
    if rank != "auto" and (isinstance(rank, str) or rank < 1):
        raise ValueError(f"rank={rank!r} is no number of concepts; give 1 or more, or 'auto'")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out={held_out} is no share; give a number between 0 and 1, such as 0.2")
    if batch < 1:
        raise ValueError(f"batch={batch} is no number of pictures; give 1 or more")


def check_faithfulness(faithfulness: Any, objective: Any) -> None:
    """Refuses a λ that is none, or beside an objective of one's own."""
    if faithfulness is None or (isinstance(faithfulness, str) and faithfulness == "auto" and objective is None):
        return
    if objective is not None:
        raise ValueError(
            "faithfulness and objective are both given; write the term into the objective, SquaredError() + λ * "
            "Faithfulness(model.head), or leave one out"
        )
    if isinstance(faithfulness, (str, bool)) or not (math.isfinite(faithfulness) and faithfulness >= 0):
        raise ValueError(f'faithfulness={faithfulness!r} is no λ; give a number of at least 0, or "auto"')


def check_rank(rank: int | str, crops: int, channels: int) -> None:
    """Refuses more concepts than the crops can have."""
    least = RANKS[0] if isinstance(rank, str) else rank
    if least > min(crops, channels):
        raise ValueError(
            f"rank={least} is more than {crops} crops of {channels} channels allow; give at most "
            f"{min(crops, channels)}, or more photographs or crops"
        )


def choose_path(
    model: SplitModel,
    rows: Float[np.ndarray, "row channel"],
    pictures: Collected,
    rank: int,
    solver: Any,
    start: Any,
    keys: dict[str, Any],
) -> Path:
    """Solutions along λ, judged on a quarter of the pictures fitted; those held out are for the scores alone."""
    if len(pictures) < 2:
        raise ValueError(
            'faithfulness="auto" chooses λ on some of the pictures, and there is only one; give λ as a number, such as '
            "faithfulness=1e3, or more photographs"
        )
    learned, judged = split(len(pictures), 0.25, key=jax.random.fold_in(keys["controls"], 1))
    learned_rows, term = faithful_rows(model.head, rows, pictures.maps[learned])
    other, other_term = faithful_rows(model.head, rows[:0], pictures.maps[judged])
    return faithfulness_path(
        jnp.asarray(learned_rows),
        rank,
        term,
        jnp.asarray(other),
        held_out_term=other_term,
        solver=solver,
        start=start,
        key=keys["start"],
    )

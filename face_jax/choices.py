"""How many concepts, and how much faithfulness: what may be asked for."""

from __future__ import annotations

import math
from typing import Any

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

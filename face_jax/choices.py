"""How many concepts, crops and pictures, and how much faithfulness: what may be asked for."""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

# Ranks that are compared when none is given.
RANKS = (2, 4, 6, 8, 10, 15, 20, 25, 30, 40)


def check_count(name: str, value: Any, what: str) -> None:
    """Refuses what is no whole number from 1 on."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} is no number of {what}; give 1 or more, a whole number")


def native(name: str, value: Any) -> Any:
    """An array whose numbers are laid out as this machine and JAX have them; what is one for JAX already stays.

    Other byte orders and NumPy's long numbers are converted. Raises `ValueError` for masked entries.
    """
    if hasattr(value, "aval"):
        return value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(
            f"{name} is a masked array with {int(np.ma.count_masked(value))} masked entries, whose values mean "
            "nothing; give value.filled(0), and SquaredError(weights=...) with 0 there where it is factorized"
        )
    value = np.asarray(value)
    if not value.dtype.isnative:
        value = value.astype(value.dtype.newbyteorder("="))
    if value.dtype.kind in "fc" and value.dtype.itemsize > 8 * (1 + (value.dtype.kind == "c")):
        value = value.astype(np.float64 if value.dtype.kind == "f" else np.complex128)
    return value


def check_settings(rank: int | str, held_out: float, strongest: Any, batch: Any, crops: Any) -> None:
    """Refuses settings of `explain` that make no sense, before any work."""
    if rank != "auto" and (isinstance(rank, str) or rank < 1):
        raise ValueError(f"rank={rank!r} is no number of concepts; give 1 or more, or 'auto'")
    if not 0 < held_out < 1:
        raise ValueError(f"held_out={held_out} is no share; give a number between 0 and 1, such as 0.2")
    check_count("strongest", strongest, "crops")
    check_count("batch", batch, "pictures")
    if crops is not None and (isinstance(crops, type) or not callable(crops)):
        raise ValueError(
            f"crops={crops!r} is no rule for crops; give an object such as RandomCrops(), GridCrops() or "
            "NativeCrops(model.preprocess)"
        )


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

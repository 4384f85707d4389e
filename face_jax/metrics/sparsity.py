"""How few concepts codes use."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from jaxtyping import Float

from ..support.arguments import Real, real, real_array


@dataclasses.dataclass(frozen=True)
class CodeSparsity:
    """How few concepts describe each place.

    **Arguments:**

    - `non_zero`: share of all codes that aren't zero: "U_Spr" of FACE's published code, where 1 is dense.
    - `per_place`: how many concepts a place has, on average (ℓ0).
    - `hoyer`: `(√r − ‖u‖₁ / ‖u‖₂) / (√r − 1)`, averaged over places that have a code (Hoyer 2004): 1 for a single
        concept, 0 for all of them alike. NaN for a single concept in all, and where no place has a code.
    """

    non_zero: float
    per_place: float
    hoyer: float


def code_sparsity(codes: Float[np.ndarray, "*place concept"], *, least: Real = 0.0) -> CodeSparsity:
    """How few concepts codes use, over all places.

    **Arguments:**

    - `codes`: of rows, or of places of maps; concepts come last.
    - `least`: codes of at most this size count as zero. Non-negative least squares has exact zeros.

    **Returns:** the shares. Raises `ValueError` for codes that aren't finite.

    **Example:**

    >>> fj.metrics.code_sparsity(np.asarray([[2.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
    CodeSparsity(non_zero=0.625, per_place=2.5, hoyer=0.5)
    """
    found = real_array("codes", codes).astype(np.float64)
    if not found.ndim or 0 in found.shape:
        raise ValueError(f"codes has shape {found.shape}; give row × concept, or image × y × x × concept")
    least = real("least", least, "size", least=0)
    sizes = np.abs(found.reshape(-1, found.shape[-1]))
    sizes = np.where(sizes > least, sizes, 0)
    concepts, largest = sizes.shape[1], sizes.max(axis=1)
    sizes_of_order_one = sizes[largest > 0] / largest[largest > 0, None]
    hoyer = math.nan
    if concepts > 1 and len(sizes_of_order_one):
        ratio = sizes_of_order_one.sum(axis=1) / np.linalg.norm(sizes_of_order_one, axis=1)
        hoyer = float(((math.sqrt(concepts) - ratio) / (math.sqrt(concepts) - 1)).mean())
    return CodeSparsity(float((sizes > 0).mean()), float((sizes > 0).sum(axis=1).mean()), hoyer)

"""Whether the same concepts are found again, beside what concepts that were drawn at random would do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float

from ..nmf.matching import agreements, drawn_rows
from ..support.arguments import Seed, flag, key_of, real_array, several
from ..support.precision import full_precision
from ..support.reprs import short_repr
from .controls import random_dictionary, unit_length


@dataclasses.dataclass(frozen=True)
class Stability:
    """How alike the concepts of several fits are.

    **Arguments:**

    - `pairs`: for each pair of fits, the mean cosine of their concepts matched one to one.
    - `floor`: the mean of the same for as many dictionaries drawn at random: what `mean` has to beat.
    """

    pairs: Float[np.ndarray, " pair"]
    floor: float

    __repr__ = short_repr

    @property
    def mean(self) -> float:
        """The mean over the pairs; 1 is the same again."""
        return float(self.pairs.mean())

    @property
    def std(self) -> float:
        """The standard deviation over the pairs; they share fits, so it's no standard error."""
        return float(self.pairs.std())


@full_precision
def stability(
    dictionaries: Sequence[Float[np.ndarray, "_ _"]],
    *,
    rows: Float[np.ndarray, "_ _"] | None = None,
    either_sign: bool = False,
    key: Seed = None,
) -> Stability:
    """How alike the concepts of several fits are: cosines, matched one to one by the Hungarian method.

    FACE's "W-Stab" is the mean where the fits are of five folds of the data. Fits from several starts of the same data
    tell something else: say which. A deterministic start hides what another one would find.

    **Arguments:**

    - `dictionaries`: one a fit, of the same shape; of any length, cosines being what counts.
    - `rows`: activations: the floor is of dictionaries of random ones of them, which lie where the data do. If None,
        the floor is of random directions, with entries below zero where the dictionaries have such.
    - `either_sign`: a concept and its negative are the same, as where codes have either sign (PCA, ICA).
    - `key`: for the floor's draws, or a seed.

    **Returns:** the mean cosine of each pair, and the floor. Raises `ValueError` for fewer than two dictionaries, and
    for those whose shapes differ.

    **Example:**

    >>> first, second = np.eye(3), np.eye(3)[[2, 0, 1]]
    >>> fj.metrics.stability([first, second]).mean
    1.0
    """
    found = [
        real_array(f"dictionaries[{number}]", each, "concept × channel").astype(np.float64)
        for number, each in enumerate(several("dictionaries", dictionaries, "dictionaries"))
    ]
    if len(found) < 2:
        raise ValueError(f"dictionaries has {len(found)} fits, and likeness is of two; give at least 2")
    shape = found[0].shape
    if wrong := [each.shape for each in found if each.shape != shape]:
        raise ValueError(f"dictionaries have the shapes {shape} and {wrong[0]}; give fits of one rank and layer")
    either_sign, key = flag("either_sign", either_sign), key_of(key)
    keys = list(jax.random.split(key, max(len(found), 5)))
    if rows is None:
        signed = any((each < 0).any() for each in found)
        drawn = [random_dictionary(shape[1], shape[0], key=each, signed=signed) for each in keys]
    else:
        rows = real_array("rows", rows, "row × channel")
        if rows.shape[1] != shape[1]:
            raise ValueError(f"rows has {rows.shape[1]} channels and dictionaries have {shape[1]}; give those fitted")
        drawn = drawn_rows(rows, shape[0], keys)
    return Stability(
        pairs=agreements([unit_length(each) for each in found], either_sign=either_sign),
        floor=float(agreements(drawn, either_sign=either_sign).mean()),
    )

"""One bank of concepts, scored on pictures that it was not fitted on; and the banks to compare it with."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..activations import Collected
from ..concepts import encode_maps
from ..model import Head
from .curves import Fidelity, fidelity, gini
from .faithfulness import certificates, relative_squared_error


@dataclasses.dataclass(frozen=True)
class Score:
    """How one bank of concepts does on pictures that it was not fitted on.

    **Arguments:**

    - `name`: whose score it is.
    - `relative_error`: `‖A − UWᵀ‖² / ‖A‖²`.
    - `kl`, `l1`: mean divergence and distance between the predictions, per picture.
    - `kl_quantiles`: 50, 90 and 100 % of the pictures are below these.
    - `agreement`: share of pictures whose predicted class survives.
    - `gini`: how unequally importance is shared.
    - `fidelity`: insertion and deletion.
    """

    name: str
    relative_error: float
    kl: float
    kl_quantiles: tuple[float, float, float]
    l1: float
    agreement: float
    gini: float
    fidelity: Fidelity


def score(
    name: str,
    head: Head,
    units: Collected,
    dictionary: Float[np.ndarray, "concept channel"],
    target: int,
    importance: Float[np.ndarray, " concept"],
) -> Score:
    """Scores one bank of concepts: codes by non-negative least squares, for every bank alike.

    **Arguments:**

    - `name`: what the row is called.
    - `head`: from activations to logits.
    - `units`: the pictures it's scored on.
    - `dictionary`: the concepts.
    - `target`: the class.
    - `importance`: the concepts', found on other pictures; sets the order of insertion and deletion.

    **Returns:** the row.
    """
    codes = encode_maps(units.maps, dictionary)
    rebuilt = codes @ dictionary
    certified = certificates(units.logits, np.asarray(_apply(head, jnp.asarray(rebuilt))))
    half, most, worst = np.quantile(certified.kl, [0.5, 0.9, 1.0]).tolist()
    return Score(
        name=name,
        relative_error=relative_squared_error(units.maps, rebuilt),
        kl=float(certified.kl.mean()),
        kl_quantiles=(half, most, worst),
        l1=float(certified.l1.mean()),
        agreement=float(certified.agreement.mean()),
        gini=gini(importance),
        fidelity=fidelity(
            head, jnp.asarray(codes), jnp.asarray(dictionary), target, np.argsort(-importance, kind="stable")
        ),
    )


@jax.jit
def _apply(head: Any, maps: Float[Array, "image y x channel"]) -> Float[Array, "image class"]:
    return head(maps)

"""How codes are inferred from activations: one rule for all methods, and the papers' own by name."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..faithfulness import Faithfulness
from ..nmf import encode
from ..nmf.encoding import encode_maps
from ..nmf.options import AnyObjective
from ..nmf.validate import squared_error

Maps = Float[np.ndarray, "image y x channel"]
Dictionary = Float[np.ndarray, "concept channel"]
Codes = Float[np.ndarray, "image y x concept"]


@runtime_checkable
class Inference(Protocol):
    """A rule for codes, such as `NonNegativeLeastSquares()`."""

    def __call__(self, maps: Maps, dictionary: Dictionary, head: Any = None) -> Codes:
        """Codes at every place.

        **Arguments:**

        - `maps`: activations less the bank's offset, if it has one.
        - `dictionary`: the concepts, of any length.
        - `head`: the classifier's head for these pictures, where it's known; most rules don't ask it.
        """
        ...


@dataclasses.dataclass(frozen=True)
class NonNegativeLeastSquares:
    """`argmin ‖a − u Wᵀ‖², u ≥ 0`: the one rule for all methods whose codes are at least 0 (CRAFT, section 3.1)."""

    def __call__(self, maps: Maps, dictionary: Dictionary, head: Any = None) -> Codes:
        """Codes to rounding, as `face_jax.encode` has them."""
        del head
        return encode_maps(maps, dictionary.astype(maps.dtype))


@dataclasses.dataclass(frozen=True)
class LeastSquares:
    """`argmin ‖a − u Wᵀ‖²` without sign, the shortest where there are several: `A W (Wᵀ W)⁺`.

    The one rule for methods whose codes have either sign, and what FACE's published code scores all its concepts by.
    """

    def __call__(self, maps: Maps, dictionary: Dictionary, head: Any = None) -> Codes:
        """Codes by the pseudo-inverse, computed in float64."""
        del head
        return (maps @ np.linalg.pinv(dictionary.astype(np.float64))).astype(maps.dtype)


@dataclasses.dataclass(frozen=True)
class Projection:
    """`A W`, inner products with the concepts as long as they are.

    Rebuilt activations are then `A W Wᵀ`: what FACE's published code takes the "accuracy after NMF" of, and no other
    of its scores. They have another scale than the activations unless concepts are orthogonal and of unit length.
    """

    def __call__(self, maps: Maps, dictionary: Dictionary, head: Any = None) -> Codes:
        """Inner products."""
        del head
        return maps @ dictionary.T.astype(maps.dtype)


@dataclasses.dataclass(frozen=True)
class NearestConcept:
    """Each place is the concept nearest to it, by Euclidean distance: code 1 there and 0 elsewhere (k-means, ACE)."""

    def __call__(self, maps: Maps, dictionary: Dictionary, head: Any = None) -> Codes:
        """One 1 at every place."""
        del head
        rows, centres = maps.reshape(-1, maps.shape[-1]).astype(np.float64), dictionary.astype(np.float64)
        # Without ‖a‖², which is the same for all concepts.
        nearest = np.argmin((centres**2).sum(axis=1)[None] - 2 * rows @ centres.T, axis=1)
        return np.eye(len(dictionary), dtype=maps.dtype)[nearest].reshape(*maps.shape[:-1], len(dictionary))


@dataclasses.dataclass(frozen=True)
class ByObjective:
    """Codes that minimize a whole objective with the dictionary as it is, such as FACE's with its λ; at least 0.

    **Arguments:**

    - `objective`: `SquaredError() + λ * Faithfulness(head)`. Weights of rows and of images, which belong to those that
        were fitted, are left out; so are the fitted pictures' tokens and grid.
    """

    objective: AnyObjective

    def __post_init__(self) -> None:
        squared_error(self.objective)

    def __call__(self, maps: Maps, dictionary: Dictionary, head: Any = None) -> Codes:
        """Codes by `face_jax.encode(…, objective=…)`, whole pictures at a time."""
        objective = dataclasses.replace(self.objective.quadratic, weights=None, row_weights=None)
        for weighted in self.objective.terms:
            term = weighted.term
            if isinstance(term, Faithfulness):
                asked = term.head if head is None else head
                term = dataclasses.replace(term, head=asked, weights=None, grid=maps.shape[1:3])
            objective = objective + weighted.weight * term
        rows = jnp.asarray(maps.reshape(-1, maps.shape[-1]))
        found = encode(rows, jnp.asarray(dictionary, maps.dtype), objective=objective)
        return np.asarray(found).reshape(*maps.shape[:-1], len(dictionary))

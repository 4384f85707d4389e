"""How well a sum of concepts, each times its weight, says what the classifier says."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ..outputs import AnyOutputs, MultiClass, Outputs
from ..support.arguments import Seed, Whole, check_count, instance, key_of, real_array
from ..support.precision import full_precision
from ..support.randomness import generator


@dataclasses.dataclass(frozen=True)
class SurrogateError:
    """How far a surrogate's predictions are from the classifier's.

    **Arguments:**

    - `mae`: `|ŷ − y|` of the logits, averaged over images and classes ("SURF_MAE").
    - `emd`: `½ Σ |p − q|` of the probabilities, averaged over images ("SURF_EMD"); of labels, half the distance that
        `Certificates` has.
    - `agreement`: share of images for which both predict the same class.
    """

    mae: float
    emd: float
    agreement: float


@full_precision
def surrogate_error(
    logits: Float[np.ndarray, "image class"],
    presence: Float[np.ndarray, "_ concept"] | Float[np.ndarray, "_ _ concept"],
    weights: Float[np.ndarray, "_ _"],
    *,
    nothing: Float[np.ndarray, " class"] | None = None,
    outputs: AnyOutputs = MultiClass(),  # noqa: B008 (settings: frozen)
) -> SurrogateError:
    """The error of the linear surrogate without parameters, over all classes (SURF, Kumar & Ahuja 2026).

        ŷ_i = Σ_k α_ik Σ_j P(h_j; V_i)_k

    P says how present concept k of class i is at place j, α how much it weighs for the class. An explanation by
    concepts and weights says no more than this sum; whatever a more powerful surrogate adds isn't the explanation's.

    **Arguments:**

    - `logits`: the classifier's.
    - `presence`: each concept's, summed over the places; of one bank for all classes, or with `class` in the middle
        for a bank for each.
    - `weights`: each concept's for each class, in logits per presence, with its sign.
    - `nothing`: logits of no concept at all, added to ŷ; zeros if None, as in SURF. The head's bias belongs here.
    - `outputs`: what the logits mean.

    **Returns:** the errors. Raises `ValueError` for shapes that don't fit.

    **Example:**

    >>> logits = np.asarray([[2.0, 0.0], [0.0, 1.0]])
    >>> fj.metrics.surrogate_error(logits, np.eye(2), np.asarray([[2.0, 0.0], [0.0, 0.0]])).mae
    0.25
    """
    logits, presence, weights = _checked(logits, presence, weights)
    instance("outputs", outputs, Outputs, "MultiClass() or MultiLabel()")
    said = np.einsum("ick,kc->ic" if presence.ndim == 3 else "ik,kc->ic", presence, weights)
    if nothing is not None:
        nothing = real_array("nothing", nothing, "class").astype(np.float64)
        if nothing.shape != logits.shape[1:]:
            raise ValueError(f"nothing has {len(nothing)} numbers for {logits.shape[1]} classes; give one for each")
        said = said + nothing[None]
    return SurrogateError(
        mae=float(np.abs(said - logits).mean()),
        emd=float(outputs.divergence(logits, said)[1].mean() / 2),
        agreement=float(outputs.agreement(logits, said).mean()),
    )


@dataclasses.dataclass(frozen=True)
class SurrogateCheck:
    """A surrogate beside what concepts and weights at random make: SURF's sanity check.

    **Arguments:**

    - `own`: the explanation's error.
    - `random_concepts`: the mean error with concepts drawn at random.
    - `random_weights`: the mean error with the concepts' weights in another order.
    """

    own: SurrogateError
    random_concepts: SurrogateError
    random_weights: SurrogateError

    @property
    def passed(self) -> bool:
        """Whether both are worse than the explanation, in both spaces."""
        others = (self.random_concepts, self.random_weights)
        return not any(self.own.mae >= other.mae or self.own.emd >= other.emd for other in others)


@full_precision
def surrogate_check(
    logits: Float[np.ndarray, "image class"],
    presence: Float[np.ndarray, "_ concept"],
    weights: Float[np.ndarray, "_ _"],
    random_presence: Float[np.ndarray, "draw _ _"],
    weights_of_random: Float[np.ndarray, "_ _ _"] | None = None,
    *,
    nothing: Float[np.ndarray, " class"] | None = None,
    outputs: AnyOutputs = MultiClass(),  # noqa: B008 (settings: frozen)
    draws: Whole = 20,
    key: Seed = None,
) -> SurrogateCheck:
    """Whether random concepts, and random weights, explain worse: a measure that can't tell them is none.

    **Arguments:**

    - `logits`, `presence`, `weights`, `nothing`, `outputs`: as for `surrogate_error`.
    - `random_presence`: that of concepts drawn at random; several draws of them.
    - `weights_of_random`: what these weigh for each class; the explanation's weights if None.
    - `draws`: other orders of the weights that are tried.
    - `key`: for these, or a seed.

    **Returns:** the three errors; a single concept's weights have no other order, and the third is NaN. Raises
    `ValueError` for shapes that don't fit.

    **Example:**

    >>> logits, weights = np.asarray([[2.0, 0.0], [0.0, 1.0]]), np.asarray([[2.0, 0.0], [0.0, 1.0]])
    >>> fj.metrics.surrogate_check(logits, np.eye(2), weights, np.eye(2)[None, ::-1]).passed
    True
    """
    logits, presence, weights = _checked(logits, presence, weights)
    draws, key = check_count("draws", draws, "orders"), key_of(key)
    randoms = real_array("random_presence", random_presence, "draw × image × concept")
    others = [weights] * len(randoms) if weights_of_random is None else weights_of_random
    if len(others) != len(randoms):
        raise ValueError(f"weights_of_random has {len(others)} draws and random_presence {len(randoms)}; give as many")
    random = generator(jax.random.fold_in(key, 0))
    given: dict[str, Any] = {"nothing": nothing, "outputs": outputs}
    return SurrogateCheck(
        own=surrogate_error(logits, presence, weights, **given),
        random_concepts=_mean(
            [surrogate_error(logits, each, its, **given) for each, its in zip(randoms, others, strict=True)]
        ),
        random_weights=_mean(
            [
                surrogate_error(logits, presence, weights[_other_order(random, len(weights))], **given)
                for _ in range(draws)
            ]
        )
        if len(weights) > 1
        else SurrogateError(math.nan, math.nan, math.nan),
    )


def _other_order(random: np.random.Generator, count: int) -> np.ndarray:
    while True:
        order = random.permutation(count)
        if (order != np.arange(count)).any():
            return order


def _mean(errors: list[SurrogateError]) -> SurrogateError:
    return SurrogateError(*np.mean([dataclasses.astuple(each) for each in errors], axis=0).tolist())


def _checked(logits: Any, presence: Any, weights: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    logits = real_array("logits", logits, "image × class").astype(np.float64)
    weights = real_array("weights", weights, "concept × class").astype(np.float64)
    presence = real_array("presence", presence).astype(np.float64)
    images, classes = logits.shape
    concepts = len(weights)
    if presence.shape not in ((images, concepts), (images, classes, concepts)) or weights.shape[1] != classes:
        raise ValueError(
            f"presence has shape {presence.shape} and weights {weights.shape} beside logits of {images} images and "
            f"{classes} classes; give presence as image × concept (or image × class × concept) and weights as "
            "concept × class"
        )
    return logits, presence, weights

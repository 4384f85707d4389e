"""TCAV: the share of images in which more of a concept means more of the class."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float

from ..model import Head
from ..support.arguments import Seed, Whole, index_or_none, key_of, shown
from ..support.fields import within
from ..support.precision import full_precision
from ..support.reprs import short_repr
from .derivatives import logit_gradient


@dataclasses.dataclass(frozen=True)
class TCAV:
    """Scores of testing with concept vectors.

    **Arguments:**

    - `derivative`: the logit's derivative along each concept in each image, per unit of code added at every place.
    - `random_scores`: the scores of random directions, which `p_value` compares with.
    - `p_value`: of each concept's score, two-sided: how often a random direction would have a score as far from the
        random directions' mean. NaN where all random directions have one and the same score.
    """

    derivative: Float[np.ndarray, "image concept"] = dataclasses.field(metadata=within())
    random_scores: Float[np.ndarray, " direction"] = dataclasses.field(metadata=within(0, 1 + 1e-6))
    p_value: Float[np.ndarray, " concept"] = dataclasses.field(metadata=within(0, 1, unknown=True))

    __repr__ = short_repr

    @property
    def per_image(self) -> Float[np.ndarray, "image concept"]:
        """Whether each concept speaks for the class in each image: 1 or 0."""
        return (self.derivative > 0).astype(self.derivative.dtype)

    @property
    def per_class(self) -> Float[np.ndarray, " concept"]:
        """Each concept's TCAV score: the share of images in which its derivative is positive."""
        return self.per_image.mean(0)

    def significant(self, level: float = 0.05) -> np.ndarray:
        """Which scores differ from those of random directions, at a level divided by the number of concepts."""
        return self.p_value < level / len(self.p_value)


@full_precision
def tcav(
    head: Head,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Whole,
    *,
    directions: Whole = 500,
    key: Seed = None,
) -> TCAV:
    """TCAV scores of concepts for one class's logit (Kim et al. 2018), to compare Sobol indices with.

        scoreₖ = |{images : Σ_places ∂y/∂A · wₖ > 0}| / |images|   at A = U Wᵀ

    The score of a concept is the share of images whose logit has a positive directional derivative along it, at the
    activations that the concepts rebuild; the concept is added at all places alike. It knows the derivative's sign
    and not its size, nor how much of the concept there is. Behind an affine head the derivative is the same for every
    image, so that each score is 0 or 1, that of random directions as well: no score can be significant there.

    The significance test is two-sided, by Student's t, against random directions. Kim et al. train each concept's
    vector many times, and compare two samples of scores. A concept of a factorization is one vector with one score,
    for which the two-sample test becomes `t = (score − mean) / (s √(1 + 1/n))` with `n − 1` degrees of freedom, mean
    and s those of the n random scores (Crawford & Howell 1998).

    **Arguments:**

    - `head`: from activations to logits.
    - `codes`: how much of each concept is at each place of each image.
    - `dictionary`: the concepts.
    - `target`: the class whose logit is looked at.
    - `directions`: how many random directions (normal numbers), at least 2; Kim et al. use 500 runs.
    - `key`: for these directions, or a seed; `jax.random.key(0)` if None.

    **Returns:** derivatives, scores and p-values, as NumPy arrays: it can't be part of a program under `jax.jit`.
    Raises `ValueError` for concepts that don't fit the head and where the derivative isn't finite,
    `UnknownClassError` for a class that the head doesn't have.

    **Example:**

    >>> codes, dictionary = explanation.codes, explanation.dictionary
    >>> fj.tcav(model.head, jnp.asarray(codes), jnp.asarray(dictionary), 0).per_class.shape
    (4,)
    """
    count = index_or_none(directions)
    if count is None or count < 2:
        raise ValueError(f"directions={shown(directions)} leaves nothing to test against; give at least 2, such as 500")
    key = key_of(key)
    gradient = np.asarray(logit_gradient(head, codes, dictionary, target)).sum(axis=(1, 2))
    derivative = gradient @ np.asarray(dictionary).T
    random = np.asarray(jax.random.normal(key, (count, gradient.shape[1]), gradient.dtype))
    random_scores = (gradient @ random.T > 0).astype(gradient.dtype).mean(0)
    score = (derivative > 0).astype(gradient.dtype).mean(0)
    return TCAV(derivative, random_scores, _p_value(score, random_scores))


def _p_value(
    score: Float[np.ndarray, " concept"], random_scores: Float[np.ndarray, " direction"]
) -> Float[np.ndarray, " concept"]:
    from scipy.stats import t

    count = len(random_scores)
    spread = random_scores.std(ddof=1) * np.sqrt(1 + 1 / count)
    if spread == 0:
        return np.full_like(score, np.nan)
    statistic = (score - random_scores.mean()) / spread
    return (2 * t.sf(np.abs(statistic), count - 1)).astype(score.dtype)

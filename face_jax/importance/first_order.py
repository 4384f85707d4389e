"""|gradient × code|: the first-order estimate of what a logit would lose without a concept."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..model import Head
from ..support.arguments import Whole, native
from ..support.fields import within
from ..support.precision import full_precision
from ..support.reprs import short_repr
from .checks import check_contributions
from .derivatives import logit_gradient


@dataclasses.dataclass(frozen=True)
class GradientTimesCode:
    """First-order contributions of concepts.

    **Arguments:**

    - `contribution`: the logit's derivative with respect to a concept's codes, times these codes, summed over places;
        negative where the concept speaks against the class.
    """

    contribution: Float[np.ndarray, "image concept"] = dataclasses.field(metadata=within())

    __repr__ = short_repr

    @property
    def per_image(self) -> Float[np.ndarray, "image concept"]:
        """Each concept's importance in each image: the contribution's size."""
        return np.abs(self.contribution)

    @property
    def per_class(self) -> Float[np.ndarray, " concept"]:
        """Each concept's importance for the class: its sizes averaged over images."""
        return self.per_image.mean(0)


@full_precision
def gradient_times_code(
    head: Head,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Whole,
) -> GradientTimesCode:
    """|gradient × code| of concepts for one class's logit, image by image, to compare Sobol indices with.

    `Σ over places of Uᵢ · ∂logit/∂Uᵢ`, which is the logit's derivative at `m = 1` with respect to the mask `mᵢ` that
    `total_sobol` varies. For an affine head it is the concept's exact contribution, whose square over the sum of all
    squares is the total Sobol index.

    **Arguments:**

    - `head`: from activations to logits.
    - `codes`: how much of each concept is at each place of each image.
    - `dictionary`: the concepts.
    - `target`: the class whose logit is looked at.

    **Returns:** signed contributions, and their sizes per image and per class, as NumPy arrays: it can't be part of a
    program under `jax.jit`. Raises `ValueError` for concepts that don't fit the head and where the derivative isn't
    finite, `UnknownClassError` for a class that the head doesn't have.

    **Example:**

    >>> codes, dictionary = explanation.codes, explanation.dictionary
    >>> fj.gradient_times_code(model.head, jnp.asarray(codes), jnp.asarray(dictionary), 0).per_class.shape
    (4,)
    """
    codes, dictionary = native("codes", codes), native("dictionary", dictionary)
    gradient = logit_gradient(head, codes, dictionary, target)
    found = np.asarray(_times(gradient, jnp.asarray(codes), jnp.asarray(dictionary)))
    check_contributions(found, int(target))
    return GradientTimesCode(found)


@jax.jit
def _times(
    gradient: Float[Array, "image y x channel"],
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
) -> Float[Array, "image concept"]:
    return jnp.sum((gradient @ dictionary.T) * codes, axis=(1, 2))

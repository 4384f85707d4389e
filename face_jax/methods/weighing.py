"""How much concepts matter: one measure for all methods, and the papers' own by name."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..importance import gradient_times_code, tcav, total_sobol
from ..importance.checks import check_asked
from ..importance.sobol import masked_logit
from ..support.arguments import Count, check_count, flag, real_array, whole
from ..support.reprs import short_repr

Maps = Float[np.ndarray, "image y x channel"]
Codes = Float[np.ndarray, "image y x concept"]
Dictionary = Float[np.ndarray, "concept channel"]


@runtime_checkable
class Weighing(Protocol):
    """A measure of importance, such as `BySobol()`."""

    def __call__(
        self, head: Any, maps: Maps, codes: Codes, dictionary: Dictionary, target: int, key: Key[Array, ""]
    ) -> Float[np.ndarray, " concept"]:
        """One number a concept.

        **Arguments:**

        - `head`: from activations less the bank's offset to logits.
        - `maps`: these activations, of pictures that were fitted.
        - `codes`: theirs.
        - `dictionary`: the concepts.
        - `target`: the class.
        - `key`: for whatever is drawn.
        """
        ...


@dataclasses.dataclass(frozen=True)
class BySobol:
    """Total Sobol indices, `face_jax.total_sobol`: the one measure for all methods.

    **Arguments:**

    - `designs`, `scrambles`: as there; behind an affine head it's exact and they don't matter.
    """

    designs: Count = 32
    scrambles: Count = 4

    def __call__(  # noqa: D102
        self, head: Any, maps: Maps, codes: Codes, dictionary: Dictionary, target: int, key: Key[Array, ""]
    ) -> Float[np.ndarray, " concept"]:
        del maps
        given: dict[str, Any] = {"designs": self.designs, "scrambles": self.scrambles, "key": key}
        return total_sobol(head, jnp.asarray(codes), jnp.asarray(dictionary, codes.dtype), target, **given).per_class


@dataclasses.dataclass(frozen=True)
class ByHaltonSobol:
    """Total Sobol indices as the published codes of CRAFT and FACE estimate them.

    Jansen's estimator on Halton points that aren't scrambled, and the average over images. To reproduce published
    numbers: at 25 concepts and 32 points the estimates are far from the exact indices.

    **Arguments:**

    - `designs`: points; `designs × (concepts + 2)` calls of the head an image.
    """

    designs: Count = 32

    def __post_init__(self) -> None:
        whole("designs", self.designs, "points", least=2)

    def __call__(  # noqa: D102
        self, head: Any, maps: Maps, codes: Codes, dictionary: Dictionary, target: int, key: Key[Array, ""]
    ) -> Float[np.ndarray, " concept"]:
        from scipy.stats import qmc

        del maps, key
        target, rank = check_asked(head, codes, dictionary, target), len(dictionary)
        points = qmc.Halton(2 * rank, scramble=False).random(self.designs)
        first, second = points[:, :rank], points[:, rank:]
        mixed = np.repeat(first[None], rank, axis=0)
        mixed[np.arange(rank), :, np.arange(rank)] = second.T
        masks = np.concatenate([first, second, mixed.reshape(-1, rank)]).astype(codes.dtype)
        said = _masked(head, jnp.asarray(codes), jnp.asarray(dictionary, codes.dtype), jnp.asarray(target), masks)
        logits = np.asarray(said, np.float64)
        base, changed = logits[: self.designs], logits[2 * self.designs :].reshape(rank, self.designs, -1)
        spread = base.var(axis=0, ddof=1)
        missed = ((base[None] - changed) ** 2).mean(axis=1) / 2
        return np.divide(missed, spread, out=np.zeros_like(missed), where=spread > 0).mean(axis=1)


@dataclasses.dataclass(frozen=True)
class ByGradientTimesCode:
    """Sizes of gradient × code, `face_jax.gradient_times_code`, averaged over images."""

    def __call__(  # noqa: D102
        self, head: Any, maps: Maps, codes: Codes, dictionary: Dictionary, target: int, key: Key[Array, ""]
    ) -> Float[np.ndarray, " concept"]:
        del maps, key
        return gradient_times_code(head, jnp.asarray(codes), jnp.asarray(dictionary, codes.dtype), target).per_class


@dataclasses.dataclass(frozen=True)
class ByTCAV:
    """TCAV scores of the concepts themselves, `face_jax.tcav`: the share of images with a positive derivative."""

    def __call__(  # noqa: D102
        self, head: Any, maps: Maps, codes: Codes, dictionary: Dictionary, target: int, key: Key[Array, ""]
    ) -> Float[np.ndarray, " concept"]:
        del maps
        return tcav(head, jnp.asarray(codes), jnp.asarray(dictionary, codes.dtype), target, key=key).per_class


@dataclasses.dataclass(frozen=True)
class ByDirectionalDerivative:
    """ICE's weights: the logit's derivative along each concept, at the activations of some images.

    The mean over images of `∂y/∂A · w`, w added at all places. The published code takes the quotient
    `(y(A + ε w) − y(A − ε w)) / 2ε` with `ε = 1e-4`, which loses most of float32's digits; this is the derivative.

    **Arguments:**

    - `images`: the first so many are looked at.
    - `sizes`: whether sizes are taken, as FACE's evaluation of ICE does; ICE itself orders concepts by the values.
    """

    images: Count = 10
    sizes: bool = True

    def __post_init__(self) -> None:
        check_count("images", self.images, "images")
        flag("sizes", self.sizes)

    def __call__(  # noqa: D102
        self, head: Any, maps: Maps, codes: Codes, dictionary: Dictionary, target: int, key: Key[Array, ""]
    ) -> Float[np.ndarray, " concept"]:
        del key
        target = check_asked(head, codes, dictionary, target)
        some = slice(0, self.images)
        head = head[some] if hasattr(head, "kept") else head
        slopes = _slope(head, jnp.asarray(maps[some]), jnp.asarray(target))
        found = np.asarray(slopes, np.float64).sum(axis=(1, 2)).mean(axis=0) @ dictionary.T.astype(np.float64)
        return np.abs(found) if self.sizes else found


@dataclasses.dataclass(frozen=True)
class ByVectors:
    """TCAV scores along vectors that aren't the concepts themselves: ACE's, at the activations as they are.

    **Arguments:**

    - `vectors`: one a concept.
    """

    vectors: Float[np.ndarray, "concept channel"]

    __repr__ = short_repr

    def __post_init__(self) -> None:
        real_array("vectors", self.vectors, "concept × channel")

    def __call__(  # noqa: D102
        self, head: Any, maps: Maps, codes: Codes, dictionary: Dictionary, target: int, key: Key[Array, ""]
    ) -> Float[np.ndarray, " concept"]:
        del key
        target = check_asked(head, codes, dictionary, target)
        if len(self.vectors) != len(dictionary):
            raise ValueError(f"vectors has {len(self.vectors)} rows for {len(dictionary)} concepts; give one for each")
        slopes = np.asarray(_slope(head, jnp.asarray(maps), jnp.asarray(target)), np.float64).sum(axis=(1, 2))
        return (slopes @ self.vectors.T.astype(np.float64) > 0).mean(axis=0)


@jax.jit
def _slope(
    head: Any, maps: Float[Array, "image y x channel"], target: Int[Array, ""]
) -> Float[Array, "image y x channel"]:
    return jax.grad(lambda maps: jnp.sum(head(maps)[:, target]))(maps)


@jax.jit
def _masked(
    head: Any,
    codes: Float[Array, "image y x concept"],
    dictionary: Float[Array, "concept channel"],
    target: Int[Array, ""],
    masks: Float[Array, "mask concept"],
) -> Float[Array, "mask image"]:
    return jax.lax.map(lambda mask: masked_logit(head, codes, dictionary, target, mask), masks)

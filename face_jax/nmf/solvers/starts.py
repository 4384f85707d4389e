"""Where a factorization starts: from a thin randomized SVD, at random, or from given factors."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from ...support.arguments import native
from ...support.reprs import short_repr
from ...support.scaling import positive
from ..shapes import Activations, Dictionary, FactorsT


class Start(abc.ABC):
    """A rule that makes the first factors."""

    @abc.abstractmethod
    def __call__(self, activations: Activations, rank: int, *, signed: bool, key: Key[Array, ""]) -> FactorsT:
        """First codes (concepts first) and dictionary; with `signed` the dictionary may be negative."""

    @property
    def given(self) -> Given | None:
        """The factors that the user has given, if it begins with such."""
        return None

    def rescaled(self, rescale: Callable[[Array, Array], tuple[Array, Array]]) -> Start:
        """The same start in other units: `rescale` takes given factors there."""
        del rescale
        return self


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NNDSVD(Start):
    """Non-negative double SVD (Boutsidis & Gallopoulos 2008), from a randomized SVD of as many passes as wanted.

    Leaves exact zeros, which sparse solutions like; `NNDSVDa` and `NNDSVDar` fill them.

    **Arguments:**

    - `passes`: subspace iterations over the activations.
    - `oversample`: singular vectors beyond the rank that are carried along.
    """

    passes: int = dataclasses.field(default=3, metadata={"static": True})
    oversample: int = dataclasses.field(default=10, metadata={"static": True})

    def __call__(self, activations: Activations, rank: int, *, signed: bool, key: Key[Array, ""]) -> FactorsT:
        """The larger of each singular pair's positive and negative parts."""
        return _nndsvd(activations, rank, passes=self.passes, oversample=self.oversample, signed=signed, key=key)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NNDSVDa(NNDSVD):
    """`NNDSVD` with zeros filled by the activations' mean: for rules that can't leave a zero.

    **Arguments:** as for `NNDSVD`.
    """

    def __call__(self, activations: Activations, rank: int, *, signed: bool, key: Key[Array, ""]) -> FactorsT:
        """NNDSVD, then the mean where it's zero."""
        codes, dictionary = super().__call__(activations, rank, signed=signed, key=key)
        mean = jnp.abs(jnp.mean(activations))
        return jnp.where(codes > 0, codes, mean), fill(dictionary, mean, signed)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NNDSVDar(NNDSVD):
    """`NNDSVD` with zeros filled by small random values: many starts near the best known one.

    **Arguments:** as for `NNDSVD`.
    """

    def __call__(self, activations: Activations, rank: int, *, signed: bool, key: Key[Array, ""]) -> FactorsT:
        """NNDSVD, then random values of up to a hundredth of the mean where it's zero."""
        sketch, first, second = jax.random.split(key, 3)
        codes, dictionary = super().__call__(activations, rank, signed=signed, key=sketch)
        scale = jnp.abs(jnp.mean(activations)) / 100
        filling = scale * jax.random.uniform(first, codes.shape, codes.dtype)
        other = scale * jax.random.uniform(second, dictionary.shape, dictionary.dtype)
        return jnp.where(codes > 0, codes, filling), fill(dictionary, other, signed)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Random(Start):
    """Absolute values of normal numbers, scaled so that the product has the activations' mean."""

    def __call__(self, activations: Activations, rank: int, *, signed: bool, key: Key[Array, ""]) -> FactorsT:
        """Draw both factors."""
        first, second = jax.random.split(key)
        dtype = activations.dtype
        scale = jnp.sqrt(jnp.mean(jnp.abs(activations)) / rank)
        codes = jnp.abs(jax.random.normal(first, (rank, activations.shape[0]), dtype))
        dictionary = jax.random.normal(second, (rank, activations.shape[1]), dtype)
        return scale * codes, scale * (dictionary if signed else jnp.abs(dictionary))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Given(Start):
    """Factors that the user has, such as an earlier solution's.

    **Arguments:**

    - `codes`: where to start; for rows in blocks, they may be rows in blocks, too.
    - `dictionary`: where to start; of any length, not only unit concepts.
    """

    codes: Any
    dictionary: Dictionary

    __repr__ = short_repr

    def __call__(self, activations: Activations, rank: int, *, signed: bool, key: Key[Array, ""]) -> FactorsT:
        """The factors as they are."""
        del rank, signed, key
        codes, dictionary = native("start.codes", self.codes), native("start.dictionary", self.dictionary)
        return jnp.asarray(codes, activations.dtype).T, jnp.asarray(dictionary, activations.dtype)

    @property
    def given(self) -> Given:
        """These."""
        return self

    @property
    def elsewhere(self) -> bool:
        """Whether the codes are rows in blocks, or an array on disk."""
        return isinstance(self.codes, np.memmap) or not hasattr(self.codes, "__array__")

    def rescaled(self, rescale: Callable[[Array, Array], tuple[Array, Array]]) -> Given:
        """The factors, rescaled."""
        factors = native("start.codes", self.codes), native("start.dictionary", self.dictionary)
        return Given(*rescale(*map(jnp.asarray, factors)))


def singular_triplets(
    activations: Activations, count: int, passes: int, key: Key[Array, ""]
) -> tuple[Float[Array, "row count"], Float[Array, " count"], Float[Array, "count channel"]]:
    """The largest singular values and vectors by randomized subspace iteration (Halko, Martinsson & Tropp 2011).

    Orthogonal bases are only taken on the smaller side, so a pass costs two products with the activations.
    """
    if activations.shape[0] < activations.shape[1]:
        left, values, right = singular_triplets(activations.T, count, passes, key)
        return right.T, values, left.T
    basis = jax.random.normal(key, (activations.shape[1], count), activations.dtype)
    for _ in range(passes):
        basis = _power(activations, basis)
    image = basis.T @ activations.T
    values, vectors = jnp.linalg.eigh(image @ image.T)
    values = jnp.sqrt(jnp.maximum(values[::-1], 0))
    vectors = vectors[:, ::-1]
    safe = positive(values)
    return ((vectors.T @ image) / safe[:, None]).T, values, vectors.T @ basis.T


def _power(activations: Activations, basis: Float[Array, "channel count"]) -> Float[Array, "channel count"]:
    image = basis.T @ activations.T
    return jnp.linalg.qr((image @ activations).T, mode="reduced")[0]


def fill(dictionary: Array, filling: Array, signed: bool) -> Array:
    """A dictionary without zeros, unless it may be negative."""
    return dictionary if signed else jnp.where(dictionary > 0, dictionary, filling)


# One program outside `jit`, too, where each of its some forty operations would be one for each shape.
@partial(jax.jit, static_argnames=("rank", "passes", "oversample", "signed"), inline=True)
def _nndsvd(
    activations: Activations, rank: int, passes: int, oversample: int, signed: bool, key: Key[Array, ""]
) -> FactorsT:
    sketch, filling = jax.random.split(key)
    available = min(activations.shape)
    count = min(rank + oversample, available)
    left, values, right = singular_triplets(activations, count, passes, sketch)
    found = min(rank, count)
    u, s, v = left[:, :found].T, values[:found], right[:found]
    u_plus, u_minus = halves(u)
    choice = signs_kept(s, v, jnp.stack([jnp.linalg.norm(part, axis=1) for part in (u_plus, u_minus)]), signed=signed)
    codes = jnp.where(choice.positive[:, None], u_plus, u_minus) * choice.codes[:, None]
    dictionary = choice.dictionary
    if found < rank:
        # A rank beyond min(row, channel) has no singular pairs left to start from.
        more = Random()(activations, rank - found, signed=signed, key=filling)
        codes, dictionary = jnp.concatenate([codes, more[0]]), jnp.concatenate([dictionary, more[1]])
    return codes, dictionary


def halves(x: Array) -> tuple[Array, Array]:
    """Positive and negative part."""
    return jnp.maximum(x, 0), jnp.maximum(-x, 0)


class Choice(NamedTuple):
    """Which half of each singular pair is kept, the dictionary of it, and what the codes' half is multiplied by."""

    positive: Bool[Array, " concept"]
    dictionary: Dictionary
    codes: Float[Array, " concept"]


def signs_kept(values: Array, right: Dictionary, lengths: Float[Array, "2 concept"], *, signed: bool) -> Choice:
    """The larger half of each singular pair.

    **Arguments:**

    - `values`, `right`: singular values and vectors of channels.
    - `lengths`: of the positive and the negative parts of the vectors of rows.
    - `signed`: whether the dictionary may be negative.
    """
    of_rows = lengths
    if signed:
        # The dictionary takes either sign, so only the codes decide which half is kept.
        positive = of_rows[0] ** 2 >= of_rows[1] ** 2
        return Choice(positive, jnp.where(positive[:, None], right, -right), values)
    parts = halves(right)
    of_channels = [jnp.linalg.norm(part, axis=1) for part in parts]
    plus, minus = of_rows[0] * of_channels[0], of_rows[1] * of_channels[1]
    positive = plus >= minus
    scale = jnp.sqrt(values * jnp.where(positive, plus, minus))
    dictionary = jnp.where(positive[:, None], *parts)
    dictionary = dictionary * (scale / _at_least_tiny(jnp.where(positive, *of_channels)))[:, None]
    return Choice(positive, dictionary, scale / _at_least_tiny(jnp.where(positive, of_rows[0], of_rows[1])))


def _at_least_tiny(x: Array) -> Array:
    return jnp.maximum(x, jnp.finfo(x.dtype).tiny)

"""A small sparse autoencoder: codes by one layer, concepts by another."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from ..support.arguments import Count, Number, check_count, flag, real, text
from ..support.randomness import generator
from ..support.reprs import short_repr
from .bank import Bank, averages_of, check_few, places_of
from .inference import Codes, Dictionary, Maps


@dataclasses.dataclass(frozen=True)
class Encoder:
    """An autoencoder's own inference: `relu(a V + b)`, of which the largest few are kept if so many are named.

    **Arguments:**

    - `weights`, `bias`: V and b.
    - `top`: how many codes a place keeps; all if None.
    """

    weights: Float[np.ndarray, "channel concept"]
    bias: Float[np.ndarray, " concept"]
    top: int | None = None

    __repr__ = short_repr

    def __call__(self, maps: Maps, dictionary: Dictionary, head: Any = None) -> Codes:
        """Codes at every place."""
        del dictionary, head
        codes = np.maximum(maps @ self.weights.astype(maps.dtype) + self.bias.astype(maps.dtype), 0)
        if self.top is None or self.top >= codes.shape[-1]:
            return codes
        kept = np.argpartition(-codes, self.top - 1, axis=-1)[..., : self.top]
        mask = np.zeros(codes.shape, bool)
        np.put_along_axis(mask, kept, True, axis=-1)
        return np.where(mask, codes, 0)


@dataclasses.dataclass(frozen=True)
class SparseAutoencoder:
    """A sparse autoencoder of one layer each way: `â = b + relu((a − b) V + c) W`, concepts W of unit length.

    Sparse by keeping the largest few codes of each row (Gao et al. 2024), or by their sum as a penalty (Bricken et al.
    2023). Concepts begin at rows of the data, the encoder at their transpose, and the offset at the mean. As many
    concepts as are asked for, which is fewer than autoencoders usually have.

    **Arguments:**

    - `top`: how many codes a row keeps; a third of the concepts if neither this nor `penalty` is given.
    - `penalty`: what the codes' sum is multiplied with, where rows have unit length on average.
    - `steps`, `batch`, `learning_rate`: of Adam.
    - `places`: whether every place is a row; averages of crops or pictures are if not.
    - `name`: what tables call it.
    """

    top: Any = None
    penalty: Any = None
    steps: Count = 2000
    batch: Count = 256
    learning_rate: Number = 3e-3
    places: bool = False
    name: str = "sparse autoencoder"

    def __post_init__(self) -> None:
        if self.top is not None:
            check_count("top", self.top, "codes")
        if self.penalty is not None:
            real("penalty", self.penalty, "penalty", least=0)
        if self.top is not None and self.penalty is not None:
            raise ValueError(f"top={self.top} and penalty={self.penalty} both make codes sparse; give one of them")
        check_count("steps", self.steps, "steps")
        check_count("batch", self.batch, "rows")
        real("learning_rate", self.learning_rate, "learning rate", above=0)
        flag("places", self.places)
        text("name", self.name, "a name")

    def check_rank(self, rank: Any, shape: tuple[int, ...]) -> int:
        """The rank; raises `ValueError` for more than activations of the shape allow."""
        return check_few(rank, shape, of=self.name, places=self.places, channels=False)

    def fit(self, activations: Float[np.ndarray, "..."], rank: int, key: Key[Array, ""]) -> Bank:
        """Train."""
        rows = places_of(activations) if self.places else averages_of(activations)
        rank = self.check_rank(rank, np.shape(activations))
        top = None if self.penalty is not None else min(rank, self.top or max(1, round(rank / 3)))
        # Of unit length on average, so that one learning rate fits all layers.
        unit = float(np.linalg.norm(rows, axis=1).mean()) or 1.0
        random = generator(jax.random.fold_in(key, 0))
        offset = (rows / unit).mean(axis=0)
        start = rows[random.permutation(len(rows))[:rank]] / unit - offset
        lengths = np.linalg.norm(start, axis=1, keepdims=True)
        drawn = random.normal(size=start.shape).astype(rows.dtype)
        start = np.where(lengths > 1e-6, start, drawn)
        start = start / np.linalg.norm(start, axis=1, keepdims=True)
        parameters = {
            "encoder": jnp.asarray(start.T),
            "bias": jnp.zeros(rank, rows.dtype),
            "concepts": jnp.asarray(start),
            "offset": jnp.asarray(offset),
        }
        rates = jnp.asarray([self.learning_rate, self.penalty or 0.0], rows.dtype)
        batch = min(self.batch, len(rows))
        found = _trained(jnp.asarray(rows / unit), parameters, rates, key, top, self.steps, batch)
        found = {name: np.asarray(value) for name, value in found.items()}
        # Codes are in the activations' unit.
        encoder = Encoder(found["encoder"], found["bias"] * unit, top)
        return Bank(found["concepts"], self.name, offset=found["offset"] * unit, inference=encoder)


@partial(jax.jit, static_argnames=("top", "steps", "batch"))
def _trained(
    rows: Float[Array, "row channel"],
    parameters: dict[str, Any],
    rates: Float[Array, "2"],
    key: Key[Array, ""],
    top: int | None,
    steps: int,
    batch: int,
) -> dict[str, Any]:
    def loss(parameters: dict[str, Any], some: Float[Array, "batch channel"]) -> Float[Array, ""]:
        about = some - parameters["offset"][None]
        codes = jax.nn.relu(about @ parameters["encoder"] + parameters["bias"][None])
        if top is not None and top < codes.shape[1]:
            least = jax.lax.top_k(codes, top)[0][:, -1:]
            codes = jnp.where(codes >= least, codes, 0)
        missed = about - codes @ parameters["concepts"]
        return jnp.mean(jnp.sum(missed**2, axis=1)) + rates[1] * jnp.mean(jnp.sum(codes, axis=1))

    optimizer = optax.adam(1.0)

    def advance(carry: tuple[Any, Any], key: Key[Array, ""]) -> tuple[tuple[Any, Any], None]:
        parameters, memory = carry
        some = rows[jax.random.randint(key, (batch,), 0, len(rows))]
        with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer power
            updates: Any
            updates, memory = optimizer.update(jax.grad(loss)(parameters, some), memory, parameters)
        parameters = {name: value + rates[0] * updates[name] for name, value in parameters.items()}
        lengths = jnp.linalg.norm(parameters["concepts"], axis=1, keepdims=True)
        return ({**parameters, "concepts": parameters["concepts"] / jnp.maximum(lengths, 1e-12)}, memory), None

    begun = (parameters, optimizer.init(parameters))
    return jax.lax.scan(advance, begun, jax.random.split(key, steps))[0][0]

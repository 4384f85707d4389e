"""Methods that only tables need: λ in parts of its balance with any loss, ACE on superpixels, an order at random."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from face_jax import methods
from face_jax.activations import Collected
from face_jax.faithfulness import Loss, faithful_rows
from face_jax.faithfulness.lambda_path import SETTINGS
from face_jax.faithfulness.losses import loss_for
from face_jax.nmf import Given, SquaredError, encode, factorize
from face_jax.nmf.settings import usual_solver
from face_jax.support.randomness import generator


@dataclasses.dataclass(frozen=True)
class AtShare:
    """FACE with λ as a share of its balance, the λ at which both parts of the objective are equally large without it.

    Comparable between networks, classes and losses, where λ itself isn't. It starts where λ = 0 ends.

    **Arguments:**

    - `share`: λ over its balance.
    - `face`: settings besides λ.
    - `label`: what tables call it.
    - `loss`: of the predictions; by default what the network's outputs mean.
    """

    share: float
    face: methods.FACE = methods.FACE(0.0)  # noqa: RUF009 (frozen)
    label: str | None = None
    loss: Loss | None = None

    @property
    def name(self) -> str:
        return self.label or f"λ = {self.share:g} of balance"

    def prepared(self, model: Any, pictures: Collected, crop_of: Any = None) -> AtShare:
        return dataclasses.replace(self, face=self.face.prepared(model, pictures, crop_of))

    def started_at_random(self) -> AtShare:
        return dataclasses.replace(self, face=self.face.started_at_random())

    def fit(self, activations: Any, rank: int, key: Any) -> methods.Bank:
        pictures = self.face.pictures
        assert pictures is not None
        crops, head = activations.mean(axis=(1, 2)), pictures.head(self.face.head)
        rows, term = faithful_rows(head, crops, pictures.maps, self.face.outputs)
        A, solver = jnp.asarray(rows), usual_solver(signed=bool((rows < 0).any()), **SETTINGS)
        found, objective = factorize(A, rank, solver=solver, start=self.face.start, key=key), SquaredError()
        if self.share > 0:
            loss = loss_for(self.face.outputs) if self.loss is None else self.loss
            weight = self.share * balance(head, rows, pictures.maps, np.asarray(found.dictionary), loss)
            objective = objective + weight * dataclasses.replace(term, loss=loss)
            start = Given(encode(A, found.dictionary), found.dictionary)
            found = factorize(A, rank, objective=objective, solver=solver, start=start, key=key)
        return methods.Bank(np.asarray(found.dictionary), self.name, inference=methods.ByObjective(objective))


def balance(
    head: Any,
    rows: np.ndarray,
    maps: np.ndarray,
    dictionary: np.ndarray,
    loss: Loss,
) -> float:
    """The λ at which squared error and loss are equally large, with codes by non-negative least squares.

    **Arguments:**

    - `head`: from activations to logits.
    - `rows`: what is factorized.
    - `maps`: activations of the pictures whose predictions are kept.
    - `dictionary`: the concepts.
    - `loss`: of the predictions.
    """
    bank = methods.Bank(dictionary)
    error = float(np.square(rows - bank.decode(bank.encode(rows))).sum()) / 2
    maps = maps.mean(axis=(1, 2), keepdims=True) if getattr(head, "affine", False) else maps
    said, rebuilt = (head(jnp.asarray(each)) for each in (maps, bank.decode(bank.encode(maps))))
    return error / max(float(loss.values(loss.target(said), rebuilt).sum()), 1e-12)


@dataclasses.dataclass(frozen=True)
class OnSuperpixels:
    """ACE on superpixels, as it was published: segments of the pictures fitted.

    **Arguments:**

    - `ace`: its settings.
    - `known`: activations of the segments of all pictures, the photograph each is of, and all pictures' averages.
    - `name`: what tables call it.
    """

    known: tuple[Collected, np.ndarray, np.ndarray] = dataclasses.field(repr=False)
    ace: methods.ACE = methods.ACE()  # noqa: RUF009 (frozen)
    name: str = "ACE, superpixels"
    fitted: Any = dataclasses.field(default=None, repr=False)

    def prepared(self, model: Any, pictures: Collected, crop_of: Any = None) -> OnSuperpixels:
        del model, crop_of
        rows, averages = pictures.maps.mean(axis=(1, 2)), self.known[2]
        nearest = np.square(rows[:, None] - averages[None]).sum(axis=-1).argmin(axis=1)
        return dataclasses.replace(self, fitted=nearest)

    def fit(self, activations: Any, rank: int, key: Any) -> methods.Bank:
        del activations
        segments, of, _ = self.known
        return self.ace.fit(segments.maps[np.isin(of, self.fitted)], rank, key)


@dataclasses.dataclass(frozen=True)
class Once:
    """A method that fits the same activations once, however often they are scored by other rules.

    **Arguments:**

    - `method`: the method.
    - `known`: banks by what was fitted.
    """

    method: Any
    known: dict[Any, methods.Bank] = dataclasses.field(default_factory=dict, repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def crops(self) -> bool:
        return getattr(self.method, "crops", True)

    def check_rank(self, rank: Any, shape: tuple[int, ...]) -> None:
        if hasattr(self.method, "check_rank"):
            self.method.check_rank(rank, shape)

    def prepared(self, model: Any, pictures: Collected, crop_of: Any = None) -> Once:
        if not hasattr(self.method, "prepared"):
            return self
        return dataclasses.replace(self, method=self.method.prepared(model, pictures, crop_of))

    def fit(self, activations: Any, rank: int, key: Any) -> methods.Bank:
        digest = hashlib.sha256(np.ascontiguousarray(activations).tobytes()).digest()
        of = (digest, rank, str(jax.random.key_data(key)))
        if of not in self.known:
            self.known[of] = self.method.fit(activations, rank, key)
        return self.known[of]


@dataclasses.dataclass(frozen=True)
class InRandomOrder:
    """An importance that knows nothing: what an order has to beat."""

    def __call__(self, head: Any, maps: Any, codes: Any, dictionary: Any, target: int, key: Any) -> np.ndarray:
        del head, maps, codes, target
        return generator(key).uniform(size=len(dictionary))

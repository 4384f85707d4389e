"""Methods that only tables need: λ in parts of its balance, other losses, ACE on superpixels, an order at random."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from face_jax import methods
from face_jax.activations import Collected
from face_jax.faithfulness import ForwardKL, Loss, faithful_rows, faithfulness_path
from face_jax.faithfulness.lambda_path import SETTINGS
from face_jax.metrics import certificates
from face_jax.nmf import Given, SquaredError, encode, factorize
from face_jax.nmf.settings import usual_solver
from face_jax.support.randomness import generator


@dataclasses.dataclass(frozen=True)
class AtShare:
    """FACE with λ as a share of its balance, the λ at which both parts of the objective are equally large without it.

    Comparable between networks and classes, where λ itself isn't. It starts where λ = 0 ends.

    **Arguments:**

    - `share`: λ over its balance.
    - `face`: settings besides λ.
    """

    share: float
    face: methods.FACE = methods.FACE(0.0)  # noqa: RUF009 (frozen)
    label: str | None = None

    @property
    def name(self) -> str:
        return self.label or f"λ = {self.share:g} of balance"

    def prepared(self, model: Any, pictures: Collected, crop_of: Any = None) -> AtShare:
        return dataclasses.replace(self, face=self.face.prepared(model, pictures, crop_of))

    def started_at_random(self) -> AtShare:
        return dataclasses.replace(self, face=self.face.started_at_random())

    def fit(self, activations: Any, rank: int, key: Any) -> methods.Bank:
        plain = dataclasses.replace(self.face, faithfulness=0.0).fit(activations, rank, key)
        if self.share == 0:
            return plain
        rows = rows_of(self.face, activations)
        weight = self.share * balance(self.face, rows, plain.dictionary)
        codes = encode(jnp.asarray(rows), jnp.asarray(plain.dictionary))
        start = Given(codes, jnp.asarray(plain.dictionary))
        return dataclasses.replace(self.face, faithfulness=weight, start=start).fit(activations, rank, key)


def rows_of(face: methods.FACE, activations: Any) -> np.ndarray:
    """What FACE factorizes: crops' averages and pictures', or every place of the pictures."""
    assert face.pictures is not None
    crops = activations.mean(axis=(1, 2))
    return faithful_rows(face.pictures.head(face.head), crops, face.pictures.maps, face.outputs)[0]


def balance(face: methods.FACE, rows: np.ndarray, dictionary: np.ndarray) -> float:
    """The λ at which squared error and divergence are equally large, with codes by non-negative least squares."""
    assert face.pictures is not None
    bank = methods.Bank(dictionary)
    error = float(np.square(rows - bank.decode(bank.encode(rows))).sum()) / 2
    maps = face.pictures.maps
    maps = maps.mean(axis=(1, 2), keepdims=True) if face.head.affine else maps
    head = face.pictures.head(face.head)
    said, rebuilt = (np.asarray(head(jnp.asarray(each))) for each in (maps, bank.decode(bank.encode(maps))))
    return error / max(float(certificates(said, rebuilt, face.outputs).kl.sum()), 1e-12)


@dataclasses.dataclass(frozen=True)
class ByLoss:
    """FACE with another loss, its λ chosen by that loss on a quarter of the pictures fitted.

    **Arguments:**

    - `loss`: `ForwardKL()`, `ReverseKL()` or `SquaredLogits()`.
    - `name`: what tables call it.
    - `face`: settings besides.
    """

    loss: Loss = ForwardKL()  # noqa: RUF009 (frozen)
    name: str = "forward KL"
    face: methods.FACE = methods.FACE()  # noqa: RUF009 (frozen)

    def prepared(self, model: Any, pictures: Collected, crop_of: Any = None) -> ByLoss:
        return dataclasses.replace(self, face=self.face.prepared(model, pictures, crop_of))

    def started_at_random(self) -> ByLoss:
        return dataclasses.replace(self, face=self.face.started_at_random())

    def fit(self, activations: Any, rank: int, key: Any) -> methods.Bank:
        pictures, crop_of = self.face.pictures, np.asarray(self.face.crop_of)
        assert pictures is not None
        judged = np.arange(len(pictures)) % 4 == 0
        crops = activations.mean(axis=(1, 2))
        rows, term = self._rows(crops[~judged[crop_of]], pictures[~judged])
        held_out, held_out_term = self._rows(crops[:0], pictures[judged])
        settings = {"start": self.face.start, "key": key, "outputs": self.face.outputs}
        path = faithfulness_path(
            jnp.asarray(rows), rank, term, jnp.asarray(held_out), held_out_term=held_out_term, **settings
        )
        rows, term = self._rows(crops, pictures)
        start = self.face.start
        if path.solution is not None and path.weight > 0:
            start = Given(encode(jnp.asarray(rows), path.solution.dictionary), path.solution.dictionary)
        objective = SquaredError() + path.weight * term
        solver = usual_solver(signed=bool((rows < 0).any()), **SETTINGS)
        found = factorize(jnp.asarray(rows), rank, objective=objective, solver=solver, start=start, key=key)
        return methods.Bank(np.asarray(found.dictionary), self.name, inference=methods.ByObjective(objective))

    def _rows(self, crops: np.ndarray, pictures: Collected) -> tuple[np.ndarray, Any]:
        head = pictures.head(self.face.head)
        rows, term = faithful_rows(head, crops, pictures.maps, self.face.outputs)
        return rows, dataclasses.replace(term, loss=self.loss)


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
class InRandomOrder:
    """An importance that knows nothing: what an order has to beat."""

    def __call__(self, head: Any, maps: Any, codes: Any, dictionary: Any, target: int, key: Any) -> np.ndarray:
        del head, maps, codes, target
        return generator(key).uniform(size=len(dictionary))

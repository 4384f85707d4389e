"""The parts of an explanation: one record for each stage's result."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..activations import Collected, Crops
from ..faithfulness import Path
from ..importance import TCAV, GradientTimesCode
from ..importance import Sobol as Sobol
from ..metrics import Score
from ..nmf import RankScan
from ..pictures.photographs import Photograph
from ..support.fields import axes, counted, elsewhere, lately, within
from ..support.reprs import short_repr
from .concepts import Concept

_MANY = 10**7


@dataclasses.dataclass(frozen=True)
class Target:
    """The class that is explained.

    **Arguments:**

    - `index`: its number among the model's classes.
    - `chosen`: how it was chosen.
    """

    index: int = dataclasses.field(metadata=within(0, "class"))
    chosen: str


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What an explanation was made from.

    **Arguments:**

    - `photographs`: those that the model puts in the class.
    - `collected`: their activations and logits.
    - `fitted`, `held_out`: which of them the concepts were found in, and which they are scored on. A single
        photograph is in both: other crops of it are held out.
    - `crops`: where the crops lie; their `image` counts `photographs`.
    - `crop_activations`: the rows that were factorized.
    """

    photographs: tuple[Photograph, ...] = dataclasses.field(metadata=counted("image"))
    collected: Collected
    fitted: Int[np.ndarray, " fitted"] = dataclasses.field(metadata=within(0, "image"))
    held_out: Int[np.ndarray, " held_out"] = dataclasses.field(metadata=within(0, "image"))
    crops: Crops
    crop_activations: Float[np.ndarray, "crop channel"] = dataclasses.field(metadata=within())

    __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class Bank:
    """The concepts, and how much of each is where.

    **Arguments:**

    - `dictionary`: the concepts, of unit length; with entries below zero where activations have such.
    - `crop_codes`: how much of each concept each crop has.
    - `codes`: how much of each concept is at each place of each photograph, by non-negative least squares.
    - `concepts`: one entry a concept, the most important first.
    """

    dictionary: Float[np.ndarray, "concept channel"] = dataclasses.field(metadata=within(-1 - 1e-3, 1 + 1e-3))
    crop_codes: Float[np.ndarray, "crop concept"] = dataclasses.field(metadata=within(0))
    codes: Float[np.ndarray, "image y x concept"] = dataclasses.field(metadata=within(0))
    concepts: tuple[Concept, ...] = dataclasses.field(metadata=counted("concept"))

    __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class PaperImportance:
    """What a paper's own measure of importance says, where its preset was asked for: concepts are in its order.

    **Arguments:**

    - `measure`: which it is.
    - `per_class`: one number a concept, in the measure's own unit.
    """

    measure: str
    per_class: Float[np.ndarray, " concept"] = dataclasses.field(metadata=within())

    __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class Importance:
    """What each concept weighs in the pictures fitted; behind a head that isn't affine, in some of them.

    **Arguments:**

    - `sobol`: total Sobol indices.
    - `index`: which pictures the rows are of: numbers in the photographs, or in the crops if a single photograph is
        explained.
    - `tcav`, `gradient_times_code`: what these say of the concepts in the same pictures, to compare.
    - `by_paper`: what the measure of a preset says, by which concepts are ordered, put in and taken out; None without a
        preset, where `sobol` does.
    """

    sobol: Sobol = dataclasses.field(metadata=axes(image="looked_at"))
    index: Int[np.ndarray, " looked_at"] = dataclasses.field(metadata=within(0))
    tcav: TCAV = dataclasses.field(metadata=axes(image="looked_at"))
    gradient_times_code: GradientTimesCode = dataclasses.field(metadata=axes(image="looked_at"))
    by_paper: PaperImportance | None = dataclasses.field(default=None, metadata=lately())

    @property
    def deciding(self) -> Float[np.ndarray, " concept"]:
        """The numbers by which concepts are ordered."""
        return self.sobol.per_class if self.by_paper is None else self.by_paper.per_class

    __repr__ = short_repr


@dataclasses.dataclass(frozen=True)
class Scores:
    """How the concepts do on pictures held out.

    **Arguments:**

    - `rows`: the explanation first, then its controls.
    - `accuracy_of_nothing`: share of held-out pictures for which the target is predicted from no activations at all.
    """

    rows: tuple[Score, ...] = dataclasses.field(metadata=counted("score"))
    accuracy_of_nothing: float = dataclasses.field(metadata=within(0, 1))

    @property
    def own(self) -> Score:
        """The explanation's."""
        return self.rows[0]

    @property
    def controls(self) -> tuple[Score, ...]:
        """Those of banks to compare with."""
        return self.rows[1:]


@dataclasses.dataclass(frozen=True)
class Fit:
    """How the concepts were found.

    **Arguments:**

    - `result`, `steps`, `objective`, `scaled_kkt_residual`: what the solver says.
    - `dead_concepts`, `duplicated_concepts`: how many concepts are in no crop, and how many are there twice.
    - `path`: how λ of the faithfulness was chosen, if it was.
    - `rank_scan`: how the number of concepts was chosen, if it was.
    - `of_places`: whether concepts were found at all places of photographs, and not in crops.
    """

    result: str
    steps: int = dataclasses.field(metadata=within(0, _MANY))
    objective: float
    scaled_kkt_residual: float
    dead_concepts: int = dataclasses.field(metadata=within(0, _MANY))
    duplicated_concepts: int = dataclasses.field(metadata=within(0, _MANY))
    path: Path | None = None
    rank_scan: RankScan | None = None
    of_places: bool = dataclasses.field(default=False, metadata=lately())

    @property
    def solver(self) -> dict[str, Any]:
        """What the solver says, by name."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("path", "rank_scan")]
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that an explanation depends on besides the photographs; settings that are objects, in words.

    **Arguments:**

    - `model`, `layer`, `fingerprint`: the classifier, and where it was cut.
    - `target`: the class's number.
    - `rank`: how many concepts.
    - `crops`, `objective`, `solver`, `start`: what was given to `explain`, or what it took.
    - `faithfulness`: λ of the objective's term, or of each of several; False without terms.
    - `held_out`: share of the photographs that was only scored on.
    - `key`: the random key's data.
    - `preprocess`: the settings of the model's `Preprocess`, or of a class made from it.
    - `versions`, `python`, `device`: what it was made with.
    - `outputs`: what the model's logits mean, in words.
    - `preset`: the paper whose settings these are, if any's.
    """

    model: str
    layer: str
    fingerprint: str
    target: int = dataclasses.field(metadata=within(0, _MANY))
    rank: int = dataclasses.field(metadata=within(1, _MANY))
    crops: str
    objective: str
    faithfulness: bool | float | tuple[float, ...]
    solver: str
    start: str
    held_out: float
    key: tuple[int, ...] = dataclasses.field(metadata=within(0, 2**32 - 1))
    preprocess: dict[str, bool | int | float | str | tuple[int, ...] | tuple[float, ...] | None]
    versions: dict[str, str]
    python: str
    device: str
    outputs: str = dataclasses.field(default="MultiClass()", metadata=lately())
    preset: str | None = dataclasses.field(default=None, metadata=lately())

    def table(self) -> dict[str, Any]:
        """All of them by name."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Provenance:
    """Where an explanation comes from.

    **Arguments:**

    - `settings`: everything needed to run it again.
    - `notes`: what a reader should know before believing it.
    - `seconds`: where the time went.
    """

    settings: Settings
    notes: tuple[str, ...]
    seconds: dict[str, float] = dataclasses.field(metadata=elsewhere())

"""Concepts taken apart at an earlier layer: a tree of sub-concepts, and how alike their crops are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from ..blocks.room import chosen, parts_of
from ..support.fields import axes, counted, within
from ..support.reprs import short_repr
from ..support.scaling import of_order_one

# Of each division: it has crops, parts and channels of its own.
_OWN_AXES = axes(used=None, part=None, channel=None)


@dataclasses.dataclass(frozen=True)
class SubConcept:
    """One part of a concept.

    **Arguments:**

    - `path`: the numbers, from 1, of the concept, its part, that part's part, …; this one's is the last.
    - `share`: its share of the activations that were taken apart (of the sum of all parts' codes).
    - `strongest`: its strongest crops, strongest first; they count the explanation's crops.
    - `coherence`: mean cosine between these crops' activations at the layer that it was found at; NaN of one crop.
    - `division`: its own parts at a layer earlier still, if it was taken apart.
    """

    path: tuple[int, ...] = dataclasses.field(metadata=within(1, 10**7))
    share: float = dataclasses.field(metadata=within(0, 1 + 1e-6))
    strongest: tuple[int, ...] = dataclasses.field(metadata=within(0, "crop"))
    coherence: float = dataclasses.field(metadata=within(-1.001, 1.001, unknown=True))
    division: Division | None = dataclasses.field(default=None, metadata=_OWN_AXES)

    @property
    def name(self) -> str:
        """Its numbers with points between: 3.1 is the first part of concept 3."""
        return ".".join(str(number) for number in self.path)


@dataclasses.dataclass(frozen=True)
class Division:
    """A concept's crops, factorized again at an earlier layer (CRAFT, section 3.2).

    **Arguments:**

    - `path`: the concept that was taken apart, as in `SubConcept`.
    - `layer`: the layer.
    - `fingerprint`: of the model cut at that layer.
    - `crops`: which of the explanation's crops were used: those with most of the concept.
    - `dictionary`: the sub-concepts, of unit length, in the order of their shares.
    - `codes`: how much of each sub-concept each crop used has.
    - `coherence`: mean cosine between the parent's strongest crops at this layer.
    - `floor`: the same between all crops used, which are the parent's: what its parts' has to beat.
    - `spread`: how much the parent's top crops spread at this layer (see `spreads`), beside all crops that it was found
        in; NaN for a parent that was named, which isn't measured.
    - `parts`: the sub-concepts.
    """

    path: tuple[int, ...] = dataclasses.field(metadata=within(1, 10**7))
    layer: str
    fingerprint: str
    crops: Int[np.ndarray, " used"] = dataclasses.field(metadata=within(0, "crop"))
    dictionary: Float[np.ndarray, "part channel"] = dataclasses.field(metadata=within(-1 - 1e-3, 1 + 1e-3))
    codes: Float[np.ndarray, "used part"] = dataclasses.field(metadata=within(0))
    coherence: float
    floor: float
    spread: float
    parts: tuple[SubConcept, ...] = dataclasses.field(metadata=counted("part"))

    __repr__ = short_repr

    @property
    def name(self) -> str:
        """The parent's numbers with points between."""
        return ".".join(str(number) for number in self.path)

    def likeness(self, coherence: float) -> float:
        """How much less some crops differ than all crops used: 1 if they're the same, 0 if they differ as much.

        Cosines between averaged activations are close to 1 whatever the crops show; this tells them apart.
        """
        return 1 - (1 - coherence) / (1 - self.floor) if self.floor < 1 else float("nan")

    @property
    def parts_coherence(self) -> float:
        """The parts' mean coherence, each weighted by its share."""
        known = [(part.coherence, part.share) for part in self.parts if np.isfinite(part.coherence)]
        total = sum(share for _, share in known)
        return sum(value * share for value, share in known) / total if total else float("nan")


@dataclasses.dataclass(frozen=True)
class Recursion:
    """Which concepts want taking apart, and those that were.

    **Arguments:**

    - `spread`: how much each concept's crops spread (see `spreads`); NaN where it wasn't measured.
    - `layer`: the layer at which that was measured.
    - `threshold`: concepts that spread at least so much are suggested.
    - `suggested`: these concepts, counted from 0 as `recurse(concepts=…)` counts them; only those that matter for the
        class.
    - `divisions`: one for each concept that was taken apart.
    - `notes`: what a reader should know, such as concepts with too few crops.
    """

    spread: Float[np.ndarray, " concept"]
    layer: str
    threshold: float = dataclasses.field(metadata=within())
    suggested: tuple[int, ...] = dataclasses.field(metadata=within(0, "concept"))
    divisions: tuple[Division, ...] = dataclasses.field(metadata=_OWN_AXES)
    notes: tuple[str, ...] = ()

    __repr__ = short_repr

    def walk(self) -> Iterator[Division]:
        """All divisions, each before those of its parts."""
        waiting = list(reversed(self.divisions))
        while waiting:
            division = waiting.pop()
            yield division
            waiting.extend(part.division for part in reversed(division.parts) if part.division is not None)


def coherence(rows: Float[np.ndarray, "row channel"]) -> float:
    """The mean cosine between different rows; NaN of fewer than two. A row of zeros is like no other."""
    if len(rows) < 2:
        return float("nan")
    total, own = np.zeros(rows.shape[1]), 0.0
    for part in parts_of(rows):
        some = of_order_one(np.asarray(rows[part]), 1)
        lengths = np.linalg.norm(some, axis=1, keepdims=True)
        unit = some.astype(np.float64) / np.where(lengths > 0, lengths, 1)
        total, own = total + unit.sum(axis=0), own + float(np.square(unit).sum())
    return (float(np.square(total).sum()) - own) / (len(rows) * (len(rows) - 1))


def top_crops(codes: Float[np.ndarray, " crop"], percentile: float, fewest: int) -> Int[np.ndarray, " top"]:
    """The crops that have most of a concept: those at or above a percentile of its codes (CRAFT, section 3.2).

    **Arguments:**

    - `codes`: the concept's code in each crop.
    - `percentile`: 90 for the strongest tenth.
    - `fewest`: a tenth of few crops leaves nothing to factorize; so many are taken at least, if they have the concept.

    **Returns:** their numbers, ascending. Crops without the concept are never among them.
    """
    count = max(int((codes >= np.percentile(codes, percentile)).sum()), fewest)
    strongest = np.argsort(-codes, kind="stable")[:count]
    return np.sort(strongest[codes[strongest] > 0])


def spreads(
    codes: Float[np.ndarray, "crop concept"],
    rows: Float[np.ndarray, "crop channel"],
    *,
    percentile: float = 90.0,
    fewest: int = 12,
) -> Float[np.ndarray, " concept"]:
    """How much each concept's crops spread: the measure by which taking it apart is suggested.

    `(1 − cosine within its top crops) / (1 − cosine within all crops)`, mean cosines between activations: 0 when its
    top crops are all the same to the model, 1 when they are as different as any crops of the class. Things that a late
    layer has put into one concept look alike there, and differ at an earlier layer, whose activations tell more.

    **Arguments:**

    - `codes`: how much of each concept each crop has.
    - `rows`: the crops' activations at a layer.
    - `percentile`, `fewest`: as for `top_crops`.

    **Returns:** one number a concept; NaN for one with fewer than two crops, or where all crops are the same.
    """
    # Rounding makes the same activations differ by less than this.
    whole = difference if (difference := 1 - coherence(rows)) > 1e-6 else 0.0
    top = [top_crops(column, percentile, fewest) for column in codes.T]
    return np.asarray([(1 - coherence(chosen(rows, some))) / whole if whole > 0 else np.nan for some in top])

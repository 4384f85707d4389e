"""What every method gives, and what it takes to be one."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Key

from ..support.arguments import check_count, flag, function, real_array, text
from ..support.reprs import short_repr
from .inference import Inference, LeastSquares, NonNegativeLeastSquares
from .weighing import Weighing

if TYPE_CHECKING:
    AnyInference = Inference | None
    AnyWeighing = Weighing | None
    Dictionary = Float[np.ndarray, "concept channel"]
    Offset = Float[np.ndarray, " channel"] | None
    Text = str
    Flag = bool
else:
    # Whoever gives something else is told so by the checks below.
    AnyInference = AnyWeighing = Dictionary = Offset = Text = Flag = Any


@dataclasses.dataclass(frozen=True)
class Bank:
    """Concepts of some method: activations are rebuilt as `offset + codes @ dictionary`.

    **Arguments:**

    - `dictionary`: the concepts, as long as the method has them.
    - `name`: what tables call it.
    - `offset`: what codes of zero stand for, such as a mean that was taken out first; nothing if None.
    - `signed_codes`: whether codes may be below zero, as those of PCA.
    - `inference`: the method's own rule for codes, such as `LeastSquares()` or a function of your own `(maps,
        dictionary, head=None)`; used where it's asked for. Scores use one rule for all: non-negative least squares, or
        least squares where codes have signs.
    - `importance`: the method's own measure of importance likewise.

    Raises `ValueError` for numbers that aren't finite, shapes that don't fit, and rules that can't be called.
    """

    dictionary: Dictionary
    name: Text = "bank"
    offset: Offset = None
    signed_codes: Flag = False
    inference: AnyInference = None
    importance: AnyWeighing = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        dictionary = _floating(real_array("dictionary", self.dictionary, "concept × channel"))
        object.__setattr__(self, "dictionary", dictionary)
        text("name", self.name, "a name")
        if self.offset is not None:
            offset = real_array("offset", self.offset, "channel").astype(dictionary.dtype)
            if offset.shape != dictionary.shape[1:]:
                raise ValueError(f"offset has {len(offset)} numbers for {dictionary.shape[1]} channels")
            object.__setattr__(self, "offset", offset)
        object.__setattr__(self, "signed_codes", flag("signed_codes", self.signed_codes))
        if self.inference is not None:
            function("inference", self.inference, "a rule such as methods.NonNegativeLeastSquares()")
        if self.importance is not None:
            function("importance", self.importance, "a measure such as methods.BySobol()")

    def __len__(self) -> int:
        return len(self.dictionary)

    @property
    def shared_inference(self) -> Inference:
        """The rule that all methods have in common: least squares, non-negative unless codes have signs."""
        return LeastSquares() if self.signed_codes else NonNegativeLeastSquares()

    def encode(
        self, activations: Float[np.ndarray, "*place channel"], inference: AnyInference = None, *, head: Any = None
    ) -> Float[np.ndarray, "*place concept"]:
        """Codes of activations.

        **Arguments:**

        - `activations`: rows, or maps `image y x channel`.
        - `inference`: the rule; that of all methods if None. `bank.inference` is the method's own.
        - `head`: the classifier's head for these activations, for rules that ask it.

        **Returns:** the codes. Raises `ValueError` for other channels.
        """
        maps = maps_of(activations)
        if maps.shape[-1] != self.dictionary.shape[1]:
            raise ValueError(
                f"activations have {maps.shape[-1]} channels and {self.name} has {self.dictionary.shape[1]}; give "
                "those of the layer that it was fitted on"
            )
        rule = self.shared_inference if inference is None else inference
        if self.offset is not None:
            maps = maps - self.offset.astype(maps.dtype)
        codes = np.asarray(rule(maps, self.dictionary, head), maps.dtype)
        if codes.shape != (*maps.shape[:3], len(self)):
            raise ValueError(
                f"inference={rule!r} gives codes of shape {codes.shape}; give {(*maps.shape[:3], len(self))}"
            )
        return codes.reshape(*np.shape(activations)[:-1], len(self))

    def decode(self, codes: Float[np.ndarray, "*place concept"]) -> Float[np.ndarray, "*place channel"]:
        """Activations of codes: `offset + codes @ dictionary`."""
        codes = real_array("codes", codes)
        if not codes.ndim or codes.shape[-1] != len(self):
            raise ValueError(
                f"codes has shape {codes.shape}, and {self.name} has {len(self)} concepts, which come last"
            )
        rebuilt = codes @ self.dictionary
        return rebuilt if self.offset is None else rebuilt + self.offset


@runtime_checkable
class Method(Protocol):
    """A way of finding concepts: any object with a name and `fit`; a frozen dataclass is the shortest.

    What a method needs besides activations it may ask for by a method `prepared(model, pictures, crop_of)` that gives
    the method to be fitted: the split model, the pictures fitted (`Collected`), and for each row of the activations
    the number of its picture. `FACE` does. One that begins always at the same place may say by `started_at_random()`
    what it is from a random one, which stability over starts is about.
    A method whose attribute `crops` is False is fitted on whole pictures, where others are fitted on crops of them.
    One that finds only so many concepts may refuse a rank by `check_rank(rank, shape)` with a `ValueError`, `shape`
    being that of the activations to be fitted: a comparison asks all methods before it fits any.
    A control whose attribute `learned` is True, as that of `FACE` and `NMF` is, must be beaten in predictions alone
    (KL, accuracy, agreement), any other in every number.
    """

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    def fit(self, activations: Float[np.ndarray, "image y x channel"], rank: int, key: Key[Array, ""]) -> Bank:
        """Concepts of activations.

        **Arguments:**

        - `activations`: maps of crops or pictures; of one place where they are averages.
        - `rank`: how many concepts.
        - `key`: for whatever is drawn.
        """
        ...


def maps_of(activations: Any) -> Float[np.ndarray, "image y x channel"]:
    """Maps as they are; rows as maps of one place. Raises `ValueError` for anything else."""
    found = _floating(real_array("activations", activations))
    if found.ndim not in (2, 4) or 0 in found.shape:
        raise ValueError(f"activations have shape {found.shape}; give image × y × x × channel, or row × channel")
    return found if found.ndim == 4 else found[:, None, None, :]


def places_of(activations: Any) -> Float[np.ndarray, "row channel"]:
    """Every place a row."""
    maps = maps_of(activations)
    return maps.reshape(-1, maps.shape[-1])


def averages_of(activations: Any) -> Float[np.ndarray, "row channel"]:
    """Averages over the places of each picture."""
    return maps_of(activations).mean(axis=(1, 2))


def check_few(rank: Any, shape: tuple[int, ...], *, of: str, places: bool = False, channels: bool = True) -> int:
    """A number of concepts that so many rows allow; raises `ValueError` for more.

    **Arguments:**

    - `rank`: the number.
    - `shape`: of the activations that are fitted, image × y × x × channel, or row × channel.
    - `of`: the method, in words.
    - `places`: whether every place is a row.
    - `channels`: whether there can be no more than channels either.
    """
    rank = check_count("rank", rank, "concepts")
    rows = math.prod(shape[:-1]) if places else shape[0]
    most = min(rows, shape[-1]) if channels else rows
    if rank > most:
        raise ValueError(
            f"rank={rank} is more than {of} finds in {rows} rows of {shape[-1]} channels; give at most {most}"
        )
    return rank


def _floating(values: np.ndarray) -> np.ndarray:
    wide = values.dtype in (np.float32, np.float64)
    return values if wide else values.astype(np.float32)

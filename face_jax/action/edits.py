"""Concepts taken out of a classifier, or put in: `edit` changes a layer's activations, and nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from ..explanation.concepts import Concept
from ..explanation.loading import WrongModelError
from ..explanation.record import Explanation
from ..model import SplitModel, check_model
from ..nmf.encoding import encode, encode_maps
from ..signs import as_explained
from ..support.arguments import instance, one_of, real, real_array, shown
from ..support.concepts import concepts_of
from ..support.precision import full_precision
from .directions import ErasingDirections, Learned, check_meant

if TYPE_CHECKING:
    Codes = Literal["exact", "linear"]
    Factors = Mapping[Any, Any] | None
else:
    # Whoever gives something else is told so in words.
    Codes = Factors = Any


@dataclasses.dataclass(frozen=True, eq=False)
class Edit:
    """What is done to activations: `A − (U ∘ (1 − f)) D`, so that what concepts leave out stays as it is.

    **Arguments:**

    - `dictionary`: the concepts W.
    - `factors`: what each concept is multiplied with: 0 takes it out, 1 leaves it, 2 puts it in once more.
    - `linear`: whether the codes U are those of least squares, `A W⁺`, which makes the edit one matrix; else those of
        non-negative least squares.
    - `directions`: D, what is taken out with each unit of a concept's codes; the concepts themselves if None.
    - `learned`: what D was learned from, where `face_jax.erasing_directions` found it. Raises `ValueError` if that was
        for another edit.
    """

    dictionary: Float[np.ndarray, "concept channel"]
    factors: Float[np.ndarray, " concept"]
    linear: bool
    directions: Float[np.ndarray, "concept channel"] | None = None
    learned: Learned | None = None

    def __post_init__(self) -> None:
        if self.learned is not None:
            check_meant(self.learned, self.dictionary, self.factors != 1, linear=self.linear)

    @property
    def along(self) -> Float[np.ndarray, "concept channel"]:
        """What is taken out with each unit of a concept's codes."""
        return self.dictionary if self.directions is None else self.directions

    @property
    def amounts(self) -> Float[np.ndarray, " concept"]:
        """How much of each concept is taken out, as a share of its codes; below zero where it is put in."""
        return 1 - self.factors

    @property
    def projection(self) -> Float[np.ndarray, "channel channel"]:
        """Of a linear edit the matrix P of `A P`, in float64."""
        bank = self.dictionary.astype(np.float64)
        return np.eye(bank.shape[1]) - np.linalg.pinv(bank) @ (self.amounts[:, None] * self.along)

    def codes_of(self, rows: Float[Array, "row channel"]) -> Float[Array, "row concept"]:
        """How much of each concept is in rows, as this edit has it."""
        if self.linear:
            return rows @ jnp.asarray(np.linalg.pinv(self.dictionary.astype(np.float64)), rows.dtype)
        return encode(rows, jnp.asarray(self.dictionary, rows.dtype))

    def __call__(self, maps: Float[Array, "*place channel"]) -> Float[Array, "*place channel"]:
        """Edited activations, channels last; differentiable, also inside compiled programs."""
        maps = jnp.asarray(maps)
        rows = maps.reshape(-1, maps.shape[-1])
        if self.linear or isinstance(maps, Tracer):
            codes = self.codes_of(rows)
        else:
            # Compiled for few numbers of rows.
            codes = jnp.asarray(encode_maps(np.asarray(rows)[:, None, None], self.dictionary)[:, 0, 0])
        taken = jnp.asarray(self.amounts[:, None] * self.along, maps.dtype)
        return (rows - codes @ taken).reshape(maps.shape)

    def digest(self) -> str:
        """What tells this edit from others."""
        arrays = (self.dictionary, self.factors, *(() if self.directions is None else (self.directions,)))
        parts = (np.asarray(each, np.float64).tobytes() for each in arrays)
        return hashlib.sha256(b"".join(parts) + bytes([self.linear])).hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class EditedFeatures:
    """Features, and behind them an edit of what they give."""

    features: Callable[..., Any]
    change: Edit

    def __call__(self, images: Any) -> Float[Array, "image y x channel"]:
        """Edited activations of network input."""
        return self.change(self.features(images))


class _EditedWithPullback(EditedFeatures):
    """The same around features that bring a method `vjp` of their own."""

    def vjp(self, images: Any) -> tuple[Float[Array, "image y x channel"], Callable[[Array], Any]]:
        maps, pullback = self.features.vjp(images)  # pyright: ignore[reportFunctionMemberAccess]
        edited, inside = jax.vjp(self.change, maps)
        return edited, lambda cotangent: pullback(inside(cotangent)[0])


@dataclasses.dataclass(frozen=True)
class _EditedWithTokens:
    """Features with tokens beside the maps, which stay as they are."""

    with_tokens: Callable[..., Any]
    change: Edit

    def __call__(self, images: Any) -> tuple[Float[Array, "image y x channel"], Array]:
        maps, tokens = self.with_tokens(images)
        return self.change(maps), tokens


@full_precision
def edit(
    model: SplitModel,
    explanation: Explanation,
    *,
    remove: Any = (),
    scale: Factors = None,
    codes: Codes = "exact",
    along: Any = None,
) -> SplitModel:
    """The same classifier with concepts taken out of its layer's activations, or scaled there.

    Of each place's activations as much is taken out as its codes have of the concept; the other concepts, and what all
    of them leave out, stay as they are. `face_jax.bridges.edited_module` gives a torch classifier back, and
    `face_jax.measure_edit` says what an edit does on labelled photographs, beside controls.

    **Arguments:**

    - `model`: the classifier that was explained.
    - `explanation`: whose concepts are meant.
    - `remove`: concepts that are taken out, or the one: numbers from 0, as everywhere in Python (a report's number less
        one, `concept.index`), or entries of `explanation.concepts`.
    - `scale`: what others are multiplied with, by their numbers or entries: 0.5 halves one, 2 doubles it.
    - `codes`: how much of a concept is where: `"exact"`, by non-negative least squares as everywhere else; or
        `"linear"`, by least squares, which makes the edit a single matrix that needs no solver; what looks a little
        like the concept is changed by it, too.
    - `along`: what is taken out with each unit of a concept's codes, from `face_jax.erasing_directions` for the same
        concepts and `codes`; the concepts themselves if None. An array `concept channel` of one's own is taken as it
        is.

    **Returns:** the split classifier, whose head is the same: it explains, is saved and is loaded like any other.
    Raises `ValueError` for no concept, for one that there isn't and for one twice, and for what was learned along other
    concepts or with other codes, `WrongModelError` for another model than the one explained.

    **Example:**

    >>> edited = fj.edit(model, explanation, remove=[0], scale={1: 0.5})
    >>> edited.name
    'layered without concept 1, concept 2 × 0.5'
    """
    check_model(model)
    instance("explanation", explanation, Explanation, "the result of face_jax.explain")
    model = as_explained(model, explanation.model.fingerprint)
    if model.fingerprint != explanation.model.fingerprint or model.layer != explanation.model.layer:
        raise WrongModelError(
            f"explanation is of {explanation.model.name} at layer {explanation.model.layer!r}, and model is "
            f"{model.name} at layer {model.layer!r} with other weights or another cut; give the model that "
            "was explained, and name all concepts in one call"
        )
    change = edit_of(explanation, remove, scale, codes, along)
    features = change_features(model.features, change)
    return dataclasses.replace(
        model,
        features=features,
        with_tokens=None if model.with_tokens is None else _EditedWithTokens(model.with_tokens, change),
        name=f"{model.name} {in_words(change)}",
        fingerprint=f"{model.fingerprint}, edited {change.digest()}",
        lowest=None,
    )


def change_features(features: Callable[..., Any], change: Edit) -> EditedFeatures:
    """Features that give edited activations, differentiable wherever the features are."""
    return (EditedFeatures if getattr(features, "vjp", None) is None else _EditedWithPullback)(features, change)


def edit_of(explanation: Explanation, remove: Any, scale: Any, codes: Any, along: Any = None) -> Edit:
    """What is asked for, checked."""
    one_of("codes", codes, ("exact", "linear"))
    count = len(explanation.dictionary)
    factors = np.ones(count)
    named = dict.fromkeys(_numbers("remove", remove, count), 0.0)
    if scale is not None and not isinstance(scale, Mapping):
        raise ValueError(f"scale={shown(scale)} isn't a mapping; give one from concepts to factors, such as {{2: 0.5}}")
    for concept, factor in (scale or {}).items():
        (number,) = _numbers("scale", [concept], count)
        if number in named:
            raise ValueError(f"scale[{number}] is given, and that concept is named already; name each concept once")
        named[number] = real(f"scale[{number}]", factor, "factor", least=0)
    if not any(factor != 1 for factor in named.values()):
        raise ValueError(
            "remove and scale change no concept; name one, such as remove=[0] or scale={0: 0.5} for the first"
        )
    factors[list(named)] = list(named.values())
    learned = along.learned if isinstance(along, ErasingDirections) else None
    given = along if learned is None else along.directions
    directions = None if along is None else _directions(given, explanation.dictionary.shape)
    return Edit(np.asarray(explanation.dictionary), factors, codes == "linear", directions, learned)


def _directions(along: Any, shape: tuple[int, ...]) -> Float[np.ndarray, "concept channel"]:
    """What goes with concepts, checked."""
    found = real_array("along", along, finite=False).astype(np.float64)
    if found.shape != shape or not np.isfinite(found).all():
        what = f"has shape {found.shape}" if found.shape != shape else "has entries that aren't finite"
        raise ValueError(
            f"along {what}; give the {shape[0]} × {shape[1]} numbers of face_jax.erasing_directions for this "
            "explanation"
        )
    return found


def _numbers(name: str, given: Any, count: int) -> list[int]:
    if isinstance(given, Concept):
        given = [given]
    if isinstance(given, list | tuple):
        if not given:
            return []
        given = [one.index if isinstance(one, Concept) else one for one in given]
    try:
        found = list(concepts_of(given, count, of="an explanation with"))
    except ValueError as error:
        raise ValueError(str(error).replace("concepts=", f"{name}=", 1)) from error
    if given is None or len(set(found)) != len(found):
        raise ValueError(
            f"{name}={shown(given)} isn't a list of different concepts; give numbers from 0 to {count - 1}"
        )
    return found


def in_words(change: Edit) -> str:
    """An edit as names and notes say it, with the numbers that reports give concepts."""
    out = [at + 1 for at in np.flatnonzero(change.factors == 0)]
    scaled = np.flatnonzero((change.factors != 0) & (change.factors != 1)).tolist()
    parts = [f"without concept{'s' if len(out) > 1 else ''} {', '.join(map(str, out))}"] if out else []
    parts += [f"{'' if out or at != scaled[0] else 'with '}concept {at + 1} × {change.factors[at]:g}" for at in scaled]
    words = ", ".join(parts)
    if change.directions is not None:
        words += f" and what goes with {'it' if len(out) + len(scaled) == 1 else 'them'}"
    return words + (" (linear)" if change.linear else "")

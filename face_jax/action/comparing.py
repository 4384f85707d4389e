"""Two explanations beside each other: which concepts go together over the same photographs, and which are one-sided."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float, Key

from ..activations import Readable, activations_of
from ..explanation.record import Explanation
from ..metrics import random_dictionary
from ..model import SplitModel, photographs_for
from ..nmf.encoding import encode_maps
from ..pictures.photographs import Photograph, UnreadablePhotographError
from ..support.arguments import Real, Seed, Whole, check_count, enough, instance, key_of, real
from ..support.interrupts import interruptible
from ..support.precision import full_precision
from ..support.progress import Stopwatch
from ..support.progress_line import Watched, progress_of
from ..support.randomness import generator
from .comparison import EQUAL, Comparison, Match

_FEWEST = 8
_RANDOM_BANKS, _PREDICTION_SHUFFLES, _FOLDS = 20, 20, 5
_REGION = ("size", "resize", "fit")


@interruptible()
@full_precision
def compare(
    first: Explanation,
    second: Explanation,
    images: Any = None,
    *,
    shuffles: Whole = 200,
    least: Real = 0.5,
    batch: Whole = 32,
    key: Seed = None,
    progress: Watched = None,
) -> Comparison:
    """Two explanations over the same photographs: of two models, two layers, two checkpoints, before and after an edit.

    Concepts are matched by how their codes go together over the same places, so that channels and layers may differ.
    A pair is shared where its correlation is above what shuffled photographs give (95 %), above what either concept
    reaches with random directions in the other's activations, which know the picture but learned no concept, and above
    `least`.

    **Arguments:**

    - `first`, `second`: the explanations.
    - `images`: photographs to compare them in; by default those that both explain, found by their content, or, where
        these are fewer than eight (an edit makes photographs leave the class), all that either explains.
    - `shuffles`: of the photographs.
    - `least`: the least correlation of concepts that are called shared.
    - `batch`: photographs that go through a network together.
    - `key`: for shuffles and random directions, or a seed.
    - `progress`: whom to tell how far it is.

    **Returns:** what both have in common. Raises `ValueError` for fewer than eight photographs.

    **Example:**

    >>> found = fj.compare(explanation, explanation, key=0)
    >>> found.equal, found.only_first
    (True, ())
    """
    for name, each in (("first", first), ("second", second)):
        instance(name, each, Explanation, "the result of face_jax.explain")
    shuffles, batch = enough("shuffles", shuffles, 20), check_count("batch", batch, "pictures")
    least = real("least", least, "correlation", least=0, below=1)
    random = generator(key := key_of(key))
    photographs, maps, notes = _together(first, second, images, batch, progress)
    if len(photographs) < _FEWEST:
        whose = "images has" if images is not None else "first and second explain"
        raise ValueError(
            f"{whose} {len(photographs)} photographs that can be read, and shuffling so few says nothing; give "
            f"at least {_FEWEST} as images"
        )
    settings = [each.model.preprocess.settings() for each in (first, second)]
    same_region = all(settings[0].get(name) == settings[1].get(name) for name in _REGION)
    grid = tuple(min(each.shape[axis] for each in maps) for axis in (1, 2)) if same_region else (1, 1)
    banks = [each.dictionary for each in (first, second)]
    codes = [_on(encode_maps(each, bank), grid) for each, bank in zip(maps, banks, strict=True)]
    correlation = _correlated(*codes)
    silent = tuple(
        tuple(np.flatnonzero(~_standard(each.reshape(-1, each.shape[-1])).any(0)).tolist()) for each in codes
    )
    floors = [_floor(codes[at], maps[1 - at], banks[1 - at], grid, jax.random.fold_in(key, at)) for at in (0, 1)]
    orders = [random.permutation(len(photographs)) for _ in range(shuffles)]
    null = np.asarray([_best(_correlated(codes[0], codes[1][order])) for order in orders])
    threshold = max(least, float(np.quantile(null, 0.95)))
    matches = []
    for one, other in zip(*scipy.optimize.linear_sum_assignment(correlation, maximize=True), strict=True):
        value, floor = float(correlation[one, other]), float(max(floors[0][one], floors[1][other]))
        shared = value > threshold and (value > floor or value >= EQUAL)
        matches.append(Match(int(one), int(other), value, floor, shared))
    folds = np.arange(len(photographs)) % min(_FOLDS, len(photographs))
    folds = folds[random.permutation(len(photographs))]
    predicted = [_predicted(codes[at], codes[1 - at], folds) for at in (0, 1)]
    some = orders[:_PREDICTION_SHUFFLES]
    chance = [
        float(np.quantile([_predicted(codes[at], codes[1 - at][order], folds)[0] for order in some], 0.95))
        for at in (0, 1)
    ]
    return Comparison(
        first, second, photographs, "grid" if same_region else "photographs", correlation, (silent[0], silent[1]),
        tuple(sorted(matches, key=lambda match: -match.correlation)), null, threshold, predicted[0], predicted[1],
        (chance[0], chance[1]), notes,
    )  # fmt: skip


def _together(
    first: Explanation, second: Explanation, images: Any, batch: int, progress: Watched
) -> tuple[tuple[Photograph, ...], list[Float[np.ndarray, "image y x channel"]], tuple[str, ...]]:
    """Photographs that both can be looked at in, both layers' activations of them, and what to say of the choice."""
    if images is not None:
        return *_through(first, second, photographs_for(first.model, images), batch, progress), ()
    where = [{_content(one): at for at, one in enumerate(each.photographs)} for each in (first, second)]
    both = [content for content in where[0] if content in where[1]]
    if len(both) < _FEWEST:
        every = {
            **{_content(one): one for one in second.photographs},
            **{_content(one): one for one in first.photographs},
        }
        note = (
            f"Both explain {len(both)} of the photographs only, too few to compare them in; these are the {len(every)} "
            "that either explains."
        )
        return *_through(first, second, tuple(every.values()), batch, progress), (note,)
    maps = [
        each.pictures.collected.maps[[places[content] for content in both]]
        for each, places in zip((first, second), where, strict=True)
    ]
    return tuple(first.photographs[where[0][content]] for content in both), maps, ()


def _through(
    first: Explanation, second: Explanation, every: tuple[Photograph, ...], batch: int, progress: Watched
) -> tuple[tuple[Photograph, ...], list[Float[np.ndarray, "image y x channel"]]]:
    """Those of some photographs that can be read, and both layers' activations of them."""
    found = [_activations(each.model, every, batch, progress) for each in (first, second)]
    readable = [at for at in found[0][0] if at in set(found[1][0])]
    maps = [each[[index.index(at) for at in readable]] for index, each in found]
    return tuple(every[at] for at in readable), maps


def _content(photograph: Photograph) -> bytes:
    if photograph.expected is not None:
        return photograph.expected
    try:
        return photograph.digest()
    except UnreadablePhotographError:
        return photograph.name.encode()


def _activations(
    model: SplitModel, photographs: tuple[Photograph, ...], batch: int, progress: Watched
) -> tuple[list[int], Float[np.ndarray, "image y x channel"]]:
    readable = Readable(photographs, model.preprocess)
    count, stage = len(photographs), "Photographs through the network"
    batches = activations_of(model, iter(readable), count, stage, min(batch, count), progress_of(progress), Stopwatch())
    maps = [each for _, each, _ in batches]
    return list(readable.index), np.concatenate(maps) if maps else np.zeros((0, 1, 1, 1), np.float32)


def _on(
    codes: Float[np.ndarray, "image y x concept"], grid: tuple[int, ...]
) -> Float[np.ndarray, "image place concept"]:
    """Codes averaged onto a coarser grid."""
    down, across = (_averaging(old, new) for old, new in zip(codes.shape[1:3], grid, strict=True))
    found = np.einsum("ay,bx,iyxc->iabc", down, across, codes.astype(np.float64))
    return found.reshape(len(codes), -1, codes.shape[-1])


def _averaging(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """Shares of old cells in each new cell."""
    edges = np.arange(new + 1) * old / new
    low, high = np.maximum(edges[:-1, None], np.arange(old)), np.minimum(edges[1:, None], np.arange(old) + 1)
    share = np.maximum(high - low, 0)
    return share / share.sum(1, keepdims=True)


def _correlated(
    first: Float[np.ndarray, "image place first"], second: Float[np.ndarray, "image place second"]
) -> Float[np.ndarray, "first second"]:
    """Correlation of each concept's codes with each of the other's; 0 where a concept is nowhere."""
    one, other = (_standard(each.reshape(-1, each.shape[-1])) for each in (first, second))
    return one.T @ other


def _standard(values: Float[np.ndarray, "sample concept"]) -> Float[np.ndarray, "sample concept"]:
    centred = values - values.mean(0)
    length = np.linalg.norm(centred, axis=0)
    # What rounding leaves of a constant is no variation.
    there = length > 1e-6 * np.linalg.norm(values, axis=0)
    return np.where(there, centred / np.where(there, length, 1), 0)


def _best(correlation: Float[np.ndarray, "first second"]) -> float:
    pairs = scipy.optimize.linear_sum_assignment(correlation, maximize=True)
    return float(correlation[pairs].max())


def _floor(
    codes: Float[np.ndarray, "image place concept"],
    maps: Float[np.ndarray, "image y x channel"],
    bank: Float[np.ndarray, "other channel"],
    grid: tuple[int, ...],
    key: Key[Array, ""],
) -> Float[np.ndarray, " concept"]:
    """The best correlation of each concept with any of a random bank in another layer's activations: 95 % quantile."""
    signed = bool((bank < 0).any())
    best = []
    for draw in range(_RANDOM_BANKS):
        drawn = random_dictionary(bank.shape[1], len(bank), key=jax.random.fold_in(key, draw), signed=signed)
        best.append(_correlated(codes, _on(encode_maps(maps, drawn.astype(maps.dtype)), grid)).max(1))
    return np.quantile(best, 0.95, axis=0)


def _predicted(
    given: Float[np.ndarray, "image place given"], wanted: Float[np.ndarray, "image place wanted"], folds: np.ndarray
) -> tuple[float, Float[np.ndarray, " wanted"]]:
    """Share of the variance of codes that others predict, in photographs left out: of all, and of each concept."""
    lost = np.zeros(wanted.shape[-1])
    total = np.zeros(wanted.shape[-1])
    for fold in np.unique(folds):
        parts = []
        for some in (folds != fold, folds == fold):
            rows = given[some].reshape(-1, given.shape[-1])
            parts.append((np.concatenate([rows, np.ones((len(rows), 1))], axis=1), wanted[some].reshape(-1, len(lost))))
        (rows, targets), (left_rows, left) = parts
        weights = np.linalg.lstsq(rows, targets, rcond=1e-10)[0]
        lost += ((left - left_rows @ weights) ** 2).sum(0)
        total += ((left - targets.mean(0)) ** 2).sum(0)
    each = 1 - np.divide(lost, total, out=np.ones_like(lost), where=total > 0)
    return float(1 - lost.sum() / total.sum()) if total.sum() > 0 else 0.0, each

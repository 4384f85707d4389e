"""Labelled photographs through the network once, and their logits under any edit; edits to compare one with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..activations import Collected, Readable, activations_of
from ..heads.beside import Beside
from ..metrics import random_dictionary
from ..metrics.removal import logits_without
from ..model import SplitModel
from ..nmf.encoding import encode_maps
from ..pictures.labels import Labels
from ..pictures.reading import Gathered
from ..support.progress import Stopwatch
from ..support.progress_line import Watched, progress_of
from .edits import Edit

_CANCELS = 1e-3


@dataclasses.dataclass(frozen=True)
class Seen:
    """What the network makes of labelled photographs: averages over places behind an affine head."""

    collected: Collected
    codes: Float[np.ndarray, "image y x concept"]
    labels: Labels
    unread: tuple[str, ...]


def through(model: SplitModel, labels: Labels, change: Edit, batch: int, progress: Watched) -> Seen:
    """Photographs through the network; those that can't be read are left out."""
    readable = Readable(labels.photographs, model.preprocess)
    count, affine = len(labels.photographs), bool(model.head.affine)
    kept = Gathered(count, "photographs", "give fewer photographs, or cut the model at a later layer")
    codes, logits, tokens = [], [], []
    say = jax.jit(lambda head, maps: head(maps))
    stage, told = "Labelled photographs through the network", progress_of(progress)
    parts = activations_of(model, iter(readable), count, stage, min(batch, count), told, Stopwatch())
    for device_maps, maps, head in parts:
        logits.append(np.asarray(say(head, device_maps))[: len(maps)])
        if change.linear:
            found = np.asarray(change.codes_of(jnp.asarray(maps.reshape(-1, maps.shape[-1]))))
            found = found.reshape(*maps.shape[:3], -1)
        else:
            found = encode_maps(maps, change.dictionary)
        codes.append(found.mean((1, 2), keepdims=True) if affine else found)
        kept.add(maps.mean((1, 2), keepdims=True) if affine else maps, np.full(len(maps), True))
        tokens.append(np.asarray(head.kept)[: len(maps)] if isinstance(head, Beside) else None)
    index = np.asarray(readable.index, np.int64)
    if len(index) < 2:
        raise ValueError(
            f"images and labels have {len(index)} photographs in common that can be read, of which nothing can be "
            "said; give more"
        )
    beside_them = None if tokens[0] is None else np.concatenate(tokens)
    some = Labels(
        tuple(labels.photographs[at] for at in index), labels.index[index], labels.group[index], labels.groups
    )
    return Seen(
        Collected(kept.all(), np.concatenate(logits), beside_them), np.concatenate(codes), some, tuple(readable.skipped)
    )


def logits_under(model: SplitModel, seen: Seen) -> Any:
    """A function of amounts of concepts and a bank: logits of the photographs without as much of these directions."""
    collected = seen.collected
    less = logits_without(collected.head(model.head), collected.maps, seen.codes, collected.logits)
    return lambda amounts, bank: less(slice(None), amounts[:, None] * bank)


def other_concepts(seen: Seen, change: Edit, draws: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Amounts of other concepts, as many as are edited and in the edit's proportions, by which as much is changed.

    They have the edit's own signs: where it puts a concept in, so do they.
    """
    codes = seen.codes.reshape(-1, seen.codes.shape[-1]).astype(np.float64)
    bank = change.along.astype(np.float64)
    overlap = (codes.T @ codes) * (bank @ bank.T)

    def size(amounts: np.ndarray) -> float:
        return float(np.sqrt(max(amounts @ overlap @ amounts, 0.0)))

    edited = np.flatnonzero(change.amounts)
    others = [at for at in np.flatnonzero(change.amounts == 0).tolist() if overlap[at, at] > 0]
    if len(others) < len(edited):
        return
    tried: set[tuple[float, ...]] = set()
    for _ in range(10 * draws):
        amounts = np.zeros(len(bank))
        amounts[random.choice(others, len(edited), replace=False)] = change.amounts[edited]
        if (chosen := tuple(amounts.tolist())) in tried or len(tried) == draws:
            continue
        # Amounts of either sign that cancel, in directions that are alike, would have to be beyond all measure.
        if size(amounts) <= _CANCELS * np.sqrt(amounts**2 @ np.diag(overlap)):
            continue
        tried.add(chosen)
        yield amounts * size(change.amounts) / size(amounts)


def least_important(change: Edit) -> Iterator[np.ndarray]:
    """The least important concept that isn't edited, changed by each of the edit's own amounts."""
    others = np.flatnonzero(change.amounts == 0)
    for amount in np.unique(change.amounts[change.amounts != 0]) if len(others) else ():
        amounts = np.zeros(len(change.factors))
        amounts[others[-1]] = amount
        yield amounts


def random_banks(change: Edit, draws: int, key: Any) -> Iterator[np.ndarray]:
    """Random directions in the places of the concepts, as long as what is taken out with these."""
    count, channels = change.dictionary.shape
    signed = bool((change.along < 0).any())
    length = np.linalg.norm(change.along, axis=1, keepdims=True)
    for draw in range(draws):
        yield length * random_dictionary(channels, count, key=jax.random.fold_in(key, draw), signed=signed)

"""Activations of photographs and crops: in batches, through the first part of a model."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .activation_checks import SignedActivationsError as SignedActivationsError
from .activation_checks import (
    check_signs,
    refuse_no_maps,
    refuse_not_finite,
    refuse_other_count,
    refuse_other_logits,
)
from .blocks.room import Room, averaged, chosen
from .heads.beside import Beside, beside
from .model import SplitModel
from .nmf.options import AnySolver
from .pictures.crop_rules import Cropping as Cropping
from .pictures.crop_rules import Crops as Crops
from .pictures.crop_rules import GridCrops as GridCrops
from .pictures.crop_rules import RandomCrops as RandomCrops
from .pictures.photographs import Photograph, network_input
from .pictures.reading import Gathered
from .pictures.reading import Readable as Readable
from .support.fields import lately, within
from .support.freed_memory import freed_memory_kept
from .support.memory import check_memory, exhaustion_in_words
from .support.progress import Progress, Stopwatch, silent
from .support.reprs import short_repr

# As many pictures go through the network together unless somebody says another number.
_USUAL_BATCH = 32
# A network takes at least so many times the memory of its input: most have more colours behind the first layer.
_LEAST_COPIES = 5
# While crops are factorized their rows are held so many times.
COPIES_OF_ROWS = 4


@dataclasses.dataclass(frozen=True)
class Collected:
    """What a model makes of some pictures (whole photographs, or crops of them).

    **Arguments:**

    - `maps`: the activations.
    - `logits`: what the head makes of them.
    - `kept`: of a transformer's layer the tokens that lie on no place (class token, registers), which stay as they are
        when maps are rebuilt; None where the head takes maps alone.
    """

    maps: Float[np.ndarray, "image y x channel"] = dataclasses.field(metadata=within())
    logits: Float[np.ndarray, "image class"] = dataclasses.field(metadata=within())
    kept: Float[np.ndarray, "image token width"] | None = dataclasses.field(
        default=None, metadata={**within(), **lately()}
    )

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: slice | Int[np.ndarray, " some"] | Bool[np.ndarray, " image"]) -> Collected:
        return Collected(
            chosen(self.maps, index), self.logits[index], None if self.kept is None else chosen(self.kept, index)
        )

    def head(self, head: Any) -> Any:
        """A model's head for maps of these pictures: with their tokens beside them, where it takes such."""
        return beside(head, self.kept)


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a model sees in photographs, and the activations of those that it puts in the class looked for.

    **Arguments:**

    - `kept`: activations and logits of the photographs in `index`.
    - `index`: which photographs were kept.
    - `readable`: which photographs could be read.
    - `predicted`: which classes are predicted for each readable one.
    - `skipped`: why each other one could not be read, with its name.
    - `copies`: those that were left out because they are another one once more, with both names.
    - `faint`: the names of those whose 16 bits a value are hardly used.
    """

    kept: Collected
    index: Int[np.ndarray, " image"]
    readable: Int[np.ndarray, " readable"]
    predicted: Bool[np.ndarray, "readable class"]
    skipped: tuple[str, ...]
    copies: tuple[str, ...] = ()
    faint: tuple[str, ...] = ()

    __repr__ = short_repr


def survey(
    model: SplitModel,
    photographs: Sequence[Photograph],
    target: int | tuple[int, ...] | None = None,
    *,
    batch: int = 32,
    progress: Progress = silent,
    stopwatch: Stopwatch | None = None,
    solver: AnySolver | None = None,
    room: Room | None = None,
) -> Survey:
    """Whole photographs through the model; activations are kept where the model predicts `target`.

    **Arguments:**

    - `model`: the split classifier.
    - `photographs`: what to look at; those that can't be read are left out, by name, and so are those that are an
        earlier one once more.
    - `target`: the class looked for, or several; every photograph's activations are kept if None.
    - `batch`: photographs that go through the network together.
    - `progress`, `stopwatch`: told how far it is, and what the time went into.
    - `solver`: what the activations are for, if it was chosen already.
    - `room`: where activations go that are too many for memory; nowhere by default.

    **Returns:** predictions, and the activations kept. Raises `UnreadablePhotographError` if nothing can be read, and
    `SignedActivationsError` with the first batch that has activations which `solver` can't represent.
    """
    readable = Readable(photographs, model.preprocess, once=True)
    kept = Gathered(len(photographs), "photographs", "give fewer photographs, or cut the model at a later layer", room)
    all_logits, masks, tokens = [], [], []
    stage = "Photographs through the network"
    parts = _forward(model, iter(readable), len(photographs), stage, batch, progress, stopwatch, solver)
    for maps, logits, beside_them in parts:
        refuse_other_count(logits, model)
        mask = np.full(len(logits), target is None)
        for number in () if target is None else (target,) if isinstance(target, int) else target:
            mask |= np.asarray(model.outputs.has(logits, number))
        kept.add(maps, mask)
        tokens.append(None if beside_them is None else beside_them[mask])
        all_logits.append(logits)
        masks.append(mask)
    logits, mask = np.concatenate(all_logits), np.concatenate(masks)
    where = np.asarray(readable.index)
    return Survey(
        kept=Collected(kept.all(), logits[mask], _together(tokens)),
        index=where[mask],
        readable=where,
        predicted=model.outputs.predicted(logits),
        skipped=tuple(readable.skipped),
        copies=tuple(readable.copies),
        faint=tuple(readable.faint),
    )


def collect_crops(
    model: SplitModel,
    photographs: Sequence[Photograph],
    crops: Crops,
    *,
    keep: Callable[[Float[np.ndarray, "crop y x channel"]], Float[np.ndarray, "crop height width channel"]],
    batch: int = 32,
    progress: Progress = silent,
    stopwatch: Stopwatch | None = None,
    solver: AnySolver | None = None,
    room: Room | None = None,
) -> Collected:
    """Activations of crops, each resized to the network's input (or taken out of it), and their logits.

    **Arguments:**

    - `model`: the split classifier.
    - `photographs`: readable ones, which `crops` counts.
    - `crops`: where they lie.
    - `keep`: what of a batch of maps is kept: `pooled`, or all of it (`whole_maps`).
    - `batch`, `progress`, `stopwatch`, `solver`, `room`: as for `survey`.

    **Returns:** what was kept of each crop, and its logits. Raises `ValueError` for crops of the network's input
    before a head that isn't affine: its weights are for maps of one size, and these are smaller.
    """
    if crops.window is not None and not model.head.affine:
        raise ValueError(
            f"crops of the network's input give smaller maps than the head behind layer={model.layer!r} of "
            f"{model.name} takes; choose a layer with an affine head (face-jax layers lists them), or RandomCrops"
        )

    def inputs() -> Iterator[Float[np.ndarray, "_ _ _"]]:
        for image, group in itertools.groupby(range(len(crops)), crops.image.__getitem__):
            pixels = photographs[image].pixels(model.preprocess.reads)
            whole = None if crops.window is None else network_input(pixels, model.preprocess)
            for crop in group:
                if whole is None or crops.window is None:
                    yield network_input(pixels, model.preprocess, tuple(crops.box[crop].tolist()))
                else:
                    top, left, bottom, right = crops.window[crop]
                    yield whole[top:bottom, left:right]

    gathered = Gathered(
        len(crops), "crops", "take fewer crops, or cut the model at a later layer", room, COPIES_OF_ROWS
    )
    all_logits, tokens = [], []
    parts = _forward(model, inputs(), len(crops), "Crops through the network", batch, progress, stopwatch, solver)
    for maps, logits, beside_them in parts:
        gathered.add(keep(maps), np.full(len(logits), True))
        all_logits.append(logits)
        tokens.append(beside_them)
    return Collected(gathered.all(), np.concatenate(all_logits), _together(tokens))


def _together(tokens: list[np.ndarray | None]) -> np.ndarray | None:
    """Tokens of all batches, if the layer has such."""
    found = [some for some in tokens if some is not None]
    return np.concatenate(found) if found else None


def pooled(maps: Float[np.ndarray, "image y x channel"]) -> Float[np.ndarray, "image 1 1 channel"]:
    """Activations averaged over places: maps of one place."""
    # The average over one place is what is there.
    return maps if maps.shape[1:3] == (1, 1) else averaged(maps)[:, None, None]


def whole_maps(maps: Float[np.ndarray, "image y x channel"]) -> Float[np.ndarray, "image y x channel"]:
    """The maps as they are."""
    return maps


def rows(maps: Float[np.ndarray, "image y x channel"]) -> Float[np.ndarray, "row channel"]:
    """Every place of every map a row of its own: image by image, then line by line."""
    return maps.reshape(-1, maps.shape[-1])


def _forward(
    model: SplitModel,
    inputs: Iterator[Float[np.ndarray, "_ _ _"]],
    total: int,
    stage: str,
    batch: int,
    progress: Progress,
    stopwatch: Stopwatch | None,
    solver: AnySolver | None,
) -> Iterator[tuple[Float[np.ndarray, "image y x channel"], Float[np.ndarray, "image class"], np.ndarray | None]]:
    watch = stopwatch or Stopwatch()
    say = jax.jit(lambda head, maps: head(maps))
    for device_maps, maps, head in activations_of(model, inputs, total, stage, batch, progress, watch):
        check_signs(model, solver, maps)
        with watch("the head"):
            said = say(head, device_maps)
            refuse_other_logits(said, len(device_maps), model)
            logits = np.asarray(said)[: len(maps)]
        lost = int(np.isnan(logits).any(-1).sum())
        if lost:
            raise ValueError(
                f"the head of {model.name} gives NaN for {lost} of {len(maps)} pictures of a batch, from "
                f"finite activations of layer={model.layer!r}; look at the head and its weights"
            )
        yield maps, logits, np.asarray(head.kept)[: len(maps)] if isinstance(head, Beside) else None


def activations_of(
    model: SplitModel,
    inputs: Iterator[Float[np.ndarray, "_ _ _"]],
    total: int,
    stage: str,
    batch: int,
    progress: Progress,
    watch: Stopwatch,
) -> Iterator[tuple[Float[Array, "batch y x channel"], Float[np.ndarray, "image y x channel"], Any]]:
    """Activations batch by batch: as the device has them, the last batch filled up, and those of the pictures.

    With the head for the former.
    """
    # No more are filled up than are by default.
    batch = min(batch, max(total, _USUAL_BATCH))
    asked = f"batch={batch:,} pictures that go through {model.name} together"
    if batch > _USUAL_BATCH:
        check_memory(_LEAST_COPIES * batch * 4 * math.prod(model.preprocess.shape), asked, "give a smaller batch")
    with (
        progress(stage, total) as advance,
        freed_memory_kept(),
        exhaustion_in_words(asked, "give a smaller batch"),
    ):
        while True:
            with watch("reading and resizing pictures"):
                pictures = list(itertools.islice(inputs, batch))
            if not pictures:
                break
            # The last batch is filled up, so that JAX compiles for one shape only.
            stack = np.stack(pictures + [pictures[-1]] * (batch - len(pictures)))
            with watch("the network's forward passes"):
                device_maps, head = model.halves(jnp.asarray(stack))
                refuse_no_maps(device_maps, len(stack), model)
                maps = np.asarray(device_maps)[: len(pictures)]
            refuse_not_finite(maps, model)
            yield device_maps, maps, head
            advance(len(pictures))

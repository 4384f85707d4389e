"""Photographs to activations: whole pictures and crops, in batches, through the first part of a model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .crops import Cropping as Cropping
from .crops import Crops as Crops
from .crops import GridCrops as GridCrops
from .crops import RandomCrops as RandomCrops
from .freed_memory import freed_memory_kept
from .model import Preprocess, SplitModel
from .photographs import Photograph, UnreadablePhotographError, network_input
from .progress import Progress, Stopwatch, silent
from .reprs import short_repr


class SignedActivationsError(ValueError):
    """Activations below zero, which a non-negative factorization can't represent."""


@dataclasses.dataclass(frozen=True)
class Collected:
    """What a model makes of some pictures (whole photographs, or crops of them).

    **Arguments:**

    - `maps`: the activations.
    - `logits`: what the head makes of them.
    """

    maps: Float[np.ndarray, "image y x channel"]
    logits: Float[np.ndarray, "image class"]

    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: slice | Int[np.ndarray, " some"] | Bool[np.ndarray, " image"]) -> Collected:
        return Collected(self.maps[index], self.logits[index])


@dataclasses.dataclass(frozen=True)
class Survey:
    """What a model sees in photographs, and the activations of those that it puts in the class looked for.

    **Arguments:**

    - `kept`: activations and logits of the photographs in `index`.
    - `index`: which photographs were kept.
    - `readable`: which photographs could be read.
    - `prediction`: the predicted class of each readable one.
    - `skipped`: why each other one could not be read, with its name.
    """

    kept: Collected
    index: Int[np.ndarray, " image"]
    readable: Int[np.ndarray, " readable"]
    prediction: Int[np.ndarray, " readable"]
    skipped: tuple[str, ...]

    __repr__ = short_repr


class Readable:
    """Photographs one after another as the network takes them; those that can't be read are left out, by name.

    **Arguments:**

    - `photographs`: what to read.
    - `preprocess`: how photographs become the network's input.

    `index` says which could be read so far, `skipped` why each other one could not.
    """

    def __init__(self, photographs: Sequence[Photograph], preprocess: Preprocess) -> None:
        self.photographs, self.preprocess = photographs, preprocess
        self.index: list[int] = []
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return len(self.photographs)

    def __iter__(self) -> Iterator[Float[np.ndarray, "_ _ 3"]]:
        for number, photograph in enumerate(self.photographs):
            try:
                pixels = photograph.pixels()
            except UnreadablePhotographError as error:
                self.skipped.append(str(error))
                continue
            self.index.append(number)
            yield network_input(pixels, self.preprocess)
        if not self.index:
            raise UnreadablePhotographError(
                f"none of the {len(self)} files can be read as a picture; the first is {self.skipped[0]}"
            )


def survey(
    model: SplitModel,
    photographs: Sequence[Photograph],
    target: int | None = None,
    *,
    batch: int = 32,
    progress: Progress = silent,
    stopwatch: Stopwatch | None = None,
) -> Survey:
    """Whole photographs through the model; activations are kept where the model predicts `target`.

    **Arguments:**

    - `model`: the split classifier.
    - `photographs`: what to look at; those that can't be read are left out, by name.
    - `target`: the class looked for; every photograph's activations are kept if None.
    - `batch`: photographs that go through the network together.
    - `progress`, `stopwatch`: told how far it is, and what the time went into.

    **Returns:** predictions, and the activations kept. Raises `UnreadablePhotographError` if nothing can be read.
    """
    readable = Readable(photographs, model.preprocess)
    all_maps, all_logits, masks = [], [], []
    stage = "Photographs through the network"
    for maps, logits in _forward(model, iter(readable), len(photographs), stage, batch, progress, stopwatch):
        mask = np.full(len(logits), True) if target is None else logits.argmax(-1) == target
        all_maps.append(maps[mask])
        all_logits.append(logits)
        masks.append(mask)
    logits, mask = np.concatenate(all_logits), np.concatenate(masks)
    where = np.asarray(readable.index)
    return Survey(
        kept=Collected(np.concatenate(all_maps), logits[mask]),
        index=where[mask],
        readable=where,
        prediction=logits.argmax(-1),
        skipped=tuple(readable.skipped),
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
) -> Collected:
    """Activations of crops, each resized to the network's input (or taken out of it), and their logits.

    **Arguments:**

    - `model`: the split classifier.
    - `photographs`: readable ones, which `crops` counts.
    - `crops`: where they lie.
    - `keep`: what of a batch of maps is kept: `pooled`, or all of it (`whole_maps`).
    - `batch`, `progress`, `stopwatch`: as for `survey`.

    **Returns:** what was kept of each crop, and its logits. Raises `ValueError` for crops of the network's input
    before a head that isn't affine: its weights are for maps of one size, and these are smaller.
    """
    if crops.window is not None and not model.head.affine:
        raise ValueError(
            f"crops of the network's input give smaller maps than the head behind layer={model.layer!r} of "
            f"{model.name} takes; choose a layer with an affine head (face-jax layers lists them), or RandomCrops"
        )

    def inputs() -> Iterator[Float[np.ndarray, "_ _ 3"]]:
        for image, group in itertools.groupby(range(len(crops)), crops.image.__getitem__):
            pixels = photographs[image].pixels()
            whole = None if crops.window is None else network_input(pixels, model.preprocess)
            for crop in group:
                if whole is None or crops.window is None:
                    yield network_input(pixels, model.preprocess, tuple(crops.box[crop].tolist()))
                else:
                    top, left, bottom, right = crops.window[crop]
                    yield whole[top:bottom, left:right]

    parts = _forward(model, inputs(), len(crops), "Crops through the network", batch, progress, stopwatch)
    kept, logits = zip(*((keep(maps), logits) for maps, logits in parts), strict=True)
    return Collected(np.concatenate(kept), np.concatenate(logits))


def pooled(maps: Float[np.ndarray, "image y x channel"]) -> Float[np.ndarray, "image 1 1 channel"]:
    """Activations averaged over places: maps of one place."""
    return maps.mean(axis=(1, 2), keepdims=True)


def whole_maps(maps: Float[np.ndarray, "image y x channel"]) -> Float[np.ndarray, "image y x channel"]:
    """The maps as they are."""
    return maps


def rows(maps: Float[np.ndarray, "image y x channel"]) -> Float[np.ndarray, "row channel"]:
    """Every place of every map a row of its own: image by image, then line by line."""
    return maps.reshape(-1, maps.shape[-1])


def _forward(
    model: SplitModel,
    inputs: Iterator[Float[np.ndarray, "_ _ 3"]],
    total: int,
    stage: str,
    batch: int,
    progress: Progress,
    stopwatch: Stopwatch | None,
) -> Iterator[tuple[Float[np.ndarray, "image y x channel"], Float[np.ndarray, "image class"]]]:
    watch = stopwatch or Stopwatch()
    head = jax.jit(lambda maps: model.head(maps))
    for device_maps, maps in activations_of(model, inputs, total, stage, batch, progress, watch):
        with watch("the head"):
            logits = np.asarray(head(device_maps))[: len(maps)]
        lost = int(np.isnan(logits).any(-1).sum())
        if lost:
            raise ValueError(
                f"the head of {model.name} gives NaN for {lost} of {len(maps)} pictures of a batch, from "
                f"finite activations of layer={model.layer!r}; look at the head and its weights"
            )
        yield maps, logits


def activations_of(
    model: SplitModel,
    inputs: Iterator[Float[np.ndarray, "_ _ 3"]],
    total: int,
    stage: str,
    batch: int,
    progress: Progress,
    watch: Stopwatch,
) -> Iterator[tuple[Float[Array, "batch y x channel"], Float[np.ndarray, "image y x channel"]]]:
    """Activations batch by batch: as the device has them, the last batch filled up, and those of the pictures."""
    with progress(stage, total) as advance, freed_memory_kept():
        while True:
            with watch("reading and resizing pictures"):
                pictures = list(itertools.islice(inputs, batch))
            if not pictures:
                break
            # The last batch is filled up, so that JAX compiles for one shape only.
            stack = np.stack(pictures + [pictures[-1]] * (batch - len(pictures)))
            with watch("the network's forward passes"):
                device_maps = model.features(jnp.asarray(stack))
                maps = np.asarray(device_maps)[: len(pictures)]
            _refuse_not_finite(maps, model)
            _refuse_signed(maps, model)
            yield device_maps, maps
            advance(len(pictures))


def _refuse_not_finite(maps: np.ndarray, model: SplitModel) -> None:
    # NaN survives both, infinity one of them.
    if np.isfinite(float(maps.min())) and np.isfinite(float(maps.max())):
        return
    lost = int((~np.isfinite(maps)).any((1, 2, 3)).sum())
    raise ValueError(
        f"layer={model.layer!r} of {model.name} has activations that are NaN or infinite in {lost} of {len(maps)} "
        "pictures of a batch; look at the model's weights and its preprocessing, and compute in float32 if it's coarser"
    )


def _refuse_signed(maps: np.ndarray, model: SplitModel) -> None:
    lowest = float(maps.min())
    if lowest >= 0:
        return
    negative = float((maps < 0).mean())
    others = tuple(model.non_negative_layers()) if model.non_negative_layers else ()
    remedy = (
        "choose a layer behind a ReLU: " + ", ".join(others)
        if others
        else "choose a layer behind a ReLU (face-jax layers lists them)"
    )
    raise SignedActivationsError(
        f"layer={model.layer!r} of {model.name} has activations below zero ({negative:.0%} of a batch, down to "
        f"{lowest:.3g}), which non-negative concepts can't represent; {remedy}"
    )

"""What concepts are found in and scored on: crops and whole photographs, or the crops of a single one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..activation_checks import below_zero
from ..activations import Collected, Cropping, Crops, RandomCrops, Survey
from ..blocks.room import Room, filed
from ..explanation.parts import Pictures
from ..methods.bank import places_of
from ..pictures.crop_rules import proportioned
from ..pictures.photographs import Photograph
from ..pictures.preprocess import Preprocess
from ..signs import Signs
from ..support.arguments import instance
from ..support.progress import Stopwatch
from .checks import check_crops
from .selection import Activator, apart_if_signed, check_alive, of_class, place_average, split, units

# More places of photographs say nothing further of concepts.
_MOST_PLACES = 20_000
Keys = dict[str, Key[Array, ""]]
# More at the end leave those before as they are.
_STAGES = ("split", "crops", "more crops", "start", "importance", "controls", "ranks", "directions", "removals")


def keys_of(key: Key[Array, ""]) -> Keys:
    """A key for each stage that draws at random."""
    return dict(zip(_STAGES, jax.random.split(key, len(_STAGES)), strict=True))


@dataclasses.dataclass(frozen=True)
class Places:
    """Which photographs are fitted, and where their crops lie.

    **Arguments:**

    - `photographs`, `shapes`: those that the model puts in the class, and their heights and widths.
    - `fitted`, `held_out`: their numbers.
    - `cropping`: the rule for crops.
    - `crops`: those of the photographs fitted.
    """

    photographs: tuple[Photograph, ...]
    shapes: list[tuple[int, int]]
    fitted: Int[np.ndarray, " fitted"]
    held_out: Int[np.ndarray, " held_out"]
    cropping: Cropping
    crops: Crops


@dataclasses.dataclass(frozen=True)
class Material:
    """Everything that the stages behind the network need.

    **Arguments:**

    - `pictures`: photographs and crops, with what the model makes of them.
    - `fitted`, `scored`: activations of the pictures that importance is measured in, and of those that are scored on:
        photographs, or crops of a single one. As a head sees them: averaged where it's affine.
    - `index`: which pictures `fitted` are: numbers in the photographs, or in the crops of a single one.
    - `crop_of`: for each crop the number of the picture that it's part of, counted likewise.
    - `crops_seen`: of a single photograph, all crops that were looked at.
    """

    pictures: Pictures
    fitted: Collected
    scored: Collected
    index: Int[np.ndarray, " picture"]
    crop_of: Int[np.ndarray, " crop"]
    crops_seen: tuple[Collected, ...]

    @property
    def places(self) -> Float[np.ndarray, "row channel"] | None:
        """All places of the photographs fitted, some of them where there are very many; None for a single one."""
        pictures = self.pictures
        if len(pictures.photographs) == 1:
            return None
        return some_places([pictures.collected.maps], [pictures.fitted])

    @property
    def every_place(self) -> Float[np.ndarray, "row channel"]:
        """All places of the photographs fitted, however many there are."""
        return places_of(self.every_map)

    @property
    def every_map(self) -> Float[np.ndarray, "image y x channel"]:
        """Whole maps of the photographs fitted."""
        return np.asarray(self.pictures.collected.maps[self.pictures.fitted])

    @property
    def filed(self) -> int:
        """Bytes of activations that lie in files."""
        pictures = self.pictures
        crops = [some.maps for some in self.crops_seen] or [pictures.crop_activations]
        return sum(each.nbytes for each in (pictures.collected.maps, *crops) if filed(each))

    @property
    def signed(self) -> bool:
        """Whether any activation of the photographs or crops is below zero."""
        photographs, crops = self.pictures.collected.maps, self.pictures.crop_activations
        return below_zero(photographs, crops, self.fitted.maps, self.scored.maps)


def some_places(
    maps: Sequence[Float[np.ndarray, "_ _ _ channel"]], pictures: Sequence[Int[np.ndarray, " _"]] | None = None
) -> Float[np.ndarray, "row channel"]:
    """The places of pictures as rows; of very many as many as are few enough, evenly over the pictures.

    **Arguments:**

    - `maps`: of pictures, `image y x channel`; those in files are read where they're needed alone.
    - `pictures`: which of each are meant; all if None.
    """
    pictures = [np.arange(len(each)) for each in maps] if pictures is None else pictures
    places = [each.shape[1] * each.shape[2] for each in maps]
    counts = [len(some) * each for some, each in zip(pictures, places, strict=True)]
    total = sum(counts)
    chosen = np.unique(np.linspace(0, total - 1, min(total, _MOST_PLACES)).round().astype(np.int64))
    rows, begun = [], 0
    for each, some, per, count in zip(maps, pictures, places, counts, strict=True):
        at = chosen[(begun <= chosen) & (chosen < begun + count)] - begun
        rows.append(np.asarray(each.reshape(len(each), per, -1)[some[at // per], at % per]))
        begun += count
    return np.concatenate(rows)


def places_in(
    every: tuple[Photograph, ...],
    seen: Survey,
    cropping: Any,
    held_out: float,
    keys: Keys,
    stopwatch: Stopwatch,
    preprocess: Preprocess,
    room: Room | None = None,
) -> Places:
    """Photographs of the class, split, and the crops of those fitted.

    **Arguments:**

    - `every`, `seen`: the photographs given, and what the model makes of them.
    - `cropping`: the rule; by default `RandomCrops`, at least ten a photograph and 300 in all.
    - `held_out`: the share of photographs held out.
    - `keys`: from `keys_of`.
    - `stopwatch`: told what the time went into.
    - `preprocess`: how photographs become network input.
    - `room`: where activations of crops go that are too many for memory; None: nowhere.

    **Returns:** them. Raises `NotEnoughMemoryError` for more crops than could be held.
    """
    kept = tuple(every[number] for number in seen.index)
    fitted, held = split(len(kept), held_out, key=keys["split"])
    with stopwatch("reading and resizing pictures"):
        shapes = [photograph.pixels(preprocess.reads).shape[:2] for photograph in kept]
    cropping = cropping_for(cropping, [shapes[number] for number in fitted], seen.kept, preprocess, room)
    return Places(kept, shapes, fitted, held, cropping, crops_in(cropping, shapes, fitted, keys["crops"]))


def cropping_for(
    cropping: Any, shapes: list[tuple[int, int]], seen: Collected, preprocess: Preprocess, room: Room | None = None
) -> Cropping:
    """The rule for crops of photographs: the one given, or the usual one, with the proportions of the network's input.

    **Arguments:**

    - `cropping`: the rule; by default `RandomCrops`, at least ten a photograph and 300 in all.
    - `shapes`: heights and widths of the photographs.
    - `seen`: what the model makes of photographs.
    - `preprocess`, `room`: as for `places_in`.

    **Returns:** it. Raises `NotEnoughMemoryError` for more crops than could be held.
    """
    cropping = proportioned(cropping or RandomCrops(per_image=max(10, math.ceil(300 / len(shapes)))), preprocess)
    check_crops(cropping, shapes, seen, room)
    return cropping


def material_of(
    activator: Activator,
    places: Places,
    seen: Survey,
    target: int,
    keys: Keys,
    signs: Signs,
    *,
    averaged: bool | None = None,
) -> tuple[Activator, Survey, Material]:
    """Activations of what `places` names; an affine head needs averages only.

    **Arguments:**

    - `activator`: runs the model.
    - `places`: which photographs and crops.
    - `seen`: what the model makes of the photographs, its signs apart already if they are below zero there.
    - `target`: the class.
    - `keys`: from `keys_of`.
    - `signs`: how activations below zero are explained. They may be in crops alone.
    - `averaged`: whether photographs are averaged over their places; None: where the head averages first.

    **Returns:** whoever runs the model, with its signs apart or not, what it makes of the photographs, and all
    activations. Raises `ValueError` where the layer has none.
    """
    made = _of_one if len(places.photographs) == 1 else _of_several
    averaged = activator.model.head.affine if averaged is None else averaged
    material = made(activator, places, seen.kept, target, keys, averaged=averaged)
    if signs == "apart" and material.signed:
        activator, seen = apart_if_signed(activator, seen, known=True)
        material = made(activator, places, seen.kept, target, keys, averaged=averaged)
    check_alive(activator.model, material.pictures.crop_activations, material.fitted)
    return activator, seen, material


def _of_one(
    activator: Activator, places: Places, seen: Collected, target: int, keys: Keys, *, averaged: bool
) -> Material:
    """A single photograph: its crops are the pictures, and other crops of it are scored on."""
    crops = activator.crops(places.photographs, places.crops, maps=not averaged)
    others = crops_in(places.cropping, places.shapes, places.held_out, keys["more crops"])
    other_crops = activator.crops(places.photographs, others, maps=not averaged)
    index = of_class(activator.model, crops, target)
    return Material(
        pictures=_pictures(places, seen, crops),
        fitted=crops[index],
        scored=other_crops[of_class(activator.model, other_crops, target)],
        index=index,
        crop_of=np.arange(len(crops)),
        crops_seen=(crops, other_crops),
    )


def _of_several(
    activator: Activator, places: Places, seen: Collected, target: int, keys: Keys, *, averaged: bool
) -> Material:
    """Several photographs: concepts are found in crops of some, and scored on the others."""
    fitted, scored = (units(seen, index, affine=averaged) for index in (places.fitted, places.held_out))
    return Material(
        pictures=_pictures(places, seen, activator.crops(places.photographs, places.crops, maps=False)),
        fitted=fitted,
        scored=scored,
        index=places.fitted,
        crop_of=places.crops.image,
        crops_seen=(),
    )


def _pictures(places: Places, seen: Collected, crops: Collected) -> Pictures:
    return Pictures(
        photographs=places.photographs,
        collected=seen,
        fitted=places.fitted,
        held_out=places.held_out,
        crops=places.crops,
        crop_activations=place_average(crops),
    )


def crops_in(cropping: Cropping, shapes: list[tuple[int, int]], index: np.ndarray, key: Key[Array, ""]) -> Crops:
    """Crops of some of the photographs, which still count all of them."""
    found = cropping([shapes[number] for number in index], key=key)
    instance("crops", found, Crops, "RandomCrops(), whose results are Crops")
    return dataclasses.replace(found, image=index[found.image])

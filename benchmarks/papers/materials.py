"""A class's photographs and crops through a network, kept between runs."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
from networks import Network

import face_jax as fj
from face_jax.activations import Collected
from face_jax.pictures.crop_rules import Crops
from face_jax.pipeline.selection import Activator
from face_jax.support.cache import ArrayCache
from face_jax.support.progress import Stopwatch, silent

_BATCH = 32
_SEED = 0


@dataclasses.dataclass(frozen=True, eq=False)
class Material:
    """What tables are made of: one class, one network.

    **Arguments:**

    - `setting`, `label`, `target`: whose photographs, of which class, and its number.
    - `network`: the network.
    - `photographs`: those that the network puts in the class.
    - `pictures`: their activations.
    - `boxes`, `crops`: where crops lie, and their activations.
    - `cache`: for other activations of the same photographs.
    """

    setting: str
    label: str
    target: int
    network: Network
    photographs: list[Any]
    pictures: Collected
    boxes: Crops
    crops: Collected
    cache: Any

    @property
    def model(self) -> fj.SplitModel:
        return self.network.model

    @property
    def crop_of(self) -> np.ndarray:
        return np.asarray(self.boxes.image)

    @property
    def signed(self) -> bool:
        """Whether activations are below zero somewhere."""
        return bool((self.pictures.maps < 0).any() or (self.crops.maps < 0).any())

    def cropped(self, rule: Any, other: Network | None = None) -> tuple[Collected, np.ndarray]:
        """Activations of other crops, or of the same ones (None) in another network; and each one's photograph."""
        boxes = self.boxes if rule is None else boxes_of(self.photographs, rule)
        run = activator((other or self.network).model, self.cache)
        return run.crops(self.photographs, boxes, maps=not run.model.head.affine), np.asarray(boxes.image)


def activator(model: fj.SplitModel, cache: Any) -> Activator:
    return Activator(model, _BATCH, cache, silent, Stopwatch())


def boxes_of(photographs: list[Any], rule: Any) -> Crops:
    return rule([one.pixels().shape[:2] for one in photographs], key=jax.random.key(_SEED))


def material(
    network: Network, setting: str, label: str, target: int, files: list[Any], count: int, folds: int, folder: Any,
    *, per_image: int = 10,
) -> Material | None:  # fmt: skip
    """The first photographs that the network puts in the class; as many for every class, so that programs are reused.

    **Arguments:**

    - `network`, `setting`, `label`, `target`: as in `Material`.
    - `files`: photographs of the class.
    - `count`: how many are wanted; a multiple of `folds` are taken.
    - `folder`: of what is kept.
    - `per_image`: crops of each photograph.

    **Returns:** None where fewer than twice as many as folds are predicted so.
    """
    cache = ArrayCache(pathlib.Path(folder) / "activations", limit=16 * 1024**3)
    run, kept, parts = activator(network.model, cache), [], []
    for first in range(0, len(files), _BATCH):
        photographs = fj.photographs(files[first : first + _BATCH])
        seen = run.survey(photographs, target)
        kept += [photographs[number] for number in seen.index]
        parts.append(seen.kept)
        if len(kept) >= count:
            break
    most = min(count, len(kept)) // folds * folds
    if most < 2 * folds:
        return None
    tokens = [part.kept for part in parts]
    pictures = Collected(
        np.concatenate([part.maps for part in parts])[:most],
        np.concatenate([part.logits for part in parts])[:most],
        None if tokens[0] is None else np.concatenate([one for one in tokens if one is not None])[:most],
    )
    boxes = boxes_of(kept[:most], fj.RandomCrops(per_image=per_image))
    crops = run.crops(kept[:most], boxes, maps=not network.model.head.affine)
    return Material(setting, label, target, network, kept[:most], pictures, boxes, crops, cache)

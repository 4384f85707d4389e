"""Which photographs are explained, which of them are only scored on, and their activations, kept between runs."""

from __future__ import annotations

import collections
import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..activation_checks import below_zero, check_signs
from ..activations import COPIES_OF_ROWS, Collected, Crops, Survey, collect_crops, pooled, survey, whole_maps
from ..blocks.room import Room, mapped_by_parts
from ..model import SplitModel
from ..nmf.options import AnySolver
from ..outputs import Binary
from ..pictures.photographs import Photograph, UnreadablePhotographError
from ..signs import are_apart, signs_apart
from ..support.cache import Arrays
from ..support.contents import package_digest
from ..support.progress import Progress, Stopwatch


class NoneOfTheClassError(ValueError):
    """No photograph that the model puts in the class asked for."""


@dataclasses.dataclass(frozen=True)
class Activator:
    """Runs a model's first part on pictures, unless the cache has what would come out.

    **Arguments:**

    - `model`: the split classifier.
    - `batch`: pictures that go through the network together.
    - `cache`: called with what the activations depend on, and with the function that computes them.
    - `progress`, `stopwatch`: told how far it is, and what the time went into.
    - `solver`: what the activations are for, if it was chosen already: what it can't represent is refused.
    - `room`: where activations are that are too many for memory; None: nowhere.
    - `streams`: whether crops may be there, too: their factorization reads them in blocks.
    """

    model: SplitModel
    batch: int
    cache: Callable[..., Any]
    progress: Progress
    stopwatch: Stopwatch
    solver: AnySolver | None = None
    room: Room | None = None
    streams: bool = True

    def survey(self, photographs: Sequence[Photograph], target: int | tuple[int, ...] | None) -> Survey:
        """`face_jax.activations.survey`, kept."""

        def compute() -> dict[str, np.ndarray]:
            seen = survey(
                self.model,
                photographs,
                target,
                batch=self.batch,
                progress=self.progress,
                stopwatch=self.stopwatch,
                solver=self.solver,
                room=self.room,
            )
            return {
                **_arrays(seen.kept),
                "index": seen.index,
                "readable": seen.readable,
                "predicted": seen.predicted,
                "skipped": np.asarray(seen.skipped, dtype=np.str_),
                "copies": np.asarray(seen.copies, dtype=np.str_),
                "faint": np.asarray(seen.faint, dtype=np.str_),
            }

        # Names are in what is said of files that can't be read.
        names = "\0".join(photograph.name for photograph in photographs)
        said = ["survey of predictions", repr(self.model.outputs), str(target), names]
        arrays = self._placed(self.cache([*said, *self._identity(photographs)], compute), self.room)
        self._check(arrays["maps"])
        return Survey(
            kept=_collected(arrays),
            index=arrays["index"],
            readable=arrays["readable"],
            predicted=arrays["predicted"],
            skipped=tuple(str(reason) for reason in arrays["skipped"]),
            copies=tuple(str(names) for names in arrays["copies"]),
            faint=tuple(str(name) for name in arrays["faint"]),
        )

    def crops(self, photographs: Sequence[Photograph], crops: Crops, *, maps: bool) -> Collected:
        """Activations of crops, kept: whole maps if `maps`, else averaged over places."""
        keep, room = whole_maps if maps else pooled, self.room if self.streams else None

        def compute() -> dict[str, np.ndarray]:
            found = collect_crops(
                self.model,
                photographs,
                crops,
                keep=keep,
                batch=self.batch,
                progress=self.progress,
                stopwatch=self.stopwatch,
                solver=self.solver,
                room=room,
            )
            return _arrays(found)

        window = b"" if crops.window is None else crops.window.tobytes()
        where = (crops.image.tobytes(), crops.box.tobytes(), window)
        kept = self.cache(["crops", keep.__name__, *self._identity(photographs), *where], compute)
        arrays = self._placed(kept, room, COPIES_OF_ROWS)
        self._check(arrays["maps"])
        return _collected(arrays)

    def _placed(self, arrays: Arrays, room: Room | None, copies: int = 1) -> dict[str, np.ndarray]:
        """What was kept, with the maps where their size belongs; all in memory without a room."""
        room = room or Room(math.inf)
        return {
            name: room.placed(array, copies) if name == "maps" else np.asarray(array) for name, array in arrays.items()
        }

    def _check(self, maps: Float[np.ndarray, "image y x channel"]) -> None:
        """What was kept was computed for any solver."""
        if len(maps):
            check_signs(self.model, self.solver, maps)

    def _identity(self, photographs: Sequence[Photograph]) -> list[bytes | str]:
        """What activations depend on."""
        # One network's logit may be explained as one or as two.
        logits = str(len(self.model.classes))
        # Files too, which change without a version for those who edit them, or take them from the repository.
        model = [package_digest(), self.model.fingerprint, self.model.layer, repr(self.model.preprocess), logits]
        return [*model, *map(_content, photographs)]


def _arrays(collected: Collected) -> dict[str, np.ndarray]:
    """What is kept of activations in files."""
    kept = {} if collected.kept is None else {"kept": collected.kept}
    return {"maps": collected.maps, "logits": collected.logits, **kept}


def _collected(arrays: dict[str, np.ndarray]) -> Collected:
    return Collected(arrays["maps"], arrays["logits"], arrays.get("kept"))


def _content(photograph: Photograph) -> bytes:
    """What stands for a photograph: its digest, or why it has none."""
    try:
        return photograph.digest()
    except UnreadablePhotographError as error:
        return str(error).encode()


def choose_class(model: SplitModel, seen: Survey, target: int | None) -> tuple[int, str, Survey]:
    """The class that's explained, how it was chosen, and the photographs that the model puts in it.

    **Arguments:**

    - `model`: the split classifier.
    - `seen`: what it makes of the photographs, for `target`.
    - `target`: the class asked for; if None, the one that is predicted most often.

    **Returns:** the class, a phrase, and what is kept. Raises `NoneOfTheClassError` with the classes that are there.
    """
    counts: list[tuple[int, int]] = collections.Counter(np.nonzero(seen.predicted)[1].tolist()).most_common()
    total = len(seen.readable)
    if target is None:
        target, chosen = _most_often(model, seen, counts)
        mask = seen.predicted[:, target]
        if mask.all():
            return target, chosen, seen
        return target, chosen, dataclasses.replace(seen, kept=seen.kept[mask], index=seen.index[mask])
    if len(seen.index) == 0:
        found = ", ".join(f"{model.classes[number]} ({count})" for number, count in counts[:5])
        raise NoneOfTheClassError(
            f"target={model.classes[target]!r}: the model predicts it for none of the {total} photographs; it "
            + (
                f"predicts {found}; ask for one of these, or give photographs of the target"
                if found
                else f"predicts no label for any of them ({model.outputs!r}); give photographs of the target, or a "
                "lower threshold"
            )
        )
    return target, f"asked for; {len(seen.index)} of {total} photographs are predicted so", seen


def _most_often(model: SplitModel, seen: Survey, counts: list[tuple[int, int]]) -> tuple[int, str]:
    """The class that is predicted most often, of labels that are so equally often the most probable; and a phrase."""
    total = len(seen.readable)
    if not counts:
        raise NoneOfTheClassError(
            f"the model predicts no label for any of the {total} photographs ({model.outputs!r}); give other "
            "photographs, or a lower threshold"
        )
    most = counts[0][1]
    if model.outputs.exclusive:
        target = counts[0][0]
    else:
        often = [number for number, count in counts if count == most]
        target = max(often, key=lambda number: float(model.outputs.probability(seen.kept.logits, number).mean()))
    if total > 1:
        return target, f"what the model predicts most often here: {most} of {total} photographs"
    if len(counts) == 1:
        return target, "the model's own prediction"
    return target, f"the most probable of the {len(counts)} labels that the model predicts"


def apart_if_signed(activator: Activator, seen: Survey, *, known: bool = False) -> tuple[Activator, Survey]:
    """The model with its signs apart, and what it makes of the photographs, if their activations have any.

    **Arguments:**

    - `activator`: runs the model.
    - `seen`: what the model makes of the photographs.
    - `known`: that there are activations below zero elsewhere.

    **Returns:** both, or what was given.
    """
    maps = seen.kept.maps
    if are_apart(activator.model) or not (known or below_zero(maps)):
        return activator, seen
    apart = mapped_by_parts(
        maps, 2 * maps.shape[-1], lambda some: np.concatenate([np.maximum(some, 0), np.maximum(-some, 0)], axis=-1)
    )
    kept = dataclasses.replace(seen.kept, maps=apart)
    return dataclasses.replace(activator, model=signs_apart(activator.model)), dataclasses.replace(seen, kept=kept)


def split(
    count: int, share: float, *, key: Key[Array, ""]
) -> tuple[Int[np.ndarray, " fitted"], Int[np.ndarray, " held_out"]]:
    """Which photographs are fitted, and which are held out to score on; a single one is in both."""
    if count == 1:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    shuffled = np.asarray(jax.random.permutation(key, count)).astype(np.int64)
    held = min(count - 1, max(1, round(share * count)))
    return np.sort(shuffled[held:]), np.sort(shuffled[:held])


def of_class(model: SplitModel, crops: Collected, target: int) -> Int[np.ndarray, " some"]:
    """Which crops the model itself puts in the class; if there are hardly any, the quarter that comes closest."""
    mask = model.outputs.has(crops.logits, target)
    if hardly_any(model, crops, target):
        quarter = max(5, len(mask) // 4)
        mask = np.zeros(len(mask), bool)
        closeness = np.asarray(crops.logits[:, target])
        if isinstance(model.outputs, Binary) and target == 0:
            closeness = -crops.logits[:, 1]
        mask[np.argsort(-closeness, kind="stable")[:quarter]] = True
    return np.flatnonzero(mask)


def check_alive(model: SplitModel, rows: Float[np.ndarray, "crop channel"], pictures: Collected) -> None:
    """Refuses crops, or pictures, in which the layer has no activations: there is nothing to explain.

    **Arguments:**

    - `model`: for its names.
    - `rows`: what is factorized.
    - `pictures`: those whose logits are explained.
    """
    for what, activations in (("crops", rows), ("pictures", pictures.maps)):
        if not activations.any():
            raise ValueError(
                f"all activations of layer={model.layer!r} of {model.name} are 0 in these {what}: the layer is dead "
                "there, and nothing that a concept could be of remains; choose another layer (face-jax layers, or "
                "face_jax.bridges.layers, list them), check that preprocess is the one that the model was trained "
                "with, or give other photographs"
            )


def hardly_any(model: SplitModel, crops: Collected, target: int) -> bool:
    """Whether the model itself puts fewer than five of the crops in the class."""
    return bool(model.outputs.has(crops.logits, target).sum() < min(5, len(crops)))


def units(collected: Collected, index: Int[np.ndarray, " some"], *, affine: bool) -> Collected:
    """Some of the pictures as concepts are scored on them.

    A head that averages first sees nothing but the average, which is encoded far faster, and more closely, than each
    of many places.
    """
    # Averaged before they are chosen: maps that are chosen are copied.
    return dataclasses.replace(collected, maps=pooled(collected.maps))[index] if affine else collected[index]


def place_average(crops: Collected) -> Float[np.ndarray, "crop channel"]:
    """The rows that are factorized: each crop's activations, averaged over places."""
    return pooled(crops.maps)[:, 0, 0, :]

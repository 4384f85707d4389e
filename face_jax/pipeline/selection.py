"""Which photographs are explained, which of them are only scored on, and their activations, kept between runs."""

from __future__ import annotations

import collections
import dataclasses
import importlib.metadata
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key

from ..activations import Collected, Crops, Survey, collect_crops, pooled, survey, whole_maps
from ..model import SplitModel
from ..pictures.photographs import Photograph, UnreadablePhotographError
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
    """

    model: SplitModel
    batch: int
    cache: Callable[..., Any]
    progress: Progress
    stopwatch: Stopwatch

    def survey(self, photographs: Sequence[Photograph], target: int | None) -> Survey:
        """`face_jax.activations.survey`, kept."""

        def compute() -> dict[str, np.ndarray]:
            seen = survey(
                self.model, photographs, target, batch=self.batch, progress=self.progress, stopwatch=self.stopwatch
            )
            return {
                **_arrays(seen.kept),
                "index": seen.index,
                "readable": seen.readable,
                "prediction": seen.prediction,
                "skipped": np.asarray(seen.skipped, dtype=np.str_),
                "copies": np.asarray(seen.copies, dtype=np.str_),
                "faint": np.asarray(seen.faint, dtype=np.str_),
            }

        # Names are in what is said of files that can't be read.
        names = "\0".join(photograph.name for photograph in photographs)
        arrays = self.cache(["survey without copies", str(target), names, *self._identity(photographs)], compute)
        return Survey(
            kept=_collected(arrays),
            index=arrays["index"],
            readable=arrays["readable"],
            prediction=arrays["prediction"],
            skipped=tuple(str(reason) for reason in arrays["skipped"]),
            copies=tuple(str(names) for names in arrays["copies"]),
            faint=tuple(str(name) for name in arrays["faint"]),
        )

    def crops(self, photographs: Sequence[Photograph], crops: Crops, *, maps: bool) -> Collected:
        """Activations of crops, kept: whole maps if `maps`, else averaged over places."""
        keep = whole_maps if maps else pooled

        def compute() -> dict[str, np.ndarray]:
            found = collect_crops(
                self.model,
                photographs,
                crops,
                keep=keep,
                batch=self.batch,
                progress=self.progress,
                stopwatch=self.stopwatch,
            )
            return _arrays(found)

        window = b"" if crops.window is None else crops.window.tobytes()
        where = (crops.image.tobytes(), crops.box.tobytes(), window)
        arrays = self.cache(["crops", keep.__name__, *self._identity(photographs), *where], compute)
        return _collected(arrays)

    def _identity(self, photographs: Sequence[Photograph]) -> list[bytes | str]:
        """What activations depend on."""
        version = importlib.metadata.version("face-jax")
        model = [version, self.model.fingerprint, self.model.layer, repr(self.model.preprocess)]
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
    if seen.kept.logits.shape[1] != len(model.classes):
        raise ValueError(
            f"the head of {model.name} gives {seen.kept.logits.shape[1]} logits and classes has {len(model.classes)} "
            "names; give one name for each logit"
        )
    counts: list[tuple[int, int]] = collections.Counter(seen.prediction.tolist()).most_common()
    total = len(seen.readable)
    if target is None:
        target = counts[0][0]
        mask = seen.prediction == target
        chosen = (
            "the model's own prediction"
            if total == 1
            else f"what the model predicts most often here: {counts[0][1]} of {total} photographs"
        )
        if mask.all():
            return target, chosen, seen
        return target, chosen, dataclasses.replace(seen, kept=seen.kept[mask], index=seen.index[mask])
    if len(seen.index) == 0:
        found = ", ".join(f"{model.classes[number]} ({count})" for number, count in counts[:5])
        raise NoneOfTheClassError(
            f"target={model.classes[target]!r}: the model predicts it for none of the {total} photographs; it "
            f"predicts {found}; ask for one of these, or give photographs of the target"
        )
    return target, f"asked for; {len(seen.index)} of {total} photographs are predicted so", seen


def split(
    count: int, share: float, *, key: Key[Array, ""]
) -> tuple[Int[np.ndarray, " fitted"], Int[np.ndarray, " held_out"]]:
    """Which photographs are fitted, and which are held out to score on; a single one is in both."""
    if count == 1:
        return np.zeros(1, np.int64), np.zeros(1, np.int64)
    shuffled = np.asarray(jax.random.permutation(key, count)).astype(np.int64)
    held = min(count - 1, max(1, round(share * count)))
    return np.sort(shuffled[held:]), np.sort(shuffled[:held])


def of_class(crops: Collected, target: int) -> Int[np.ndarray, " some"]:
    """Which crops the model itself puts in the class; if there are hardly any, the quarter that comes closest."""
    mask = crops.logits.argmax(-1) == target
    if hardly_any(crops, target):
        quarter = max(5, len(mask) // 4)
        mask = np.zeros(len(mask), bool)
        mask[np.argsort(-crops.logits[:, target], kind="stable")[:quarter]] = True
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


def hardly_any(crops: Collected, target: int) -> bool:
    """Whether the model itself puts fewer than five of the crops in the class."""
    return bool((crops.logits.argmax(-1) == target).sum() < min(5, len(crops)))


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

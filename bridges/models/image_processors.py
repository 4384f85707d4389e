"""transformers' image processors as `face_jax.model.Preprocess`, where that is what they do."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from face_jax.model import Preprocess
from face_jax.pictures.photographs import network_input
from face_jax.support.sentences import first_line

# Pillow's numbers of filters.
_FILTERS: dict[int, Any] = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# Torch's filters round otherwise than Pillow's: by so many of 255 steps at most, and by less on average.
_STEPS, _MEAN_STEPS = 4.0, 0.6
_REMEDY = "give preprocess=face_jax.Preprocess(size=…, resize=…, interpolation=…, mean=…, std=…, fit=…)"


def as_processed(transformers: Any, name: str, folder: pathlib.Path, config: Any) -> tuple[Preprocess, str]:
    """How a folder's image processor prepares photographs.

    The processor is tried on pictures of noise, wide and tall, and what gives the same is taken.

    **Arguments:**

    - `transformers`: the package.
    - `name`: what errors call the model.
    - `folder`: with `preprocessor_config.json`.
    - `config`: the model's configuration.

    **Returns:** the `Preprocess`, and a note where the folder has no settings and usual ones were taken. Raises
    `ValueError` for a processor that `Preprocess` can't follow.
    """
    if not any((folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json")):
        return _usual(name, folder, config)
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, backend="pil", trust_remote_code=False
        )
    except (OSError, ValueError, ImportError, KeyError, TypeError) as error:
        raise ValueError(
            f"name={name!r}: its image processor can't be read ({first_line(error)}); {_REMEDY}"
        ) from error
    return preprocess_of(processor, name), ""


def preprocess_of(processor: Any, name: str) -> Preprocess:
    """The `Preprocess` that gives what an image processor gives; `ValueError` if none does."""
    kind = type(processor).__name__
    try:
        small = [_noise(shape) for shape in ((60, 120), (120, 60))]
        processed = [_processed(processor, pixels) for pixels in small]
        flat = [_processed(processor, np.full((64, 64, 3), value, np.uint8)) for value in (0, 255)]
    except Exception as error:
        raise ValueError(f"name={name!r}: its {kind} fails on a photograph ({error}); {_REMEDY}") from error
    shapes = {array.shape for array in (*processed, *flat)}
    if len(shapes) != 1 or len(set(shape := shapes.pop())) != 2 or shape[-1] != 3:
        raise ValueError(
            f"name={name!r}: its {kind} makes arrays of {sorted({array.shape for array in processed})} (y × x × "
            f"colour) of photographs, and Preprocess makes squares of three colours; {_REMEDY} if the network takes "
            "these"
        )
    size = shape[0]
    black, white = (array[size // 2, size // 2].astype(np.float64) for array in flat)
    if not (white > black).all():
        raise ValueError(f"name={name!r}: its {kind} doesn't leave brighter pixels brighter; {_REMEDY}")
    mean, std = _colours(processor, -black / (white - black), 1 / (white - black))
    filters = _FILTERS.get(int(getattr(processor, "resample", 2) or 0), "bilinear")
    for resize in _resizings(processor, size):
        found = Preprocess(size=size, resize=resize, interpolation=filters, mean=mean, std=std)
        if all(_same(found, pixels, array) for pixels, array in zip(small, processed, strict=True)):
            return found
    raise ValueError(
        f"name={name!r}: its {kind} does something to photographs that Preprocess can't do (it resizes the short "
        f"side, or squeezes all into a square, by one of {', '.join(_FILTERS.values())}, keeps the centre, and scales "
        f"colours); {_REMEDY} if something near is good enough"
    )


def _usual(name: str, folder: pathlib.Path, config: Any) -> tuple[Preprocess, str]:
    size = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", 224)
    size = size[0] if isinstance(size, (list, tuple)) else size
    found = Preprocess(size=int(size), resize=round(int(size) * 256 / 224))
    return found, (
        f"{folder.name} has no preprocessor_config.json, which says how photographs are prepared; they are prepared as "
        f"for most of ImageNet's classifiers, at {size} pixels. Where {name} was trained otherwise, give "
        "face_jax.bridges.load preprocess=face_jax.Preprocess(…): without it, predictions are others."
    )


def _noise(shape: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)


def _processed(processor: Any, pixels: np.ndarray) -> np.ndarray:
    """What a processor makes of a photograph, `y x colour`."""
    from PIL import Image

    values = processor(images=Image.fromarray(pixels), return_tensors="np")["pixel_values"]
    return np.moveaxis(np.asarray(values[0], np.float32), 0, -1)


def _colours(processor: Any, mean: np.ndarray, std: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The mean and deviation that were seen, by the numbers in the settings where these are the same."""
    settings = []
    for key, seen in (("image_mean", mean), ("image_std", std)):
        written = getattr(processor, key, None)
        written = np.broadcast_to(np.asarray(written if written is not None else np.nan, np.float64), (3,))
        settings.append(written if np.allclose(written, seen, rtol=1e-4, atol=1e-5) else np.round(seen, 6))
    return tuple(settings[0].tolist()), tuple(settings[1].tolist())


def _resizings(processor: Any, size: int) -> Iterator[int | tuple[int, int]]:
    """What photographs may be resized to: their short side, or both, which squeezes them into a square."""
    given = getattr(processor, "size", None)
    names = ("shortest_edge", "height", "width")
    # A dictionary, a record with the same names, or, in old settings, a number.
    values = [given.get(key) if isinstance(given, dict) else getattr(given, key, None) for key in names]
    sides = [int(side) for side in (*values, given) if isinstance(side, int | float) and side]
    percent = getattr(processor, "crop_pct", None)
    scaled = [int(side / percent) for side in sides] if percent else []
    # LeViT's processor enlarges what its settings say.
    scaled += [int(256 / 224 * side) for side in sides]
    for side in dict.fromkeys([*sides, *scaled, size]):
        yield from (side, (side, side))


def _same(preprocess: Preprocess, pixels: np.ndarray, processed: np.ndarray) -> bool:
    given, scale = network_input(pixels, preprocess), 255 * np.asarray(preprocess.std)
    # Where a border of an odd number of pixels is cut off, the half goes to this side or to that.
    for down, right in itertools.product((0, 1), repeat=2):
        steps = np.abs(given[: len(given) - down, : len(given) - right] - processed[down:, right:]) * scale
        if steps.max() <= _STEPS and steps.mean() <= _MEAN_STEPS:
            return True
    return False

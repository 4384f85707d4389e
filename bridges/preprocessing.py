"""Torchvision's and timm's transforms as `face_jax.model.Preprocess`, where that is exactly what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from face_jax.model import Preprocess, Transform

_REMEDY = "give face_jax.Preprocess(size=…, resize=…, interpolation=…, mean=…, std=…) that does the same"
# Of a photograph in red, green and blue they change nothing.
_NO_CHANGE = ("RGB", "PILToTensor", "ToImage", "ToPureTensor", "Identity")
_ORDER = ("Grayscale", "Resize", "CenterCrop", "ToTensor", "Normalize")
# Those that do the same as another, and more.
_ALIASES = {"MaybeToTensor": "ToTensor", "ResizeKeepRatio": "Resize", "CenterCropOrPad": "CenterCrop"}
_INTERPOLATIONS = {
    "0": "nearest", "1": "lanczos", "2": "bilinear", "3": "bicubic", "4": "box", "5": "hamming",
    "nearest-exact": "nearest",
}  # fmt: skip


class _InexactError(ValueError):
    """Why transforms are more than a `Preprocess` does."""


def as_preprocess(given: Any) -> Preprocess:
    """How photographs become a network's input, from what torch's users have for it.

    **Arguments:**

    - `given`: a `Preprocess` (passed on); None for ImageNet's usual one; torchvision's preset of some weights
        (`weights.transforms()`, or the weights' entry itself); a `Compose` of torchvision's (either version) or timm's
        (`timm.data.create_transform(…)`); or any function of a Pillow picture that gives `channel y x`.

    **Returns:** the same as a `Preprocess`: one with settings for `Grayscale`, `Resize`, `CenterCrop`, `ToTensor` (or
    what does the same) and `Normalize` in this order, which it does exactly; a `Transform` for all others. Raises
    `ValueError` for what draws at random, fails, or gives something else.
    """
    if given is None:
        return Preprocess()
    if isinstance(given, Preprocess):
        return given
    if hasattr(given, "transforms") and hasattr(given, "url"):  # an entry of torchvision's weights
        given = given.transforms()
    if type(given).__name__ == "ImageClassification":
        return preset(given)
    steps, more = _steps(given), ""
    if steps is not None:
        try:
            return _composed(steps)
        except _InexactError as error:
            more = f" ({error})"
    if callable(given) and not isinstance(given, type):
        try:
            return Transform(given)
        except ValueError as error:
            more = f" ({error})"
    raise ValueError(
        f"preprocess is a {type(given).__name__}; {_REMEDY}, torchvision's or timm's transforms of evaluation, or a "
        f"function of a Pillow picture that gives channel y x{more}"
    )


def preset(transforms: Any) -> Preprocess:
    """Torchvision's preset for classification."""
    sizes = [
        list(size) if isinstance(size, Sequence) else [size] for size in (transforms.crop_size, transforms.resize_size)
    ]
    size, resize = (one[0] if len(one) == 1 else tuple(one) for one in sizes)
    return Preprocess(
        size=size,
        resize=resize,
        interpolation=_interpolation(transforms.interpolation),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _steps(given: Any) -> list[Any] | None:
    """The transforms one after another, of nested compositions too; None if it isn't a composition."""
    module = type(given).__module__ or ""
    if not module.startswith(("torchvision.transforms", "timm.data")) and not isinstance(given, list | tuple):
        return None
    inner = list(given) if isinstance(given, list | tuple) else getattr(given, "transforms", None)
    if inner is None or type(given).__name__ not in ("Compose", "Sequential", "list", "tuple"):
        return [given]
    found: list[Any] = []
    for step in inner:
        found += (_steps(step) or [step]) if type(step).__name__ == "Compose" else [step]
    return found


def _composed(steps: list[Any]) -> Preprocess:
    found: dict[str, Any] = {}
    tensor = False
    for step in steps:
        kind = type(step).__name__
        if not (type(step).__module__ or "").startswith(("torchvision.transforms", "timm.data", "torch.nn")):
            raise _InexactError(f"{step!r} may do anything")
        if kind in ("PILToTensor", "ToImage"):
            tensor = True
        if kind in _NO_CHANGE and not (kind == "RGB" and "Grayscale" in found):
            continue
        if kind in ("ConvertImageDtype", "ToDtype") and step.dtype == torch.float32 and getattr(step, "scale", True):
            kind = "ToTensor"
        kind = _ALIASES.get(kind, kind)
        if kind not in _ORDER:
            raise _InexactError(f"{step!r} is more than a Preprocess does")
        if kind in found or any(_ORDER.index(other) > _ORDER.index(kind) for other in found):
            raise _InexactError(f"{kind} is in another place than {', '.join(_ORDER)}")
        if tensor and kind in ("Grayscale", "Resize", "CenterCrop"):
            raise _InexactError(f"{kind} behind the change to a tensor gives other pixels")
        found[kind] = step
    if "ToTensor" not in found:
        raise _InexactError("there is no ToTensor")
    if "Grayscale" in found and found["Grayscale"].num_output_channels != 1:
        raise _InexactError("three grey channels are more than a Preprocess does")
    channels = 1 if "Grayscale" in found else 3
    resize, fit, interpolation = _resized(found.get("Resize"))
    size, fill = _cropped(found.get("CenterCrop"), resize, fit, channels)
    normalize = found.get("Normalize")
    return Preprocess(
        size=size,
        resize=resize,
        interpolation=interpolation,
        mean=(0.0,) * channels if normalize is None else _each("mean", normalize.mean, channels),
        std=(1.0,) * channels if normalize is None else _each("std", normalize.std, channels),
        fit=fit,
        fill=fill,
    )


def _resized(step: Any) -> tuple[Any, Any, Any]:
    """`resize`, `fit` and `interpolation`."""
    if step is None:
        raise _InexactError("there is no Resize")
    if getattr(step, "max_size", None) is not None:
        raise _InexactError(f"{step!r} has max_size")
    if step.size is None:
        raise _InexactError(f"{step!r} has no size")
    sizes = [int(side) for side in (step.size if isinstance(step.size, Sequence) else [step.size])]
    resize, fit = (sizes[0], "squash") if len(sizes) == 1 else (tuple(sizes), "squash")
    if type(step).__name__ == "ResizeKeepRatio":
        if step.random_scale_prob or step.random_aspect_prob or step.longest not in (0.0, 1.0):
            raise _InexactError("ResizeKeepRatio does more than to cover or to contain")
        fit = "contain" if step.longest else "cover"
    return resize, fit, _interpolation(step.interpolation)


def _cropped(step: Any, resize: Any, fit: str, channels: int) -> tuple[Any, Any]:
    """`size` and `fill`."""
    if step is None:
        if isinstance(resize, int) or fit != "squash":
            raise _InexactError("there is no CenterCrop")
        return resize, None
    sizes = [int(side) for side in (step.size if isinstance(step.size, Sequence) else [step.size])]
    if getattr(step, "padding_mode", "constant") != "constant":
        raise _InexactError(f"CenterCropOrPad pads by {step.padding_mode}")
    fill = getattr(step, "fill", 0)
    values = tuple(fill) if isinstance(fill, Sequence) else (fill,) * channels
    if len(values) != channels or not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise _InexactError(f"CenterCropOrPad fills with {fill}")
    return sizes[0] if len(sizes) == 1 else tuple(sizes), values if any(values) else None


def _interpolation(given: Any) -> Any:
    name = str(getattr(given, "value", given)).lower()
    name = _INTERPOLATIONS.get(name, name)
    if name not in _INTERPOLATIONS.values():
        raise _InexactError(f"Resize interpolates by {name}")
    return name


def _each(name: str, values: Any, channels: int) -> tuple[float, ...]:
    found = tuple(torch.as_tensor(values, dtype=torch.float64).reshape(-1).tolist())
    if len(found) not in (1, channels) or (name == "std" and min(found) <= 0):
        raise _InexactError(f"Normalize has {name}={found}")
    return found * channels if len(found) == 1 else found

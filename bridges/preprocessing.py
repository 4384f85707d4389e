"""Torchvision's transforms as `face_jax.model.Preprocess`, where that is exactly what they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from face_jax.model import Preprocess
from face_jax.pictures.resizing import INTERPOLATIONS

_REMEDY = "give face_jax.Preprocess(size=…, resize=…, interpolation=…, mean=…, std=…) that does the same"
# Of a photograph in red, green and blue they change nothing.
_NO_CHANGE = ("RGB", "PILToTensor", "ToImage", "ToPureTensor", "Identity")


def as_preprocess(given: Any) -> Preprocess:
    """How photographs become a network's input, from what torch's users have for it.

    **Arguments:**

    - `given`: a `Preprocess` (passed on); None for ImageNet's usual one; torchvision's preset of some weights
        (`weights.transforms()`, or the weights' entry itself); or a `Compose` of torchvision's (either version) of
        `Resize` with one number (or twice the same: to a square), `CenterCrop`, `ToTensor` (or what does the same) and
        `Normalize`.

    **Returns:** the same as a `Preprocess`. Raises `ValueError`, naming it, for anything that it can't do exactly.
    """
    if given is None:
        return Preprocess()
    if isinstance(given, Preprocess):
        return given
    if hasattr(given, "transforms") and hasattr(given, "url"):  # an entry of torchvision's weights
        given = given.transforms()
    if type(given).__name__ == "ImageClassification":
        return preset(given)
    steps = _steps(given)
    if steps is None:
        raise ValueError(
            f"preprocess is a {type(given).__name__}; {_REMEDY}, or torchvision's transforms of evaluation"
        )
    return _composed(steps)


def preset(transforms: Any) -> Preprocess:
    """Torchvision's preset for classification."""
    return Preprocess(
        size=_one("CenterCrop", transforms.crop_size),
        resize=_one("Resize", transforms.resize_size),
        interpolation=_interpolation(transforms.interpolation),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _steps(given: Any) -> list[Any] | None:
    """The transforms one after another, of nested compositions too; None if it is no composition."""
    if not (type(given).__module__ or "").startswith("torchvision.transforms") and not isinstance(given, list | tuple):
        return None
    inner = list(given) if isinstance(given, list | tuple) else getattr(given, "transforms", None)
    if inner is None:
        return [given]
    if type(given).__name__ not in ("Compose", "Sequential", "list", "tuple"):
        raise ValueError(f"preprocess has {type(given).__name__}, which may do one thing or another; {_REMEDY}")
    found: list[Any] = []
    for step in inner:
        found += _steps(step) if type(step).__name__ == "Compose" else [step]  # pyright: ignore[reportOperatorIssue]
    return found


def _composed(steps: list[Any]) -> Preprocess:
    expected = ["Resize", "CenterCrop", "ToTensor", "Normalize"]
    found: dict[str, Any] = {}
    tensor = False
    for step in steps:
        kind = type(step).__name__
        if kind in ("PILToTensor", "ToImage"):
            tensor = True
        if kind in _NO_CHANGE:
            continue
        if kind in ("ConvertImageDtype", "ToDtype") and step.dtype == torch.float32 and getattr(step, "scale", True):
            kind = "ToTensor"
        kind = "ToTensor" if kind == "MaybeToTensor" else kind
        if kind not in expected:
            raise ValueError(f"preprocess has {step!r}, which Preprocess can't do; {_REMEDY}, in evaluation")
        if kind in found or any(expected.index(other) > expected.index(kind) for other in found):
            raise ValueError(f"preprocess has {kind} in another place than {', '.join(expected)}; {_REMEDY}")
        if tensor and kind in ("Resize", "CenterCrop"):
            raise ValueError(
                f"preprocess has {kind} behind the change to a tensor, which gives other pixels; {_REMEDY}"
            )
        found[kind] = step
    resize = found.get("Resize")
    sides = getattr(resize, "size", None)
    squash = isinstance(sides, Sequence) and len(sides) == 2
    missing = [kind for kind in expected[:3] if kind not in found and not (squash and kind == "CenterCrop")]
    if missing:
        raise ValueError(f"preprocess has no {' and no '.join(missing)}, which photographs of any size need; {_REMEDY}")
    assert resize is not None
    if getattr(resize, "max_size", None) is not None:
        raise ValueError(f"preprocess has {resize!r} with max_size, which Preprocess can't do; {_REMEDY}")
    normalize = found.get("Normalize")
    short = _one("Resize", sides)
    size = _one("CenterCrop", found["CenterCrop"].size) if "CenterCrop" in found else short
    if size > short:
        raise ValueError(f"preprocess crops {size} pixels of {short}, which adds a black border; {_REMEDY}")
    return Preprocess(
        size=size,
        resize=short,
        interpolation=_interpolation(resize.interpolation),
        mean=(0.0, 0.0, 0.0) if normalize is None else _three("mean", normalize.mean),
        std=(1.0, 1.0, 1.0) if normalize is None else _three("std", normalize.std),
        squash=squash,
    )


def _one(kind: str, size: Any) -> int:
    sizes = list(size) if isinstance(size, Sequence) else [size]
    if len(set(sizes)) != 1:
        raise ValueError(
            f"preprocess has {kind} to {size}, and Preprocess has one number: the short side or the side of a square; "
            f"{_REMEDY}"
        )
    return int(sizes[0])


def _interpolation(given: Any) -> Any:
    name = str(getattr(given, "value", given)).lower()
    # Pillow's numbers; and of Pillow's pictures both kinds of nearest are one.
    known = {"0": "nearest", "1": "lanczos", "2": "bilinear", "3": "bicubic", "nearest-exact": "nearest"}
    name = known.get(name, name)
    if name not in INTERPOLATIONS:
        raise ValueError(f"preprocess resizes by {name}; Preprocess knows {', '.join(INTERPOLATIONS)}; {_REMEDY}")
    return name


def _three(name: str, values: Any) -> tuple[float, ...]:
    found = tuple(float(value) for value in (values.tolist() if isinstance(values, torch.Tensor) else values))
    return found * 3 if len(found) == 1 else found

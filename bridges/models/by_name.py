"""`load`: an image classifier by its name, from whichever library has it, or a module of one's own."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

from torch import nn

from face_jax.model import Preprocess
from face_jax.outputs import Binary, MultiLabelled, check_multi_label, outputs_of
from face_jax.support.classes import ClassNames, binary_names, class_names

from ..preprocessing import as_preprocess
from ..splitting.endings import names_for
from ..splitting.surveying import example, survey
from ..weights.files import tensors_in
from ..wrappers import copied, unwrapped
from .folders import kind_of, looks_like_a_path, repository
from .loaded import LoadedModel, UnknownModelError, nearest
from .published_names import fit_published
from .timm_models import load_timm, load_timm_folder
from .torchvision_models import RESCALING, load_torchvision, torchvision_names
from .transformers_models import load_transformers


def known_models() -> tuple[str, ...]:
    """Names that `load` understands: torchvision's image classifiers and `efficientnet_lite0`.

    Besides these, it understands `timm/NAME` for the models of `timm.list_models()`, and `hf/OWNER/NAME` for those of
    the Hugging Face hub.

    **Example:**

    >>> "resnet34" in bridges.known_models()
    True
    """
    return torchvision_names()


def load(
    name: str | os.PathLike[str] | nn.Module,
    *,
    weights: str | pathlib.Path | None = "DEFAULT",
    classes: ClassNames | None = None,
    preprocess: Any = None,
    transform_input: bool | None = None,
    multi_label: MultiLabelled = None,
) -> LoadedModel:
    """An image classifier by its name, or one of your own.

    **Arguments:**

    - `name`: one of `known_models()`; `-` may stand for `_`. Or `timm/NAME`, such as `timm/vit_tiny_patch16_224`, with
        or without the tag of its weights (`timm/resnet50.a1_in1k`); `hf/OWNER/NAME` for a repository of the Hugging
        Face hub, transformers' or timm's, with `@REVISION` behind it if it matters (timm's own
        `timm/hf-hub:OWNER/NAME` as well); or a folder with `config.json` and weights, as transformers'
        `save_pretrained` and timm's `save_for_hf` write it. Or a torch module, which keeps its own weights unless
        `weights` is a file, and is then copied.
    - `weights`: `"DEFAULT"` for the pretrained weights (downloaded once by the library that has them; those of
        `efficientnet_lite0` come in a package); a path to what `torch.save` or safetensors wrote, with a state dict in
        it (also under `"state_dict"`, `"model"` or any other key, also with `module.`, `model.`, `_orig_mod.` or
        any other prefix before the names), or, for models of timm and transformers, to a folder with one; None or
        `"random"` for no training at all. Where several sets of weights in a file fit, `notes` says which was taken:
        not an average of weights, if there are others.
    - `classes`: the classes' names if they aren't the published ones, as for `split`; their number sets the number of
        logits. A single name is that of a binary network's one logit.
    - `preprocess`: how photographs become its input, as for `split`. By default as for the published weights: by
        timm's data configuration, by transformers' image processor; for a file of torchvision's models, as for the
        weights published under the file's name or with its content, else as for the first that torchvision published
        for this model, which `notes` says: a file of weights doesn't. For a module, as for most of ImageNet's
        classifiers.
    - `transform_input`: of `googlenet` and `inception_v3`: whether they rescale their input inside. Torchvision's own
        weights want it, and so do networks trained on from these; those trained from the start (`weights=None`) don't.
        It's asked for with a file that isn't torchvision's.
    - `multi_label`: whether each logit is a label by itself, as for `split`.

    **Returns:** the classifier on the CPU, in evaluation mode (a module of your own: where and as it is). Raises
    `UnknownModelError` with the nearest names, `WeightsError`, which says what doesn't fit or what to do without
    internet, or `ImportError` where the model needs timm or transformers and they aren't installed.

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
    if not isinstance(name, str | os.PathLike):
        raise TypeError(f"name={name!r} is a {type(name).__name__}; give a classifier's name or a torch.nn.Module")
    name = os.fspath(name)
    key = name.replace("-", "_")
    if transform_input is not None and key not in RESCALING:
        raise ValueError(f"transform_input={transform_input} is for {' and '.join(RESCALING)}; leave it out of {name}")
    source = None if weights is None or str(weights) == "random" else str(weights)
    if key in known_models():
        loaded = load_torchvision(
            name, key, source=source, classes=given, preprocess=preprocess, transform_input=transform_input
        )
    else:
        loaded = _elsewhere(name, source, given, preprocess)
    binary = isinstance(outputs_of(multi_label, len(loaded.classes)), Binary)
    classes = binary_names(loaded.classes) if binary else loaded.classes
    return dataclasses.replace(loaded, classes=classes, multi_label=multi_label)


def _elsewhere(
    name: str, source: str | None, classes: tuple[str, ...] | None, preprocess: Preprocess | None
) -> LoadedModel:
    """A model of timm or transformers: by its name there, from the hub, or from a folder."""
    library, _, rest = name.partition("/")
    scheme, colon, place = rest.partition(":")
    if library == "timm" and not (colon and scheme.replace("_", "-") in ("hf-hub", "local-dir")):
        return load_timm(name, rest, source=source, classes=classes, preprocess=preprocess)
    if library == "timm" and scheme == "local-dir":
        folder, shown = pathlib.Path(place), place
    elif library in ("timm", "hf"):
        # Whoever has the repository in a folder gives it for the weights, and needs no internet.
        given = source is not None and (pathlib.Path(source) / "config.json").is_file()
        shown = (place if library == "timm" else rest).removeprefix("hf-hub:")
        folder = pathlib.Path(str(source)) if given else repository(shown, name, weights=source == "DEFAULT")
        source = "DEFAULT" if given else source
    elif looks_like_a_path(name):
        folder, shown = pathlib.Path(name).expanduser(), name
        name = folder.resolve().name if folder.is_dir() else name  # reports tell no paths
    else:
        raise UnknownModelError(
            f"name={name!r} is no known classifier; nearest: {nearest(name.replace('-', '_'), known_models())} "
            "(face_jax.bridges.known_models() has all; timm/NAME and hf/OWNER/NAME are models of timm and of the "
            "Hugging Face hub, a folder one that was saved; any other torch module goes to face_jax.bridges.split "
            "directly)"
        )
    kind = kind_of(folder, name)
    if library == "timm" and kind != "timm":
        raise UnknownModelError(f"name={name!r} is a model of {kind}, not of timm; give hf/{shown}")
    loader = load_timm_folder if kind == "timm" else load_transformers
    return loader(name, folder, source=source, classes=classes, preprocess=preprocess)


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
        found = tensors_in(pathlib.Path(source))
        notes = fit_published(model, found, name, source, None if classes is None else len(classes))
    preprocess = preprocess or Preprocess()
    seen = survey(model, example(model, None, preprocess.size, preprocess.shape[2]), multi_label)
    names = names_for(classes, seen.logits.shape[1], binary=seen.binary)
    return LoadedModel(model, preprocess, names, name, notes, multi_label)

"""timm's models: by their names there, or from a folder that timm wrote."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from torch import nn

from face_jax.model import Preprocess, Transform
from face_jax.support.classes import class_names

from ..preprocessing import as_preprocess
from ..splitting.endings import names_for
from ..weights.files import WeightsError
from .folders import folder_tensors, offline, read_config
from .loaded import LoadedModel, UnknownModelError, nearest, optional, prepared_otherwise, quietly
from .published_names import fit_published
from .torchvision_models import imagenet_names


def load_timm(
    name: str,
    key: str,
    *,
    source: str | None,
    classes: tuple[str, ...] | None,
    preprocess: Preprocess | None,
) -> LoadedModel:
    """One of timm's models.

    **Arguments:**

    - `name`, `key`: as the user wrote it, and without `timm/`.
    - `source`: `"DEFAULT"`, a file or a folder of weights, or None for no training.
    - `classes`, `preprocess`: as for `load`.

    **Returns:** the classifier.
    """
    timm = optional("timm", name)
    key = _known(timm, name, key)
    if source not in (None, "DEFAULT") and (folder := pathlib.Path(str(source))).joinpath("config.json").is_file():
        # A folder says itself how its network is built.
        written = read_config(folder, name).get("architecture")
        if written != key.partition(".")[0]:
            raise WeightsError(f"weights={source!r} are of {written}, not of {name}; give the name of that model")
        return load_timm_folder(name, folder, source="DEFAULT", classes=classes, preprocess=preprocess)
    options = _options(timm, key, classes, preprocess, trained=source == "DEFAULT")
    if source == "DEFAULT":
        model = _pretrained(timm, name, key, options)
    else:
        model = quietly("timm", lambda: timm.create_model(key, pretrained=False, **options))
    return _finished(timm, name, model, source, classes, preprocess)


def load_timm_folder(
    name: str,
    folder: pathlib.Path,
    *,
    source: str | None,
    classes: tuple[str, ...] | None,
    preprocess: Preprocess | None,
) -> LoadedModel:
    """The model of a folder that timm's `save_for_hf` or the hub wrote; arguments as for `load_timm`."""
    timm = optional("timm", name)
    written = read_config(folder, name)["architecture"]
    if not timm.is_model(written):
        raise UnknownModelError(
            f"name={name!r}: config.json in {str(folder)!r} has architecture={written!r}, which this timm "
            f"({timm.__version__}) doesn't know; nearest: {nearest(str(written), timm.list_models())}"
        )
    options: dict[str, Any] = {}
    if classes is not None and source != "DEFAULT":
        options["num_classes"] = len(classes)
    try:
        model = quietly("timm", lambda: timm.create_model(f"local-dir:{folder}", pretrained=False, **options))
    except (TypeError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise UnknownModelError(
            f"name={name!r}: timm can't build what config.json in {str(folder)!r} describes "
            f"({type(error).__name__}: {error}); copy it once more, or install the timm that wrote it"
        ) from error
    return _finished(
        timm, name, model, str(folder) if source == "DEFAULT" else source, classes, preprocess, described=True
    )


def _finished(
    timm: Any,
    name: str,
    model: nn.Module,
    source: str | None,
    classes: tuple[str, ...] | None,
    preprocess: Preprocess | None,
    *,
    described: bool = False,
) -> LoadedModel:
    """A built model with its weights, if they are in a file, its preprocessing and its classes."""
    count: Any = getattr(model, "num_classes", None)
    if not count:
        raise WeightsError(
            f"name={name!r} has no classifier, only features; give classes= and weights=PATH of your own training"
        )
    if classes is not None and len(classes) != count:
        raise WeightsError(
            f"weights={source!r} of {name} know {count} classes and classes has {len(classes)} names; leave classes "
            "out, or give weights=PATH of your own training"
        )
    notes: tuple[str, ...] = ()
    if source not in (None, "DEFAULT"):
        found, file = folder_tensors(pathlib.Path(str(source)))
        notes = fit_published(model, found, name, str(file), count)
    usual = preprocess or _preprocess(timm, name, model)
    if preprocess is None and source not in (None, "DEFAULT") and not described:
        notes += (prepared_otherwise(str(source), name, usual),)
    return LoadedModel(model.eval(), usual, classes or _classes(timm, model, count), name, notes)


def _known(timm: Any, name: str, key: str) -> str:
    """A name as timm has it, with the tag of its weights if one was given."""
    architecture, dot, tag = key.partition(".")
    found = [word for word in (architecture, architecture.replace("-", "_").lower()) if timm.is_model(word)]
    if not found:
        close = nearest(architecture.replace("-", "_").lower(), timm.list_models())
        raise UnknownModelError(
            f"name={name!r} is no model of timm {timm.__version__}; nearest: {close} (timm.list_models() has all)"
        )
    tags = [full.partition(".")[2] for full in timm.list_models(f"{found[0]}.*", pretrained=True)]
    if dot and tag not in tags:
        raise UnknownModelError(
            f"name={name!r}: timm has no weights {tag!r} of {found[0]}; "
            + (f"there are {', '.join(tags)}" if any(tags) else "there are none of that model")
        )
    return f"{found[0]}{dot}{tag}"


def _options(
    timm: Any, key: str, classes: tuple[str, ...] | None, preprocess: Preprocess | None, *, trained: bool
) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if classes is not None and not trained:
        options["num_classes"] = len(classes)
    config = timm.get_pretrained_cfg(key)
    size = getattr(config, "input_size", (3, 224, 224))[-1]
    # A network with an embedding for each place is built for one size.
    if preprocess is not None and getattr(config, "fixed_input_size", False) and preprocess.size != size:
        options["img_size"] = preprocess.size
    return options


def _pretrained(timm: Any, name: str, key: str, options: dict[str, Any]) -> nn.Module:
    config = timm.get_pretrained_cfg(key)
    if config is None or not config.has_weights:
        raise WeightsError(
            f"weights='DEFAULT' of {name}: timm has none of that model; give weights=PATH of your own training, or "
            "weights=None for none"
        )
    try:
        return quietly("timm", lambda: timm.create_model(key, pretrained=True, **options))
    except Exception as error:
        if not isinstance(error, OSError) and not type(error).__module__.startswith(("http", "huggingface", "urllib")):
            raise
        if config.hf_hub_id:
            tag = f"{key.partition('.')[0]}.{config.tag}" if config.tag else key.partition(".")[0]
            identifier = str(config.hf_hub_id)
            raise offline(name, f"{identifier}{tag}" if identifier.endswith("/") else identifier, error) from error
        raise WeightsError(
            f"weights='DEFAULT' of {name} can't be downloaded ({error}); where there is internet, download "
            f"{config.url} and give the file here: --weights {pathlib.PurePosixPath(config.url).name} (in Python "
            "weights=PATH)"
        ) from error


def _preprocess(timm: Any, name: str, model: nn.Module) -> Preprocess:
    """timm's data configuration of a model, as timm's transforms of evaluation do it."""
    config = timm.data.resolve_model_data_config(model)
    channels, height, width = config["input_size"]
    if channels != 3:
        raise ValueError(
            f"name={name!r} takes pictures of {channels} {'channel' if channels == 1 else 'channels'}, which timm's "
            "transforms don't make of photographs; give preprocess=face_jax.Preprocess(…) with as many numbers in mean "
            "and std"
        )
    try:
        found = as_preprocess(timm.data.create_transform(**config, is_training=False))
        if isinstance(found, Transform):
            return found
        # The transforms have them rounded to single precision.
        return dataclasses.replace(found, mean=config["mean"], std=config["std"])
    except ValueError as error:
        raise ValueError(
            f"name={name!r} has a data configuration in timm that Preprocess can't do (size {height} × {width}, "
            f"{error}); give preprocess=face_jax.Preprocess(…)"
        ) from error


def _classes(timm: Any, model: nn.Module, count: int) -> tuple[str, ...]:
    """The names that the model's configuration has; ImageNet's where it has as many classes; else numbers."""
    config: dict[str, Any] = getattr(model, "pretrained_cfg", None) or {}
    labels, words = config.get("label_names"), config.get("label_descriptions")
    if isinstance(words, dict) and labels:
        labels = [words.get(label, label) for label in labels]
    elif words:
        labels = words
    if labels and len(labels) == count:
        # JSON may have made words of numbers, or numbers of words.
        return class_names(labels if isinstance(labels, dict) else [str(label) for label in labels], count)
    subset = timm.data.infer_imagenet_subset(model)
    if subset is None:
        return names_for(None, count, binary=False)
    if count == 1000:
        return imagenet_names()
    info = timm.data.ImageNetInfo(subset)
    return tuple(info.index_to_description(number) for number in range(count))

"""transformers' image classifiers, from folders that `save_pretrained` wrote."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from face_jax.model import Preprocess
from face_jax.support.classes import class_names
from face_jax.support.sentences import first_line

from ..weights.files import WeightsError
from .folders import folder_tensors, read_config
from .image_processors import as_processed
from .loaded import LoadedModel, UnknownModelError, optional
from .published_names import fit_published


def load_transformers(
    name: str,
    folder: pathlib.Path,
    *,
    source: str | None,
    classes: tuple[str, ...] | None,
    preprocess: Preprocess | None,
) -> LoadedModel:
    """The image classifier of a folder.

    **Arguments:**

    - `name`: as the user wrote it.
    - `folder`: with `config.json`.
    - `source`: `"DEFAULT"` for the folder's own weights, a file or a folder of others, or None for no training.
    - `classes`, `preprocess`: as for `load`.

    **Returns:** the classifier.
    """
    transformers = optional("transformers", name)
    config = _config(transformers, name, folder, classes, other=source != "DEFAULT")
    notes: tuple[str, ...] = ()
    with _silent(transformers):
        if source == "DEFAULT":
            model, notes = _pretrained(transformers, name, folder, config)
        else:
            model = transformers.AutoModelForImageClassification.from_config(config)
        if source not in (None, "DEFAULT"):
            found, file = folder_tensors(pathlib.Path(str(source)))
            notes = fit_published(model, found, name, str(file), config.num_labels)
        usual, said = preprocess, ""
        if usual is None:
            usual, said = as_processed(transformers, name, folder, config)
    notes += (said,) if said else ()
    names = classes or class_names(config.id2label, config.num_labels)
    return LoadedModel(model.eval(), usual, names, name, notes)


def _config(transformers: Any, name: str, folder: pathlib.Path, classes: tuple[str, ...] | None, *, other: bool) -> Any:
    kind = read_config(folder, name)["model_type"]
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise UnknownModelError(
            f"name={name!r}: this transformers ({transformers.__version__}) can't read config.json in {str(folder)!r} "
            f"({first_line(error)}); copy it once more, or install the transformers that wrote it"
        ) from error
    if type(config) not in transformers.AutoModelForImageClassification._model_mapping:
        raise UnknownModelError(
            f"name={name!r} is a {kind}, of which transformers has no image classifier; give the repository of one "
            "(huggingface.co/models?pipeline_tag=image-classification)"
        )
    written = getattr(config, "architectures", None) or []
    if not other and written and not any("ImageClassification" in architecture for architecture in written):
        raise WeightsError(
            f"name={name!r} has the weights of a {written[0]}, which has no classifier; give the repository of a model "
            "ForImageClassification, or weights=PATH of your own training"
        )
    if classes is not None and other:
        config.num_labels = len(classes)
    elif classes is not None and len(classes) != config.num_labels:
        raise WeightsError(
            f"weights='DEFAULT' of {name} know {config.num_labels} classes and classes has {len(classes)} names; leave "
            "classes out, or give weights=PATH of your own training"
        )
    if config.num_labels < 1:
        raise WeightsError(f"name={name!r} has no logits; give a model with a classifier")
    return config


def _pretrained(transformers: Any, name: str, folder: pathlib.Path, config: Any) -> tuple[nn.Module, tuple[str, ...]]:
    """The model with its folder's weights, every one of them accounted for."""
    try:
        model, told = transformers.AutoModelForImageClassification.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            weights_only=True,
        )
    # A damaged file has safetensors, torch and transformers raise nearly anything.
    except Exception as error:
        raise WeightsError(
            f"name={name!r}: the weights in {str(folder)!r} can't be read ({first_line(error)}); give a folder with "
            "config.json and a whole model.safetensors"
        ) from error
    missing = sorted(told["missing_keys"])
    shapes = sorted(str(each[0] if isinstance(each, tuple) else each) for each in told["mismatched_keys"])
    said = [f"{words} {_some(keys)}" for words, keys in (("missing", missing), ("of another shape", shapes)) if keys]
    if said:
        raise WeightsError(
            f"name={name!r}: the weights in {str(folder)!r} don't fit its config.json: {'; '.join(said)}; give the "
            "folder as it was saved"
        )
    broken = [key for key, value in model.state_dict().items() if value.is_floating_point() and _broken(value)]
    if broken:
        raise WeightsError(f"name={name!r}: its weights hold NaN or infinity in {_some(broken)}; load a sound training")
    passed = sorted(told["unexpected_keys"])
    note = f"{folder.name} holds more tensors than the model has, which were passed over: {_some(passed)}."
    return model, (note,) if passed else ()


def _broken(value: torch.Tensor) -> bool:
    return not bool(value.isfinite().all())


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")


@contextlib.contextmanager
def _silent(transformers: Any) -> Iterator[None]:
    """transformers without its bars of progress and its log."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()

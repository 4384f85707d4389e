"""Folders and repositories of the Hugging Face hub: a configuration with weights beside it."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import torch

from face_jax.support.extras import installing
from face_jax.support.regular_files import text_of
from face_jax.support.sentences import first_line

from ..weights.files import WeightsError, tensors_in
from .loaded import UnknownModelError, optional

_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
# Weights in one file, or in several that a table names; the first that is there is read.
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SAFE = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")


def looks_like_a_path(name: str) -> bool:
    """Whether a name that no model has is meant for a folder."""
    return pathlib.Path(name).exists() or name.startswith(("/", "./", "../", "~", ".\\"))


def kind_of(folder: pathlib.Path, name: str) -> str:
    """Which library wrote a folder: `"timm"` or `"transformers"`.

    Raises `UnknownModelError` for a folder that is none of theirs, or not there.
    """
    config = read_config(folder, name)
    if "architecture" in config:
        return "timm"
    if "model_type" in config:
        return "transformers"
    raise UnknownModelError(
        f"name={name!r}: config.json in {str(folder)!r} has neither model_type (transformers) nor architecture (timm); "
        "give the folder that save_pretrained or timm's save_for_hf wrote"
    )


def read_config(folder: pathlib.Path, name: str) -> dict[str, Any]:
    """A folder's `config.json`."""
    if folder.is_file():
        raise UnknownModelError(
            f"name={name!r} is a file; give the model's name, and the file as its weights: weights=PATH (--weights)"
        )
    file = folder / "config.json"
    if not file.is_file():
        missing = "has no config.json" if folder.is_dir() else "is no folder"
        raise UnknownModelError(
            f"name={name!r}: {str(folder)!r} {missing}; give a folder with config.json and model.safetensors, as "
            "save_pretrained or timm's save_for_hf writes it"
        )
    text = text_of(f"name={name!r}: {str(file)!r}", file, "copy it once more", refused=UnknownModelError)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UnknownModelError(f"name={name!r}: {str(file)!r} is no JSON ({error}); copy it once more") from error
    if not isinstance(config, dict):
        raise UnknownModelError(f"name={name!r}: {str(file)!r} holds a {type(config).__name__}, no settings")
    return config


def weights_file(path: pathlib.Path) -> pathlib.Path:
    """A file of weights, also where its folder is given."""
    if not path.is_dir():
        return path
    found = [path / file for file in _WEIGHTS if (path / file).is_file()]
    others = sorted(file for end in ("safetensors", "bin", "pth", "pt") for file in path.glob(f"*.{end}"))
    if found or len(others) == 1:
        return (found or others)[0]
    raise WeightsError(
        f"weights={str(path)!r} is a folder with {'several files' if others else 'no file'} of weights; give "
        f"{'one of ' + ', '.join(file.name for file in others[:4]) if others else 'one with model.safetensors'}"
    )


def folder_tensors(path: pathlib.Path) -> tuple[dict[str, torch.Tensor], pathlib.Path]:
    """Every tensor of a file or a folder, where the weights may be in several files; and what was read."""
    file = weights_file(path)
    if not file.name.endswith(".index.json"):
        return tensors_in(file), file
    text = text_of(f"weights={str(file)!r}", file, "copy it once more", refused=WeightsError)
    try:
        shards = sorted(set(json.loads(text)["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise WeightsError(f"weights={str(file)!r} is no table of files ({error}); copy it once more") from error
    found: dict[str, torch.Tensor] = {}
    for shard in shards:
        if pathlib.PurePath(shard).name != shard:
            raise WeightsError(f"weights={str(file)!r} names {shard!r}, which is outside the folder")
        found |= tensors_in(file.parent / shard)
    return found, file


def repository(identifier: str, name: str, *, weights: bool, more: tuple[str, ...] = ()) -> pathlib.Path:
    """A folder with what is needed of a repository of the hub: downloaded once, then taken from the hub's cache.

    **Arguments:**

    - `identifier`: `OWNER/NAME`, or with `@REVISION` behind it.
    - `name`: what errors call the model.
    - `weights`: whether weights are wanted, too.
    - `more`: further files, where the repository has them.

    **Returns:** the folder. Raises `UnknownModelError` for what is no repository, and `WeightsError` without internet.
    """
    identifier, _, revision = identifier.partition("@")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", identifier):
        raise UnknownModelError(f"name={name!r} is no repository of the hub; give hf/OWNER/NAME")
    # It comes with timm and with transformers alike.
    try:
        hub = optional("huggingface_hub", name)
    except ImportError as error:
        raise ImportError(
            f"name={name!r} needs huggingface_hub, which is not installed; {installing('transformers')}"
        ) from error

    def download(*patterns: str) -> pathlib.Path:
        return pathlib.Path(hub.snapshot_download(identifier, revision=revision or None, allow_patterns=list(patterns)))

    try:
        folder = download(*_SETTINGS, *more, *(_SAFE if weights else ()))
        if weights and not any((folder / file).is_file() for file in _WEIGHTS):
            folder = download(*_SETTINGS, *more, *_PICKLED)
    except (hub.errors.RepositoryNotFoundError, hub.errors.RevisionNotFoundError) as error:
        # Without access there is no telling a private repository from none.
        raise UnknownModelError(
            f"name={name!r}: the hub has no public repository {identifier!r}"
            f"{f' with a revision {revision!r}' if revision else ''} ({first_line(error)}); see huggingface.co/models"
        ) from error
    except Exception as error:
        if not isinstance(error, (OSError, hub.errors.HfHubHTTPError)) and "http" not in type(error).__module__:
            raise
        raise offline(name, identifier, error) from error
    if not (folder / "config.json").is_file():
        raise offline(name, identifier, FileNotFoundError("its config.json isn't in the cache"))
    return folder


def offline(name: str, identifier: str, error: Exception) -> WeightsError:
    """What to say where the hub can't be reached."""
    return WeightsError(
        f"name={name!r} can't be downloaded ({first_line(error)}); where there is internet, run: hf download "
        f"{identifier} --local-dir FOLDER (it needs config.json, preprocessor_config.json and model.safetensors of "
        f"https://huggingface.co/{identifier}), and give the folder here: --model FOLDER (in Python load(FOLDER))"
    )

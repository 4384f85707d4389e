"""Weights files, read without running anything that is in them."""

from __future__ import annotations

import hashlib
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

import torch


class WeightsError(ValueError):
    """Weights that aren't there, can't be read, or don't fit the model."""


class _PassedOver:
    """Stands for what lies beside the weights: neither numpy nor anything else that the file names is called."""

    def __init__(self, *given: Any, **named: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# What training scripts put beside the weights, and what torch would refuse the whole file for.
_HARMLESS = (
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.ndarray", "numpy.dtype", "argparse.Namespace", "types.SimpleNamespace"),
    *(f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
    *(f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")),
)
_SAVE = "save them with torch.save(model.state_dict(), path)"


def tensors_in(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """Every tensor in a file, by the names on the way to it with dots between them.

    **Arguments:**

    - `path`: what `torch.save` or safetensors wrote: a state dict, also inside dictionaries of more.

    **Returns:** the tensors. Raises `WeightsError` in different words for no file, no torch file, a damaged one, and
    one that holds objects which torch refuses to make, because that could run code.
    """
    if not path.is_file():
        raise WeightsError(
            f"weights={str(path)!r} isn't a file; give a .pth or .safetensors file, 'DEFAULT' or 'random'"
        )
    content = _read(path)
    found = _all_tensors(content, path)
    if not found:
        raise WeightsError(
            f"weights={str(path)!r} holds a {type(content).__name__} without named tensors; "
            "save it with torch.save(model.state_dict(), path)"
        )
    for name, tensor in found.items():
        if tensor.device.type == "meta" or tensor.is_quantized or tensor.layout != torch.strided or tensor.is_nested:
            kind = "without values (on the meta device)" if tensor.device.type == "meta" else "quantized or sparse"
            raise WeightsError(
                f"weights={str(path)!r} holds {name}, a tensor that is {kind}; save dense tensors of real numbers"
            )
    # DenseNet's published files number a layer's parts in the names of an older torch.
    old = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
    return {old.sub(r"\1\2", key): value for key, value in found.items()}


def _all_tensors(content: Any, path: pathlib.Path) -> dict[str, torch.Tensor]:
    try:
        return dict(_flat(content, "", set()))
    except RecursionError as error:
        raise WeightsError(f"weights={str(path)!r} has dictionaries in dictionaries without end; {_SAVE}") from error


def _flat(content: Any, path: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    # A dictionary may be in a file at many places, in itself too; once is enough.
    if not isinstance(content, dict) or id(content) in seen:
        return
    seen.add(id(content))
    for key, value in content.items():
        if isinstance(value, torch.Tensor):
            yield f"{path}{key}", value
        else:
            yield from _flat(value, f"{path}{key}.", seen)


def _read(path: pathlib.Path) -> Any:
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise WeightsError(f"weights={str(path)!r} can't be read ({error.strerror}); see who may read it") from error
    try:
        if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
            return _safetensors(path)
        changed = _changed_member(path) if start.startswith(b"PK") else None
        if changed is not None:
            raise WeightsError(f"weights={str(path)!r} is damaged: {changed} isn't what was saved; copy it once more")
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_PassedOver, name) for name in _HARMLESS]):
            warnings.simplefilter("ignore")  # torch warns of programs, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    # A damaged file has torch, zipfile and the unpickler raise nearly anything.
    except Exception as error:
        raise WeightsError(f"weights={str(path)!r} {_reason(path, start, error)}") from error


def _safetensors(path: pathlib.Path) -> Any:
    try:
        from safetensors.torch import load_file
    except ModuleNotFoundError:
        raise WeightsError(
            f"weights={str(path)!r} is a file of safetensors, which isn't installed; pip install safetensors"
        ) from None
    return load_file(path)


def _changed_member(path: pathlib.Path) -> str | None:
    """The first part of an archive whose checksum doesn't fit: torch doesn't look at them."""
    with zipfile.ZipFile(path) as archive:
        # torch.serialization.set_crc32_options(False) writes none.
        return archive.testzip() if any(member.CRC for member in archive.infolist()) else None


def _reason(path: pathlib.Path, start: bytes, error: Exception) -> str:
    said = str(error)
    if not start:
        return f"is empty; {_SAVE}"
    if "TorchScript" in said:
        return (
            "is a TorchScript program and not weights alone; save its weights with "
            "torch.save(torch.jit.load(path).state_dict(), other_path)"
        )
    named = re.search(r"(?:GLOBAL|unsupported class) ([A-Za-z_][\w.]*\w)", said)
    if isinstance(error, pickle.UnpicklingError) and named:
        return (
            f"holds more than tensors: {named[1]}, which torch refuses to read, because making one could run code; "
            f"where you trust the file, load it yourself and {_SAVE}"
        )
    if not start.startswith((b"PK", b"\x80")):
        begins = "a Git LFS pointer" if start.startswith(b"version https://git-lfs") else f"begins with {start[:12]!r}"
        begins = "an HTML page" if start.lstrip().lower().startswith((b"<!doctype", b"<html")) else begins
        return f"isn't a torch file ({begins}); give what torch.save wrote, or {_SAVE}"
    said = said.rpartition("WeightsUnpickler error:")[2].strip()  # what torch writes around it is of its own options
    first = (said.splitlines() or [""])[0][:120]
    return f"is damaged: cut off or overwritten ({type(error).__name__}: {first}); copy it once more, or {_SAVE}"


def digest_of(path: pathlib.Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

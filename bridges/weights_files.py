"""Weights from a file: read without running anything that is in it, and brought under a model's own names."""

from __future__ import annotations

import collections
import hashlib
import itertools
import pathlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn


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
# Counters that libraries leave among the weights; they change nothing that is computed.
_COUNTERS = ("num_batches_tracked", "n_averaged", "total_ops", "total_params")
# Parts of a checkpoint that are of training, and parts of a model that are no part of the classifier.
_TRAINING = re.compile(
    r"(^|\.)(\w*optimizers?\w*|optim|opt|\w*schedulers?\w*|\w*scaler|exp_avg\w*|momentum_buffer\w*|grads?)(\.|$)",
    re.IGNORECASE,
)
_BESIDE = re.compile(r"loss|criterion|metric|acc(uracy)?$|auroc|^f1(_|$)", re.IGNORECASE)
# Averages of the weights over training, of which the weights themselves are the other reading.
_AVERAGED = re.compile(r"ema|swa|averag|teacher|momentum|shadow", re.IGNORECASE)
_SAVE = "save them with torch.save(model.state_dict(), path)"


def tensors_in(path: pathlib.Path) -> dict[str, torch.Tensor]:
    """Every tensor in a file, by the names on the way to it with dots between them.

    **Arguments:**

    - `path`: what `torch.save` or safetensors wrote: a state dict, also inside dictionaries of more.

    **Returns:** the tensors. Raises `WeightsError` in different words for no file, no torch file, a damaged one, and
    one that holds objects which torch refuses to make, because that could run code.
    """
    if not path.is_file():
        raise WeightsError(f"weights={str(path)!r} is no file; give a .pth file, 'DEFAULT' or 'random'")
    content = _read(path)
    found = dict(_flat(content, ""))
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


def _flat(content: Any, path: str) -> Iterator[tuple[str, torch.Tensor]]:
    if not isinstance(content, dict):
        return
    for key, value in content.items():
        if isinstance(value, torch.Tensor):
            yield f"{path}{key}", value
        elif path.count(".") < 100:
            yield from _flat(value, f"{path}{key}.")


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
        return f"is no torch file ({begins}); give what torch.save wrote, or {_SAVE}"
    said = said.rpartition("WeightsUnpickler error:")[2].strip()  # what torch writes around it is of its own options
    first = (said.splitlines() or [""])[0][:120]
    return f"is damaged: cut off or overwritten ({type(error).__name__}: {first}); copy it once more, or {_SAVE}"


def digest_of(path: pathlib.Path) -> str:
    """The sha256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fit(
    model: nn.Module, found: dict[str, torch.Tensor], name: str, source: str, classes: int | None
) -> tuple[str, ...]:
    """Load tensors into a model, whatever stands before their names, or say in one message all that doesn't fit.

    **Arguments:**

    - `model`: what they are loaded into.
    - `found`: from `tensors_in`.
    - `name`, `source`: what errors call the model and the file.
    - `classes`: how many logits the model gives, if that was asked for.

    **Returns:** what the user should know: which of several sets of weights was taken, and what was passed over.
    Raises `WeightsError`.
    """
    own = {key: value for key, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
    votes = _prefixes(own, found)
    needed = sum(not key.endswith(_COUNTERS) for key in own)
    whole = [prefix for prefix, count in votes.items() if count == needed]
    fitting = [prefix for prefix in whole if not _other_shapes(own, found, prefix)]
    if not whole and (lacking := _lacking(own)):
        # The model's own names begin with something that the file's don't.
        bare = {key.removeprefix(lacking): value for key, value in own.items()}
        if needed in (votes_bare := _prefixes(bare, found)).values():
            prefix = next(prefix for prefix, count in votes_bare.items() if count == needed)
            found = {
                lacking + key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)
            }
            return fit(model, found, name, source, classes)
    prefix = min(fitting or whole, key=_rank) if whole else _nearest(votes, found, needed)
    state = {key: found[prefix + key] for key in own if prefix + key in found}
    inside = [key.removeprefix(prefix) for key in found if key.startswith(prefix)]
    others = {other + key for other in fitting for key in own}
    unexpected = [key for key in inside if key not in own and prefix + key not in others]
    unexpected = [key for key in unexpected if not key.endswith(_COUNTERS)]
    beside = [key for key in unexpected if any(kind.search(key.split(".")[0]) for kind in (_BESIDE, _TRAINING))]
    _refuse(own, state, [key for key in unexpected if key not in beside], name, source, classes, prefix)
    model.load_state_dict(state, strict=False)
    return tuple(_told(found, state, prefix, fitting, beside, pathlib.Path(source).name))


def _prefixes(own: dict[str, Any], found: dict[str, Any]) -> collections.Counter[str]:
    """How many of the model's names are found behind each prefix."""
    needed = {key for key in own if not key.endswith(_COUNTERS)}
    votes: collections.Counter[str] = collections.Counter()
    for key in found:
        starts = [0, *(place + 1 for place, letter in enumerate(key) if letter == ".")]
        votes.update(key[:start] for start in starts if key[start:] in needed and not _TRAINING.search(key[:start]))
    return votes


def _lacking(own: dict[str, Any]) -> str:
    """What all of the model's own names begin with, up to a dot."""
    parts = [key.split(".") for key in own]
    common = itertools.takewhile(lambda same: len(set(same)) == 1, zip(*(names[:-1] for names in parts), strict=False))
    return "".join(f"{same[0]}." for same in common)


def _rank(prefix: str) -> tuple[bool, int]:
    """Weights before averages of them, before what lies deeper."""
    return bool(_AVERAGED.search(prefix)), prefix.count(".")


def _nearest(votes: collections.Counter[str], found: dict[str, Any], needed: int) -> str:
    """The prefix under which most of the names are, else the dictionary that holds most tensors."""
    if votes and max(votes.values()) > needed / 2:
        return max(votes, key=votes.__getitem__)
    return next((part for part in ("state_dict.", "model_state_dict.", "model.") if all(map(_under(part), found))), "")


def _under(part: str) -> Any:
    return lambda key: key.startswith(part)


def _other_shapes(own: dict[str, Any], found: dict[str, Any], prefix: str) -> list[str]:
    return [key for key in own if prefix + key in found and own[key].shape != found[prefix + key].shape]


def _refuse(
    own: dict[str, torch.Tensor],
    state: dict[str, torch.Tensor],
    unexpected: list[str],
    name: str,
    source: str,
    classes: int | None,
    prefix: str,
) -> None:
    # Counters of training steps came late to torch and change nothing here.
    missing = [key for key in own if key not in state and not key.endswith(_COUNTERS)]
    shapes = _other_shapes(own, state, "")
    types = [f"{key} ({state[key].dtype})" for key in state if _other_type(own[key], state[key])]
    said = []
    if missing:
        said.append(f"missing {_some(missing)}")
    if unexpected:
        said.append(f"unexpected {_some(unexpected)}")
    if shapes:
        each = [f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}" for key in shapes]
        said.append(f"of another shape {_some(each)}")
    if types:
        said.append(f"no real numbers {_some(types)}")
    behind = f" (names read behind {prefix!r})" if prefix else ""
    remedy = f"give the file of a {name}, or the name of the model that this file is of"
    trained = {
        tuple(state[key].shape[:1]) for key in shapes if own[key].shape[:1] == (classes,) != state[key].shape[:1]
    }
    last = all(own[key].shape[:1] == (classes,) for key in shapes)
    if not (missing or unexpected or types) and last and len(trained) == 1 and () not in trained:
        (count,) = trained.pop()
        remedy = f"they were trained for {count} classes, not {classes}: give classes= with {count} names"
    if said:
        raise WeightsError(f"weights={source!r} don't fit {name}{behind}: {'; '.join(said)}; {remedy}")
    broken = [key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())]
    if broken:
        raise WeightsError(f"weights={source!r} hold NaN or infinity in {_some(broken)}; load a sound training")


def _other_type(own: torch.Tensor, given: torch.Tensor) -> bool:
    return own.is_floating_point() and not given.is_floating_point()


def _told(
    found: dict[str, torch.Tensor],
    state: dict[str, torch.Tensor],
    prefix: str,
    fitting: Sequence[str],
    beside: Sequence[str],
    file: str,
) -> Iterator[str]:
    others = [
        other
        for other in fitting
        if other != prefix and any(not torch.equal(found[other + key], value) for key, value in state.items())
    ]
    if others:
        yield (
            f"{file} holds several sets of weights that fit: those under {_shown(prefix)} were taken, and not those "
            f"under {', '.join(map(_shown, others))}, which differ; to use these, save them alone in a file."
        )
    used = {other + key for other in (prefix, *fitting) for key in state}
    outside = [key for key in found if key not in used and not key.startswith(prefix) and not _TRAINING.search(key)]
    passed = [key for key in (*outside, *(prefix + key for key in beside)) if not key.endswith(_COUNTERS)]
    if passed:
        yield f"{file} holds more tensors than the model has, which were passed over: {_some(passed)}."


def _shown(prefix: str) -> str:
    return repr(prefix.rstrip(".")) if prefix else "no prefix"


def _some(keys: Sequence[str]) -> str:
    shown = ", ".join(keys[:3])
    return shown if len(keys) <= 3 else f"{shown} and {len(keys) - 3} more"

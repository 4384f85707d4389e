"""An explanation's files as they are read: digests computed anew, and nothing believed before it's checked."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors

from ..blocks.room import Room
from ..model import SplitModel
from ..support.atomic_folder import placed
from ..support.fields import within
from ..support.json_values import Unfit
from ..support.regular_files import bytes_of
from . import old_formats
from .agreement import check_agreement
from .codec import decode
from .record import Explanation
from .saving import ACTIVATIONS, BANK, FORMAT, SECONDS, TEXT, arrays_digest, text_digest

# Format 4 had no digest of the text.
_UNSIGNED = 4
_LARGEST = 64 * 10**6
# As safetensors calls the types that NumPy has.
_TYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "F16": "float16",
    "F32": "float32", "F64": "float64",
}  # fmt: skip


class SavedFilesError(ValueError):
    """Files that no explanation can be restored from."""


def restored(folder: pathlib.Path, text: dict[str, Any], model: SplitModel, room: Room | None = None) -> Explanation:
    """The explanation in a folder, once its files and the text are all that they should be.

    **Arguments:**

    - `folder`: where the files are.
    - `text`: what `read_text` returned.
    - `model`: the model that was explained.
    - `room`: how much memory arrays may take; by default half of what is free.

    **Returns:** the explanation, without the seconds. Raises `SavedFilesError` or `Unfit`.
    """
    old, room = text["format"] != FORMAT, Room() if room is None else room
    opened = _opened(folder, text)

    def record(arrays: dict[str, np.ndarray], *, values: bool) -> Explanation:
        value, arrays = old_formats.record_of(text, arrays) if old else (text.get("record"), arrays)
        given, lengths = {"model": model, "provenance.seconds": {}}, {"class": len(model.classes)}
        return decode(Explanation, value, arrays, given=given, lengths=lengths, values=values)

    # First with arrays of the right types and shapes that take no memory.
    record(_claimed(opened), values=False)
    stores = {name: _arrays(placed(folder, name), each, room) for name, each in opened.items()}
    explanation = record({key: array for arrays in stores.values() for key, array in arrays.items()}, values=True)
    if arrays_digest(stores) != text["digest"]:
        raise SavedFilesError(
            f"folder={str(folder)!r}: {BANK} or {ACTIVATIONS} is damaged: its arrays aren't those that were saved "
            "(their digest is another one); copy the files again, or explain again"
        )
    check_text(folder, TEXT, text)
    check_agreement(explanation)
    if old:
        old_formats.check_text(text, explanation)
    return explanation


def _opened(folder: pathlib.Path, text: dict[str, Any]) -> dict[str, Any]:
    """Both files with arrays, of which only the headers are read yet."""
    opened: dict[str, Any] = {}
    for name in (BANK, ACTIVATIONS):
        try:
            opened[name] = safetensors.safe_open(placed(folder, name), framework="numpy")
        except (OSError, safetensors.SafetensorError) as error:
            raise SavedFilesError(
                f"folder={str(folder)!r}: {name} is missing or damaged ({error}); copy all files of the explanation, "
                "or explain again"
            ) from error
        digest = (opened[name].metadata() or {}).get("digest")
        if digest != text.get("digest"):
            raise SavedFilesError(
                f"folder={str(folder)!r}: {name} and {TEXT} are of different explanations (digests {str(digest)[:12]} "
                f"and {str(text.get('digest'))[:12]}); copy all files of one explanation, or explain again"
            )
    return opened


def _arrays(file: pathlib.Path, opened: Any, room: Room) -> dict[str, np.ndarray]:
    """A file's arrays, which stay in it where they'd take too much memory, and are read where they're touched."""
    if room.fits(size := file.stat().st_size):
        room.taken += size
        return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    with file.open("rb") as content:
        length = int.from_bytes(content.read(8), "little")
        header = json.loads(content.read(length))
    found = {}
    for key in opened.keys():  # noqa: SIM118
        dtype, shape = np.dtype(_TYPES[header[key]["dtype"]]), tuple(header[key]["shape"])
        begin = 8 + length + header[key]["data_offsets"][0]
        found[key] = np.memmap(file, dtype, "r", begin, shape) if math.prod(shape) else np.zeros(shape, dtype)
    return found


def _claimed(opened: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """What the headers say that the files have, as arrays of zeros that take no memory."""
    found, size = {}, 0
    for name, each in opened.items():
        for key in each.keys():  # noqa: SIM118 (no mapping)
            part = each.get_slice(key)
            code, shape = part.get_dtype(), tuple(part.get_shape())
            if code not in _TYPES or key in found:
                raise Unfit(f"{name}: {key[:60]} is of type {code}, or in both files")
            dtype = np.dtype(_TYPES[code])
            size += math.prod(shape) * dtype.itemsize
            if size > _memory():
                raise Unfit(f"the arrays take {size / 1e9:.3g} GB, more than this machine's memory")
            found[key] = np.broadcast_to(np.zeros((), dtype), shape)
    return found


def _memory() -> int | float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def read_text(folder: pathlib.Path) -> dict[str, Any]:
    """`explanation.json`, of which nothing is checked yet but its format."""
    text = _read(folder, TEXT)
    found = text.get("format") if isinstance(text, dict) else None
    if found not in (*old_formats.FORMATS, FORMAT):
        raise SavedFilesError(
            f"folder={str(folder)!r} has format {str(found)[:20]}, and this version of face_jax reads formats "
            f"{', '.join(map(str, old_formats.FORMATS))} and {FORMAT}; explain again, or use the version that wrote it"
        )
    return text


def _read(folder: pathlib.Path, name: str) -> Any:
    file = placed(folder, name)
    if not file.is_file():
        raise SavedFilesError(f"folder={str(folder)!r} has no {name}; give a folder that face_jax.save wrote")
    try:
        size = file.stat().st_size
        if size > _LARGEST:
            raise ValueError(f"it has {size / 1e6:.0f} MB, and no explanation has more than {_LARGEST / 1e6:.0f}")
        return json.loads(bytes_of(file, _LARGEST), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise SavedFilesError(f"folder={str(folder)!r}: {name} is damaged ({said}); explain again") from error


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} isn't a value of JSON")


def check_text(folder: pathlib.Path, name: str, text: dict[str, Any]) -> None:
    """Whether a text says what was written; of format 4, only what follows from the arrays can be known."""
    if text["format"] != _UNSIGNED and text_digest(text) != text.get("text_digest"):
        raise SavedFilesError(
            f"folder={str(folder)!r}: {name} was changed after it was saved (the digest of what it says is another "
            "one); copy the files again, or explain again"
        )


@dataclasses.dataclass(frozen=True)
class _Seconds:
    """What `seconds.json` holds."""

    format: int = dataclasses.field(metadata=within(5, FORMAT))
    digest: str
    seconds: dict[str, float] = dataclasses.field(metadata=within(0))
    text_digest: str


def seconds_of(folder: pathlib.Path, text: dict[str, Any]) -> dict[str, float]:
    """Where an explanation's time went; nobody needs to keep the file that says it."""
    if text["format"] == _UNSIGNED:
        return decode(dict[str, float], text.get("seconds"), {})
    if not placed(folder, SECONDS).exists():
        return {}
    saved = _read(folder, SECONDS)
    found = decode(_Seconds, saved, {})
    check_text(folder, SECONDS, saved)
    # Those of another explanation say nothing of this one.
    return found.seconds if found.digest == text["digest"] else {}

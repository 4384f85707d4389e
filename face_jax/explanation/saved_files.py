"""An explanation's files as they are read: digests computed anew, and nothing believed before it's checked."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..support.atomic_folder import placed
from .saved_arrays import check_agreement, check_shapes, check_values
from .saved_text import seconds_check, text_check
from .saving import ACTIVATIONS, BANK, FORMAT, SECONDS, TEXT, arrays_digest, text_digest

# Format 4 had the seconds in the text, and no digest of it.
_OLD = 4
_LARGEST = 64 * 10**6


class SavedFilesError(ValueError):
    """Files that no explanation can be restored from."""


def read_stores(folder: pathlib.Path, text: dict[str, Any], classes: int) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of both files, once they and the text are all that they should be.

    **Arguments:**

    - `folder`: where the files are.
    - `text`: what `read_text` returned.
    - `classes`: how many the model has.

    **Returns:** each file's arrays. Raises `SavedFilesError` or `Unfit`.
    """
    try:
        import safetensors
    except ImportError as error:
        raise ImportError(
            "loading an explanation needs safetensors: pip install face-jax[torch], or face-jax[report] without torch"
        ) from error
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
    shapes = {name: dict(_shapes(each)) for name, each in opened.items()}
    crops = shapes[BANK].get("crop_image", ("", (0,)))[1]
    concepts = text.get("concepts")
    text_check(
        text,
        old=text["format"] == _OLD,
        crops=crops[0] if len(crops) == 1 else 0,
        classes=classes,
        steps=len(concepts) + 1 if isinstance(concepts, list) else 0,
    )(text, TEXT)
    lengths = check_shapes(text, classes, shapes)
    stores = {name: {key: each.get_tensor(key) for key in shapes[name]} for name, each in opened.items()}
    check_values(text, lengths, stores)
    if arrays_digest(stores) != text["digest"]:
        raise SavedFilesError(
            f"folder={str(folder)!r}: {BANK} or {ACTIVATIONS} is damaged: its arrays aren't those that were saved "
            "(their digest is another one); copy the files again, or explain again"
        )
    check_text(folder, TEXT, text)
    check_agreement(text, stores)
    return stores


def _shapes(opened: Any) -> Iterator[tuple[str, tuple[str, tuple[int, ...]]]]:
    for key in opened.keys():  # noqa: SIM118 (no mapping)
        part = opened.get_slice(key)
        yield key, (part.get_dtype(), tuple(part.get_shape()))


def read_text(folder: pathlib.Path) -> dict[str, Any]:
    """`explanation.json`, of which nothing is checked yet but its format."""
    text = _read(folder, TEXT)
    found = text.get("format") if isinstance(text, dict) else None
    if found not in (_OLD, FORMAT):
        raise SavedFilesError(
            f"folder={str(folder)!r} has format {str(found)[:20]}, and this version of face_jax reads formats {_OLD} "
            f"and {FORMAT}; explain again, or use the version that wrote it"
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
        return json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise SavedFilesError(f"folder={str(folder)!r}: {name} is damaged ({said}); explain again") from error


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no value of JSON")


def check_text(folder: pathlib.Path, name: str, text: dict[str, Any]) -> None:
    """Whether a text says what was written; of format 4, only what `check_agreement` compares can be known."""
    if text["format"] != _OLD and text_digest(text) != text.get("text_digest"):
        raise SavedFilesError(
            f"folder={str(folder)!r}: {name} was changed after it was saved (the digest of what it says is another "
            "one); copy the files again, or explain again"
        )


def seconds_of(folder: pathlib.Path, text: dict[str, Any]) -> dict[str, float]:
    """Where an explanation's time went; nobody needs to keep the file that says it."""
    if text["format"] == _OLD:
        return text["seconds"]
    if not placed(folder, SECONDS).exists():
        return {}
    seconds = _read(folder, SECONDS)
    seconds_check(seconds, SECONDS)
    check_text(folder, SECONDS, seconds)
    # Those of another explanation say nothing of this one.
    return seconds["seconds"] if seconds["digest"] == text["digest"] else {}

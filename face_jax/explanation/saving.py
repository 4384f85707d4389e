"""An explanation in files: JSON for what can be read, safetensors for what must be computed with."""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors.numpy import save as dumped_tensors

from ..support.arguments import instance
from ..support.atomic_folder import folder_of, put_together
from .codec import encode
from .record import Explanation
from .summary import plain, summary

FORMAT = 6
TEXT, BANK, ACTIVATIONS = "explanation.json", "bank.safetensors", "activations.safetensors"
# What the model made of pictures, by far the largest, is in a file of its own.
_OF_PICTURES = ("pictures.collected.", "pictures.crop_activations")
# Apart from the rest, which is the same whenever the same is explained.
SECONDS = "seconds.json"


def save(explanation: Explanation, folder: str | pathlib.Path) -> pathlib.Path:
    """Writes an explanation into a folder, which is made if need be; `face_jax.load` reads it again.

    `explanation.json` has everything that can be read: first in words, then as `record`, out of which `load` makes the
    explanation again, with the arrays from two other files. `bank.safetensors` has the concepts and their codes, and
    `activations.safetensors` what the model made of photographs and crops, by far the largest. Photographs aren't
    copied: the JSON says where they are, and has digests of them. Where the time went is in `seconds.json`; the other
    files are the same to the byte when the same is explained again.

    All files are put into the folder together, so that an interrupt at any moment leaves the old explanation or the
    new one. They carry digests of the arrays and of the text, by which files of two explanations and damaged ones are
    told.

    **Returns:** the folder. Raises `OSError` where there is no room, and `FolderInUseError` while another run writes
    to the folder.

    **Example:**

    >>> sorted(file.name for file in fj.save(explanation, folder / "saved").iterdir())
    ['activations.safetensors', 'bank.safetensors', 'explanation.json', 'seconds.json']
    """
    instance("explanation", explanation, Explanation, "the result of face_jax.explain")
    folder, model = folder_of(folder), explanation.model
    record, arrays = encode(explanation)
    stores: dict[str, dict[str, np.ndarray]] = {BANK: {}, ACTIVATIONS: {}}
    for name, array in arrays.items():
        stores[ACTIVATIONS if name.startswith(_OF_PICTURES) else BANK][name] = np.asarray(array, order="C")
    identity = arrays_digest(stores)
    metadata = {"format": str(FORMAT), "layer": model.layer, "fingerprint": model.fingerprint, "digest": identity}
    text = {"format": FORMAT, **summary(explanation), "record": record, "digest": identity}
    seconds = {"format": FORMAT, "digest": identity, "seconds": plain(explanation.provenance.seconds)}
    with put_together(folder) as new:
        for file, arrays in stores.items():
            # Not save_file, whose files nobody else may read.
            _write(new / file, *_tensors(arrays, metadata))
        for file, content in ((SECONDS, seconds), (TEXT, text)):
            signed = {**content, "text_digest": text_digest(content)}
            dumped = json.dumps(signed, indent=2, ensure_ascii=False, allow_nan=False)
            # What a file's name has that isn't UTF-8 is escaped, as JSON has it.
            _write(new / file, f"{dumped}\n".encode("utf-8", "backslashreplace"))
    return folder


def _write(file: pathlib.Path, *parts: bytes | memoryview) -> None:
    with file.open("wb") as opened:
        for part in parts:
            opened.write(part)


def _tensors(arrays: Mapping[str, np.ndarray], metadata: dict[str, str]) -> Iterator[bytes | memoryview]:
    """A safetensors file, part by part: the library would have all of it in memory, and its metadata in any order."""
    # The library's header, of arrays that take no memory; it says in which order they follow one another.
    empty = {name: np.zeros((0,), array.dtype) for name, array in arrays.items()}
    content = dumped_tensors(empty, metadata)
    library = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    header: dict[str, Any] = {"__metadata__": dict(sorted(library.pop("__metadata__").items()))}
    at = 0
    for name, said in library.items():
        after = at + arrays[name].nbytes
        header[name] = said | {"shape": list(arrays[name].shape), "data_offsets": [at, after]}
        at = after
    dumped = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    dumped += b" " * (-len(dumped) % 8)
    yield len(dumped).to_bytes(8, "little") + dumped
    for name in library:
        yield arrays[name].reshape(-1).view(np.uint8).data


def arrays_digest(stores: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """A digest of all arrays: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for arrays in stores.values():
        for name, array in sorted(arrays.items()):
            digest.update(f"{name} {array.dtype} {array.shape};".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def text_digest(content: Mapping[str, Any]) -> str:
    """A digest of what a JSON file says, however it's written; it stands in the file as `text_digest`."""
    said = {name: value for name, value in content.items() if name != "text_digest"}
    # As it comes back: keys become strings.
    said = json.loads(json.dumps(said))
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

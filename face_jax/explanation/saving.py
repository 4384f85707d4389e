"""An explanation in files: JSON for what can be read, safetensors for what must be computed with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..pictures.photographs import Photograph, UnreadablePhotographError
from ..support.atomic_folder import folder_of, put_together
from .record import Explanation
from .sub_concepts import Division, Recursion

FORMAT = 5
TEXT, BANK, ACTIVATIONS = "explanation.json", "bank.safetensors", "activations.safetensors"
# Apart from the rest, which is the same whenever the same is explained.
SECONDS = "seconds.json"


def save(explanation: Explanation, folder: str | pathlib.Path) -> pathlib.Path:
    """Writes an explanation into a folder, which is made if need be; `face_jax.load` reads it again.

    `explanation.json` has everything that can be read, `bank.safetensors` the concepts and their codes, and
    `activations.safetensors` what the model made of photographs and crops, by far the largest. Photographs aren't
    copied: the JSON says where they are, and has digests of them. Where the time went is in `seconds.json`; the other
    files are the same to the byte when the same is explained again.

    All files are put into the folder together, so that an interrupt at any moment leaves the old explanation or the
    new one. They carry digests of the arrays and of the text, by which files of two explanations and damaged ones are
    told.

    **Returns:** the folder. Raises `OSError` where there is no room, and `FolderInUseError` while another run writes
    to the folder.
    """
    try:
        from safetensors.numpy import save as dumped_tensors
    except ImportError as error:
        raise ImportError(
            "saving an explanation needs safetensors: pip install face-jax[torch], or face-jax[report] without torch"
        ) from error
    folder, model = folder_of(folder), explanation.model
    stores = {
        file: {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        for file, arrays in ((BANK, _bank(explanation)), (ACTIVATIONS, _activations(explanation)))
    }
    identity = arrays_digest(stores)
    metadata = {"format": str(FORMAT), "layer": model.layer, "fingerprint": model.fingerprint, "digest": identity}
    text = {**summary(explanation), "digest": identity}
    seconds = {"format": FORMAT, "digest": identity, "seconds": plain(explanation.seconds)}
    with put_together(folder) as new:
        for file, arrays in stores.items():
            # Not save_file, whose files nobody else may read.
            _write(new / file, *_ordered(dumped_tensors(arrays, metadata)))
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


def _ordered(content: bytes) -> tuple[bytes, memoryview]:
    """A safetensors file with its header in one order; the library's metadata come in another one each time."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    dumped = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    dumped += b" " * (-len(dumped) % 8)
    return len(dumped).to_bytes(8, "little") + dumped, memoryview(content)[8 + length :]


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


def _bank(explanation: Explanation) -> dict[str, np.ndarray]:
    arrays = {
        "dictionary": explanation.dictionary,
        "crop_codes": explanation.crop_codes,
        "crop_image": explanation.crops.image,
        "crop_box": explanation.crops.box,
        "codes": explanation.codes,
        "total_sobol": explanation.importance.total,
        "total_sobol_low": explanation.importance.low,
        "total_sobol_high": explanation.importance.high,
        "importance_index": explanation.importance_index,
        "tcav_derivative": explanation.tcav.derivative,
        "tcav_random_scores": explanation.tcav.random_scores,
        "tcav_p_value": explanation.tcav.p_value,
        "gradient_times_code": explanation.gradient_times_code.contribution,
    }
    if explanation.crops.window is not None:
        arrays["crop_window"] = explanation.crops.window
    for number, row in enumerate(explanation.scores):
        for which in ("insertion", "deletion"):
            curve = getattr(row.fidelity, which)
            arrays[f"score_{number}_{which}"] = np.stack([curve.accuracy, curve.probability])
    if explanation.recursion is not None:
        arrays["spread"] = explanation.recursion.spread
        for division in explanation.recursion.walk():
            arrays[f"{division.name}_dictionary"] = division.dictionary
            arrays[f"{division.name}_codes"] = division.codes
            arrays[f"{division.name}_crops"] = division.crops
    return arrays


def _activations(explanation: Explanation) -> dict[str, np.ndarray]:
    return {
        "maps": explanation.collected.maps,
        "logits": explanation.collected.logits,
        "crops": explanation.crop_activations,
    }


def summary(explanation: Explanation) -> dict[str, Any]:
    """What an explanation says, in plain numbers and words; NaN becomes null."""
    path = explanation.path
    tcav, gradients = explanation.tcav, explanation.gradient_times_code.per_class
    return plain(
        {
            "format": FORMAT,
            "target": {
                "index": explanation.target,
                "name": explanation.target_name,
                "chosen": explanation.target_chosen,
            },
            "photographs": {
                "kept": [photograph.name for photograph in explanation.photographs],
                "files": [_file(photograph) for photograph in explanation.photographs],
                "digests": [_content(photograph) for photograph in explanation.photographs],
                "fitted": explanation.fitted,
                "held_out": explanation.held_out,
            },
            "importance_is_exact": explanation.importance.exact,
            "concepts": [
                {
                    "number": concept.number,
                    "importance": concept.importance,
                    "interval": [concept.low, concept.high],
                    "contribution": concept.contribution,
                    "tcav": tcav.per_class[concept.number - 1],
                    "tcav_p_value": tcav.p_value[concept.number - 1],
                    "gradient_times_code": gradients[concept.number - 1],
                    "coverage": concept.coverage,
                    "strongest": _strongest(
                        explanation, concept.strongest, explanation.crop_codes[:, concept.number - 1]
                    ),
                }
                for concept in explanation.concepts
            ],
            "recursion": None if explanation.recursion is None else _tree(explanation, explanation.recursion),
            "scores": [
                {
                    "name": row.name,
                    "relative_squared_error": row.relative_error,
                    "kl": row.kl,
                    "kl_quantiles": dict(zip(("50 %", "90 %", "100 %"), row.kl_quantiles, strict=True)),
                    "l1": row.l1,
                    "agreement": row.agreement,
                    "becomes": {explanation.model.classes[number]: count for number, count in row.becomes},
                    "becomes_index": row.becomes,
                    "c_insertion": row.fidelity.c_insertion,
                    "c_deletion": row.fidelity.c_deletion,
                    "c_gini": row.gini,
                    "insertion": row.fidelity.insertion.accuracy,
                    "deletion": row.fidelity.deletion.accuracy,
                }
                for row in explanation.scores
            ],
            "rank_scan": dataclasses.asdict(explanation.rank_scan) if explanation.rank_scan else None,
            "path": {"points": path.table(), "chosen": path.chosen, "most_error": path.most_error} if path else None,
            "accuracy_of_nothing": explanation.accuracy_of_nothing,
            "fit": explanation.fit,
            "notes": explanation.notes,
            "settings": explanation.settings,
        }
    )


def _strongest(explanation: Explanation, crops: tuple[int, ...], codes: np.ndarray) -> list[dict[str, Any]]:
    """Crops in words: which photograph, where in it, and how strong; `codes` is of all the explanation's crops."""
    image, box = explanation.crops.image, explanation.crops.box
    return [
        {
            "crop": crop,
            "photograph": explanation.photographs[image[crop]].name,
            "box": box[crop],
            "code": codes[crop],
        }
        for crop in crops
    ]


def _tree(explanation: Explanation, recursion: Recursion) -> dict[str, Any]:
    def branch(division: Division) -> dict[str, Any]:
        parts = []
        for number, part in enumerate(division.parts):
            codes = np.zeros(len(explanation.crops))
            codes[division.crops] = division.codes[:, number]
            parts.append(
                {
                    "concept": part.name,
                    "share": part.share,
                    "coherence": part.coherence,
                    "strongest": _strongest(explanation, part.strongest, codes),
                    "division": None if part.division is None else branch(part.division),
                }
            )
        return {
            "concept": division.name,
            "layer": division.layer,
            "fingerprint": division.fingerprint,
            "crops": len(division.crops),
            "coherence": division.coherence,
            "floor": division.floor,
            "spread": division.spread,
            "parts": parts,
        }

    return {
        "spread": recursion.spread,
        "layer": recursion.layer,
        "threshold": recursion.threshold,
        "suggested": recursion.suggested,
        "divisions": [branch(division) for division in recursion.divisions],
        "notes": recursion.notes,
    }


def _file(photograph: Photograph) -> str | None:
    """Where a photograph lies; None for one whose pixels were given."""
    return str(photograph.source.resolve()) if isinstance(photograph.source, pathlib.Path) else None


def _content(photograph: Photograph) -> str | None:
    """A photograph's digest; None for one that can't be read any more and wasn't loaded with a digest."""
    try:
        return (photograph.expected or photograph.digest()).hex()
    except (OSError, UnreadablePhotographError):
        return None


def plain(value: Any) -> Any:
    """What JSON can hold: arrays and tuples become lists, NaN and infinities null."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

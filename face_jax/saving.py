"""An explanation in files: JSON for what can be read, safetensors for what must be computed with."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
from typing import Any

import numpy as np

from .explanation import Explanation

FORMAT = 1


def save(explanation: Explanation, folder: pathlib.Path) -> pathlib.Path:
    """Writes `explanation.json` and `bank.safetensors`; returns the folder, which is made if need be."""
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise ImportError("saving an explanation needs safetensors: pip install face-jax[cli]") from error
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "dictionary": explanation.dictionary,
        "crop_codes": explanation.crop_codes,
        "crop_image": explanation.crops.image,
        "crop_box": explanation.crops.box,
        "codes": explanation.codes,
        "total_sobol": explanation.importance.total,
    }
    metadata = {"format": str(FORMAT), "layer": explanation.model.layer, "fingerprint": explanation.model.fingerprint}
    save_file(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / "bank.safetensors", metadata
    )
    text = json.dumps(summary(explanation), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "explanation.json").write_text(text + "\n", encoding="utf-8")
    return folder


def summary(explanation: Explanation) -> dict[str, Any]:
    """What an explanation says, in plain numbers and words; NaN becomes null."""
    names = [photograph.name for photograph in explanation.photographs]
    box, image = explanation.crops.box, explanation.crops.image
    return _plain(
        {
            "format": FORMAT,
            "target": {
                "index": explanation.target,
                "name": explanation.target_name,
                "chosen": explanation.target_chosen,
            },
            "photographs": {
                "kept": names,
                "fitted": explanation.fitted,
                "held_out": explanation.held_out,
            },
            "concepts": [
                {
                    "number": concept.number,
                    "importance": concept.importance,
                    "interval": [concept.low, concept.high],
                    "contribution": concept.contribution,
                    "coverage": concept.coverage,
                    "strongest": [
                        {
                            "photograph": names[image[crop]],
                            "box": box[crop],
                            "code": explanation.crop_codes[crop, concept.number - 1],
                        }
                        for crop in concept.strongest
                    ],
                }
                for concept in explanation.concepts
            ],
            "scores": [
                {
                    "name": row.name,
                    "relative_squared_error": row.relative_error,
                    "kl": row.kl,
                    "kl_quantiles": dict(zip(("50 %", "90 %", "100 %"), row.kl_quantiles, strict=True)),
                    "l1": row.l1,
                    "agreement": row.agreement,
                    "becomes": {explanation.model.classes[number]: count for number, count in row.becomes},
                    "c_insertion": row.fidelity.c_insertion,
                    "c_deletion": row.fidelity.c_deletion,
                    "c_gini": row.gini,
                    "insertion": row.fidelity.insertion.accuracy,
                    "deletion": row.fidelity.deletion.accuracy,
                }
                for row in explanation.scores
            ],
            "rank_scan": dataclasses.asdict(explanation.rank_scan) if explanation.rank_scan else None,
            "path": explanation.path.table() if explanation.path else None,
            "accuracy_of_nothing": explanation.accuracy_of_nothing,
            "fit": explanation.fit,
            "notes": explanation.notes,
            "settings": explanation.settings,
            "seconds": explanation.seconds,
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

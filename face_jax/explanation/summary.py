"""What people read at the top of an explanation's JSON file: its numbers in words, which nothing is loaded from."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from ..importance import Reading
from ..metrics import Removal
from .photograph_files import digest_of, file_of
from .record import Explanation
from .sub_concepts import Division, Recursion


def summary(explanation: Explanation) -> dict[str, Any]:
    """What an explanation says, in plain numbers and words; NaN becomes null."""
    pictures, fit, measured = explanation.pictures, explanation.fit, explanation.importance
    path, scan = fit.path, fit.rank_scan
    tcav, gradients, by_paper = measured.tcav, measured.gradient_times_code.per_class, measured.by_paper
    return plain(
        {
            "target": {
                "index": explanation.target.index,
                "name": explanation.target_name,
                "chosen": explanation.target.chosen,
            },
            "photographs": {
                "kept": [photograph.name for photograph in explanation.photographs],
                "files": [file_of(photograph) for photograph in explanation.photographs],
                "digests": [digest_of(photograph) for photograph in explanation.photographs],
                "fitted": pictures.fitted,
                "held_out": pictures.held_out,
            },
            "importance_is_exact": measured.sobol.exact,
            "concepts": [
                {
                    "number": concept.number,
                    "importance": concept.importance,
                    "interval": [concept.low, concept.high],
                    "contribution": concept.contribution,
                    "tcav": tcav.per_class[concept.index],
                    "tcav_p_value": tcav.p_value[concept.index],
                    "gradient_times_code": gradients[concept.index],
                    **({} if by_paper is None else {"importance_by_preset": by_paper.per_class[concept.index]}),
                    "coverage": concept.coverage,
                    "speaks_for": _readings(explanation, concept.speaks_for),
                    "speaks_against": _readings(explanation, concept.speaks_against),
                    "without": _without(explanation, concept.without),
                    **({"names": [dataclasses.asdict(guess) for guess in concept.names]} if concept.names else {}),
                    "strongest": _strongest(explanation, concept.strongest, explanation.crop_codes[:, concept.index]),
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
                for row in explanation.scores.rows
            ],
            "rank_scan": dataclasses.asdict(scan) if scan else None,
            "path": {"points": path.table(), "chosen": path.chosen, "most_error": path.most_error} if path else None,
            "accuracy_of_nothing": explanation.scores.accuracy_of_nothing,
            "fit": fit.solver,
            "notes": explanation.notes,
            "settings": explanation.provenance.settings.table(),
        }
    )


def _readings(explanation: Explanation, readings: tuple[Reading, ...]) -> list[dict[str, Any]]:
    classes = explanation.model.classes
    return [{"class": classes[one.index], "index": one.index, "score": one.score} for one in readings]


def _without(explanation: Explanation, removal: Removal | None) -> dict[str, Any] | None:
    """What the removal of a concept does, in words."""
    if removal is None:
        return None
    become = {explanation.model.classes[number]: count for number, count in removal.becomes}
    return {**dataclasses.asdict(removal), "becomes": become, "becomes_index": removal.becomes}


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
        "suggested": [index + 1 for index in recursion.suggested],
        "divisions": [branch(division) for division in recursion.divisions],
        "notes": recursion.notes,
    }


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

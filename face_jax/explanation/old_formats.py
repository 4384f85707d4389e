"""Explanations in files of formats 4 and 5, which kept everything in the text for readers and under names of its own.

Format 4 had the seconds in the text, and no digest of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..support.json_values import Real, Unfit
from .agreement import CLOSE
from .codec import decode
from .record import Explanation
from .summary import summary

FORMATS = (4, 5)
_ARRAYS = {
    "dictionary": "bank.dictionary",
    "crop_codes": "bank.crop_codes",
    "codes": "bank.codes",
    "crop_image": "pictures.crops.image",
    "crop_box": "pictures.crops.box",
    "crop_window": "pictures.crops.window",
    "total_sobol": "importance.sobol.total",
    "total_sobol_low": "importance.sobol.low",
    "total_sobol_high": "importance.sobol.high",
    "importance_index": "importance.index",
    "tcav_derivative": "importance.tcav.derivative",
    "tcav_random_scores": "importance.tcav.random_scores",
    "tcav_p_value": "importance.tcav.p_value",
    "gradient_times_code": "importance.gradient_times_code.contribution",
    "maps": "pictures.collected.maps",
    "logits": "pictures.collected.logits",
    "crops": "pictures.crop_activations",
    "spread": "recursion.spread",
}
_SCORES = {
    "relative_error": "relative_squared_error", "kl": "kl", "l1": "l1", "agreement": "agreement",
    "becomes": "becomes_index", "gini": "c_gini",
}  # fmt: skip


def record_of(text: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> tuple[Any, dict[str, np.ndarray]]:
    """What `encode` would have made of the explanation in such files.

    **Arguments:**

    - `text`: the JSON file, of which nothing is checked.
    - `arrays`: of both other files, by their names there.

    **Returns:** the record's value and arrays, for `decode`, which checks them. Raises `Unfit`.
    """
    try:
        return _Old(text, dict(arrays)).record()
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, ArithmeticError) as error:
        if isinstance(error, Unfit):
            raise
        raise Unfit(f"its text isn't what format {text['format']} has") from error


class _Old:
    """The files, and the record's arrays as they are found."""

    def __init__(self, text: dict[str, Any], arrays: dict[str, np.ndarray]):
        self.text, self.left = text, arrays
        self.arrays: dict[str, np.ndarray] = {}

    def record(self) -> tuple[Any, dict[str, np.ndarray]]:
        text = self.text
        for name, path in _ARRAYS.items():
            self.move(name, path)
        pictures = self.pictures(text["photographs"])
        scan = text["rank_scan"]
        if scan is not None:
            self.listed("fit.rank_scan", scan, ranks=int)
        value = {
            "target": {"index": text["target"]["index"], "chosen": text["target"]["chosen"]},
            "pictures": pictures,
            "bank": {"concepts": [self.concept(entry) for entry in text["concepts"]]},
            "importance": {"sobol": {"exact": text["importance_is_exact"]}, "tcav": {}, "gradient_times_code": {}},
            "scores": {
                "rows": [self.score(number, row) for number, row in enumerate(text["scores"])],
                "accuracy_of_nothing": text["accuracy_of_nothing"],
            },
            "fit": {**text["fit"], "path": text["path"], "rank_scan": None if scan is None else {}},
            "provenance": {"settings": text["settings"], "notes": text["notes"]},
            "recursion": None if text["recursion"] is None else self.recursion(text["recursion"]),
        }
        if self.left:
            raise Unfit(f"the record has {min(self.left)[:40]!r}, which doesn't belong there")
        return value, self.arrays

    def move(self, name: str, path: str) -> None:
        if name in self.left:
            self.arrays[path] = self.left.pop(name)

    def listed(self, path: str, lists: dict[str, list[Any]], **kinds: type) -> None:
        """Lists in the text that are arrays now."""
        for name, values in lists.items():
            kind = kinds.get(name, float)
            known = decode(tuple[kind, ...], values, {})
            self.arrays[f"{path}.{name}"] = np.asarray(known, np.int64 if kind is int else np.float64)

    def pictures(self, saved: dict[str, Any]) -> dict[str, Any]:
        self.listed("pictures", {name: saved[name] for name in ("fitted", "held_out")}, fitted=int, held_out=int)
        photographs = [
            {"name": name, "file": file, "digest": digest}
            for name, file, digest in zip(saved["kept"], saved["files"], saved["digests"], strict=True)
        ]
        crops = {} if "pictures.crops.window" in self.arrays else {"window": None}
        return {"photographs": photographs, "collected": {}, "crops": crops}

    def concept(self, entry: dict[str, Any]) -> dict[str, Any]:
        low, high = entry["interval"]
        own = {name: entry[name] for name in ("number", "importance", "contribution", "coverage")}
        return {**own, "low": low, "high": high, "strongest": _crops(entry)}

    def score(self, number: int, row: dict[str, Any]) -> dict[str, Any]:
        fidelity: dict[str, Any] = {"c_insertion": row["c_insertion"], "c_deletion": row["c_deletion"]}
        for which in ("insertion", "deletion"):
            both, path = self.left.pop(f"score_{number}_{which}"), f"scores.rows.{number}.fidelity.{which}"
            if both.ndim != 2 or len(both) != 2:
                raise Unfit(f"score_{number}_{which} has shape {list(both.shape)}, not 2 × step")
            self.arrays[f"{path}.accuracy"], self.arrays[f"{path}.probability"] = both
            fidelity[which] = {}
        quantiles = row["kl_quantiles"]
        return {
            "name": row["name"],
            **{new: row[old] for new, old in _SCORES.items()},
            "kl_quantiles": [quantiles[share] for share in ("50 %", "90 %", "100 %")],
            "fidelity": fidelity,
        }

    def recursion(self, saved: dict[str, Any]) -> dict[str, Any]:
        own = {name: saved[name] for name in ("layer", "threshold", "notes")}
        # These had the concepts' numbers, from 1.
        own["suggested"] = [number - 1 for number in saved["suggested"]]
        divisions = [
            self.division(entry, f"recursion.divisions.{number}") for number, entry in enumerate(saved["divisions"])
        ]
        return {**own, "divisions": divisions}

    def division(self, saved: dict[str, Any], path: str) -> dict[str, Any]:
        for name in ("dictionary", "codes", "crops"):
            self.move(f"{saved['concept']}_{name}", f"{path}.{name}")
        own = {name: saved[name] for name in ("layer", "fingerprint", "coherence", "floor", "spread")}
        parts = [
            {
                "path": _numbers(part["concept"]),
                "share": part["share"],
                "strongest": _crops(part),
                "coherence": part["coherence"],
                "division": None
                if part["division"] is None
                else self.division(part["division"], f"{path}.parts.{number}.division"),
            }
            for number, part in enumerate(saved["parts"])
        ]
        return {**own, "path": _numbers(saved["concept"]), "parts": parts}


def _crops(entry: dict[str, Any]) -> list[Any]:
    return [crop["crop"] for crop in entry["strongest"]]


def _numbers(name: str) -> list[int]:
    return [int(number) for number in name.split(".")]


def check_text(text: dict[str, Any], explanation: Explanation) -> None:
    """Raises `Unfit` for a text that doesn't say what the explanation that was restored with it would."""
    known = summary(explanation)
    # Where the photographs are may be said otherwise here, and classes may have other names.
    for name in ("files", "digests"):
        known["photographs"][name] = text["photographs"][name]
    # These had nothing but exclusive classes, and no presets.
    del known["settings"]["outputs"], known["settings"]["preset"]
    del known["fit"]["of_places"]
    for concept in known["concepts"]:
        for name in ("speaks_for", "speaks_against", "without"):
            del concept[name]
    known["target"]["name"] = decode(str, text["target"].get("name"), {})
    for row, said in zip(known["scores"], text["scores"], strict=True):
        row["becomes"] = decode(dict[str, int], said.get("becomes"), {})
    own = ("format", "digest", "seconds" if text["format"] == FORMATS[0] else "text_digest")
    _check_same("the text", {name: item for name, item in text.items() if name not in own}, known)


def _check_same(where: str, said: Any, known: Any) -> None:
    number: Any = said
    if isinstance(known, dict) and isinstance(said, dict):
        if different := set(said) ^ set(known):
            raise Unfit(f"{where} has not the fields of its format: {min(different)[:40]!r} is missing or too much")
        for name, item in known.items():
            _check_same(f"{where}.{name[:40]}", said[name], item)
    elif isinstance(known, list) and isinstance(said, list) and len(known) == len(said):
        for at, pair in enumerate(zip(said, known, strict=True)):
            _check_same(f"{where}[{at}]", *pair)
    elif isinstance(known, float):
        Real()(said, where)
        if not math.isclose(number, known, rel_tol=CLOSE["rtol"], abs_tol=CLOSE["atol"]):
            raise Unfit(f"{where} isn't what the arrays say")
    elif type(known) is not type(said) or known != said:
        raise Unfit(f"{where} isn't what the arrays say")

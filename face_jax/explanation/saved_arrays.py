"""What the arrays of an explanation's files may be, and whether they and its text say the same."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..metrics.curves import gini
from .saved_text import Unfit
from .saving import ACTIVATIONS, BANK

# Sums in another order, or another version of NumPy, move the last digits.
_CLOSE = {"rtol": 1e-4, "atol": 1e-6}
_MANY = 10_000_000


@dataclasses.dataclass(frozen=True)
class Stored:
    """One array: its axes (names, or lengths), and the bounds of its values; whole numbers where `whole`.

    Bounds may be names of axes, which then count from 0.
    """

    axes: tuple[str | int, ...]
    low: int | float = -math.inf
    high: int | float | str = math.inf
    whole: bool = False
    unknown: bool = False

    @staticmethod
    def of(axes: str, *bounds: Any, **more: Any) -> Stored:
        """With its axes in one text, as annotations have them."""
        return Stored(tuple(int(axis) if axis.isdigit() else axis for axis in axes.split()), *bounds, **more)


def stored(saved: Mapping[str, Any]) -> dict[str, dict[str, Stored]]:
    """Every array that the files have, by their checked text; those that needn't be there have `_optional` names."""
    bank = {
        "dictionary": Stored.of("concept channel", 0, 1 + 1e-3),
        "crop_codes": Stored.of("crop concept", 0),
        "crop_image": Stored.of("crop", 0, "image", whole=True),
        "crop_box": Stored.of("crop 4", 0, _MANY, whole=True),
        "crop_window": Stored.of("crop 4", 0, _MANY, whole=True),
        "codes": Stored.of("image y x concept", 0),
        "total_sobol": Stored.of("looked_at concept", -1e3, 1e3),
        "total_sobol_low": Stored.of("looked_at concept", -1e4, 1e4),
        "total_sobol_high": Stored.of("looked_at concept", -1e4, 1e4),
        "importance_index": Stored.of("looked_at", 0, "picture", whole=True),
        "tcav_derivative": Stored.of("looked_at concept"),
        "tcav_random_scores": Stored.of("direction", 0, 1 + 1e-6),
        "tcav_p_value": Stored.of("concept", 0, 1, unknown=True),
        "gradient_times_code": Stored.of("looked_at concept"),
    }
    for number in range(len(saved["scores"])):
        for which in ("insertion", "deletion"):
            bank[f"score_{number}_{which}"] = Stored.of("2 step", 0, 1 + 1e-6)
    if saved["recursion"] is not None:
        bank["spread"] = Stored.of("concept", unknown=True)
        for branch in _branches(saved["recursion"]["divisions"]):
            name, parts, crops = branch["concept"], len(branch["parts"]), branch["crops"]
            bank[f"{name}_dictionary"] = Stored((parts, f"channel of {branch['layer']}"), 0, 1 + 1e-3)
            bank[f"{name}_codes"] = Stored((crops, parts), 0)
            bank[f"{name}_crops"] = Stored((crops,), 0, "crop", whole=True)
    activations = {
        "maps": Stored.of("image y x channel", 0),
        "logits": Stored.of("image class"),
        "crops": Stored.of("crop channel", 0),
    }
    return {BANK: bank, ACTIVATIONS: activations}


def _branches(divisions: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for division in divisions:
        yield division
        yield from _branches([part["division"] for part in division["parts"] if part["division"] is not None])


def check_shapes(
    saved: Mapping[str, Any], classes: int, found: Mapping[str, Mapping[str, tuple[str, tuple[int, ...]]]]
) -> dict[str | int, int]:
    """Whether the files have the arrays that the text tells of, in shapes that fit each other, and not more.

    **Arguments:**

    - `saved`: the text.
    - `classes`: how many the model has.
    - `found`: of each file, the arrays' types and shapes, which its header tells.

    **Returns:** the length of each axis.
    """
    concepts, images = len(saved["concepts"]), len(saved["photographs"]["kept"])
    lengths: dict[str | int, int] = {"concept": concepts, "step": concepts + 1, "image": images, "class": classes}
    size = 0
    for file, arrays in stored(saved).items():
        missing = set(arrays) - set(found[file]) - {"crop_window"}
        more = set(found[file]) - set(arrays)
        if missing or more:
            problem = f"has no {min(missing)}" if missing else f"has {min(more)[:40]!r}, which doesn't belong there"
            raise Unfit(f"{file} {problem}")
        for name, (dtype, shape) in found[file].items():
            wanted = arrays[name]
            if dtype not in (("I32", "I64") if wanted.whole else ("F32", "F64")):
                raise Unfit(f"{file}: {name} is of type {dtype}, not of {'whole' if wanted.whole else 'real'} numbers")
            fits = len(shape) == len(wanted.axes) and 0 not in shape
            for axis, length in zip(wanted.axes, shape, strict=False):
                fits &= length == (axis if isinstance(axis, int) else lengths.setdefault(axis, length))
            if not fits:
                axes = " × ".join(f"{lengths.get(axis, axis)}" for axis in wanted.axes)
                raise Unfit(f"{file}: {name} has shape {list(shape)}, not {axes}")
            size += math.prod(shape) * int(dtype[1:]) // 8
    if size > _memory():
        raise Unfit(f"the arrays take {size / 1e9:.3g} GB, more than this machine's memory")
    lengths["picture"] = lengths["crop"] if images == 1 else images
    return lengths


def _memory() -> int | float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return math.inf


def check_values(
    saved: Mapping[str, Any], lengths: Mapping[str | int, int], stores: Mapping[str, Mapping[str, np.ndarray]]
) -> None:
    """Whether all arrays are finite and within their bounds."""
    for file, arrays in stored(saved).items():
        for name, array in stores[file].items():
            wanted = arrays[name]
            values = array[~np.isnan(array)] if wanted.unknown else array
            high = lengths[wanted.high] - 1 if isinstance(wanted.high, str) else wanted.high
            least, most = (values.min(), values.max()) if values.size else (wanted.low, high)
            if not (wanted.low <= least and most <= high and math.isfinite(least) and math.isfinite(most)):
                if not values.size:
                    continue
                raise Unfit(f"{file}: {name} has values from {least:.6g} to {most:.6g}, which isn't possible")
    box = stores[BANK]["crop_box"]
    if not (box[:, :2] < box[:, 2:]).all():
        raise Unfit(f"{BANK}: crop_box has boxes that end before they begin")


def check_agreement(saved: Mapping[str, Any], stores: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Whether the text says of the arrays what can be computed from them."""
    bank, target = stores[BANK], saved["target"]["index"]
    concepts, photographs = saved["concepts"], saved["photographs"]
    if saved["settings"]["target"] != target or (stores[ACTIVATIONS]["logits"].argmax(-1) != target).any():
        raise Unfit(f"target.index is {target}, which isn't the class of the settings and of all photographs")
    _check_split(photographs)
    if [entry["number"] for entry in concepts] != list(range(1, len(concepts) + 1)):
        raise Unfit("concepts aren't numbered from 1 on")
    derivative = bank["tcav_derivative"]
    for name, values in (
        ("importance", bank["total_sobol"].mean(0)),
        ("interval[0]", bank["total_sobol_low"].mean(0)),
        ("interval[1]", bank["total_sobol_high"].mean(0)),
        ("tcav", (derivative > 0).mean(0)),
        ("tcav_p_value", bank["tcav_p_value"]),
        ("gradient_times_code", np.abs(bank["gradient_times_code"]).mean(0)),
    ):
        field, _, at = name.partition("[")
        said = [entry[field] if not at else entry[field][int(at[0])] for entry in concepts]
        _check_same(f"concepts: {name}", said, values)
    for entry in concepts:
        _check_crops(f"concepts[{entry['number'] - 1}]", entry, bank["crop_codes"][:, entry["number"] - 1], saved, bank)
    if saved["recursion"] is not None:
        _check_same("recursion.spread", saved["recursion"]["spread"], bank["spread"])
        for branch in _branches(saved["recursion"]["divisions"]):
            for number, part in enumerate(branch["parts"]):
                codes = np.zeros(len(bank["crop_image"]))
                codes[bank[f"{branch['concept']}_crops"]] = bank[f"{branch['concept']}_codes"][:, number]
                _check_crops(f"part {part['concept']}", part, codes, saved, bank)
    for number, row in enumerate(saved["scores"]):
        insertion, deletion = (bank[f"score_{number}_{which}"][0] for which in ("insertion", "deletion"))
        _check_same(f"scores[{number}].insertion", row["insertion"], insertion)
        _check_same(f"scores[{number}].deletion", row["deletion"], deletion)
        areas = np.trapezoid(insertion) / (len(insertion) - 1), (deletion[0] - deletion[1:]).sum() / len(deletion)
        _check_same(f"scores[{number}]: its areas", [row["c_insertion"], row["c_deletion"]], areas)
    if saved["scores"]:
        _check_same("scores[0].c_gini", saved["scores"][0]["c_gini"], gini(bank["total_sobol"].mean(0)))


def _check_split(photographs: Mapping[str, Any]) -> None:
    """A single photograph is fitted and held out; of several, each is one or the other."""
    fitted, held_out, count = photographs["fitted"], photographs["held_out"], len(photographs["kept"])
    if fitted != sorted(set(fitted)) or held_out != sorted(set(held_out)) or not (fitted and held_out):
        raise Unfit("photographs: fitted and held_out aren't numbers in order, each once")
    if len(set(fitted) | set(held_out)) != count or (count > 1 and set(fitted) & set(held_out)):
        raise Unfit("photographs: not each of them is either fitted or held_out")


def _check_same(where: str, said: Any, known: Any) -> None:
    values = np.asarray(said, np.float64)
    # An interval's end may be known where null was written for it, never the other way round.
    if not np.allclose(values, np.asarray(known, np.float64), equal_nan=True, **_CLOSE):
        raise Unfit(f"{where} isn't what the arrays say")


def _check_crops(
    where: str, entry: Mapping[str, Any], codes: np.ndarray, saved: Mapping[str, Any], bank: Mapping[str, np.ndarray]
) -> None:
    """Whether named crops are where the text says that they are, the strongest first."""
    names = saved["photographs"]["kept"]
    previous = math.inf
    for crop in entry["strongest"]:
        at = crop["crop"]
        placed = crop["box"] == bank["crop_box"][at].tolist() and crop["photograph"] == names[bank["crop_image"][at]]
        if not placed or not math.isclose(crop["code"], codes[at], rel_tol=1e-4, abs_tol=1e-6):
            raise Unfit(f"{where}.strongest: crop {at} isn't what the arrays say")
        if crop["code"] > previous:
            raise Unfit(f"{where}.strongest: crop {at} is stronger than the one before it")
        previous = crop["code"]

"""Whether the numbers of an explanation that follow from each other do: what no single field can say."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..metrics import Score
from ..metrics.curves import gini
from ..support.json_values import Unfit
from .record import Explanation
from .sub_concepts import Division

# Sums in another order, or another version of NumPy, move the last digits.
CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def check_agreement(explanation: Explanation) -> None:
    """Raises `Unfit` for an explanation, whose fields fit by themselves, that says one thing here and another there."""
    target, pictures, bank = explanation.target.index, explanation.pictures, explanation.bank
    has = explanation.model.outputs.has(pictures.collected.logits, target)
    if explanation.provenance.settings.target != target or not has.all():
        raise Unfit(f"target.index is {target}, which isn't the class of the settings and of all photographs")
    _check_split(pictures.fitted.tolist(), pictures.held_out.tolist(), len(pictures.photographs))
    box = pictures.crops.box
    if not (box[:, :2] < box[:, 2:]).all():
        raise Unfit("pictures.crops.box has boxes that end before they begin")
    looked_at = len(pictures.crops if explanation.single else pictures.photographs)
    if explanation.importance.index.max() >= looked_at:
        raise Unfit(f"importance.index counts further than to the {looked_at} pictures")
    if [concept.number for concept in bank.concepts] != list(range(1, len(bank.concepts) + 1)):
        raise Unfit("concepts aren't numbered from 1 on")
    sobol = explanation.importance.sobol
    for name, values in (("importance", sobol.total), ("low", sobol.low), ("high", sobol.high)):
        _check_same(f"concepts: {name}", [getattr(concept, name) for concept in bank.concepts], values.mean(0))
    for at, concept in enumerate(bank.concepts):
        _check_strongest(f"bank.concepts[{at}]", concept.strongest, bank.crop_codes[:, at])
    for number, row in enumerate(explanation.scores.rows):
        _check_areas(f"scores.rows[{number}]", row, len(bank.concepts))
    deciding = np.asarray(explanation.importance.deciding, np.float64)
    if explanation.importance.by_paper is not None and (np.diff(deciding) > 0).any():
        raise Unfit("importance.by_paper: concepts aren't in its order")
    _check_same("scores.rows[0].gini", explanation.scores.own.gini, gini(explanation.importance.deciding))
    if explanation.recursion is not None:
        for division in explanation.recursion.divisions:
            if len(division.path) != 1 or division.path[0] > len(bank.concepts):
                raise Unfit(f"recursion: {division.name[:40]} is called the division of a concept")
            _check_division(division, len(pictures.crops))


def _check_split(fitted: list[int], held_out: list[int], count: int) -> None:
    """A single photograph is fitted and held out; of several, each is one or the other."""
    if fitted != sorted(set(fitted)) or held_out != sorted(set(held_out)):
        raise Unfit("photographs: fitted and held_out aren't numbers in order, each once")
    if len(set(fitted) | set(held_out)) != count or (count > 1 and set(fitted) & set(held_out)):
        raise Unfit("photographs: not each of them is either fitted or held_out")


def _check_same(where: str, said: Any, known: Any) -> None:
    if not np.allclose(np.asarray(said, np.float64), np.asarray(known, np.float64), equal_nan=True, **CLOSE):
        raise Unfit(f"{where} isn't what the arrays say")


def _check_strongest(where: str, strongest: tuple[int, ...], codes: np.ndarray) -> None:
    """Whether named crops have the concept, the strongest first."""
    named = codes[list(strongest)]
    if (named <= 0).any() or (np.diff(named) > 0).any():
        raise Unfit(f"{where}.strongest: crops aren't those that the arrays say, the strongest first")


def _check_areas(where: str, row: Score, concepts: int) -> None:
    fidelity = row.fidelity
    insertion, deletion = fidelity.insertion.accuracy, fidelity.deletion.accuracy
    for name, curve in (("insertion", insertion), ("deletion", deletion)):
        if len(curve) != concepts + 1:
            raise Unfit(f"{where}.fidelity.{name} has shape {[len(curve)]}, not {concepts + 1}")
    areas = np.trapezoid(insertion) / (len(insertion) - 1), (deletion[0] - deletion[1:]).sum() / len(deletion)
    _check_same(f"{where}: its areas", [fidelity.c_insertion, fidelity.c_deletion], areas)


def _check_division(division: Division, crops: int) -> None:
    for number, part in enumerate(division.parts):
        if part.path != (*division.path, number + 1):
            raise Unfit(f"recursion: {part.name[:40]} is called a part of {division.name[:40]}")
        codes = np.zeros(crops)
        codes[division.crops] = division.codes[:, number]
        _check_strongest(f"part {part.name}", part.strongest, codes)
        if part.division is not None:
            if part.division.path != part.path:
                raise Unfit(f"recursion: {part.division.name[:40]} is called the division of {part.name[:40]}")
            _check_division(part.division, crops)

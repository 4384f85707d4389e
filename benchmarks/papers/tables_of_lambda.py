"""FACE's tables 4 (λ), 5 (starts) and 6 (losses); whether the KL term helps; and which inference is right."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from face_jax import methods
from face_jax.faithfulness import Faithfulness, ForwardKL, InMeans, ReverseKL, SquaredLogits
from face_jax.faithfulness.losses import loss_for
from face_jax.metrics.paired import half_width
from face_jax.nmf import NNDSVD, Random, SquaredError

from .materials import Material
from .own_methods import AtShare, Once, balance
from .runs import CONTROLS, Asked, Runs, compared, face, family, rows
from .tables_of_scores import (
    AGREEMENT,
    DELETION,
    ERROR,
    GINI,
    INSERTION,
    KL,
    MSE,
    NOTHING,
    ONE_RULE,
    OVER_FOLDS,
    OVER_STARTS,
    SCORES,
)
from .written import Column, Curve, Made, Panel

SHARES = (0.0, 0.1, 0.3, 1.0, 3.0)
PUBLISHED = (1e-25, 1e-5, 1e-1, 1e1, 1e3, 1e5)
_STRONGEST = 5
_BALANCE = (
    "λ is given as a share of its balance, at which squared error and divergence are equally large without the term: "
    "λ itself means other things in other networks."
)


def _without_zero(material: Material) -> dict[str, Any]:
    """λ = 0 is the first of the methods, and needn't be a control besides."""
    del material
    return {"controls": methods.CONTROLS}


def weights(asked: Asked, materials: Sequence[Material]) -> Made:
    shares, published = (SHARES, PUBLISHED) if not asked.quick else ((0.0, 0.1, 1.0), (1e-5, 1e1))
    chosen: list[Any] = [AtShare(share) for share in shares]
    if not any(material.signed for material in materials) and materials[0].model.head.affine:
        chosen += [
            methods.FACE(each, unit=InMeans(), of_crops=True, name=f"crops' predictions, λ = {each:g} in means")
            for each in published
        ]
    runs = compared(asked, materials, chosen, _without_zero)
    columns = (KL, Column("l1", "L1 ↓"), Column("sqrt_2kl", "√(2 KL) ≥ L1"), *SCORES[:1], *SCORES[2:])
    note = (
        "The first rows keep whole pictures' predictions, as face_jax does; the others those of crops, as published, "
        "but to convergence. " + _BALANCE
    )
    found = rows(runs)
    return Made(found, columns, _along(found, shares), (ONE_RULE, note))


def _along(found: list[dict[str, Any]], shares: Sequence[float]) -> tuple[Panel, ...]:
    """Scores along λ, and what controls have as level lines."""
    panels = []
    for column in (KL, ERROR, AGREEMENT, INSERTION, DELETION, GINI):
        path = [row for row in found if not row["control"]][: len(shares)]
        lines = [_line("FACE", shares, path, column.number)]
        lines += [
            dataclasses.replace(_line(row["method"], shares, [row] * len(shares), column.number), control=True)
            for row in found
            if row["control"]
        ]
        panels.append(Panel("λ, share of its balance", column.title, lines, logarithmic=True))
    return tuple(panels)


def _line(name: str, x: Sequence[float], some: Sequence[dict[str, Any]], number: str) -> Curve:
    return Curve(name, list(x), [row[number] for row in some], [row.get(f"{number}_std") or 0.0 for row in some])


def searched(asked: Asked, materials: Sequence[Material]) -> Made:
    """FACE with λ chosen for each fit, beside λ at its balance."""
    chosen = [methods.FACE(name="FACE, λ searched"), AtShare(1.0, label="FACE, λ at its balance"), methods.NMF()]
    runs = compared(dataclasses.replace(asked, starts=1), materials, chosen)
    found, plain = rows(runs), "FACE with λ = 0"
    for row in found:
        row["kl_difference"] = _difference(runs, row["method"], plain, "kl")
        row["error_difference"] = _difference(runs, row["method"], plain, "relative_error")
        ratios = [
            np.mean([one["kl"] for one in run[row["method"]].folds]) / np.mean([one["kl"] for one in run["NMF"].folds])
            for run in runs.values()
        ]
        row["kl_of_nmf"] = f"{np.mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    columns = (
        *SCORES[:-1], Column("kl_difference", "KL less λ = 0"), Column("error_difference", "error less λ = 0"),
        Column("kl_of_nmf", "KL of NMF's, classes"), NOTHING,
    )  # fmt: skip
    note = "λ is searched among the pictures fitted, by pictures of theirs held out (`faithfulness_path`)."
    return Made(found, columns, notes=(ONE_RULE, note))


def starts(asked: Asked, materials: Sequence[Material]) -> Made:
    places = {"NNDSVD": NNDSVD(), "random": Random()}
    chosen: list[Any] = [face(asked, start, f"FACE from {name}") for name, start in places.items()]
    chosen += [methods.NMF(start=start, name=f"NMF from {name}") for name, start in places.items()]
    found = rows(compared(asked, materials, chosen))
    note = "Stability over folds is the paper's W-Stab; over starts, all begin at random."
    return Made(found, (MSE, KL, OVER_FOLDS, OVER_STARTS, INSERTION, DELETION, GINI, NOTHING), notes=(ONE_RULE, note))


def losses(asked: Asked, materials: Sequence[Material]) -> Made:
    every = {"forward KL": ForwardKL(), "reverse KL": ReverseKL(), "squared logits": SquaredLogits()}
    chosen = [AtShare(asked.share or 1.0, label=name, loss=loss) for name, loss in every.items()]
    found = rows(compared(asked, materials, chosen))
    note = f"λ is {asked.share or 1.0:g} of each loss's own balance."
    return Made(found, (INSERTION, DELETION, GINI, MSE, KL, AGREEMENT, NOTHING), notes=(ONE_RULE, note))


def inference(asked: Asked, materials: Sequence[Material]) -> Made:
    chosen = family(materials, asked)
    if asked.quick:
        chosen = [each for each in chosen if each.name in ("FACE", "NMF", "PCA", "k-means")] + list(asked.methods)
    asked = dataclasses.replace(asked, starts=1)
    chosen, controls = ([Once(each) for each in some] for some in (chosen, CONTROLS))
    found = []
    for name, rule in _rules(asked).items():
        given = lambda material, rule=rule: {"controls": controls, **rule(material)}  # noqa: E731
        for row in rows(compared(asked, materials, chosen, given)):
            row["method"] += f", {name}"
            found.append(row)
    note = (
        "λ of the objective is a share of its balance in one class's pictures with plain NMF, the same for all rows. "
        "Methods whose codes have signs are encoded by least squares in the first part, and by codes of at least 0 in "
        "the others."
    )
    return Made(found, SCORES, notes=(note,))


def _rules(asked: Asked) -> dict[str, Callable[[Material], dict[str, Any]]]:
    def by(share: float) -> Callable[[Material], dict[str, Any]]:
        def settings(material: Material) -> dict[str, Any]:
            maps = material.pictures.maps
            rows = maps.mean(axis=(1, 2)) if material.model.head.affine else maps.reshape(-1, maps.shape[-1])
            bank = methods.NMF().fit(rows, min(asked.rank, len(rows) // 2), jax.random.key(0))
            head = material.pictures.head(material.model.head)
            loss = loss_for(material.model.outputs)
            weight = share * balance(head, rows, maps, bank.dictionary, loss)
            objective = SquaredError() + weight * Faithfulness(material.model.head, loss=loss)
            return {"inference": methods.ByObjective(objective)}

        return settings

    return {"least squares": lambda material: {}, "objective, 0.1 of balance": by(0.1), "objective, balance": by(1.0)}


def kl_term(asked: Asked, materials: Sequence[Material], seen: Callable[[Material], np.ndarray]) -> Made:
    """Everything along λ, in differences to λ = 0.

    **Arguments:**

    - `asked`, `materials`: as for all tables.
    - `seen`: what another network makes of a class's crops, one row each.
    """
    shares = SHARES if not asked.quick else (0.0, 0.1, 1.0)
    runs = compared(asked, materials, [AtShare(share) for share in shares], _without_zero)
    found = rows(runs)
    pairs = _coherences(runs, {material.label: (material, seen(material)) for material in materials})
    zero = AtShare(0.0).name
    for row in found:
        of = pairs[row["method"]]
        row["coherence"], row["coherence_std"] = float(of[:, 0].mean()), float(of[:, 0].std(ddof=1))
        row["coherence_floor"] = float(of[:, 1].mean())
        for column in (KL, ERROR, AGREEMENT, INSERTION, DELETION):
            row[f"{column.number}_difference"] = _difference(runs, row["method"], zero, column.number)
        row["coherence_difference"] = interval(of[:, 0] - pairs[zero][:, 0])
    columns = (
        KL, ERROR, AGREEMENT, INSERTION, DELETION, OVER_FOLDS, OVER_STARTS,
        Column("coherence", "coherence (floor) ↑", 3, "coherence_floor"), Column("kl_difference", "KL, difference"),
        Column("error_difference", "error"), Column("agreement_difference", "agreement"),
        Column("c_insertion_difference", "C-Ins"), Column("c_deletion_difference", "C-Del"),
        Column("coherence_difference", "coherence"), NOTHING,
    )  # fmt: skip
    for row in found:
        row["error_difference"] = row.pop("relative_error_difference")
    note = (
        "Differences to λ = 0 with 95 % intervals (Student's t over classes, seeds and folds, which share fitted "
        "pictures: intervals are a little too narrow). Coherence: of each concept's strongest "
        f"{_STRONGEST} crops of pictures held out, one a picture, the mean cosine of another network's averaged "
        "activations about the class's mean; the floor is that of crops drawn at random. " + _BALANCE
    )
    return Made(found, columns, _along(found, shares), (ONE_RULE, note))


def _difference(runs: Runs, name: str, zero: str, number: str) -> str:
    apart = [
        one[number] - other[number]
        for run in runs.values()
        for one, other in zip(run[name].folds, run[zero].folds, strict=True)
    ]
    return interval(np.asarray(apart))


def interval(apart: np.ndarray) -> str:
    """A mean and the half width of its 95 % interval."""
    if not np.any(apart):
        return "0"
    return f"{apart.mean():+.3f} ± {half_width(apart):.3f}"


def _coherences(runs: Runs, known: dict[str, tuple[Material, np.ndarray]]) -> dict[str, np.ndarray]:
    """Coherence and floor of each method, one row a class, seed and fold."""
    found: dict[str, list[tuple[float, float]]] = {}
    for (_, label), run in runs.items():
        material, seen = known[label]
        for result in run.results:
            for dictionary, part in zip(result.dictionaries, run.parts, strict=True):
                found.setdefault(result.name, []).append(coherence(material, seen, dictionary, part))
    return {name: np.asarray(each) for name, each in found.items()}


def coherence(
    material: Material, seen: np.ndarray, dictionary: np.ndarray, part: np.ndarray, strongest: int = _STRONGEST
) -> tuple[float, float]:
    """How alike the strongest crops of each concept are to another network, and how alike any crops are.

    **Arguments:**

    - `material`: the class.
    - `seen`: what the other network makes of the crops, one row each.
    - `dictionary`: the concepts.
    - `part`: the pictures whose crops are looked at.
    - `strongest`: crops of each concept.

    **Returns:** mean cosines about the mean of all crops: over concepts with at least two crops, and over all pairs of
    crops of different pictures.
    """
    some = np.flatnonzero(np.isin(material.crop_of, part))
    rows = material.crops.maps[some].mean(axis=(1, 2))
    about = seen[some] - seen.mean(axis=0)
    return coherence_of(methods.Bank(dictionary).encode(rows), material.crop_of[some], about, strongest)


def coherence_of(
    codes: np.ndarray, crop_of: np.ndarray, about: np.ndarray, strongest: int = _STRONGEST
) -> tuple[float, float]:
    """The same of crops with codes, the photographs that they are of, and what another network makes of them."""
    about = about / np.maximum(np.linalg.norm(about, axis=1, keepdims=True), 1e-12)
    cosines, found = about @ about.T, []
    for column in codes.T:
        taken: list[int] = []
        for crop in np.argsort(-column, kind="stable"):
            if column[crop] > 0 and crop_of[crop] not in crop_of[taken] and len(taken) < strongest:
                taken.append(int(crop))
        if len(taken) > 1:
            found.append(cosines[np.ix_(taken, taken)][np.triu_indices(len(taken), 1)].mean())
    apart = crop_of[:, None] != crop_of[None]
    return float(np.mean(found)) if found else np.nan, float(cosines[apart].mean())

"""Comparisons of many classes and seeds, and what tables say of them."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import face_jax as fj
from face_jax import methods
from face_jax.evaluation import Comparison
from face_jax.evaluation.kept_results import Kept
from face_jax.nmf import NNDSVD

from .materials import Material
from .own_methods import AtShare

# What tables show besides: beaten by anything that learned something.
CONTROLS = (*methods.CONTROLS, methods.FACE(0.0, name="FACE with λ = 0"))
NON_NEGATIVE = (methods.CRAFT, methods.ICE)
Runs = dict[tuple[int, str], Comparison]


@dataclasses.dataclass(frozen=True)
class Asked:
    """How much is computed.

    **Arguments:**

    - `folder`: where everything is kept, so that a run that was stopped goes on.
    - `rank`, `folds`, `starts`, `seeds`: of every comparison; a seed draws folds, starts and controls.
    - `quick`: whether tables take their short forms.
    - `share`: λ of FACE as a share of its balance, instead of a search that takes several times as long; None for that.
    - `methods`: further methods for the tables of methods.
    - `progress`: as for `compare_methods`.
    """

    folder: pathlib.Path
    rank: int = 25
    folds: int = 5
    starts: int = 2
    seeds: tuple[int, ...] = (0, 1)
    quick: bool = False
    share: float | None = None
    methods: tuple[Any, ...] = ()
    progress: Any = None


def face(asked: Asked, start: Any = None, name: str = "FACE") -> Any:
    """FACE as face_jax has it by default, or at a share of the balance."""
    start = NNDSVD() if start is None else start
    if asked.share is None:
        return methods.FACE(start=start, name=name)
    return AtShare(asked.share, methods.FACE(0.0, start=start), name)


def family(materials: Sequence[Material], asked: Asked) -> list[Any]:
    """All methods that can represent the activations, and those of one's own."""
    found: list[Any] = [
        face(asked), methods.FACE.published(), methods.NMF(), methods.CRAFT(), methods.ICE(), methods.ACE(),
        methods.PCA(), methods.ICA(), methods.KMeans(), methods.RobustPCA(), methods.SparseAutoencoder(),
    ]  # fmt: skip
    if any(material.signed for material in materials):
        found = [each for each in found if not isinstance(each, NON_NEGATIVE) and each.name != found[1].name]
        found.insert(1, methods.SparseCoding(name="sparse coding, explain's default"))
    return [*found, *asked.methods]


def compared(
    asked: Asked,
    materials: Sequence[Material],
    chosen: Sequence[Any] | Callable[[Material], Sequence[Any]],
    settings: Callable[[Material], dict[str, Any]] = lambda material: {},
) -> Runs:
    """Methods and controls on the folds of each class, for each seed.

    **Arguments:**

    - `asked`: how many.
    - `materials`: the classes.
    - `chosen`: methods, or those for a class.
    - `settings`: further arguments of `compare_methods` for a class.

    **Returns:** a comparison for each seed and class.
    """
    found = {}
    for seed in asked.seeds:
        for material in materials:
            given = {
                "rank": asked.rank, "folds": asked.folds, "starts": asked.starts, "controls": CONTROLS,
                "crops": material.crops, "crop_of": material.crop_of, **settings(material),
            }  # fmt: skip
            found[seed, material.label] = fj.compare_methods(
                material.model, material.pictures, chosen(material) if callable(chosen) else chosen,
                target=material.target, folder=asked.folder / "runs", key=seed, progress=asked.progress, **given,
            )  # fmt: skip
    return found


def by_papers_rules(
    asked: Asked, materials: Sequence[Material], paper: methods.Published, chosen: Sequence[Any]
) -> list[dict[str, Any]]:
    """A paper's crops, inference, importance and averaging, for its own method and for others.

    Other than the papers it scores on pictures that weren't fitted.
    """
    kept, found = Kept(asked.folder / "runs"), {}
    for seed in asked.seeds:
        for material in materials:
            count, rule = len(material.pictures), paper.crops_of(material.model.preprocess)
            whole = (material.pictures, np.arange(count))
            crops, crop_of = whole if rule is None else material.cropped(rule)
            parts = np.array_split(np.random.default_rng(seed).permutation(count), asked.folds)
            for method, fold in itertools.product(chosen, range(asked.folds)):
                key = jax.random.fold_in(jax.random.key(seed), fold)
                computed = functools.partial(
                    _by_paper, material, paper, method, crops, crop_of, np.sort(parts[fold]), asked.rank, key
                )
                depends = [
                    kept.digest([_by_paper, paper], "paper"), kept.digest(method, f"method {method.name!r}"),
                    kept.digest([material.pictures, crops.maps, crop_of], "material"), str(asked.rank),
                    material.model.fingerprint, str(material.target), f"{seed} {fold} {asked.folds}",
                ]  # fmt: skip
                numbers = kept(f"{paper.name} {method.name} fold {fold}", depends, computed)["numbers"]
                found.setdefault(method.name, {}).setdefault((seed, fold), []).append(numbers)
    return [row_of(name, name != paper.method.name, runs) for name, runs in found.items()]


def _by_paper(
    material: Material, paper: methods.Published, method: Any, crops: Any, crop_of: Any, part: Any, rank: int, key: Any
) -> dict[str, Any]:
    """One fit, and its scores on a part."""
    training = np.setdiff1d(np.arange(len(material.pictures)), part)
    some, fitted = np.isin(crop_of, training), material.pictures[training]
    if hasattr(method, "prepared"):
        method = method.prepared(material.model, fitted, np.searchsorted(training, crop_of[some]))
    bank = method.fit(crops.maps[some], rank, key)
    given = {"target": material.target, "fitted": fitted, "key": key, **paper.scoring()}
    return {"numbers": fj.score_bank(material.model, material.pictures[part], bank, **given).table()}


def row_of(name: str, control: bool, runs: dict[Any, list[dict[str, float]]]) -> dict[str, Any]:
    """Means over classes in each run, and their mean and standard deviation over the runs."""
    row: dict[str, Any] = {"method": name, "control": bool(control), "runs": len(runs)}
    for number in next(iter(runs.values()))[0]:
        means = [float(np.mean([one[number] for one in of_classes])) for of_classes in runs.values()]
        row[number] = float(np.mean(means))
        row[f"{number}_std"] = float(np.std(means, ddof=1)) if len(means) > 1 else 0.0
        row[f"{number}_runs"] = means
    return row


def rows(runs: Runs) -> list[dict[str, Any]]:
    """One row a method: a run is a fold of a seed, its numbers are means over the classes."""
    found, (first, *_) = [], runs.values()
    seeds, labels = sorted({seed for seed, _ in runs}), list(dict.fromkeys(label for _, label in runs))
    for result in first.results:
        name = result.name
        of = {
            (seed, fold): [runs[seed, label][name].folds[fold] for label in labels]
            for seed in seeds
            for fold in range(len(result.folds))
        }
        row = row_of(name, result.control, of)
        every = [each[name] for each in runs.values()]
        row["stability_over_folds"] = float(np.mean([each.over_folds.mean for each in every]))
        row["stability_over_folds_floor"] = float(np.mean([each.over_folds.floor for each in every]))
        started = [each.over_starts for each in every if each.over_starts is not None]
        if started:
            row["stability_over_starts"] = float(np.mean([each.mean for each in started]))
            row["stability_over_starts_floor"] = float(np.mean([each.floor for each in started]))
        row["seconds"] = float(np.median([second for each in every for second in each.seconds]))
        row["sqrt_2kl"] = float(np.mean(np.sqrt(2 * np.asarray(row["kl_runs"]))))
        row["by_seed"] = {
            str(seed): {
                number: float(
                    np.mean([one[number] for (drawn, _), many in of.items() if drawn == seed for one in many])
                )
                for number in result.folds[0]
            }
            for seed in seeds
        }
        found.append(row)
    return found

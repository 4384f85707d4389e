"""FACE's tables 1, 2 and 7, the papers' own rules, and CRAFT's comparisons of methods and of importance."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from face_jax import methods
from face_jax.support.contents import package_digest

from .materials import Material
from .own_methods import InRandomOrder, OnSuperpixels
from .runs import CONTROLS, NON_NEGATIVE, Asked, Runs, by_papers_rules, compared, face, family, rows
from .written import Column, Curve, Made, Panel

NOTHING = Column("accuracy_of_nothing", "accuracy at U = 0")
ERROR, MSE = Column("relative_error", "relative error ↓"), Column("mean_squared_error", "MSE ↓", 4)
KL, AGREEMENT = Column("kl", "KL ↓"), Column("agreement", "agreement ↑")
INSERTION, DELETION = Column("c_insertion", "C-Ins ↑"), Column("c_deletion", "C-Del ↑")
GINI = Column("c_gini", "C-Gini ↑")
OVER_FOLDS = Column("stability_over_folds", "stability over folds (floor) ↑", 3, "stability_over_folds_floor")
OVER_STARTS = Column("stability_over_starts", "over starts (floor) ↑", 3, "stability_over_starts_floor")
QUALITY = (MSE, ERROR, KL, Column("l1", "L1 ↓"), AGREEMENT, NOTHING)
FAITHFULNESS = (INSERTION, DELETION, GINI, Column("non_zero_codes", "codes not 0"), OVER_FOLDS, OVER_STARTS, NOTHING)
SCORES = (ERROR, KL, AGREEMENT, INSERTION, DELETION, GINI, NOTHING)
ONE_RULE = (
    "Codes by non-negative least squares for all methods, or least squares where codes have signs (PCA, ICA, robust "
    "PCA); importance by total Sobol indices for all; controls in italics."
)


def quality(asked: Asked, materials: Sequence[Material]) -> Made:
    note = (
        "Agreement is FACE's accuracy of rebuilt activations, too: the network puts all the photographs in the class."
    )
    return Made(rows(compared(asked, materials, family(materials, asked))), QUALITY, notes=(ONE_RULE, note))


def faithfulness(asked: Asked, materials: Sequence[Material]) -> Made:
    found = rows(compared(asked, materials, family(materials, asked)))
    surrogate = Column("surrogate_from_offset_mae", "SURF ↓", 3, "surrogate_from_offset_mae_random_concepts")
    note = "SURF: mean error of the linear surrogate's logits; in brackets with random concepts. C-Del is the paper's."
    return Made(found, (*FAITHFULNESS, surrogate), notes=(ONE_RULE, note))


def curves(asked: Asked, materials: Sequence[Material]) -> Made:
    runs = compared(asked, materials, family(materials, asked))
    panels = tuple(
        Panel(f"concepts {words}", "pictures still in the class", curves_of(runs, which))
        for which, words in (("insertion", "put in"), ("deletion", "taken out"))
    )
    return Made(
        rows(runs), (INSERTION, DELETION, NOTHING), panels, (ONE_RULE, "Bands: one standard deviation of a run.")
    )


def curves_of(runs: Runs, which: str) -> list[Curve]:
    """Means over classes in each run; mean and deviation over runs."""
    first, found = next(iter(runs.values())), []
    seeds, labels = sorted({seed for seed, _ in runs}), list(dict.fromkeys(label for _, label in runs))
    for result in first.results:
        of_runs = np.concatenate(
            [np.mean([getattr(runs[seed, label][result.name], which) for label in labels], axis=0) for seed in seeds]
        )
        steps = range(of_runs.shape[1])
        spread = of_runs.std(axis=0, ddof=1)
        found.append(Curve(result.name, list(steps), of_runs.mean(axis=0).tolist(), spread.tolist(), result.control))
    return found


def published(asked: Asked, materials: Sequence[Material]) -> Made:
    found = []
    for name, paper in methods.PUBLISHED.items():
        if any(material.signed for material in materials) or not materials[0].model.head.affine:
            continue
        others = [each for each in CONTROLS if not isinstance(each, methods.FACE)]
        plain = [methods.FACE.published(0.0, name="FACE with λ = 0")] if name == "face" else []
        for row in by_papers_rules(asked, materials, paper, [paper.method, *plain, *others]):
            rule = f", rules of {name.upper()}" if row["control"] else f"{name.upper()} as published"
            row["method"] = row["method"] + rule if row["control"] else rule
            found.append(row)
    columns = (
        MSE, ERROR, KL, AGREEMENT, INSERTION, DELETION, GINI, Column("projected_accuracy", "accuracy from A W Wᵀ"),
        NOTHING,
    )  # fmt: skip
    note = (
        "FACE: crops of 64 pixels at their own size, Adam, λ = 1e-5 in means, codes by unconstrained least squares of "
        "averages, Sobol indices from 32 Halton points. CRAFT: crops enlarged, non-negative codes at every place, the "
        "same indices. ICE: places of whole pictures, and directional derivatives. Other than in the papers, scores "
        "are of pictures that weren't fitted."
    )
    return Made(found, columns, notes=(note,))


def ace(asked: Asked, materials: Sequence[Material]) -> Made:
    known = {material.label: _superpixels(asked, material) for material in materials}
    others: list[Any] = [methods.ACE(name="ACE, crops"), methods.ICE(), methods.CRAFT(), face(asked)]
    if any(material.signed for material in materials):
        others = [each for each in others if not isinstance(each, NON_NEGATIVE)]
    chosen = lambda material: [OnSuperpixels(known[material.label]), *others, *asked.methods]  # noqa: E731
    found = rows(compared(asked, materials, chosen))
    own = rows(compared(asked, materials, lambda material: chosen(material)[:2], lambda material: {"own": True}))
    for row in own:
        row["method"] += ", own rules" if not row["control"] else ""
    found = [*own[:2], *found]
    note = (
        "ACE has no codes. By its own rules each place is the nearest cluster's mean, and importance is TCAV's; else "
        "places are non-negative sums of the means."
    )
    return Made(found, (INSERTION, DELETION, GINI, ERROR, KL, NOTHING), notes=(ONE_RULE, note))


def _superpixels(asked: Asked, material: Material) -> tuple[Any, np.ndarray, np.ndarray]:
    """Activations of superpixels, kept; fewer a photograph than ACE's 145, which the network would take hours for."""
    segments = (6,) if asked.quick else (15,)

    def compute() -> dict[str, np.ndarray]:
        found, of = methods.superpixels(material.model, material.photographs, segments=segments)
        return {"maps": found.maps, "logits": found.logits, "of": of}

    digests = [one.digest() for one in material.photographs]
    model = [material.model.fingerprint, repr(material.model.preprocess), str(len(material.model.classes))]
    kept = material.cache(["superpixels", package_digest(), repr(segments), *model, *digests], compute)
    collected = dataclasses.replace(material.pictures, maps=kept["maps"], logits=kept["logits"], kept=None)
    return collected, kept["of"], material.pictures.maps.mean(axis=(1, 2))


def importance(asked: Asked, materials: Sequence[Material]) -> Made:
    orders = {
        "total Sobol": methods.BySobol(), "Sobol as published (32 Halton points)": methods.ByHaltonSobol(),
        "TCAV": methods.ByTCAV(), "gradient × code": methods.ByGradientTimesCode(),
        "directional derivative": methods.ByDirectionalDerivative(), "an order at random": InRandomOrder(),
    }  # fmt: skip
    bank, found, panels = methods.NMF(), [], {"insertion": [], "deletion": []}
    asked = dataclasses.replace(asked, starts=1)
    for name, order in orders.items():
        # Controls once, by the measure that all tables have.
        controls = CONTROLS if name == "total Sobol" else ()
        runs = compared(
            asked, materials, [bank], lambda material, o=order, c=controls: {"importance": o, "controls": c}
        )
        made = rows(runs)
        made[0] |= {"method": f"NMF, by {name}" if "order" not in name else f"NMF, {name}", "control": "order" in name}
        found += made
        for which, curves in panels.items():
            curves.append(dataclasses.replace(curves_of(runs, which)[0], name=name, control="order" in name))
    drawn = tuple(
        Panel(f"concepts {words}", "pictures still in the class", panels[which])
        for which, words in (("insertion", "put in"), ("deletion", "taken out"))
    )
    return Made(
        found, (INSERTION, DELETION, GINI, NOTHING), drawn, ("The concepts are the same; their order differs.",)
    )

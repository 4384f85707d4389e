"""Verdicts: what the numbers mean in words, and which of them should make one suspicious."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Literal

from ..explanation.record import Explanation
from ..metrics import Score, deletion_ceiling, gini_ceiling, insertion_ceiling
from ..pipeline.controls import WITHOUT_TERM
from ..pipeline.provenance import FEW_HELD_OUT
from .definitions import definitions

# A score within this of another can't be told from it on a few dozen pictures.
_SAME_SCORE = 0.02
# Fewer predictions than this share that stay the same make an explanation one of a different classifier.
_ENOUGH = 0.9


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A sentence about the explanation, whether it speaks for it or warns, and whether it's of the scores only."""

    level: Literal["good", "warn"]
    text: str
    of_scores: bool = False


@dataclasses.dataclass(frozen=True)
class Meaning:
    """One kind of number: its name, this explanation's value, its best, and what it says."""

    name: str
    value: str
    best: str
    meaning: str
    suspicious: str


_REMEDY = (
    ' A faithfulness term makes the concepts keep it: --faithfulness auto on the command line, faithfulness="auto" in '
    "face_jax.explain."
)


def percent(share: float) -> str:
    """A share with three digits: 89.8 % aren't 90."""
    return f"{100 * share:.3g} %"


def noun_of(explanation: Explanation) -> str:
    """What is explained: one of exclusive classes, or a label by itself."""
    return "class" if explanation.model.outputs.exclusive else "label"


def verdicts(explanation: Explanation) -> list[Verdict]:
    """Judgements that follow from the scores and their controls, warnings first."""
    own = explanation.scores.own
    warnings = [
        *(Verdict("warn", text) for text in _warnings(explanation)),
        *(Verdict("warn", text, of_scores=True) for text in _on_scores(explanation)),
    ]
    # A single photograph's scores are those of as many other crops.
    scored = len(explanation.importance.index if explanation.single else explanation.pictures.held_out)
    # Crops of a single photograph may be of no class in common with it; what stays the same then isn't the class.
    still_in_class = own.fidelity.deletion.accuracy[0]
    kept = min(own.agreement, still_in_class) >= _ENOUGH
    if kept and scored >= FEW_HELD_OUT and not _as_agreeing(explanation):
        kept_ones = (
            f"{percent(own.agreement)} of the held-out predictions"
            if explanation.model.outputs.exclusive
            else f"{percent(own.agreement)} of the labels of held-out pictures, and {percent(still_in_class)} of the "
            "decisions on this one,"
        )
        text = f"{kept_ones} stay the same when activations are rebuilt from the concepts."
        return [*warnings, Verdict("good", text)]
    return warnings


def _unlearned(explanation: Explanation) -> list[Score]:
    """The controls that learned nothing."""
    return [row for row in explanation.scores.controls if row.name != WITHOUT_TERM]


def _as_agreeing(explanation: Explanation) -> list[str]:
    """Names of controls that learned nothing and keep as many predictions."""
    least = explanation.scores.own.agreement - _SAME_SCORE
    return [f"“{row.name}”" for row in _unlearned(explanation) if row.agreement >= least]


def _warnings(explanation: Explanation) -> Iterator[str]:
    own = explanation.scores.own
    if own.agreement < _ENOUGH:
        become = ", ".join(f"{explanation.model.classes[number]} ({count})" for number, count in own.becomes[:4])
        yield (
            (
                f"Only {percent(own.agreement)} of the held-out predictions stay the same when activations are rebuilt "
                f"from the concepts; the others become {become}. What the concepts leave out decides between these "
                "classes."
                if explanation.model.outputs.exclusive
                else f"Only {percent(own.agreement)} of the labels of held-out pictures stay predicted, or not, when "
                f"activations are rebuilt from the concepts; those that change most often are {become}."
            )
            + ("" if explanation.provenance.settings.faithfulness else _REMEDY)
        )
    kept = float(own.fidelity.deletion.accuracy[0])
    if kept < _ENOUGH and not explanation.model.outputs.exclusive:
        yield (
            f"Rebuilt from the concepts, only {percent(kept)} of the held-out pictures still have the label: what the "
            "concepts leave out decides it." + ("" if explanation.provenance.settings.faithfulness else _REMEDY)
        )
    if own.kl > 0.5:
        yield (
            f"The rebuilt predictions are far from the original ones (KL {own.kl:.2f} nats on average). More concepts, "
            "or a faithfulness term, bring them closer."
        )
    weighty = [concept for concept in explanation.concepts if concept.importance >= 0.05]
    rare = [str(concept.number) for concept in weighty if concept.coverage <= 0.1]
    if rare and not explanation.single:
        yield (
            f"Concept {', '.join(rare)} is important but seen in at most one photograph in ten: look whether it is "
            f"part of the {noun_of(explanation)} or an accident of a few pictures."
        )
    against = [str(concept.number) for concept in weighty if (concept.contribution or 0) < 0]
    if against:
        yield (
            f"Concept {', '.join(against)} speaks against the {noun_of(explanation)}: its importance is how much it "
            f"takes from the {noun_of(explanation)} score."
        )


def _on_scores(explanation: Explanation) -> Iterator[str]:
    """Which scores say nothing; the concepts may be as good as ever."""
    own = explanation.scores.own
    rivals = [
        f"“{row.name}”"
        for row in _unlearned(explanation)
        if row.fidelity.c_insertion >= own.fidelity.c_insertion - _SAME_SCORE
        and row.fidelity.c_deletion >= own.fidelity.c_deletion - _SAME_SCORE
    ]
    agreeing = _as_agreeing(explanation)
    if rivals:
        yield (
            f"The insertion and deletion scores are no evidence here: {' and '.join(rivals)} "
            f"{'score' if len(rivals) > 1 else 'scores'} as high without having learned anything. Judge by the crops"
            + (" and the maps." if agreeing else ", the maps and the agreement.")
        )
    if agreeing:
        yield (
            f"The agreement is no evidence here: {' and '.join(agreeing)} {'keep' if len(agreeing) > 1 else 'keeps'} "
            "as many predictions without having learned anything."
        )
    if explanation.scores.accuracy_of_nothing > 0:
        yield (
            f"With no activations at all the classifier already predicts this {noun_of(explanation)}, so taking "
            "concepts out can't show what they do."
            if explanation.pictures.collected.kept is None
            else f"{of_nothing(explanation)} Below that no curve can fall, whatever is taken out."
        )


def meanings(explanation: Explanation) -> list[Meaning]:
    """Every score with its best possible value, a sentence on what it means, and what would be suspicious."""
    own, rank = explanation.scores.own, len(explanation.concepts)
    half, most, worst = (f"{quantile:.3f}" for quantile in own.kl_quantiles)
    ceiling = insertion_ceiling(rank, explanation.scores.accuracy_of_nothing)
    values = {
        "relative_error": ("–" if math.isnan(own.relative_error) else f"{own.relative_error:.3f}", "0"),
        "kl": (f"{own.kl:.3f} nats", "0"),
        "l1": (f"{own.l1:.3f}", "0"),
        "agreement": (percent(own.agreement), "100 %"),
        "c_insertion": (f"{own.fidelity.c_insertion:.3f}", f"{ceiling:.3f}"),
        "c_deletion": (f"{own.fidelity.c_deletion:.3f}", f"{deletion_ceiling(rank):.3f}"),
        "c_gini": (f"{own.gini:.3f}", f"{gini_ceiling(rank):.3f}"),
    }
    defined = definitions(exclusive=explanation.model.outputs.exclusive)
    defined["kl"] = dataclasses.replace(
        defined["kl"],
        meaning=f"{defined['kl'].meaning} Half of the pictures are below {half}, nine in ten below {most}, the worst "
        f"is at {worst}.",
        suspicious="A worst case far above the rest: there are pictures that these concepts don't explain.",
    )
    return [
        Meaning(defined[number].name, value, best, defined[number].meaning, defined[number].suspicious)
        for number, (value, best) in values.items()
    ]


def of_nothing(explanation: Explanation) -> str:
    """What is predicted when all codes are zero, in a sentence."""
    share, kept = explanation.scores.accuracy_of_nothing, explanation.pictures.collected.kept
    if kept is None:
        does = "gives" if share else "doesn't give"
        return f"Predicting from no activations at all {does} this {noun_of(explanation)}."
    tokens = "class token" if kept.shape[1] == 1 else f"{kept.shape[1]} tokens beside the maps"
    return (
        f"From each picture's {tokens} alone, kept while all codes are zero, this {noun_of(explanation)} is predicted "
        f"for {percent(share)} of the held-out pictures: the floor of every curve."
    )

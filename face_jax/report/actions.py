"""Pages of what is done and compared: an edit, a comparison; each needs no other file, and has JSON."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..action.comparison import Comparison
from ..action.measured import CONTROLS, EditEffect, Outcome
from ..attribution import upsampled_codes
from ..explanation.concepts import Concept
from ..explanation.record import Explanation
from ..pictures.showing import view_of
from ..support.arguments import instance
from . import pictures
from .captions import address_of, caption_table, captions
from .tree import Pictures, crop_pictures
from .written import about, write_page

_CASES, _MOVES, _CROPS = 12, 15, 4


def write_edit(
    explanation: Explanation,
    effect: EditEffect,
    folder: str | pathlib.Path,
    *,
    notes: Sequence[str] = (),
    report: Any = None,
) -> pathlib.Path:
    """Write `edit.html` and `edit.json`: what an edit does to labelled photographs, beside its controls.

    **Arguments:**

    - `explanation`: whose concepts were edited.
    - `effect`: the result of `face_jax.measure_edit`.
    - `folder`: where they go; made if need be.
    - `notes`: what the page says besides.
    - `report`: the explanation's `report.html`, if there is one: the edited concepts lead there.

    **Returns:** the page.

    **Example:**

    >>> effect = fj.measure_edit(explanation, images, ["warm"] * 14, remove=[0], key=0)
    >>> fj.write_edit(explanation, effect, folder / "edit").name
    'edit.html'
    """
    instance("explanation", explanation, Explanation, "the result of face_jax.explain")
    instance("effect", effect, EditEffect, "the result of face_jax.measure_edit")
    classes = explanation.model.classes
    moves = [(classes[first], classes[second], count) for first, second, count in effect.moves[:_MOVES]]
    labels = [(classes[at], lost, gained) for at, lost, gained in effect.label_changes[:_MOVES]]
    counts = {name: effect.groups.count(name) for name in effect.after.per_group}
    numbers = {at: int((effect.labels == at).sum()) for at in effect.after.per_class}
    by_class = [
        {"name": classes[at], "count": count, **_sides(effect, lambda each, at=at: each.per_class[at])}
        for at, count in numbers.items()
    ]
    by_group = [
        {"name": name, "count": count, **_sides(effect, lambda each, name=name: each.per_group[name])}
        for name, count in counts.items()
    ]
    edited = np.flatnonzero(effect.amounts).tolist()
    unread = [f"{len(effect.unread)} photographs can't be read: {effect.unread[0]}"] if effect.unread else []
    breakdowns = [("By group", by_group), ("By class", by_class)]
    content = {
        "explanation": explanation,
        "effect": effect,
        "notes": [*unread, *notes],
        "controls": CONTROLS,
        "draws": max((len(each.draws) for each in effect.controls), default=0),
        "removed": bool(np.isin(effect.amounts, (0, 1)).all()),
        "most": next((each.most for each in effect.controls if each.kind == "other concepts"), None),
        "breakdowns": [(title, rows) for title, rows in breakdowns if rows],
        "moves": moves,
        "label_changes": labels,
        "cases": _changed(explanation, effect),
        "captioned": captions(explanation, edited, address_of(report, folder)),
    }
    return write_page("edit", content, _effect_table(explanation, effect, [*unread, *notes]), folder)


def _sides(effect: EditEffect, of: Any) -> dict[str, Any]:
    return {
        "before": of(effect.before),
        "after": of(effect.after),
        "controls": [of(each) for each in effect.controls],
    }


def _effect_table(explanation: Explanation, effect: EditEffect, notes: list[str]) -> dict[str, Any]:
    """An edit's effect in plain numbers and words."""
    classes = explanation.model.classes

    def told(outcome: Outcome) -> dict[str, Any]:
        found = dataclasses.asdict(outcome)
        found["per_class"] = {classes[at]: value for at, value in found["per_class"].items()}
        return found

    return {
        "explanation": about(explanation),
        "edit": effect.edit,
        "concepts": [
            {**each, "taken_out": float(effect.amounts[each["number"] - 1])}
            for each in caption_table(explanation, np.flatnonzero(effect.amounts).tolist())
        ],
        "recommended": effect.recommended,
        "verdict": effect.verdict,
        "before": told(effect.before),
        "after": told(effect.after),
        "controls": [told(each) for each in effect.controls],
        "gain_above_controls": {name: dataclasses.asdict(value) for name, value in effect.above.items()},
        "accuracy_is": effect.measure,
        "changes": [
            {"before": classes[first], "after": classes[second], "photographs": count}
            for first, second, count in effect.moves
        ]
        if effect.label_sets is None
        else [{"label": classes[at], "lost": lost, "gained": gained} for at, lost, gained in effect.label_changes],
        "photographs": [
            {"file": photograph.name, "label": classes[label]}
            | dict(zip(("before", "after"), _predictions(effect, at, classes), strict=True))
            | ({"group": effect.groups[at]} if effect.groups else {})
            for at, (photograph, label) in enumerate(zip(effect.photographs, effect.labels, strict=True))
        ],
        "notes": notes,
    }


def _predictions(effect: EditEffect, at: int, classes: Sequence[str]) -> list[Any]:
    """What is predicted of a photograph before and after: a class, or the labels as a list."""
    if effect.label_sets is not None:
        return [[classes[label] for label in np.flatnonzero(each).tolist()] for each in effect.label_sets[at]]
    assert effect.predicted is not None
    return [classes[number] for number in effect.predicted[at]]


def _changed(explanation: Explanation, effect: EditEffect) -> list[dict[str, Any]]:
    """Photographs whose prediction changes, those with most of the concepts first."""
    model, classes = explanation.model, explanation.model.classes
    changed = np.flatnonzero(effect.changes)
    chosen = changed[np.argsort(-effect.strength[changed], kind="stable")][:_CASES]
    if not len(chosen):
        return []
    codes = explanation.encode([effect.photographs[at] for at in chosen], progress=False)
    strength = np.linalg.norm(codes * effect.amounts, axis=-1)[..., None]
    maps = upsampled_codes(jnp.asarray(strength), model.preprocess.size)[..., 0]
    found = []
    for at, lit in zip(chosen.tolist(), maps, strict=True):
        pixels = view_of(effect.photographs[at], model.preprocess)
        lit = pictures.spotlight(pixels, lit / max(float(lit.max()), 1e-30), pictures.concept_colour(1))
        said = _predictions(effect, at, classes)
        was, now = (each if isinstance(each, str) else ", ".join(each) or "no label" for each in said)
        name, label = effect.photographs[at].name, classes[effect.labels[at]]
        picture, shown = pictures.data_uri(pixels), pictures.data_uri(lit)
        found.append({"name": name, "picture": picture, "map": shown, "before": was, "after": now, "label": label})
    return found


@dataclasses.dataclass(frozen=True)
class _Side:
    """One of two explanations, as the page asks for it."""

    letter: str
    explanation: Explanation
    best: np.ndarray

    def concept(self, number: int) -> Concept:
        return self.explanation.concepts[number - 1]

    def colour(self, number: int) -> str:
        return pictures.concept_colour(number)

    def crops(self, number: int) -> Pictures:
        return crop_pictures(self.explanation, self.concept(number).strongest[:_CROPS])

    def nearest(self, at: int) -> str:
        other = "B" if self.letter == "A" else "A"
        number, value = int(self.best[at].argmax()) + 1, float(self.best[at].max())
        return f"nearest in {other}: concept {number}, correlation {value:.3f}"


def write_comparison(comparison: Comparison, folder: str | pathlib.Path) -> pathlib.Path:
    """Write `comparison.html` and `comparison.json`: the concepts of two explanations side by side.

    **Arguments:**

    - `comparison`: the result of `face_jax.compare`.
    - `folder`: where they go; made if need be.

    **Returns:** the page.

    **Example:**

    >>> fj.write_comparison(fj.compare(explanation, explanation, key=0), folder / "compared").name
    'comparison.html'
    """
    instance("comparison", comparison, Comparison, "the result of face_jax.compare")
    content = {
        "comparison": comparison,
        "a": _Side("A", comparison.first, comparison.correlation),
        "b": _Side("B", comparison.second, comparison.correlation.T),
        "verdicts": _said(comparison),
    }
    return write_page("comparison", content, comparison.table(), folder)


def _said(comparison: Comparison) -> list[tuple[str, str]]:
    shared = len(comparison.shared)
    first, second = (shared + len(each) for each in (comparison.only_first, comparison.only_second))
    said = (
        ("good", "A and B have the same concepts: each goes with one of the other as a copy does.")
        if comparison.equal
        else ("warn", "A and B share no concept beyond what chance gives.")
        if not shared
        else ("note", f"A and B share {shared} concepts; {first - shared} are only in A, {second - shared} only in B.")
    )
    (forth, _), (back, _) = comparison.predicts_second, comparison.predicts_first
    predicted = (
        f"A's codes predict {100 * max(forth, 0):.0f} % of the variance of B's in photographs left out (shuffled "
        f"{100 * max(comparison.null_predicts[0], 0):.0f} %), and B's {100 * max(back, 0):.0f} % of A's (shuffled "
        f"{100 * max(comparison.null_predicts[1], 0):.0f} %)."
    )
    return [said, ("note", predicted), *(("note", each) for each in comparison.notes)]

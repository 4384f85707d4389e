"""The page of why, of one photograph or of those that are misread, and what a report says of the latter."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..action.misled import Suspect, suspects
from ..explanation.reasons import Why
from ..explanation.record import Explanation
from ..pictures.showing import view_of
from ..support.arguments import instance, several
from . import pictures
from .captions import address_of, caption_table, captions
from .written import about, write_page

_CASES, _ROWS = 12, 8
_OUTSIDE = (
    "What the concepts leave out weighs more here than any of them: they don't say what decides. More concepts, or "
    "concepts that keep the predictions (--faithfulness auto), say more."
)


@dataclasses.dataclass(frozen=True)
class _Row:
    """A part of a sum: a concept by its number, or something else by its name."""

    number: int | None
    name: str
    colour: str
    adds: float
    error: float
    share: float


def write_why(
    explanation: Explanation,
    reasons: Why | Sequence[Why],
    folder: str | pathlib.Path,
    *,
    notes: Sequence[str] = (),
    report: Any = None,
) -> pathlib.Path:
    """Write `why.html` and `why.json`: what each concept adds to the difference of two class scores, with maps.

    **Arguments:**

    - `explanation`: whose concepts were asked.
    - `reasons`: the result of `explanation.why`, or several, as `face_jax.misled` gives them.
    - `folder`: where they go; made if need be.
    - `notes`: what the page says besides.
    - `report`: the explanation's `report.html`, if there is one: concepts lead there.

    **Returns:** the page.

    **Example:**

    >>> fj.write_why(explanation, explanation.why(images[0], "cold"), folder / "why").name
    'why.html'
    """
    instance("explanation", explanation, Explanation, "the result of face_jax.explain")
    every = (reasons,) if isinstance(reasons, Why) else several("reasons", reasons, "the results of explanation.why")
    for each in every:
        instance("reasons", each, Why, "the result of explanation.why")
    misread = len(every) != 1
    names = ("", "") if misread else every[-1].names
    title = "What misleads the classifier" if misread else f"Why {names[0]}, and not {names[1]}?"
    groups = _groups(explanation, every) if misread else []
    cases = [_case(explanation, each) for each in every[:_CASES]]
    suspected = _misleading(every) if misread else []
    named = _named(groups, cases) | {one.concept for one in suspected}
    content = {
        "title": title,
        "explanation": explanation,
        "notes": tuple(notes),
        "exact": all(each.parts.exact for each in every),
        "groups": groups,
        "cases": cases,
        "suspects": suspected,
        "count": len(every),
        "captioned": captions(explanation, named, address_of(report, folder)),
    }
    data = {
        "explanation": about(explanation),
        "concepts": caption_table(explanation, range(len(explanation.concepts))),
        "suspects": suspects_table(every) if misread else [],
        "photographs": [each.table() for each in every],
        "notes": list(notes),
    }
    return write_page("why", content, data, folder)


def misread_parts(explanation: Explanation, reasons: Sequence[Why]) -> dict[str, Any]:
    """What a report says of photographs that are misread: their means, the cases, and how many there are."""
    every = tuple(reasons)
    groups, cases = _groups(explanation, every), [_case(explanation, each) for each in every[:_CASES]]
    suspected = _misleading(every)
    named = _named(groups, cases) | {one.concept for one in suspected}
    return {
        "count": len(every),
        "exact": all(each.parts.exact for each in every),
        "groups": groups,
        "cases": cases,
        "suspects": suspected,
        "captioned": captions(explanation, named, ""),
    }


def suspects_table(every: Sequence[Why]) -> list[dict[str, Any]]:
    """Every concept by how much it misleads, in plain numbers; empty for fewer than two photographs."""
    return [one.table() for one in suspects(every)] if len(every) > 1 else []


def _misleading(every: Sequence[Why]) -> list[Suspect]:
    """The concepts that mislead most, as far as they do."""
    return [one for one in suspects(every)[:_ROWS] if one.adds.value > 0] if len(every) > 1 else []


def balance(why: Why) -> list[str]:
    """The difference in lines of text: its parts as the page has them, the sum, and what the page warns of."""
    parts = why.parts
    rows = [
        (row.name or f"concept {row.number}", row.adds, f" ± {row.error:.3f}" if row.error else "")
        for row in _rows(parts.concepts, parts.error, parts.left_out, parts.nothing, _ROWS)
    ]
    rows.append((f"{why.names[0]} rather than {why.names[1]}", parts.total, ""))
    width = max(len(name) for name, *_ in rows)
    return [
        *(f"{name:{width}} {adds:+9.3f}{error}" for name, adds, error in rows),
        *([_OUTSIDE] if _outside(why) else []),
    ]


def _outside(why: Why) -> bool:
    """Whether what the concepts leave out weighs more than any of them."""
    return abs(why.parts.left_out) > float(np.abs(why.parts.concepts).max())


def _named(groups: list[dict[str, Any]], cases: list[dict[str, Any]]) -> set[int]:
    """The concepts, from 0, that tables and maps speak of by number."""
    rows = [row.number for each in (*groups, *cases) for row in each["rows"] if row.number]
    return {number - 1 for number in (*rows, *(number for case in cases for number, *_ in case["maps"]))}


def _rows(adds: np.ndarray, error: np.ndarray, left_out: float, nothing: float, most: int) -> list[_Row]:
    """The largest parts, the others together."""
    order = np.argsort(-np.abs(adds), kind="stable")
    shown, rest = np.sort(order[:most]), order[most:]
    found: list[tuple[int | None, str, str, float, float]]
    found = [(int(at) + 1, "", pictures.concept_colour(int(at) + 1), float(adds[at]), float(error[at])) for at in shown]
    grey = "var(--muted)"
    if len(rest):
        found.append((None, f"the other {len(rest)} concepts", grey, float(adds[rest].sum()), 0.0))
    found.append((None, "what the concepts leave out", grey, left_out, float(error[-1])))
    found.append((None, "no activations at all", grey, nothing, 0.0))
    longest = max(*(abs(entry[3]) for entry in found), 1e-30)
    return [_Row(*entry, abs(entry[3]) / longest) for entry in found]


def _case(explanation: Explanation, why: Why) -> dict[str, Any]:
    pixels, parts = view_of(why.photograph, explanation.model.preprocess), why.parts
    maps = []
    for at, strength in zip(why.deciding, why.maps, strict=True):
        colour = pictures.concept_colour(at + 1)
        lit = pictures.spotlight(pixels, strength / max(float(strength.max()), 1e-30), colour)
        maps.append((at + 1, colour, pictures.data_uri(lit)))
    rows = _rows(parts.concepts, parts.error, parts.left_out, parts.nothing, _ROWS)
    outside = _OUTSIDE if _outside(why) else ""
    return {"why": why, "picture": pictures.data_uri(pixels), "rows": rows, "maps": maps, "outside": outside}


def _groups(explanation: Explanation, every: tuple[Why, ...]) -> list[dict[str, Any]]:
    """Means over the photographs that are taken for the class, and over those that aren't."""
    target, name = explanation.target.index, explanation.target_name
    found = []
    for taken, words in ((True, f"taken for {name}"), (False, f"{name} that isn't recognized")):
        some = [each.parts for each in every if (each.target == target) == taken]
        if some:
            adds = np.mean([each.concepts for each in some], axis=0)
            left, nothing = (
                float(np.mean([getattr(each, field) for each in some])) for field in ("left_out", "nothing")
            )
            rows = _rows(adds, np.zeros(len(adds) + 1), left, nothing, _ROWS)
            found.append({"title": f"{len(some)} photograph{'s' if len(some) > 1 else ''} {words}", "rows": rows})
    return found

"""From a report to what lies beside it: the page of all classes, and other classes' reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..explanation.record import Explanation
from ..support.arguments import instance


@dataclasses.dataclass(frozen=True)
class ReportLinks:
    """Where a report leads, as addresses from its own folder.

    **Arguments:**

    - `index`: the page of all classes, such as `"../index.html"`; None without one.
    - `called`: what that page calls each concept, by the report's number of it; empty where it has the same numbers.
    - `used`: other classes that use a concept, by the report's number of it: each one's name, the concept's importance
        for it, and where its report has the concept.
    """

    index: str | None = None
    called: Mapping[int, str] = dataclasses.field(default_factory=dict)
    used: Mapping[int, Sequence[tuple[str, float, str]]] = dataclasses.field(default_factory=dict)


def checked_links(links: Any, explanation: Explanation) -> ReportLinks:
    """Links of a report; raises `ValueError` for anything else, and for a concept that there isn't."""
    if links is None:
        return ReportLinks()
    instance("links", links, ReportLinks, "a face_jax.ReportLinks")
    numbers = {concept.number for concept in explanation.concepts}
    if strange := sorted({*links.called, *links.used} - numbers):
        raise ValueError(f"links has concept {strange[0]} of {len(numbers)}; give numbers from 1 to {len(numbers)}")
    return links

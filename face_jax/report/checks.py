"""The sanity check's and the feature visualizations' sections of the page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..attribution.visualization import Visualization
from ..pictures.showing import in_colours
from ..sanity import SanityCheck, SanityStage
from ..support.sentences import listed
from . import pictures

# Maps of so many concepts are drawn at each stage.
_MAPPED = 3
_MEASURES = (("concepts", "dictionary"), ("importance", "importance"), ("maps", "maps"))


@dataclasses.dataclass(frozen=True)
class _Bar:
    """A likeness with what chance gives; both None where there is none."""

    value: float | None
    floor: float | None


def visualized(visualization: Visualization) -> list[tuple[int, str, str]]:
    """Each picture with its concept's number and colour."""
    return [
        (concept + 1, pictures.concept_colour(concept + 1), pictures.data_uri(in_colours(pixels), quality=88))
        for concept, pixels in zip(visualization.concepts, visualization.pixels, strict=True)
    ]


def forgetting(check: SanityCheck) -> dict[str, Any]:
    """What the page says of a sanity check: a row a stage, maps of the first concepts, and a verdict."""
    floors = [getattr(check, f"{name}_floor") for _, name in _MEASURES]
    return {
        "rows": [
            {
                "name": stage.name,
                "bars": [
                    _Bar(_known(getattr(stage, name)), _known(floor))
                    for (_, name), floor in zip(_MEASURES, floors, strict=True)
                ],
                "agreement": stage.logit_agreement,
            }
            for stage in check.stages
        ],
        "floors": [_known(floor) for floor in floors],
        "maps": list(_maps(check)),
        "gone": listed(_names(check, gone=True)),
        "left": listed(_names(check, gone=False)),
        "first": check.stages[0].name,
        "last": check.stages[-1].name,
    }


def _maps(check: SanityCheck) -> Iterator[dict[str, Any]]:
    stages = [("explanation", check.shown), *((stage.name, stage.shown) for stage in check.stages)]
    for concept in range(min(_MAPPED, len(check.shown))):
        colour = pictures.concept_colour(concept + 1)
        shown = [
            (name, pictures.data_uri(pictures.spotlight(check.photograph, np.asarray(maps[concept]), colour)))
            for name, maps in stages
        ]
        yield {"number": concept + 1, "colour": colour, "pictures": shown}


def _names(check: SanityCheck, *, gone: bool) -> list[str]:
    """What came down more than half of the way to chance at the last stage, or didn't."""
    first, last = check.stages[0], check.stages[-1]
    # Random orders correlate by nothing on average; the floor is how far chance can take them.
    chance = {"dictionary": check.dictionary_floor, "importance": 0.0, "maps": check.maps_floor}
    return [label for label, name in _MEASURES if gone == _came_down(first, last, name, chance[name])]


def _came_down(first: SanityStage, last: SanityStage, name: str, chance: float) -> bool:
    before, after = getattr(first, name), getattr(last, name)
    # Importance that is the same for all concepts has no order left to compare.
    return not np.isfinite(after) or not np.isfinite(chance) or after < (before + chance) / 2


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None

"""The report: one page that needs no other file."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..attribution.visualization import Visualization
from ..explanation.concepts import Concept
from ..explanation.reasons import Why
from ..explanation.record import Explanation
from ..faithfulness.chosen_lambda import turns_of
from ..metrics import deletion_ceiling, gini_ceiling, insertion_ceiling
from ..pictures.showing import view_of
from ..sanity import SanityCheck
from ..support.arguments import instance, several, shown
from ..support.atomic_folder import folder_of, put_together
from . import figures, pictures
from .checks import forgetting, visualized
from .links import checked_links
from .measures import MINOR, measures
from .photographs import Photographs
from .policy import with_policy
from .reasons import misread_parts
from .templates import templates
from .together import together
from .tree import crop_pictures, tree
from .verdicts import meanings, noun_of, of_nothing, percent, verdicts

# Maps are drawn for so many concepts, in so many photographs.
_MAPPED_CONCEPTS, _MAPPED_PHOTOGRAPHS, _GRADIENT_MAPS = 6, 6, 3


@dataclasses.dataclass(frozen=True)
class _Card:
    """A concept as the page shows it."""

    concept: Concept
    colour: str
    crops: list[tuple[str, str]]
    more: Any


def write_report(
    explanation: Explanation,
    folder: str | pathlib.Path,
    *,
    command: str | None = None,
    visualization: Visualization | None = None,
    sanity: SanityCheck | None = None,
    misread: Any = None,
    links: Any = None,
) -> pathlib.Path:
    """Write an explanation's `report.html` into a folder: one file that needs no other, readable without explanation.

    **Arguments:**

    - `explanation`: what is drawn.
    - `folder`: where it goes; made if need be.
    - `command`: the command line that made the explanation, if one did; the report repeats it.
    - `visualization`: from `face_jax.visualize` of this explanation's dictionary.
    - `sanity`: from `face_jax.sanity_check` of this explanation.
    - `misread`: from `face_jax.misled` of this explanation: photographs that the model gets wrong.
    - `links`: a `face_jax.ReportLinks` to other classes' reports, as `face_jax.write_classes` gives it.

    **Returns:** the file.

    **Example:**

    >>> fj.write_report(explanation, folder / "report").name
    'report.html'
    """
    instance("explanation", explanation, Explanation, "the result of face_jax.explain")
    if command is not None and not isinstance(command, str):
        raise ValueError(f"command={shown(command)} isn't text; give the command line in quotes, or leave it out")
    if visualization is not None:
        instance("visualization", visualization, Visualization, "the result of visualize")
    if sanity is not None:
        instance("sanity", sanity, SanityCheck, "the result of sanity_check")
    for each in () if misread is None else several("misread", misread, "the results of misled"):
        instance("misread", each, Why, "what face_jax.misled returns")
    environment = templates("face_jax.report", "drawing a report", "matplotlib", "PIL")
    environment.filters["percent"] = percent
    more = {
        "command": command,
        "visualized": None if visualization is None else visualized(visualization),
        "forgetting": None if sanity is None else forgetting(sanity),
        "links": checked_links(links, explanation),
    }
    more["misread"] = None if misread is None else misread_parts(explanation, misread)
    folder = folder_of(folder)
    contents = _contents(explanation)
    anchors = _anchors(contents, more)
    script = environment.get_template("page.js").render()
    page = environment.get_template("page.html").render(**contents, **more, contents=anchors, script=script)
    page = with_policy(page, script=script)
    with put_together(folder) as new:
        # The command may have a file's name in it that isn't UTF-8.
        (new / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")
    return folder / "report.html"


def _anchors(contents: dict[str, Any], more: dict[str, Any]) -> list[tuple[str, str]]:
    """The page's sections and their names, in order."""
    sections = (
        ("concepts", "The concepts", True),
        ("where", "Where they are", True),
        ("photographs", "Photograph by photograph", True),
        ("misread", "Photographs that it gets wrong", more["misread"]),
        ("parts", "What they are made of", contents["tree"]["asked"]),
        ("measures", "Other measures", True),
        ("trust", "How far to trust it", True),
        ("visualized", "What the network looks for", more["visualized"]),
        ("sanity", "Does it depend on what was learned?", more["forgetting"]),
        ("again", "To run it again", True),
    )
    return [(anchor, words) for anchor, words, there in sections if there]


def _contents(explanation: Explanation) -> dict[str, Any]:
    photographs = Photographs(explanation, _examples(explanation))
    cards = [_card(explanation, concept, photographs) for concept in explanation.concepts]
    said, fit = verdicts(explanation), explanation.fit
    where = _where(explanation)
    major = [card for card in cards if card.concept.importance >= MINOR] or cards[:1]
    return {
        "explanation": explanation,
        "title": explanation.target_name,
        "noun": noun_of(explanation),
        "major": major,
        "minor": [card for card in cards if card not in major],
        "largest": max(max(concept.high for concept in explanation.concepts), 1e-12),
        "top_share": sum(concept.importance for concept in explanation.concepts[:3]),
        "measures": measures(explanation),
        "tree": tree(explanation),
        "where": where,
        "shots": photographs.shots,
        "gradients": _gradients(explanation, where[0]["together"]),
        "insertion": figures.curve_figure(explanation.scores.rows, "insertion"),
        "deletion": figures.curve_figure(explanation.scores.rows, "deletion"),
        "ranks": figures.rank_figure(fit.rank_scan) if fit.rank_scan else None,
        "path": figures.path_figure(fit.path) if fit.path else None,
        "legend": figures.legend(explanation.scores.rows),
        "ceilings": {
            "insertion": insertion_ceiling(len(cards), explanation.scores.accuracy_of_nothing),
            "deletion": deletion_ceiling(len(cards)),
            "gini": gini_ceiling(len(cards)),
        },
        "turns": turns_of(explanation.model.head, len(explanation.pictures.fitted), single=explanation.single),
        "meanings": meanings(explanation),
        "of_nothing": of_nothing(explanation),
        "verdicts": [verdict for verdict in said if not verdict.of_scores],
        "remarks": [verdict for verdict in said if verdict.of_scores],
    }


def _card(explanation: Explanation, concept: Concept, photographs: Photographs) -> _Card:
    shown = crop_pictures(explanation, concept.strongest)
    return _Card(concept, pictures.concept_colour(concept.number), shown, photographs.unfolded(concept))


def _where(explanation: Explanation) -> list[dict[str, Any]]:
    """Example photographs with their concepts: the strongest together, and each by itself."""
    # What counts as strong is what a photograph that clearly has the concept reaches at its best place.
    strong = np.maximum(np.quantile(explanation.codes.max(axis=(1, 2)), 0.9, axis=0), 1e-12)
    important = np.asarray([concept.importance >= MINOR for concept in explanation.concepts])
    return [_mapped(explanation, number, strong, important) for number in _examples(explanation)]


def _mapped(
    explanation: Explanation,
    number: int,
    strong: Float[np.ndarray, " concept"],
    important: Bool[np.ndarray, " concept"],
) -> dict[str, Any]:
    photograph = explanation.photographs[number]
    pixels = view_of(photograph, explanation.model.preprocess)
    strengths = explanation.maps_of(number) / strong[:, None, None]
    key = together(explanation, number)
    # Those of the key; then those that this photograph has most of, among those that matter.
    best = np.argsort(-strengths.max(axis=(1, 2)) * important, kind="stable").tolist()
    named = [entry.number - 1 for entry in key["entries"]]
    shown = sorted([*named, *(concept for concept in best if concept not in named)][:_MAPPED_CONCEPTS])
    colours = [pictures.concept_colour(concept + 1) for concept in shown]
    singles = [
        (concept + 1, colour, pictures.data_uri(pictures.spotlight(pixels, strengths[concept], colour)))
        for concept, colour in zip(shown, colours, strict=True)
    ]
    return {
        "name": photograph.name,
        "probability": float(_probabilities(explanation)[number]),
        "held_out": not explanation.single and number in explanation.pictures.held_out,
        "together": key,
        "singles": singles,
    }


def _probabilities(explanation: Explanation) -> Float[np.ndarray, " image"]:
    """The probability of what is explained in each photograph."""
    return explanation.model.outputs.probability(explanation.pictures.collected.logits, explanation.target.index)


def _examples(explanation: Explanation) -> list[int]:
    """Held-out photographs first: those of the highest, the middle and the lowest probability of the class."""
    if explanation.single:
        return [0]
    held_out = explanation.pictures.held_out
    probability = _probabilities(explanation)
    by_probability = held_out[np.argsort(-probability[held_out], kind="stable")]
    spread = np.unique(
        np.linspace(0, len(by_probability) - 1, min(_MAPPED_PHOTOGRAPHS, len(by_probability))).round().astype(int)
    )
    return [int(by_probability[at]) for at in spread]


def _gradients(explanation: Explanation, key: dict[str, Any]) -> list[dict[str, Any]]:
    """Of the first example the concepts that change its class score most, which its key names."""
    number = _examples(explanation)[0]
    photograph = explanation.photographs[number]
    pixels = view_of(photograph, explanation.model.preprocess)
    counting = sorted(entry.number - 1 for entry in key["entries"][:_GRADIENT_MAPS])
    # In a photograph without any concept, the most important ones are as good as others.
    wanted = tuple(counting or range(min(_GRADIENT_MAPS, len(explanation.concepts))))
    maps = explanation.maps([photograph], method="saliency", concepts=wanted)[:, 0]
    shown = []
    for concept, strength in zip(wanted, maps, strict=True):
        smooth = _smooth(strength)
        bright = smooth / max(float(np.quantile(smooth, 0.995)), 1e-30)
        colour = pictures.concept_colour(concept + 1)
        shown.append(
            {
                "number": concept + 1,
                "colour": colour,
                "picture": pictures.data_uri(pictures.glow(pixels, bright, colour)),
            }
        )
    return shown


def _smooth(values: np.ndarray) -> np.ndarray:
    """Averages of 5 × 5 pixels: single pixels of a gradient are too fine to be seen."""
    for axis in (0, 1):
        padded = np.pad(values, [(2, 2) if axis == at else (0, 0) for at in (0, 1)], mode="edge")
        values = sum(np.take(padded, range(shift, shift + values.shape[axis]), axis=axis) for shift in range(5)) / 5  # pyright: ignore[reportAssignmentType]
    return values

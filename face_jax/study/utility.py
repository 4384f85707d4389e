"""Utility trials: can people predict the model, and better so once they have seen the explanation?"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, UInt8

from ..activations import survey
from ..attribution import upsampled_codes
from ..explanation.record import Explanation
from ..model import SplitModel, photographs_for
from ..nmf.encoding import encode_maps
from ..pictures.photographs import Photograph
from ..pictures.showing import view_of
from ..report.pictures import concept_colour, spotlight
from ..support.arguments import Seed, Whole, check_count, enough, flag, instance, key_of, several
from .crop_pools import crop_picture
from .trials import Example, Lesson, Option, Picture, Trial, generator, trial_name

BASELINE, EXPLAINED = "baseline", "explained"
_ELSE = "something else"
# Crops that show what a concept is.
_CROPS = 6


@dataclasses.dataclass(frozen=True)
class OneCondition:
    """The paper's design: each participant is in one condition throughout, and another group is in the other one.

    **Arguments:**

    - `explained`: whether the explanation is shown; the group without it is the baseline that utility is measured by.
    """

    explained: bool = True

    @property
    def parts(self) -> tuple[str, ...]:
        """What follows what in each session."""
        return (EXPLAINED if self.explained else BASELINE,)


@dataclasses.dataclass(frozen=True)
class BeforeAndAfter:
    """Each participant answers before and after the explanation of the same examples, session by session.

    It takes one group of people instead of two, and its utility is a little too high: they have looked at the
    examples twice when they answer the second time.
    """

    @property
    def parts(self) -> tuple[str, ...]:
        """What follows what in each session."""
        return (BASELINE, EXPLAINED)


@dataclasses.dataclass(frozen=True, eq=False)
class _Seen:
    """Photographs sorted by what the model makes of them."""

    photographs: tuple[Photograph, ...]
    maps: Float[np.ndarray, "image y x channel"]
    decision: Int[np.ndarray, " image"]
    known: frozenset[int]


def utility_trials(
    explanations: Explanation | Sequence[Explanation],
    images: Any,
    *,
    design: OneCondition | BeforeAndAfter | None = None,
    sessions: Whole = 3,
    training: Whole = 5,
    tests: Whole = 7,
    catches: Whole = 1,
    concepts: Whole = 3,
    maps: bool = True,
    batch: Whole = 32,
    key: Seed = None,
) -> tuple[Lesson | Trial, ...]:
    """Lessons and trials of predicting the model's decision on new photographs (CRAFT, section 4.1 and appendix E.1).

    Each session shows examples with the model's decisions, and with the explanation in the explained condition; then
    people predict decisions on other photographs, without any explanation, while they may look at the examples again.
    `score` turns their answers into the utility score. Decisions are balanced as far as numbers allow. The same key
    asks about the same photographs in every condition.

    **Arguments:**

    - `explanations`: of one class (the model decides between it and something else), or of several classes of the
        same model and layer (only photographs that it puts in one of them are shown).
    - `images`: anything that `face_jax.photographs` takes. Those that the explanations were made from serve as
        examples only, because questions are about new photographs.
    - `design`: `OneCondition(explained=True)` by default; people in `OneCondition(explained=False)` are the baseline.
    - `sessions`, `training`, `tests`: sessions, examples in each lesson, and questions after it (for before and after
        alike).
    - `catches`: questions about an example whose decision was shown; who gets these wrong didn't pay attention.
    - `concepts`: most important concepts of each class that are shown.
    - `maps`: whether examples also show where these concepts are (without: the paper's "concepts only").
    - `batch`: pictures that go through the network together.
    - `key`: for every choice.

    **Returns:** lessons, each before its session's trials. Raises `ValueError` where the photographs don't suffice.

    **Example:**

    >>> trials = fj.study.utility_trials(explanation, images, sessions=1, training=1, tests=2)  # doctest: +SKIP
    """
    key = key_of(key)
    design = design or OneCondition()
    every = (explanations,) if isinstance(explanations, Explanation) else several("explanations", explanations, "them")
    for explanation in every:
        instance("explanations", explanation, Explanation, "the result of explain or load")
    instance("design", design, (OneCondition, BeforeAndAfter), "OneCondition() or BeforeAndAfter()")
    flag("maps", maps)
    batch = check_count("batch", batch, "pictures")
    sessions, training, tests, catches, concepts = _check(every, sessions, training, tests, catches, concepts)
    seen = _look(every, images, batch)
    labels = [explanation.target_name for explanation in every]
    if len(every) == 1:
        labels.append(_ELSE if every[0].model.outputs.exclusive else f"not {every[0].target_name}")
    parts = design.parts
    lessons, questions = _draw(seen, labels, sessions, training, tests, len(parts), key)
    made: list[Lesson | Trial] = []
    for session in range(sessions):
        for number, part in enumerate(parts):
            stage = session * len(parts) + number
            explained = part == EXPLAINED
            examples = tuple(
                _example(every, seen, int(image), labels, concepts if explained and maps else 0)
                for image in lessons[session]
            )
            shown = _concepts(every, concepts) if explained else ()
            made.append(Lesson(stage, _text(explained, labels), examples, shown))
            caught = generator(key, 2, session, number).permutation(lessons[session])[:catches]
            made += [
                _question(key, every[0].model, seen, int(image), labels, part, session, stage, catch=catch)
                for catch, group in ((False, questions[stage]), (True, caught))
                for image in group
            ]
    return tuple(made)


def _question(
    key: Key[Array, ""],
    model: SplitModel,
    seen: _Seen,
    image: int,
    labels: list[str],
    part: str,
    session: int,
    stage: int,
    *,
    catch: bool,
) -> Trial:
    return Trial(
        name=trial_name(key, "utility", part, stage, image, catch),
        kind="utility",
        condition=part,
        question="What does the classifier see in this photograph?",
        shown=(Picture(_seen_by(model, seen.photographs[image]), "photograph"),),
        options=tuple(Option((), label) for label in labels),
        correct=int(seen.decision[image]),
        session=stage,
        catch=catch,
        about={"photograph": seen.photographs[image].name, "round": session},
    )


def _check(
    every: tuple[Explanation, ...], sessions: Any, training: Any, tests: Any, catches: Any, concepts: Any
) -> tuple[int, ...]:
    if not every:
        raise ValueError("explanations is empty; give one explanation, or one of each of several classes")
    models = [explanation.model for explanation in every]
    same = {(model.fingerprint, model.layer, model.outputs) for model in models}
    if len(same) > 1:
        raise ValueError(
            f"explanations are of {len(same)} models or layers; explain each class with one model cut at one layer"
        )
    names = [explanation.target_name for explanation in every]
    if len(set(names)) < len(names):
        raise ValueError(f"explanations are of the classes {names}; give each class once")
    counts = tuple(
        enough(name, value, least)
        for name, value, least in (
            ("sessions", sessions, 1),
            ("training", training, 2),
            ("tests", tests, 1),
            ("catches", catches, 0),
            ("concepts", concepts, 1),
        )
    )
    if catches > training:
        raise ValueError(f"catches={catches} of training={training} examples; give at most {training}")
    return counts


def _look(every: tuple[Explanation, ...], images: Any, batch: int) -> _Seen:
    """What the model makes of the photographs; where several classes are explained, only those that it puts in one."""
    model = every[0].model
    given = photographs_for(model, images)
    found = survey(model, given, batch=batch)
    targets = np.asarray([explanation.target.index for explanation in every])
    is_target = found.predicted[:, targets]
    # A photograph with several of the labels has no single right answer.
    decision = np.where(is_target.sum(1) == 1, is_target.argmax(1), len(targets))
    kept = np.flatnonzero(decision < max(len(targets), 2))
    used = {photograph.digest() for explanation in every for photograph in explanation.photographs}
    chosen = tuple(given[found.readable[number]] for number in kept)
    known = frozenset(number for number, photograph in enumerate(chosen) if photograph.digest() in used)
    return _Seen(chosen, found.kept.maps[kept], decision[kept], known)


def _draw(
    seen: _Seen, labels: list[str], sessions: int, training: int, tests: int, parts: int, key: Key[Array, ""]
) -> tuple[list[Int[np.ndarray, " training"]], list[Int[np.ndarray, " tests"]]]:
    """Photographs for each session's lesson and for each part's questions; each is used once, decisions in turn."""
    draw = generator(key, 1)
    piles = [draw.permutation(np.flatnonzero(seen.decision == choice)).tolist() for choice in range(len(labels))]
    fresh = [[image for image in pile if image not in seen.known] for pile in piles]
    # Examples take photographs that no question may use first.
    known = [[image for image in pile if image in seen.known] for pile in piles]
    there = {label: (len(pile), len(new)) for label, pile, new in zip(labels, piles, fresh, strict=True)}

    def take(count: int, turn: int, *sources: list[list[int]]) -> Int[np.ndarray, " count"]:
        taken = []
        for number in range(turn, turn + count):
            choice = number % len(labels)
            pile = next((source[choice] for source in sources if source[choice]), None)
            if pile is None:
                raise ValueError(
                    f"images don't suffice: {sessions} sessions take {sessions * training} examples and "
                    f"{sessions * parts * tests} questions about photographs that no explanation was made from, the "
                    f"decisions in equal numbers; there are, of each decision and new of these, {there}; give more "
                    "images, or smaller sessions=, training= or tests="
                )
            taken.append(pile.pop())
        return draw.permutation(np.asarray(taken, np.int64))

    questions = [take(tests, stage, fresh) for stage in range(sessions * parts)]
    lessons = [take(training, session, known, fresh) for session in range(sessions)]
    return lessons, questions


def _text(explained: bool, labels: list[str]) -> str:
    choices = " or ".join(f"“{label}”" for label in labels)
    text = f"Here are photographs, each with what a classifier sees in it: {choices}. Find out how it decides."
    if explained:
        text += " Below are the concepts that it uses, each shown by the pictures that have most of it."
    return text + " Then you predict its decision on other photographs."


def _seen_by(model: SplitModel, photograph: Photograph) -> UInt8[np.ndarray, "y x 3"]:
    return view_of(photograph, model.preprocess)


def _example(every: tuple[Explanation, ...], seen: _Seen, image: int, labels: list[str], concepts: int) -> Example:
    """A photograph, and where the most important concepts are in it: of the class it's put in or, failing that, of the
    first class."""
    decision = int(seen.decision[image])
    pixels = _seen_by(every[0].model, seen.photographs[image])
    details = []
    if concepts:
        explanation = every[min(decision, len(every) - 1)]
        shown = explanation.concepts[:concepts]
        dictionary = explanation.dictionary
        codes = encode_maps(seen.maps[image : image + 1], dictionary)
        # What counts as strong is what a photograph that clearly has the concept reaches at its best place.
        strong = np.maximum(np.quantile(explanation.codes.max(axis=(1, 2)), 0.9, axis=0), 1e-12)
        strength = upsampled_codes(jnp.asarray(codes), len(pixels))[0] / strong
        for concept in shown:
            lit = spotlight(pixels, strength[..., concept.index], concept_colour(concept.number))
            details.append(Picture(lit, f"where {_name(every, explanation, concept.number)} is"))
    return Example(Picture(pixels, "photograph"), labels[decision], tuple(details))


def _concepts(every: tuple[Explanation, ...], concepts: int) -> tuple[Option, ...]:
    return tuple(
        Option(
            tuple(crop_picture(explanation, crop) for crop in concept.strongest[:_CROPS]),
            _name(every, explanation, concept.number),
        )
        for explanation in every
        for concept in explanation.concepts[:concepts]
    )


def _name(every: tuple[Explanation, ...], explanation: Explanation, number: int) -> str:
    return f"concept {number}" + (f" of {explanation.target_name}" if len(every) > 1 else "")

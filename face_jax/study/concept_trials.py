"""Trials about single concepts: the intruder among crops, and the choice between two."""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Key

from ..support.arguments import Concepts, Seed, Whole, enough, index_or_none, key_of, shown
from .crop_pools import CroppedConcepts, apart, check_cropped, crop_picture, pair, pools_of, without
from .trials import Option, Trial, generator, trial_name


def intruder_trials(
    explanation: CroppedConcepts,
    *,
    trials: Whole = 15,
    crops: Whole = 4,
    concepts: Concepts = None,
    condition: str = "concept",
    key: Seed = None,
) -> tuple[Trial, ...]:
    """Trials of finding the crop that doesn't belong (CRAFT, section 4.2): several of one concept, one of another.

    If a concept means one thing to people, they find the intruder; chance is `1 / (crops + 1)`. Call it again with a
    concept's sub-concepts and `condition="sub-concept"` for the paper's comparison. Crops are drawn from each
    concept's strongest; the intruder is strong in its own concept and has little of the other, and comes from a
    photograph that none of the others shows wherever there are several photographs.

    **Arguments:**

    - `explanation`: an explanation, a concept's sub-concepts (`parts_of`), or anything with `photographs`, `crops` and
        `crop_codes`.
    - `trials`: how many; the paper asks 15. Concepts take turns.
    - `crops`: crops of the concept in each trial, beside the intruder; the paper shows 4.
    - `concepts`: which concepts, counted from 0; by default every one with enough crops.
    - `condition`: what scores call these trials.
    - `key`: for every choice.

    **Returns:** the trials. Raises `ValueError` where the crops don't suffice.

    **Example:**

    >>> len(fj.study.intruder_trials(explanation, trials=2, crops=2))
    2
    """
    key = key_of(key)
    check_cropped("explanation", explanation)
    trials, crops = enough("trials", trials, 1), enough("crops", crops, 2)
    if not isinstance(condition, str):
        raise ValueError(f"condition={shown(condition)} isn't a name; give a word")
    pools = pools_of(explanation, crops, concepts)
    made = []
    for number in range(trials):
        draw = generator(key, number)
        concept, other = pair(explanation, pools, number, draw)
        intruder = int(draw.choice(without(explanation, pools[other], concept)))
        alike = apart(explanation, pools[concept], (explanation, intruder), crops, draw)
        mixed = draw.permutation([*alike, intruder])
        made.append(
            Trial(
                name=trial_name(key, "intruder", condition, number, mixed.tolist()),
                kind="intruder",
                condition=condition,
                question="One of these pictures doesn't belong with the others. Which one?",
                shown=(),
                options=tuple(Option((crop_picture(explanation, int(crop)),)) for crop in mixed),
                correct=int(np.flatnonzero(mixed == intruder)[0]),
                about={"concept": concept + 1, "intruder": other + 1, "crops": mixed.tolist()},
            )
        )
    return tuple(made)


def binary_trials(
    explanation: CroppedConcepts,
    sub_concepts: CroppedConcepts | None = None,
    *,
    parent: Whole | None = None,
    trials: Whole = 15,
    crops: Whole = 6,
    concepts: Concepts = None,
    key: Seed = None,
) -> tuple[Trial, ...]:
    """Trials of choosing between two (CRAFT, section 4.2); chance is a half.

    With `sub_concepts`, the paper's experiment: a crop that a concept and its sub-concept both have, and two groups
    of crops, the sub-concept's and the concept's; which does it suit better? The sub-concept counts as correct, so
    that the accuracy is the paper's share of choices for it. Without, the question is whether concepts can be told
    apart: crops of one concept are shown, and two more crops, one of it and one of another concept; which belongs?

    **Arguments:**

    - `explanation`: an explanation, or anything with `photographs`, `crops` and `crop_codes`.
    - `sub_concepts`: the parts of one of its concepts (`parts_of`), or anything of the same form.
    - `parent`: that concept, counted from 0.
    - `trials`: how many; the paper asks 15. Concepts take turns.
    - `crops`: crops in each group.
    - `concepts`: which (sub-)concepts, counted from 0; by default every one with enough crops.
    - `key`: for every choice.

    **Returns:** the trials, with condition `"sub-concept"` or `"concept"`. Raises `ValueError` where the crops don't
    suffice, or `parent` is missing.

    **Example:**

    >>> len(fj.study.binary_trials(explanation, trials=2, crops=2))
    2
    """
    key = key_of(key)
    check_cropped("explanation", explanation)
    trials, crops = enough("trials", trials, 1), enough("crops", crops, 1)
    if sub_concepts is not None:
        check_cropped("sub_concepts", sub_concepts)
    if sub_concepts is None:
        return _told_apart(explanation, trials, crops, concepts, key)
    known = explanation.crop_codes.shape[1]
    whole_concept = index_or_none(parent)
    if whole_concept is None or not 0 <= whole_concept < known:
        raise ValueError(
            f"parent={shown(parent)} is none of {known} concepts; say which one sub_concepts are of, 0 to {known - 1}"
        )
    return _suited(explanation, sub_concepts, whole_concept, trials, crops, concepts, key)


def _told_apart(
    explanation: CroppedConcepts, trials: int, crops: int, concepts: Concepts, key: Key[Array, ""]
) -> tuple[Trial, ...]:
    pools = pools_of(explanation, crops + 1, concepts)
    made = []
    for number in range(trials):
        draw = generator(key, number)
        concept, other = pair(explanation, pools, number, draw)
        wrong = int(draw.choice(without(explanation, pools[other], concept)))
        right, *group = apart(explanation, pools[concept], (explanation, wrong), crops + 1, draw)
        mixed = draw.permutation([right, wrong])
        made.append(
            Trial(
                name=trial_name(key, "binary", "concept", number, mixed.tolist()),
                kind="binary",
                condition="concept",
                question="Which of the two pictures below belongs with these?",
                shown=tuple(crop_picture(explanation, crop) for crop in group),
                options=tuple(Option((crop_picture(explanation, int(crop)),)) for crop in mixed),
                correct=int(np.flatnonzero(mixed == right)[0]),
                about={"concept": concept + 1, "other": other + 1, "crops": mixed.tolist()},
            )
        )
    return tuple(made)


def _suited(
    explanation: CroppedConcepts,
    parts: CroppedConcepts,
    parent: int,
    trials: int,
    crops: int,
    concepts: Concepts,
    key: Key[Array, ""],
) -> tuple[Trial, ...]:
    pools = pools_of(parts, crops + 1, concepts, least=1)
    # One more than are shown: the probe may be among them.
    whole = pools_of(explanation, crops + 1, [parent], least=1)[parent]
    numbers = sorted(pools)
    made = []
    for number in range(trials):
        draw = generator(key, number)
        concept = numbers[number % len(numbers)]
        probe, *group = (int(crop) for crop in draw.permutation(pools[concept])[: crops + 1])
        both = [
            Option(tuple(crop_picture(parts, crop) for crop in group)),
            Option(
                tuple(
                    crop_picture(explanation, crop) for crop in apart(explanation, whole, (parts, probe), crops, draw)
                )
            ),
        ]
        order = draw.permutation(2)
        made.append(
            Trial(
                name=trial_name(key, "binary", "sub-concept", number, parent, concept, probe),
                kind="binary",
                condition="sub-concept",
                question="Which of the two groups below does this picture suit better?",
                shown=(crop_picture(parts, probe),),
                options=tuple(both[place] for place in order),
                correct=int(np.flatnonzero(order == 0)[0]),
                about={"concept": parent + 1, "sub_concept": concept + 1, "crop": probe},
            )
        )
    return tuple(made)

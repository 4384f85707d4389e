"""What a study's answers say: accuracies with their intervals, comparisons, and the utility score."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ..support.arguments import Seed, Whole, check_count, instance, key_of, real, several
from .answers import Answer, AnswerError, read_answers, read_key
from .utility_score import Utility, utility_score


@dataclasses.dataclass(frozen=True)
class Screening:
    """Whose answers don't count; by default those of people who fail a catch trial.

    **Arguments:**

    - `failed_catches`: most catch trials that may be answered wrongly.
    - `median_seconds`: least median time for an answer.
    - `unanswered`: most trials that may be left out.
    """

    failed_catches: int = 0
    median_seconds: float = 0.0
    unanswered: int = 0


@dataclasses.dataclass(frozen=True)
class Accuracy:
    """The share of correct answers in one condition of an experiment.

    **Arguments:**

    - `kind`, `condition`: which trials.
    - `correct`, `total`: answers.
    - `participants`: who gave them.
    - `accuracy`: their ratio.
    - `low`, `high`: its interval (Wilson's score interval for a binomial share).
    - `chance`: what guessing would give.
    - `p_value`: probability of so many correct answers, or more, by guessing (exact binomial test).
    - `odds`: correct answers for each wrong one.
    """

    kind: str
    condition: str
    correct: int
    total: int
    participants: int
    accuracy: float
    low: float
    high: float
    chance: float
    p_value: float
    odds: float


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two conditions of one experiment.

    **Arguments:**

    - `kind`: the experiment.
    - `first`, `second`: the conditions.
    - `difference`: the second's accuracy less the first's.
    - `p_value`: Fisher's exact test, two-sided.
    """

    kind: str
    first: str
    second: str
    difference: float
    p_value: float


@dataclasses.dataclass(frozen=True)
class StudyScore:
    """A study's result.

    **Arguments:**

    - `accuracies`: of intruder and binary trials, condition by condition.
    - `comparisons`: between the conditions of an experiment.
    - `utility`: of the explanation, if people with and without it predicted the model; else None.
    - `participants`: whose answers count.
    - `excluded`: whose don't, each with the reason.
    """

    accuracies: tuple[Accuracy, ...]
    comparisons: tuple[Comparison, ...]
    utility: Utility | None
    participants: tuple[str, ...]
    excluded: dict[str, str]


def score(
    answers: str | pathlib.Path | Sequence[str | pathlib.Path],
    key: str | pathlib.Path | dict[str, Any] | Sequence[str | pathlib.Path | dict[str, Any]],
    *,
    screening: Screening | None = None,
    confidence: float = 0.95,
    resamples: Whole = 10_000,
    random_key: Seed = None,
) -> StudyScore:
    """Scores participants' answers with the key that was written beside the study's page.

    Intervals and tests of accuracies treat answers as independent. Answers of one person are not quite, so with few
    people they are somewhat too narrow; the utility's interval resamples people instead.

    **Arguments:**

    - `answers`: files that participants saved, or folders of them.
    - `key`: the study's `.key.json`, or several studies' that are scored together: the two groups of the utility
        experiment (with and without explanation) each have a page and a key.
    - `screening`: whose answers don't count.
    - `confidence`: of all intervals.
    - `resamples`: of people, for the utility's interval.
    - `random_key`: for the resampling.

    **Returns:** the scores. Raises `AnswerError` where answers and keys don't fit.

    **Example:**

    >>> found = fj.study.score("answers/", "study/key.json")  # doctest: +SKIP
    """
    screening = Screening() if screening is None else screening
    instance("screening", screening, Screening, "Screening(failed_catches=1)")
    resamples, random_key = check_count("resamples", resamples, "resamples"), key_of(random_key, "random_key")
    if not 0 < real("confidence", confidence, "probability") < 1:
        raise ValueError(f"confidence={confidence} isn't a probability between 0 and 1; give one such as 0.95")
    keys = _keys(key)
    given = read_answers(answers)
    _check(given, keys)
    by_person: dict[str, list[Answer]] = defaultdict(list)
    for answer in given:
        by_person[answer.participant].append(answer)
    excluded = {
        person: reason for person, own in by_person.items() if (reason := _reason(own, keys, screening)) is not None
    }
    counted = [answer for answer in given if answer.participant not in excluded]
    if not counted:
        reasons = "; ".join(f"{person}: {reason}" for person, reason in list(excluded.items())[:5])
        raise AnswerError(f"nobody's answers count ({reasons}); loosen screening=Screening(…), or ask more people")
    accuracies = _accuracies(counted, keys, confidence)
    return StudyScore(
        accuracies=accuracies,
        comparisons=_comparisons(accuracies),
        utility=utility_score(_predictions(counted, keys), confidence, resamples, random_key),
        participants=tuple(sorted(set(by_person) - set(excluded))),
        excluded=excluded,
    )


def _keys(source: Any) -> dict[str, dict[str, Any]]:
    sources: Sequence[Any] = (
        [source] if isinstance(source, str | os.PathLike | dict) else several("key", source, "keys")
    )
    keys = [read_key(entry) for entry in sources]
    if not keys:
        raise AnswerError("key is empty; give the .key.json that was written beside the study's page")
    return {str(key["study"]): key for key in keys}


def _trial(answer: Answer, keys: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return keys[answer.study]["trials"][answer.trial]


def _check(answers: Sequence[Answer], keys: dict[str, dict[str, Any]]) -> None:
    for answer in answers:
        if answer.study not in keys:
            raise AnswerError(
                f"{answer.file}: answers study {answer.study!r}, and key is of {sorted(keys)}; give the key written "
                "beside the page that was answered"
            )
        if answer.trial not in keys[answer.study]["trials"]:
            raise AnswerError(
                f"{answer.file}: trial {answer.trial!r} is not in the key of study {answer.study!r}; give the key "
                "written beside the page that was answered"
            )
        options = _trial(answer, keys)["options"]
        if answer.choice >= options:
            raise AnswerError(
                f"{answer.file}: choice={answer.choice} of trial {answer.trial}, which has {options} options; "
                "give the file as the page saved it"
            )


def _reason(own: Sequence[Answer], keys: dict[str, dict[str, Any]], screening: Screening) -> str | None:
    """Why a participant's answers don't count, if they don't."""
    asked = sum(len(keys[study]["trials"]) for study in {answer.study for answer in own})
    failed = sum(_trial(answer, keys)["catch"] and not _right(answer, keys) for answer in own)
    median = statistics.median(answer.seconds for answer in own)
    if asked - len(own) > screening.unanswered:
        return f"{asked - len(own)} of {asked} trials unanswered"
    if failed > screening.failed_catches:
        return f"{failed} catch trials wrong"
    if median < screening.median_seconds:
        return f"{median:.2g} seconds for an answer (median)"
    return None


def _right(answer: Answer, keys: dict[str, dict[str, Any]]) -> bool:
    return answer.choice == _trial(answer, keys)["correct"]


def _accuracies(answers: Sequence[Answer], keys: dict[str, dict[str, Any]], confidence: float) -> tuple[Accuracy, ...]:
    from scipy.stats import binomtest

    groups: dict[tuple[str, str, int], list[Answer]] = defaultdict(list)
    for answer in answers:
        trial = _trial(answer, keys)
        if trial["kind"] != "utility" and not trial["catch"]:
            groups[trial["kind"], trial["condition"], trial["options"]].append(answer)
    found = []
    for (kind, condition, options), group in sorted(groups.items()):
        correct, total = sum(_right(answer, keys) for answer in group), len(group)
        test = binomtest(correct, total, 1 / options, alternative="greater")
        interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
        found.append(
            Accuracy(
                kind=kind,
                condition=condition,
                correct=correct,
                total=total,
                participants=len({answer.participant for answer in group}),
                accuracy=correct / total,
                low=float(interval.low),
                high=float(interval.high),
                chance=1 / options,
                p_value=float(test.pvalue),
                odds=correct / (total - correct) if correct < total else float("inf"),
            )
        )
    return tuple(found)


def _comparisons(accuracies: Sequence[Accuracy]) -> tuple[Comparison, ...]:
    from scipy.stats import fisher_exact

    found = []
    for first, second in itertools.combinations(accuracies, 2):
        if first.kind == second.kind and first.chance == second.chance:
            table = [[one.correct, one.total - one.correct] for one in (first, second)]
            test: Any = fisher_exact(table)
            found.append(
                Comparison(
                    kind=first.kind,
                    first=first.condition,
                    second=second.condition,
                    difference=second.accuracy - first.accuracy,
                    p_value=float(test.pvalue),
                )
            )
    return tuple(found)


def _predictions(
    answers: Sequence[Answer], keys: dict[str, dict[str, Any]]
) -> dict[str, dict[str, dict[int, list[bool]]]]:
    """Condition, participant, session: whether each prediction of the model was right."""
    found: dict[str, dict[str, dict[int, list[bool]]]] = {}
    for answer in answers:
        trial = _trial(answer, keys)
        if trial["kind"] == "utility" and not trial["catch"]:
            sessions = found.setdefault(trial["condition"], {}).setdefault(answer.participant, {})
            sessions.setdefault(int(trial["about"]["round"]), []).append(_right(answer, keys))
    return found

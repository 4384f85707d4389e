"""The utility score: how much better people predict the model who have seen the explanation."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from .trials import generator
from .utility import BASELINE, EXPLAINED

Predictions = dict[str, dict[str, dict[int, list[bool]]]]


@dataclasses.dataclass(frozen=True)
class Utility:
    """The utility score of Colin and Fel et al., as CRAFT uses it (section 4.1, table 1).

    **Arguments:**

    - `score`: mean accuracy over sessions of predicting the model with the explanation, over the same without; 1 says
        that the explanation is of no use. Infinite if nobody was right without it, NaN if nobody was with it either.
    - `low`, `high`: its interval, by resampling people; infinite where they are right without it in too few resamples.
    - `sessions`: those that count, which people answered in both conditions.
    - `baseline`, `explained`: accuracy in each of them, without and with the explanation.
    - `baseline_participants`, `explained_participants`: how many people.
    - `notes`: what a reader should know before believing it.
    """

    score: float
    low: float
    high: float
    sessions: tuple[int, ...]
    baseline: tuple[float, ...]
    explained: tuple[float, ...]
    baseline_participants: int
    explained_participants: int
    notes: tuple[str, ...]


def utility_score(
    predictions: Predictions, confidence: float, resamples: int, key: Key[Array, ""] | None
) -> Utility | None:
    """The score from right and wrong predictions by condition, participant and session; None without two conditions.

    Sessions count that were answered in both conditions; None if there is none. People who answered in both are drawn
    together; of those who answered in one, each condition's number is kept.
    """
    if not {BASELINE, EXPLAINED} <= set(predictions):
        return None
    answered = [{session for own in predictions[name].values() for session in own} for name in (BASELINE, EXPLAINED)]
    sessions = sorted(answered[0] & answered[1])
    if not sessions:
        return None
    groups = {
        name: {person: own for person, own in predictions[name].items() if set(own) & set(sessions)}
        for name in (BASELINE, EXPLAINED)
    }
    people = sorted({person for group in groups.values() for person in group})
    tables = [_table(groups[name], people, sessions) for name in (BASELINE, EXPLAINED)]
    baseline, explained = (_by_session(table, np.ones((1, len(people))))[0] for table in tables)
    weights = _drawn(np.asarray([[person in group for group in groups.values()] for person in people]), resamples, key)
    ratios = _ratios(*(_by_session(table, weights) for table in tables))
    tail = (1 - confidence) / 2
    there = ratios[~np.isnan(ratios)]
    # Quantiles that are among the resamples' own ratios: between a number and infinity there is nothing.
    low, high = np.quantile(there, [tail, 1 - tail], method="inverted_cdf") if len(there) else (np.nan, np.nan)
    return Utility(
        score=float(_ratios(baseline[None], explained[None])[0]),
        low=float(low),
        high=float(high),
        sessions=tuple(sessions),
        baseline=tuple(baseline.tolist()),
        explained=tuple(explained.tolist()),
        baseline_participants=len(groups[BASELINE]),
        explained_participants=len(groups[EXPLAINED]),
        notes=_notes(sorted(answered[0] ^ answered[1]), ratios),
    )


def _notes(lonely: list[int], ratios: Float[np.ndarray, " sample"]) -> tuple[str, ...]:
    notes = []
    if lonely:
        notes.append(f"sessions {lonely} were answered in one condition only, and don't count")
    unbounded = float((~np.isfinite(ratios)).mean())
    if unbounded:
        notes.append(
            f"in {unbounded:.1%} of the resamples nobody was right without the explanation, where the score is "
            "infinite, or no number; ask more people"
        )
    return tuple(notes)


def _ratios(
    baseline: Float[np.ndarray, "sample session"], explained: Float[np.ndarray, "sample session"]
) -> Float[np.ndarray, " sample"]:
    """Explained over baseline, of their means over the sessions that a sample has answers of in both."""
    both = ~(np.isnan(baseline) | np.isnan(explained))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(both, explained, 0).sum(axis=1) / np.where(both, baseline, 0).sum(axis=1)


def _table(
    group: dict[str, dict[int, list[bool]]], people: list[str], sessions: list[int]
) -> Float[np.ndarray, "2 person session"]:
    """Right predictions and all predictions of each participant in each session."""
    table = np.zeros((2, len(people), len(sessions)))
    for person, own in group.items():
        for session in set(own) & set(sessions):
            right = own[session]
            table[:, people.index(person), sessions.index(session)] = sum(right), len(right)
    return table


def _by_session(
    table: Float[np.ndarray, "2 person session"], weights: Float[np.ndarray, "sample person"]
) -> Float[np.ndarray, "sample session"]:
    right, asked = weights @ table[0], weights @ table[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return right / asked


def _drawn(groups: np.ndarray, resamples: int, key: Key[Array, ""] | None) -> Float[np.ndarray, "sample person"]:
    """How often each participant is drawn, with replacement among those of the same conditions."""
    draw = generator(jax.random.key(0) if key is None else key)
    weights = np.zeros((resamples, len(groups)))
    for group in np.unique(groups, axis=0):
        members = np.flatnonzero((groups == group).all(axis=1))
        weights[:, members] = draw.multinomial(len(members), np.full(len(members), 1 / len(members)), size=resamples)
    return weights

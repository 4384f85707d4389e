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
        that the explanation is of no use.
    - `low`, `high`: its interval, by resampling people.
    - `baseline`, `explained`: accuracy in each session, without and with the explanation.
    - `baseline_participants`, `explained_participants`: how many people.
    """

    score: float
    low: float
    high: float
    baseline: tuple[float, ...]
    explained: tuple[float, ...]
    baseline_participants: int
    explained_participants: int


def utility_score(
    predictions: Predictions, confidence: float, resamples: int, key: Key[Array, ""] | None
) -> Utility | None:
    """The score from right and wrong predictions by condition, participant and session; None if a condition is missing.

    People who answered in both conditions are drawn together; of those who answered in one, each condition's number
    is kept.
    """
    if not {BASELINE, EXPLAINED} <= set(predictions):
        return None
    sessions = sorted({session for people in predictions.values() for own in people.values() for session in own})
    people = sorted({person for group in predictions.values() for person in group})
    tables = {name: _table(predictions[name], people, sessions) for name in (BASELINE, EXPLAINED)}
    baseline, explained = (_by_session(tables[name], np.ones((1, len(people))))[0] for name in (BASELINE, EXPLAINED))
    groups = [[person in predictions[name] for name in (BASELINE, EXPLAINED)] for person in people]
    weights = _drawn(np.asarray(groups), resamples, key)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.nanmean(_by_session(tables[EXPLAINED], weights), axis=1) / np.nanmean(
            _by_session(tables[BASELINE], weights), axis=1
        )
        value = float(np.mean(explained) / np.mean(baseline))
    tail = (1 - confidence) / 2
    low, high = (
        np.quantile(ratios[~np.isnan(ratios)], [tail, 1 - tail]) if not np.isnan(ratios).all() else (np.nan,) * 2
    )
    return Utility(
        score=value,
        low=float(low),
        high=float(high),
        baseline=tuple(baseline.tolist()),
        explained=tuple(explained.tolist()),
        baseline_participants=len(predictions[BASELINE]),
        explained_participants=len(predictions[EXPLAINED]),
    )


def _table(
    group: dict[str, dict[int, list[bool]]], people: list[str], sessions: list[int]
) -> Float[np.ndarray, "2 person session"]:
    """Right predictions and all predictions of each participant in each session."""
    table = np.zeros((2, len(people), len(sessions)))
    for person, own in group.items():
        for session, right in own.items():
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

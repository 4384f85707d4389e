"""Matching of the concepts of two dictionaries, one to one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import jax
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float, Int, Key


def matched(
    first: Float[np.ndarray, "concept channel"],
    second: Float[np.ndarray, "concept channel"],
    *,
    either_sign: bool = False,
) -> tuple[Int[np.ndarray, " concept"], float]:
    """For each concept of the first the second's, one to one (Hungarian method), and the mean cosine between them.

    With `either_sign`, a concept and its negative are the same.
    """
    cosines = first.astype(np.float64) @ second.T.astype(np.float64)
    cosines = np.abs(cosines) if either_sign else cosines
    pairs = scipy.optimize.linear_sum_assignment(cosines, maximize=True)
    return np.asarray(pairs[1]), float(cosines[pairs].mean())


def agreements(
    dictionaries: Sequence[Float[np.ndarray, "concept channel"]], *, either_sign: bool = False
) -> Float[np.ndarray, " pair"]:
    """The mean cosine of concepts matched one to one, for each pair of dictionaries."""
    pairs = itertools.combinations(dictionaries, 2)
    return np.asarray([matched(first, second, either_sign=either_sign)[1] for first, second in pairs])


def drawn_rows(
    rows: Float[np.ndarray, "row channel"], rank: int, keys: Iterable[Key[Array, ""]]
) -> list[Float[np.ndarray, "concept channel"]]:
    """Dictionaries that are random rows at unit length, one for each key: what stability has to beat."""
    # Rows of any length: their squares may be out of range where they aren't.
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows = rows / np.where(largest > 0, largest, 1)
    directions = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return [directions[np.asarray(jax.random.randint(key, (rank,), 0, len(directions)))] for key in keys]

"""Rows that come piece by piece, with the terms and the codes that belong to each piece."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ...blocks.scratch import Scratch
from ..objective import Objective, SquaredError
from ..shapes import Codes, Number
from ..terms.problem import SAMPLE_ROWS, Problem, Settings, problem_of
from .stream import Piece, Stream


def group_of(objective: Objective, rows: int) -> int:
    """How many rows are one to the terms: all of them where they don't come out even."""
    none = jnp.zeros((rows, 0))
    return problem_of(none, objective, (None,) * len(objective.terms), Settings()).group


def together(objective: Objective, rows: int) -> int:
    """How many rows are one to the terms; raises `ValueError` if they don't come out even."""
    group = group_of(objective, rows)
    if group == rows and rows > SAMPLE_ROWS:
        raise ValueError(
            f"activations has {rows} rows, which aren't whole images of the objective's terms; or its terms see all "
            "rows as one. Give all places of each image, one image after the other, and terms that are sums over images"
        )
    return group


def terms_of(objective: Objective, rows: int, group: int, groups: np.ndarray) -> tuple[Any, ...]:
    """The weighted terms for some groups of rows.

    **Arguments:**

    - `objective`, `rows`: the whole problem's.
    - `group`: how many rows are one to the terms.
    - `groups`: which of these are meant.
    """
    found = []
    for weighted in objective.terms:
        mine = weighted.term.rows_together(rows)
        some = (groups[:, None] * (group // mine) + np.arange(group // mine)[None]).reshape(-1)
        found.append(dataclasses.replace(weighted, term=weighted.term.of_groups(some, rows // mine)))
    return tuple(found)


class Terms:
    """Rows, with the terms that belong to some of them.

    **Arguments:**

    - `stream`, `objective`: the problem.
    """

    def __init__(self, stream: Stream, objective: Objective) -> None:
        self.stream, self.objective = stream, objective
        self.group = together(objective, stream.shape[0])
        self.quadratic: Any = dataclasses.replace(objective.quadratic, row_weights=None)

    def pieces(self) -> Iterator[tuple[Piece, tuple[Any, ...]]]:
        """The pieces, each with the terms of its images."""
        for piece in self.stream:
            yield piece, self.of(np.arange(piece.start // self.group, piece.stop // self.group))

    def of(self, groups: np.ndarray) -> tuple[Any, ...]:
        """The terms for some groups of rows."""
        return terms_of(self.objective, self.stream.shape[0], self.group, groups)


class Walk(Terms):
    """Rows, terms and codes, gone through together.

    **Arguments:**

    - `stream`, `objective`, `settings`: the problem.
    - `rank`: how many concepts.
    - `scratch`: makes room for codes.
    """

    def __init__(self, stream: Stream, objective: Objective, settings: Settings, rank: int, scratch: Scratch) -> None:
        super().__init__(stream, objective)
        self.settings, self.rank = settings, rank
        shape = (stream.shape[0] * rank,)
        # Before the last step, behind it, and behind the one that is tried.
        self.codes = [scratch.array(shape, stream.dtype) for _ in range(3)]
        self.still = True
        self.size: Any = jnp.zeros((), stream.dtype)

    def some(self, which: int, start: int, stop: int) -> Codes:
        """Codes of some rows: 0 before the last step, 1 behind it, 2 behind the one that is tried."""
        return jnp.asarray(self.codes[which][start * self.rank : stop * self.rank].reshape(-1, self.rank))

    def put(self, which: int, start: int, stop: int, codes: Any) -> None:
        """Codes of some rows, written."""
        self.codes[which][start * self.rank : stop * self.rank] = np.asarray(codes).reshape(-1)

    def keep(self) -> None:
        """The step that was tried is kept."""
        before, now, tried = self.codes
        self.codes, self.still = [now, tried, before], False

    def ends(self) -> Any:
        """The problem as far as it's known without rows."""
        none = jnp.zeros((0, self.stream.shape[1]), self.stream.dtype)
        return Known(none, self.quadratic, self.size, self.settings)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Known:
    """What is known of a problem without its rows."""

    none: Array
    quadratic: SquaredError
    size: Number
    settings: Any = dataclasses.field(metadata={"static": True})

    @property
    def problem(self) -> Problem:
        """As steps take it."""
        return Problem(self.none, self.quadratic, (), self.settings, 1, self.size)

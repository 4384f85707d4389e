"""The codes of all rows between two steps, piece by piece, outside JAX's memory."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from ...blocks.scratch import Scratch
from .rule import Iterate, UpdateRule


class CodeSlots:
    """Codes before a step and behind it: a step is kept by taking the new ones, and taken back by leaving them.

    **Arguments:**

    - `rows`, `rank`, `dtype`: how many codes there are, and of what.
    - `rule`: what remembers more than the codes.
    - `scratch`: makes the arrays.
    """

    def __init__(self, rows: int, rank: int, dtype: Any, rule: UpdateRule, scratch: Scratch) -> None:
        remembered = len(rule.remember(jnp.zeros((rank, 1), dtype)))
        self.rank, self.back = rank, True
        self.slots = [[scratch.array((rows * rank,), dtype) for _ in range(2 + remembered)] for _ in range(2)]
        self.now = 0

    @property
    def current(self) -> list[np.ndarray]:
        """All that the last kept step left."""
        return self.slots[self.now]

    def read(self, start: int, stop: int) -> Iterate:
        """The codes of some rows as the last kept step left them."""
        x, previous, *memory = (jnp.asarray(self._some(part, start, stop)) for part in self.slots[self.now])
        return Iterate(x, x if self.back else previous, tuple(memory))

    def write(self, start: int, stop: int, codes: Iterate) -> None:
        """The codes of some rows behind this step."""
        for part, new in zip(self.slots[1 - self.now], (codes.x, codes.previous, *codes.memory), strict=True):
            self._some(part, start, stop)[...] = np.asarray(new)

    def keep(self) -> None:
        """This step is kept."""
        self.now, self.back = 1 - self.now, False

    def take_back(self) -> None:
        """This step is taken back: there is nothing to extrapolate from."""
        self.back = True

    def _some(self, part: np.ndarray, start: int, stop: int) -> np.ndarray:
        return part[start * self.rank : stop * self.rank].reshape(self.rank, stop - start)

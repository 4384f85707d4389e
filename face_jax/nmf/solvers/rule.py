"""What the loop asks of a solver: a rule that improves one factor while the other one stands still.

All rules see the same problem, for the codes and for the dictionary alike: concepts first, one column an item (a row of
the activations, or a channel), `min ½⟨X, G X⟩ − ⟨C, X⟩` with `X ≥ 0`, G (`concept concept`) and C given.
"""

from __future__ import annotations

import abc
import dataclasses

import jax

from ..shapes import Columns, Gram, Scalar

Memory = tuple[Columns, ...]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Iterate:
    """A factor between two steps.

    **Arguments:**

    - `x`: where it is, extrapolated.
    - `previous`: where it was before, from which it's extrapolated.
    - `memory`: what the rule remembers.
    """

    x: Columns
    previous: Columns
    memory: Memory = ()

    @property
    def taken_back(self) -> Iterate:
        """After a step that isn't kept: nothing to extrapolate from."""
        return Iterate(self.x, self.x, self.memory)


class UpdateRule(abc.ABC):
    """One rule for improving a factor, and the settings of the loop around it.

    Fields that every rule has: `rtol`, the scaled KKT residual at which the loop stops, and `max_steps`.
    """

    rtol: Scalar
    max_steps: int
    extrapolate: bool

    @property
    def signed_dictionary(self) -> bool:
        """Whether the dictionary may have negative entries."""
        return False

    def begin(self, x: Columns, mean: Scalar | None = None) -> Columns:
        """A first factor that the rule can start from; as it is, for rules that can leave zero.

        **Arguments:**

        - `x`: the factor, or some columns of it.
        - `mean`: the whole factor's, if these are some columns.
        """
        del mean
        return x

    @abc.abstractmethod
    def remember(self, x: Columns) -> Memory:
        """What the rule carries from one step to the next for this factor, before the first step."""

    @abc.abstractmethod
    def update(self, x: Columns, gram: Gram, cross: Columns, memory: Memory) -> tuple[Columns, Memory]:
        """A better, non-negative factor, and the new memory."""

    def update_penalized(
        self, x: Columns, gram: Gram, cross: Columns, memory: Memory, l1: Scalar
    ) -> tuple[Columns, Memory]:
        """The same beside `l1 ΣX`: with `C − l1` in C's place, unless a rule has to tell the two apart."""
        return self.update(x, gram, cross - l1, memory)

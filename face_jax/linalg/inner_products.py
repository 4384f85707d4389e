"""Inner products that say which entries are one linear system: all, those of a column, or those of a group of rows."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


@runtime_checkable
class InnerProduct(Protocol):
    """Which entries are one system: it has an inner product, and a step length, of its own."""

    def dot(self, x: Any, y: Any) -> Float[Array, "*system"]:
        """Inner product, one a system."""
        ...

    def add(self, x: Any, lengths: Float[Array, "*system"], y: Any) -> Any:
        """`x + lengths · y`, each system by its own length."""
        ...


class Whole:
    """All entries of a pytree are one system."""

    def dot(self, x: Any, y: Any) -> Float[Array, ""]:
        """Sum over all entries."""
        return jax.tree.reduce(jnp.add, jax.tree.map(lambda a, b: jnp.sum(a * b), x, y))

    def add(self, x: Any, lengths: Float[Array, ""], y: Any) -> Any:
        """`x + length · y`."""
        return jax.tree.map(lambda a, b: a + lengths * b, x, y)


class Columns:
    """Each column of a matrix is a system."""

    def dot(self, x: Float[Array, "a item"], y: Float[Array, "a item"]) -> Float[Array, " item"]:
        """Sum over each column."""
        return jnp.sum(x * y, axis=0)

    def add(
        self, x: Float[Array, "a item"], lengths: Float[Array, " item"], y: Float[Array, "a item"]
    ) -> Float[Array, "a item"]:
        """Column by column."""
        return x + lengths[None] * y


@dataclasses.dataclass(frozen=True)
class RowGroups:
    """So many rows of a matrix, one after the other, are a system.

    **Arguments:**

    - `rows`: rows of a group.
    """

    rows: int

    def dot(self, x: Float[Array, "a b"], y: Float[Array, "a b"]) -> Float[Array, " group"]:
        """Inner product of each group."""
        return self.total(jnp.sum(x * y, axis=1))

    def add(
        self, x: Float[Array, "a b"], lengths: Float[Array, " group"], y: Float[Array, "a b"]
    ) -> Float[Array, "a b"]:
        """Group by group."""
        return x + self.spread(lengths) * y

    def total(self, x: Float[Array, " a"]) -> Float[Array, " group"]:
        """Sum over each group's rows."""
        return x if self.rows == 1 else jnp.sum(x.reshape(-1, self.rows), axis=1)

    def largest(self, x: Float[Array, "a b"]) -> Float[Array, " group"]:
        """Each group's largest entry in absolute value."""
        return jnp.max(jnp.abs(x).reshape(-1, self.rows * x.shape[1]), axis=1)

    def spread(self, x: Float[Array, " group"]) -> Float[Array, "a 1"]:
        """A number of each group, given to all its rows."""
        return (x if self.rows == 1 else jnp.repeat(x, self.rows))[:, None]

    def where(self, condition: Bool[Array, " group"], x: Float[Array, "a b"], y: Array) -> Float[Array, "a b"]:
        """x for the groups that the condition holds for, else y."""
        return jnp.where((condition if self.rows == 1 else jnp.repeat(condition, self.rows))[:, None], x, y)

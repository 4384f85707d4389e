"""A sparse matrix inside programs that are traced and differentiated: its stored values are what moves.

A dense matrix is multiplied with it by `@` from the left, as with an array; the other side is its transposed matrix's.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .sparse_rows import product_of_entries


@partial(jax.tree_util.register_dataclass, data_fields=("values", "rows", "columns"), meta_fields=("shape",))
@dataclasses.dataclass(frozen=True)
class StoredMatrix:
    """What is stored of a matrix, each place once.

    **Arguments:**

    - `values`: the numbers.
    - `rows`, `columns`: where they are.
    - `shape`: of the matrix.
    """

    values: Float[Array, " entry"]
    rows: Any  # `Int[Array, " entry"]`, or what stands for their tangents
    columns: Any
    shape: tuple[int, int]

    @property
    def dtype(self) -> Any:
        """Of the numbers."""
        return self.values.dtype

    @property
    def T(self) -> StoredMatrix:  # noqa: N802 (as arrays have it)
        """The transposed matrix."""
        return StoredMatrix(self.values, self.columns, self.rows, (self.shape[1], self.shape[0]))

    def __rmatmul__(self, left: Float[Array, "k row"]) -> Float[Array, "k column"]:
        """`L A`."""
        return product_of_entries(self.values, self.columns, self.rows, left.T, self.shape[1], False).T

    def __truediv__(self, by: Any) -> StoredMatrix:
        """All values divided by a number."""
        return dataclasses.replace(self, values=self.values / by)

    def squares(self, counts: Float[Array, " row"] | None = None) -> Float[Array, ""]:
        """`‖A‖²`, rows weighted."""
        squares = self.values**2
        return jnp.sum(squares if counts is None else squares * counts[self.rows])


@dataclasses.dataclass(frozen=True)
class Difference:
    """`L R − A`, which isn't formed.

    **Arguments:**

    - `left`, `right`: the factors of the product.
    - `matrix`: what is taken off.
    """

    left: Float[Array, "row k"]
    right: Float[Array, "k column"]
    matrix: StoredMatrix

    @property
    def T(self) -> Difference:  # noqa: N802
        """The transposed difference."""
        return Difference(self.right.T, self.left.T, self.matrix.T)

    def __rmatmul__(self, left: Float[Array, "l row"]) -> Float[Array, "l column"]:
        """`M (L R − A)`."""
        return (left @ self.left) @ self.right - left @ self.matrix

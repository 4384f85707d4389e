"""A sparse matrix and its products, the only thing that a factorization has to do with it.

On a processor these are SciPy's, which take a tenth of the time of XLA's; both orders of the entries are kept, so that
either product goes through rows. On an accelerator they are programs of JAX over the stored entries.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jaxtyping import Array, Float, Int

_DENSE_BYTES = 8 * 2**20  # of rows that are made dense at a time
_TERMS = 2**28  # products of entries that are there at a time on an accelerator


class SparseRows:
    """A matrix of which few entries aren't zero.

    **Arguments:**

    - `matrix`: SciPy's, of any format; entries that are there twice are added up.
    - `dtype`: what is computed in.
    """

    def __init__(self, matrix: Any, dtype: Any) -> None:
        found: Any = scipy.sparse.csr_array(matrix, dtype=dtype)
        if not found.has_canonical_format:
            found = found.copy()
            found.sum_duplicates()
        self.matrix = found
        self.shape: tuple[int, int] = (int(found.shape[0]), int(found.shape[1]))
        self.dtype = found.dtype

    @functools.cached_property
    def _transposed(self) -> Any:
        return self.matrix.T.tocsr()

    @functools.cached_property
    def _on_accelerator(self) -> tuple[Array, Array, Array] | None:
        """Values, rows and columns of entries, where products are made there."""
        if jax.default_backend() == "cpu":
            return None
        coo = self.matrix.tocoo()
        return jnp.asarray(coo.data), jnp.asarray(coo.row, jnp.int32), jnp.asarray(coo.col, jnp.int32)

    @property
    def T(self) -> SparseRows:  # noqa: N802 (as arrays have it)
        """The transposed matrix, which shares what it's made of."""
        found = SparseRows(self._transposed, self.dtype)
        found.__dict__["_transposed"] = self.matrix
        return found

    def times(self, factor: Float[Any, "column k"]) -> Any:
        """`A X`, `row × k`: an array of NumPy, or of JAX on an accelerator."""
        entries = self._on_accelerator
        if entries is None:
            return self.matrix @ np.asarray(factor)
        values, rows, columns = entries
        return product_of_entries(values, rows, columns, jnp.asarray(factor), self.shape[0], True)

    def transposed_times(self, factor: Float[Any, "row k"]) -> Any:
        """`Aᵀ Y`, `column × k`, likewise."""
        entries = self._on_accelerator
        if entries is None:
            return self._transposed @ np.asarray(factor)
        values, rows, columns = entries
        return product_of_entries(values, columns, rows, jnp.asarray(factor), self.shape[1], False)

    def taken(self, rows: Int[np.ndarray, " some"]) -> SparseRows:
        """Some of the rows."""
        return SparseRows(self.matrix[rows], self.dtype)

    def divided(self, by: float) -> SparseRows:
        """All entries divided by a number."""
        return SparseRows(self.matrix / self.dtype.type(by), self.dtype)

    def squares(self) -> Float[np.ndarray, " row"]:
        """The squared length of each row, in double precision."""
        squares, starts = self.matrix.data.astype(np.float64) ** 2, self.matrix.indptr
        return np.diff(np.concatenate([[0.0], np.cumsum(squares)])[starts])

    def mean(self, *, magnitudes: bool = False) -> float:
        """Of all entries, or of their magnitudes."""
        data = self.matrix.data
        total = np.sum(np.abs(data) if magnitudes else data, dtype=np.float64)
        return float(total) / (self.shape[0] * self.shape[1])

    def blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """A few rows at a time, dense, with the numbers of the first one and of the one behind the last."""
        each = max(1, _DENSE_BYTES // (self.shape[1] * self.dtype.itemsize))
        for start in range(0, self.shape[0], each):
            stop = min(start + each, self.shape[0])
            yield start, stop, self.matrix[start:stop].toarray()


class FilledRows(SparseRows):
    """A sparse matrix plus a product of two vectors, `A + l rᵀ`, which isn't made dense either.

    **Arguments:**

    - `matrix`, `dtype`: as for `SparseRows`.
    - `left`, `right`: the vectors.
    """

    def __init__(
        self, matrix: Any, dtype: Any, left: Float[np.ndarray, " row"], right: Float[np.ndarray, " column"]
    ) -> None:
        super().__init__(matrix, dtype)
        self.left, self.right = left, right

    @property
    def T(self) -> FilledRows:  # noqa: N802 (as arrays have it)
        """The transposed matrix."""
        return FilledRows(self._transposed, self.dtype, self.right, self.left)

    def times(self, factor: Float[Any, "column k"]) -> Any:
        """`(A + l rᵀ) X`."""
        return super().times(factor) + self.left[:, None] * (self.right @ factor)[None]

    def transposed_times(self, factor: Float[Any, "row k"]) -> Any:
        """`(A + l rᵀ)ᵀ Y`."""
        return super().transposed_times(factor) + self.right[:, None] * (self.left @ factor)[None]

    def taken(self, rows: Int[np.ndarray, " some"]) -> FilledRows:
        """Some of the rows."""
        return FilledRows(self.matrix[rows], self.dtype, self.left[rows], self.right)

    def divided(self, by: float) -> FilledRows:
        """All entries divided by a number."""
        return FilledRows(self.matrix / self.dtype.type(by), self.dtype, self.left / self.dtype.type(by), self.right)

    def squares(self) -> Float[np.ndarray, " row"]:
        """The squared length of each row."""
        crossed = np.asarray(self.matrix @ self.right, np.float64) * self.left
        return super().squares() + 2 * crossed + self.left.astype(np.float64) ** 2 * float(self.right @ self.right)

    def mean(self, *, magnitudes: bool = False) -> float:
        """Of all entries; of their magnitudes nearly."""
        total = float(np.sum(self.left, dtype=np.float64) * np.sum(self.right, dtype=np.float64))
        whole = float(np.sum(self.matrix.data, dtype=np.float64)) + total
        return (abs(whole) if magnitudes else whole) / (self.shape[0] * self.shape[1])

    def blocks(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """A few rows at a time, dense."""
        for start, stop, block in super().blocks():
            yield start, stop, block + self.left[start:stop, None] * self.right[None]


@partial(jax.jit, static_argnums=(4, 5))
def product_of_entries(values: Array, into: Array, of: Array, factor: Array, size: int, in_order: bool) -> Array:
    """Sums of `values · factor[of]` by `into`, so many columns at a time that their terms find room."""
    each = max(1, _TERMS // max(1, len(values)))
    parts = [
        jax.ops.segment_sum(values[:, None] * factor[of, at : at + each], into, size, indices_are_sorted=in_order)
        for at in range(0, factor.shape[1], each)
    ]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def squared_error(
    rows: SparseRows,
    codes: Float[np.ndarray, "row concept"],
    dictionary: Float[np.ndarray, "concept channel"],
    counts: Float[np.ndarray, " row"] | None = None,
) -> float:
    """`½ Σ (A − U Wᵀ)²`, rows weighted: from products; from differences, block by block, where these are small."""
    weighed = codes.astype(np.float64) if counts is None else codes * counts.astype(np.float64)[:, None]
    squares = rows.squares()
    size = float(squares.sum() if counts is None else squares @ counts)
    cross = float((np.asarray(rows.times(dictionary.T), np.float64) * weighed).sum())
    gram = (weighed.T @ codes) * (dictionary @ dictionary.T)
    error = size / 2 - cross + float(gram.sum()) / 2
    if error > 1e-2 * size:
        return error
    total = 0.0
    for start, stop, block in rows.blocks():
        rest = np.sum((block - codes[start:stop] @ dictionary).astype(np.float64) ** 2, axis=1)
        total += float(rest.sum() if counts is None else rest @ counts[start:stop])
    return total / 2

"""Where the stored entries of a sparse matrix are, and what is computed at these places alone.

Numbers of entries are arrays of NumPy, one number an entry, in the order of the places: row after row.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float, Int

_TOGETHER = 2**14  # entries whose factors are gathered at a time: they stay in a core's second cache

Values = Float[np.ndarray, " _"]


class Places:
    """Rows and columns of stored entries.

    **Arguments:**

    - `starts`: where each row's entries begin, and where the last one's end.
    - `columns`: of each entry.
    - `shape`: of the matrix.
    """

    def __init__(self, starts: Int[np.ndarray, " _"], columns: Int[np.ndarray, " entry"], shape: tuple[int, int]):
        self.starts, self.columns, self.shape = starts, columns, shape

    @staticmethod
    def of(matrix: Any) -> Places:
        """Those of a matrix of SciPy's by rows, whose entries are each there once."""
        return Places(matrix.indptr, matrix.indices, (int(matrix.shape[0]), int(matrix.shape[1])))

    @functools.cached_property
    def rows(self) -> Int[np.ndarray, " entry"]:
        """Of each entry."""
        return np.repeat(np.arange(self.shape[0], dtype=self.columns.dtype), np.diff(self.starts))

    @functools.cached_property
    def transposed(self) -> tuple[Places, Int[np.ndarray, " entry"]]:
        """The same places column after column, and which entry stands where there."""
        found = self.matrix(np.arange(len(self.columns), dtype=np.int64)).T.tocsr()
        return Places.of(found), found.data

    def matrix(self, values: Any) -> Any:
        """SciPy's, with these values there."""
        return scipy.sparse.csr_array((values, self.columns, self.starts), shape=self.shape, copy=False)

    def products(self, left: Float[np.ndarray, "row k"], right: Float[np.ndarray, "column k"]) -> Values:
        """`left rightᵀ` at the places."""
        found, rows = np.empty(len(self.columns), left.dtype), self.rows
        for start in range(0, len(found), _TOGETHER):
            some = slice(start, start + _TOGETHER)
            np.einsum("ek,ek->e", left[rows[some]], right[self.columns[some]], out=found[some])
        return found

    def sums(self, values: Values) -> Float[np.ndarray, " row"]:
        """Of each row, in double precision."""
        return np.bincount(self.rows, values, minlength=self.shape[0]).astype(np.float64, copy=False)

    def taken(self, rows: Int[np.ndarray, " some"]) -> tuple[Places, Int[np.ndarray, " entry"]]:
        """The places in some rows, and which of these entries they are."""
        counts = np.diff(self.starts)[rows]
        starts = np.concatenate([[0], np.cumsum(counts)]).astype(self.starts.dtype)
        which = np.repeat(self.starts[rows] - starts[:-1], counts) + np.arange(starts[-1], dtype=self.starts.dtype)
        return Places(starts, self.columns[which], (len(rows), self.shape[1])), which

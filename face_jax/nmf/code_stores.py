"""Where codes of rows in blocks go: an array of their own on disk, a store that the user names, or nowhere."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..blocks.row_blocks import RowBlocks
from ..blocks.scratch import Scratch, reserve
from ..blocks.sources import Source
from ..support.arguments import path_of, shown
from ..support.to_disk import put_at
from .nnls.least_squares import codes_of, finished_if_needed
from .objective import SquaredError
from .shapes import Dictionary

CODES = "None (codes in an array on disk that goes with the process), a path that ends in .npy or .zarr, or False"
_of_rows = jax.jit(codes_of, static_argnames="finished")


def check_codes(codes: Any) -> pathlib.Path | bool | None:
    """Where codes go, checked; raises `ValueError` for anything else."""
    if codes is None or codes is False:
        return codes
    if isinstance(codes, bool) or not isinstance(codes, (str, pathlib.PurePath)):
        raise ValueError(f"codes={shown(codes)} isn't valid; give {CODES}")
    path = path_of("codes", codes, "a store")
    if path.suffix not in (".npy", ".zarr"):
        raise ValueError(f"codes={str(path)!r} ends in {path.suffix!r}; give {CODES}")
    if path.exists():
        raise ValueError(f"codes={str(path)!r} exists; delete it, or give another path")
    return path


class CodeStore:
    """Codes of all rows, written block by block.

    **Arguments:**

    - `path`: where they go, a path that ends in `.npy` or `.zarr`; None for an array of their own.
    - `shape`, `dtype`: of all.
    - `scratch`: makes an array of their own.
    - `rows`: of a block.
    """

    def __init__(
        self, path: pathlib.Path | None, shape: tuple[int, int], dtype: Any, scratch: Scratch, rows: int
    ) -> None:
        self.path = path
        if path is None:
            self.array: Any = scratch.array(shape, dtype)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under another name until all rows are there, so that a store with a name is whole.
        self.partial = path.with_name(f".{path.stem}.part{path.suffix}")
        if path.suffix == ".zarr":
            self.array = _zarr().create_array(
                str(self.partial), shape=shape, chunks=(min(rows, shape[0]), shape[1]), dtype=dtype, overwrite=True
            )
        else:
            self.array = np.lib.format.open_memmap(self.partial, mode="w+", dtype=dtype, shape=shape)
            with self.partial.open("r+b") as file:
                reserve(file.fileno(), self.partial.stat().st_size)

    def put(self, start: int, stop: int, codes: np.ndarray) -> None:
        """The codes of some rows."""
        self.array[start:stop] = codes

    def finish(self) -> Any:
        """All codes: an array, read-only where it has a name."""
        if self.path is None:
            return self.array
        if isinstance(self.array, np.memmap):
            self.array.flush()
            del self.array
        put_at(self.partial, self.path)
        if self.path.suffix == ".npy":
            return np.load(self.path, mmap_mode="r")
        return _zarr().open_array(str(self.path), mode="r")


class RemadeCodes(RowBlocks):
    """Codes that aren't kept: made again from the dictionary wherever some rows of them are read.

    Rows in blocks themselves, with `shape`, `dtype`, slices, single rows and `blocks()`; `np.asarray` makes all.

    **Arguments:**

    - `rows`: the activations.
    - `dictionary`: of the solution, concepts of unit length.
    - `objective`: its weights, and its penalties on codes at the solution's scale.
    - `scale`: the solution's.
    """

    def __init__(self, rows: RowBlocks, dictionary: Dictionary, objective: SquaredError, scale: Any) -> None:
        super().__init__(_Remade(rows, dictionary, objective, scale), rows=rows.rows, scratch=rows.scratch)

    def __repr__(self) -> str:
        return f"RemadeCodes({self.shape[0]} × {self.shape[1]}, {self.dtype})"


class _Remade(Source):
    """Where such codes come from."""

    def __init__(self, rows: RowBlocks, dictionary: Dictionary, objective: SquaredError, scale: Any) -> None:
        self.rows, self.dictionary, self.objective, self.scale = rows, dictionary, objective, scale
        self.shape, self.dtype = (rows.shape[0], dictionary.shape[0]), np.dtype(dictionary.dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Codes of some consecutive rows."""
        return self._of(self.rows[start:stop], start)

    def parts(self, ends: Sequence[int]) -> Iterator[np.ndarray]:
        """Codes in consecutive parts that end before these rows."""
        start = 0
        for block in self.rows.parts(ends):
            yield self._of(block, start)
            start += len(block)

    def _of(self, block: np.ndarray, start: int) -> np.ndarray:
        weights = self.objective.weights
        mine = None if weights is None else jnp.asarray(weights[start : start + len(block)], self.dtype)
        objective = SquaredError(mine, l1_codes=self.objective.l1_codes, l2_codes=self.objective.l2_codes)
        whole = self.dictionary * self.scale[:, None]
        codes = finished_if_needed(_of_rows, jnp.asarray(block).astype(self.dtype), whole, objective)[0]
        return np.asarray(codes * self.scale[None])


class Divided:
    """Codes divided by a number, where they're read.

    **Arguments:**

    - `codes`: with `shape`, `dtype` and slices.
    - `unit`: the number.
    """

    def __init__(self, codes: Any, unit: float) -> None:
        self.codes, self.unit = codes, unit
        self.shape, self.dtype = codes.shape, codes.dtype

    def __getitem__(self, index: slice) -> np.ndarray:
        """Some consecutive rows."""
        return np.asarray(self.codes[index]) / self.unit


def _zarr() -> Any:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise ImportError("codes that end in .zarr need zarr, which is not installed; pip install zarr") from error
    return zarr

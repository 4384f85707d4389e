"""Files that hold arrays, opened without reading them: `.npy`, `.zarr` and `.safetensors`."""

from __future__ import annotations

import json
import math
import pathlib
from typing import Any

import ml_dtypes
import numpy as np

from ..support.regular_files import check_regular

SUFFIXES = (".npy", ".zarr", ".safetensors")
_NUMBERS = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "I64": np.int64,
    "I32": np.int32, "I16": np.int16, "I8": np.int8, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32,
    "BOOL": np.bool_,
}  # fmt: skip
_USUAL = "activations"


def opened(name: str, path: pathlib.Path) -> Any:
    """The array in a file, on disk; raises `ValueError` in a sentence for what holds none."""
    if path.suffix not in SUFFIXES:
        raise ValueError(
            f"{name}={str(path)!r} ends in {path.suffix!r}; give a path that ends in {', '.join(SUFFIXES)}"
        )
    if not path.exists():
        raise ValueError(f"{name}={str(path)!r} doesn't exist; give the path of a file that does")
    try:
        if path.suffix != ".zarr":
            check_regular(path.stat().st_mode)
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        return _zarr(path) if path.suffix == ".zarr" else _safetensors(path)
    except ImportError:
        raise
    # Readers raise nearly anything at a damaged file.
    except Exception as error:
        raise ValueError(f"{name}={str(path)!r} can't be read ({error}); write it again") from error


def _zarr(path: pathlib.Path) -> Any:
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise ImportError("a store that ends in .zarr needs zarr, which is not installed; pip install zarr") from error
    return zarr.open_array(str(path), mode="r")


def _safetensors(path: pathlib.Path) -> np.memmap:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= size - 8:
            raise ValueError("its header is damaged")
        header = json.loads(file.read(length))
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    name = _USUAL if _USUAL in tensors else next(iter(tensors), None)
    if name is None or (name != _USUAL and len(tensors) > 1):
        raise ValueError(f"it holds {len(tensors)} tensors, and none is called {_USUAL!r}")
    entry = tensors[name]
    dtype, shape = np.dtype(_NUMBERS[entry["dtype"]]), tuple(entry["shape"])
    begin, end = entry["data_offsets"]
    if end - begin != math.prod(shape) * dtype.itemsize or 8 + length + end > size:
        raise ValueError("it is cut short")
    return np.memmap(path, dtype, mode="r", offset=8 + length + begin, shape=shape)

"""Arrays of images: their layout, their range of values, and files of them."""

from __future__ import annotations

import math
import pathlib
import sys
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ..support.memory import NotEnoughMemoryError, check_memory
from .decoding import reason_of

# What a network of one channel wants.
_ONE = " (for a network of one channel, give its Preprocess one number as mean and std, and photographs channels=1)"
# An array in a file of more bytes than this stays there, and is read picture by picture.
_MOST_IN_MEMORY = 2**30


def is_array(source: Any) -> bool:
    """Whether this is an array of some kind: NumPy's, JAX's, torch's, or one that NumPy can read."""
    return isinstance(source, np.ndarray) or _is_torch(source) or hasattr(type(source), "__array__")


def as_array(source: Any, name: str, *, alone: bool, channels: int = 3) -> np.ndarray:
    """An array of images with colours last; torch's are taken with colours first too, where that can't be mistaken.

    **Arguments:**

    - `source`: what `is_array` takes.
    - `name`: what it's called in errors.
    - `alone`: whether it's all that was given: torch's `3 y x` could be three grey pictures then.
    - `channels`: how many there are.
    """
    try:
        array = _torch_as_numpy(source) if _is_torch(source) else np.asarray(source)
    except Exception as error:
        # Sparse, quantized or deleted ones, and those on no device at all: each has an exception of its own.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{name} is a {type(source).__name__} that can't be read as an array ({reason}); give a NumPy array"
        ) from error
    if np.ma.is_masked(source):
        raise ValueError(f"{name} has values that are masked; fill them, as image.filled(0) does")
    if array.dtype.kind == "V" and array.dtype.name.startswith("bfloat"):
        return array.astype(np.float32)
    if not _is_torch(source) or array.ndim not in (3, 4):
        return array
    # Of grey pictures, those in colours are taken as well; several of one channel each look the same either way.
    first = array.shape[-3]
    if first != channels and not (channels == 1 and first == 3 and not (alone and array.ndim == 3)):
        return array
    if first > 1 and (array.shape[-1] == first or (alone and array.ndim == 3)):
        raise ValueError(
            f"{name} has shape {array.shape}, in which it isn't clear where the colours are; give an array with "
            "colours last: image.movedim(-3, -1).numpy() if they are first"
        )
    return np.moveaxis(array, -3, -1)


def images_in(
    array: np.ndarray, name: str, channels: int = 3
) -> Iterator[tuple[str, UInt8[np.ndarray, "y x channel"]]]:
    """Each image of an array, with a name; raises `ValueError` for another layout or range of values."""
    if channels == 1:
        array = _with_one(array, name)
    elif channels == 3:
        _check_layout(array, name)
    else:
        _check_channels(array, name, channels)
    convert = _to_uint8(array, name)
    if array.ndim == 3:
        yield name, convert(array)
    else:
        for number, pixels in enumerate(array):
            yield f"{name} {number}", convert(pixels)


def array_of_file(path: pathlib.Path) -> np.ndarray:
    """The array of images in an `.npy`, or the only one in an `.npz`; raises `ValueError` for broken ones."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"PK"
        if packed:
            return _of_npz(path)
        # Mapped first: then nothing is made for values that a header only claims.
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        return mapped if mapped.nbytes > _MOST_IN_MEMORY else np.array(mapped)
    except (_OthersError, NotEnoughMemoryError):
        raise
    except Exception as error:
        # Beside those of NumPy there are zipfile's, zlib's and the parser's.
        reason = "it is empty" if isinstance(error, EOFError) else reason_of(error)
        raise ValueError(
            f"images={str(path)!r} can't be read as an array of images ({reason}); write it with np.savez(path, "
            "images=array), image y x 3"
        ) from error


class _OthersError(ValueError):
    """Arrays that can be read, and are others than those looked for."""


def _of_npz(path: pathlib.Path) -> np.ndarray:
    held = {name: (shape, size) for name, shape, size in _headers(path)}
    names = [name for name, (shape, _) in held.items() if len(shape) in (3, 4)]
    if len(names) != 1:
        raise _OthersError(
            f"images={str(path)!r} holds the arrays {list(held)}, of which {names} look like images; "
            "keep exactly one array image y x 3 in it"
        )
    shape, size = held[names[0]]
    check_memory(
        size,
        f"images={str(path)!r}: the array {names[0]!r} of shape {shape}",
        "write it with np.save as an .npy, which is read picture by picture",
    )
    with np.load(path, allow_pickle=False) as loaded:
        return loaded[names[0]]


def _headers(path: pathlib.Path) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """The arrays' names, shapes and bytes. Nothing else is read: a small file may claim any number of values."""
    with zipfile.ZipFile(path) as packed:
        for entry in packed.infolist():
            if not entry.filename.endswith(".npy"):
                continue
            with packed.open(entry) as file:
                shape, dtype = npy_header(file)
            yield entry.filename.removesuffix(".npy"), shape, math.prod(shape) * dtype.itemsize


def npy_header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """The shape and type that an opened `.npy` file's header says; leaves the file at its data."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def _is_torch(source: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _torch_as_numpy(tensor: Any) -> np.ndarray:
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        # NumPy has no bfloat16.
        tensor = tensor.float()
    return tensor.resolve_conj().resolve_neg().numpy()


def _check_layout(array: np.ndarray, name: str) -> None:
    if array.ndim in (3, 4) and array.shape[-1] == 3:
        return
    last = array.shape[-1] if array.ndim else 0
    if array.ndim == 2 or (array.ndim == 3 and 3 not in array.shape and last not in (1, 4)):
        remedy = "; grey images become such by np.repeat(image[..., None], 3, axis=-1)" + _ONE
    elif array.ndim in (3, 4) and last == 1:
        remedy = "; grey images become such by np.repeat(image, 3, axis=-1)" + _ONE
    elif array.ndim in (3, 4) and last == 4:
        remedy = "; opacity is left out by image[..., :3]"
    elif array.ndim in (3, 4) and array.shape[-3] == 3:
        remedy = "; colours are moved there by np.moveaxis(image, -3, -1)"
    elif array.ndim in (3, 4) and array.shape[-3] == 1:
        remedy = "; grey images become such by np.repeat(np.moveaxis(image, -3, -1), 3, axis=-1)" + _ONE
    else:
        remedy = ""
    raise ValueError(
        f"{name} has shape {array.shape}; give images as y x 3 or image y x 3 (colours last, red green blue){remedy}"
    )


def _with_one(array: np.ndarray, name: str) -> np.ndarray:
    """Grey images with an axis for their one channel, or those in colours as they are."""
    last = array.shape[-1] if array.ndim else 0
    if array.ndim == 2 or (array.ndim == 3 and last not in (1, 2, 3, 4)):
        return array[..., None]
    if array.ndim in (3, 4) and last in (1, 3):
        return array
    if array.ndim == 4 and array.shape[1] == 1:
        return np.moveaxis(array, 1, -1)
    raise ValueError(
        f"{name} has shape {array.shape}, and preprocess of the network is of one channel; give grey images as y x, "
        "image y x or image y x 1, or images in red, green and blue as image y x 3"
    )


def _check_channels(array: np.ndarray, name: str, channels: int) -> None:
    if array.ndim in (3, 4) and array.shape[-1] == channels:
        return
    first = array.ndim in (3, 4) and array.shape[-3] == channels
    raise ValueError(
        f"{name} has shape {array.shape}, and preprocess of the network is of {channels} channels; give images as y x "
        f"{channels} or image y x {channels}, channels last"
        + ("; channels are moved there by np.moveaxis(image, -3, -1)" if first else "")
    )


def _to_uint8(array: np.ndarray, name: str) -> Any:
    """The function that takes each image of this array to 0…255, after a look at the range of all of them."""
    real = np.issubdtype(array.dtype, np.floating)
    if not real and not np.issubdtype(array.dtype, np.integer):
        raise ValueError(f"{name} has dtype {array.dtype}; give integers 0…255 or real numbers 0…1")
    lowest, highest = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not (lowest >= 0 and highest <= (1 if real else 255)):
        raise ValueError(
            f"{name} has values from {lowest:g} to {highest:g}; give integers 0…255 or real numbers 0…1 "
            "(pictures as they are, before any normalization)"
        )
    # Somebody's real numbers 0…1 that became integers, or were divided by 255 once more: black to any network.
    if 0 < highest <= (1 / 255 if real else 1):
        raise ValueError(
            f"{name} has {array.dtype} values from {lowest:g} to {highest:g}, which is black; give integers 0…255 or "
            "real numbers 0…1"
        )
    if array.dtype == np.uint8:
        return np.asarray
    return lambda pixels: (np.round(pixels * 255) if real else np.asarray(pixels)).astype(np.uint8)

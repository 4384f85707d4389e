"""A cache of arrays on disk, by a digest of everything that they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from .arguments import check_count, path_of
from .regular_files import opened
from .to_disk import put_at

Arrays = Mapping[str, np.ndarray]
# The array in each file that says what it is of, and what the others have to be.
_SEAL = "face_jax_seal"
_A_DAY = 24 * 3600.0
_LARGE = 64 * 2**20  # bytes of a file whose arrays aren't brought into memory


def cache_folder() -> pathlib.Path:
    """Where things are kept between runs: `$FACE_JAX_CACHE`, or `face-jax` in the user's cache folder."""
    named = os.environ.get("FACE_JAX_CACHE")
    if named:
        return pathlib.Path(named)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "face-jax"


@dataclasses.dataclass(frozen=True)
class ArrayCache:
    """Keeps named arrays in files; the ones used least recently go first when there are too many.

    A file that isn't what was kept under its name (cut, damaged, another's) is computed anew.

    **Arguments:**

    - `folder`: where the files lie; made when first written to.
    - `limit`: bytes that all files together may take.
    """

    folder: str | pathlib.Path
    limit: int = 4 * 1024**3

    def __post_init__(self) -> None:
        path_of("folder", self.folder, "a folder")
        check_count("limit", self.limit, "bytes")

    def __call__(self, depends_on: Iterable[bytes | str], compute: Callable[[], Arrays]) -> Arrays:
        """The arrays that `compute` gives, from the file where it ran before with the same `depends_on`."""
        digest = hashlib.sha256()
        for part in depends_on:
            raw = part.encode() if isinstance(part, str) else part
            digest.update(len(raw).to_bytes(8, "big") + raw)
        named = digest.hexdigest()[:40]
        file = pathlib.Path(self.folder) / f"{named}.npz"
        found = _read(file, named)
        if found is None:
            found = compute()
            self._write(file, {**found, _SEAL: _seal(named, found)})
        return found

    def _write(self, file: pathlib.Path, arrays: Arrays) -> None:
        part = None
        # A cache that can't be written to costs time, not results.
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as written:
                part = pathlib.Path(written.name)
                np.savez(written, **arrays)  # pyright: ignore[reportArgumentType]
            put_at(part, file)
            self._trim(file.parent)
        except OSError:
            return
        finally:
            if part is not None:
                part.unlink(missing_ok=True)

    def _trim(self, folder: pathlib.Path) -> None:
        for left in folder.glob("*.part"):
            # Of a process that was killed while it wrote.
            if time.time() - left.stat().st_mtime > _A_DAY:
                left.unlink(missing_ok=True)
        files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime, reverse=True)
        total = 0
        for file in files:
            total += file.stat().st_size
            if total > self.limit:
                file.unlink(missing_ok=True)


def no_cache(depends_on: Iterable[bytes | str], compute: Callable[[], Arrays]) -> Arrays:
    """Computes every time."""
    del depends_on
    return compute()


def _seal(named: str, arrays: Arrays) -> np.ndarray:
    """A digest of a file's name and arrays."""
    digest = hashlib.sha256(named.encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape};".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return np.frombuffer(digest.digest(), np.uint8)


def _arrays_in(file: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file; of a large one they stay in it, and are read where they're touched."""
    if file.stat().st_size <= _LARGE:
        with opened(file) as stream, np.load(stream, allow_pickle=False) as loaded:
            return {name: loaded[name] for name in loaded.files}
    found = {}
    with opened(file) as stream, zipfile.ZipFile(stream) as members:
        for member in members.infolist():
            with members.open(member) as part:
                version = np.lib.format.read_magic(part)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(part)
                begin = part.tell()
            # As the array is longer than its header, the local one's length isn't the directory's.
            stream.seek(member.header_offset + 26)
            name, extra = (int.from_bytes(stream.read(2), "little") for _ in range(2))
            at = member.header_offset + 30 + name + extra + begin
            if member.compress_type or fortran or dtype.hasobject:
                raise ValueError("not what is written here")
            stored = (
                np.memmap(file, dtype, mode="r", offset=at, shape=shape) if 0 not in shape else np.empty(shape, dtype)
            )
            found[member.filename.removesuffix(".npy")] = stored
    return found


def _read(file: pathlib.Path, named: str) -> Arrays | None:
    # Whatever is wrong with a file, and NumPy raises nearly anything then, what it held can be computed anew.
    try:
        arrays = _arrays_in(file)
        if not np.array_equal(arrays.pop(_SEAL), _seal(named, arrays)):
            return None
        os.utime(file)
        return arrays
    except Exception:
        return None

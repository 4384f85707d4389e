"""Arrays that are kept between runs, found again by a digest of everything they depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Mapping

import jax
import numpy as np

Arrays = Mapping[str, np.ndarray]


def cache_folder() -> pathlib.Path:
    """Where things are kept between runs: `$FACE_JAX_CACHE`, or `face-jax` in the user's cache folder."""
    named = os.environ.get("FACE_JAX_CACHE")
    if named:
        return pathlib.Path(named)
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "face-jax"


def keep_compilations(folder: str | pathlib.Path | None = None) -> pathlib.Path:
    """Keeps what JAX compiles between runs: the first explanation of each new process starts a minute or two earlier.

    Call it once, before the first computation; the command does. It sets JAX's own options for the whole process, which
    importing face_jax never does, and leaves a folder alone that JAX has already (`JAX_COMPILATION_CACHE_DIR`).

    **Arguments:**

    - `folder`: where they are kept; by default `compilations` in `$FACE_JAX_CACHE`, or in the user's cache folder.

    **Returns:** the folder that is used.
    """
    known = jax.config.values["jax_compilation_cache_dir"]
    if known is not None:
        return pathlib.Path(known)
    chosen = cache_folder() / "compilations" if folder is None else pathlib.Path(folder)
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return chosen


@dataclasses.dataclass(frozen=True)
class ArrayCache:
    """Keeps named arrays in files; the ones used least recently go first when there are too many.

    **Arguments:**

    - `folder`: where the files lie; made when first written to.
    - `limit`: bytes that all files together may take.
    """

    folder: str | pathlib.Path
    limit: int = 4 * 1024**3

    def __call__(self, depends_on: Iterable[bytes | str], compute: Callable[[], Arrays]) -> Arrays:
        """The arrays that `compute` gives, from the file where it ran before with the same `depends_on`."""
        digest = hashlib.sha256()
        for part in depends_on:
            raw = part.encode() if isinstance(part, str) else part
            digest.update(len(raw).to_bytes(8, "big") + raw)
        file = pathlib.Path(self.folder) / f"{digest.hexdigest()[:40]}.npz"
        found = _read(file)
        if found is None:
            found = compute()
            self._write(file, found)
        return found

    def _write(self, file: pathlib.Path, arrays: Arrays) -> None:
        # A cache that can't be written to costs time, not results.
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
                np.savez(part, **arrays)  # pyright: ignore[reportArgumentType]
            os.replace(part.name, file)
            self._trim(file.parent)
        except OSError:
            return

    def _trim(self, folder: pathlib.Path) -> None:
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


def _read(file: pathlib.Path) -> Arrays | None:
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as loaded:
            arrays = {name: loaded[name] for name in loaded.files}
        os.utime(file)
        return arrays
    except (OSError, ValueError, zipfile.BadZipFile):
        return None

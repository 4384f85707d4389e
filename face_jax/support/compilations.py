"""JAX's compilations, kept between runs: those that are damaged are dropped before JAX meets them.

JAX warns of each one that it can't read, at every run, and never writes it anew. One that can be unpacked and was
changed all the same would be run.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.util
import pathlib
import sys
import warnings
import zlib

import jax

from .arguments import path_of
from .cache import cache_folder

# JAX's name of an entry ends so; beside it lies a digest of what it was.
_ENTRY, _DIGEST = "-cache", ".sha256"
# How what zlib and zstd have packed begins.
_ZLIB, _ZSTD = b"\x78", b"\x28\xb5\x2f\xfd"


def keep_compilations(folder: str | pathlib.Path | None = None) -> pathlib.Path:
    """Keeps what JAX compiles between runs: the first explanation of each new process starts a minute or two earlier.

    Call it once, before the first computation; the command does. It sets JAX's own options for the whole process, which
    importing face_jax never does, and leaves a folder alone that JAX has already (`JAX_COMPILATION_CACHE_DIR`).

    **Arguments:**

    - `folder`: where they are kept; by default `compilations` in `$FACE_JAX_CACHE`, or in the user's cache folder.

    **Returns:** the folder that is used.

    **Example:**

    >>> fj.keep_compilations()  # doctest: +SKIP
    """
    known = jax.config.values["jax_compilation_cache_dir"]
    if known is not None:
        return pathlib.Path(known)
    chosen = cache_folder() / "compilations" if folder is None else path_of("folder", folder, "a folder")
    drop_damaged(chosen)
    atexit.register(note_digests, chosen)
    # What can't be read or written costs time, not results.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(chosen))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    return chosen


def drop_damaged(folder: pathlib.Path) -> None:
    """Removes compilations that aren't what was written, so that they're made and written anew."""
    with contextlib.suppress(OSError):
        for entry in list(folder.glob(f"*{_ENTRY}")):
            known = entry.with_name(entry.name + _DIGEST)
            content = entry.read_bytes()
            whole = known.read_text() == _digest(content) if known.exists() else _unpacks(content)
            if not whole:
                entry.unlink(missing_ok=True)
                known.unlink(missing_ok=True)
    note_digests(folder)


def note_digests(folder: pathlib.Path) -> None:
    """Writes digests of the compilations that have none."""
    # Also a full disk, or a folder that was removed meanwhile.
    with contextlib.suppress(OSError):
        for entry in list(folder.glob(f"*{_ENTRY}")):
            known = entry.with_name(entry.name + _DIGEST)
            if not known.exists():
                content = entry.read_bytes()
                if _unpacks(content):
                    known.write_text(_digest(content))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _unpacks(content: bytes) -> bool:
    """Whether JAX can unpack it; zstd, which JAX prefers where it's installed, has no checksum to compare."""
    if sys.version_info >= (3, 14) or importlib.util.find_spec("zstandard"):
        return content.startswith(_ZSTD)
    try:
        return content.startswith(_ZLIB) and bool(zlib.decompress(content))
    except zlib.error:
        return False

"""Results that are kept in files while a comparison runs, so that one that was stopped goes on."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from ..support.atomic_folder import folder_of
from ..support.contents import contents_digest, package_digest
from ..support.regular_files import opened
from ..support.to_disk import put_at

_FORMAT = 2


class Kept:
    """A folder with one JSON file a result; without a folder nothing is kept.

    **Arguments:**

    - `folder`: where; made if need be.
    """

    def __init__(self, folder: Any) -> None:
        self._folder: pathlib.Path | None = None if folder is None else folder_of(folder)

    def digest(self, value: Any, name: str) -> bytes:
        """What a value holds and its functions do (`contents_digest`), for `depends`; nothing where nothing is kept.

        **Arguments:**

        - `value`: a method, a measure, a rule, arrays, or several in a list.
        - `name`: the argument's.

        Raises `NoContentsError` for what can't be told, so that a kept result might be another's.
        """
        return b"" if self._folder is None else contents_digest(value, name)

    def __call__(self, name: str, depends: list[str | bytes], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A result from its file, or computed and then kept.

        **Arguments:**

        - `name`: what the file's name begins with.
        - `depends`: everything that the result depends on besides face_jax itself, digests of functions and objects
            too; a file of anything else is another file.
        - `compute`: numbers by name, nested at will, and matrices.
        """
        if self._folder is None:
            return compute()
        digest = hashlib.sha256()
        for each in [str(_FORMAT), package_digest(), *depends]:
            content = each.encode() if isinstance(each, str) else each
            digest.update(len(content).to_bytes(8, "little") + content)
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60]
        path = self._folder / f"{slug}-{digest.hexdigest()[:16]}.json"
        # Where there is none, or one that was cut off, or something else's, it's computed.
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError), opened(path) as file:
            return _read(json.load(file))
        found = compute()
        self._folder.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(f".{os.getpid()}.new")
        new.write_text(json.dumps(_written(found), indent=1))
        put_at(new, path)
        return found


def _written(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _written(each) for name, each in value.items()}
    if isinstance(value, np.ndarray):
        data = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": data, "dtype": str(value.dtype), "shape": list(value.shape)}
    return float(value) if isinstance(value, float | np.floating) else value


def _read(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"array", "dtype", "shape"}:
        return _array(value)
    return {name: _read(each) for name, each in value.items()} if isinstance(value, dict) else value


def _array(value: dict[str, Any]) -> Float[np.ndarray, "..."]:
    found = np.frombuffer(base64.b64decode(value["array"]), value["dtype"])
    return found.reshape(value["shape"]).copy()

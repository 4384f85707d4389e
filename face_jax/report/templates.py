"""Templates of pages: everything that is put into them is escaped, and what is missing is an error."""

from __future__ import annotations

import importlib
from typing import Any

from ..support.extras import installing


def templates(package: str, doing: str, *needed: str) -> Any:
    """A package's templates, as a jinja2 environment.

    **Arguments:**

    - `package`: where they lie.
    - `doing`: what they are for, in words, if something isn't installed.
    - `needed`: packages that are needed besides jinja2.

    Raises `ImportError` with the extra that has them.
    """
    try:
        import jinja2

        for name in needed:
            importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{doing} needs {error.name or 'more packages'}; {installing('report')}") from error
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip

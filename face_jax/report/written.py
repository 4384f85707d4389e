"""A page and its JSON, written together; and what both say of an explanation."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from ..explanation.record import Explanation
from ..explanation.summary import plain
from ..support.atomic_folder import folder_of, put_together
from .policy import with_policy
from .templates import templates


def about(explanation: Explanation) -> dict[str, Any]:
    """What is explained, in words."""
    model = explanation.model
    return {"model": model.name, "layer": model.layer, "class": explanation.target_name}


def write_page(
    name: str,
    content: dict[str, Any],
    data: dict[str, Any],
    folder: str | pathlib.Path,
    *,
    file: str | None = None,
    needed: str = "PIL",
) -> pathlib.Path:
    """A page from the template of that name, under a policy, and what it says as JSON beside it; gives the page."""
    file = f"{name}.html" if file is None else file
    environment = templates("face_jax.report", "drawing a page", needed)
    folder = folder_of(folder)
    page = with_policy(environment.get_template(f"{name}.html").render(**content))
    with put_together(folder) as new:
        (new / file).write_text(page, encoding="utf-8", errors="backslashreplace")
        text = json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False)
        (new / f"{name}.json").write_bytes(f"{text}\n".encode("utf-8", "backslashreplace"))
    return folder / file

"""Where an explanation's photographs lie, and how they are known again."""

from __future__ import annotations

import pathlib

from ..pictures.photographs import Photograph, UnreadablePhotographError


def file_of(photograph: Photograph) -> str | None:
    """Where a photograph lies; None for one whose pixels were given."""
    return str(photograph.source.resolve()) if isinstance(photograph.source, pathlib.Path) else None


def digest_of(photograph: Photograph) -> str | None:
    """A photograph's digest; None for one that can't be read any more and wasn't loaded with a digest."""
    try:
        return (photograph.expected or photograph.digest()).hex()
    except (OSError, UnreadablePhotographError):
        return None

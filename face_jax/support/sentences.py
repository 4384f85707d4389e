"""Pieces of sentences: names in a row, and how many of something there are."""

from __future__ import annotations

from collections.abc import Sequence

# So many names are said.
_NAMED = 10


def first_of(names: Sequence[str]) -> str:
    """As many names as one reads, and how many more there are."""
    more = len(names) - _NAMED
    return "; ".join(names[:_NAMED]) + (f"; and {more:,} more" if more > 0 else "")


def listed(names: Sequence[str], word: str = "and") -> str:
    """As one says it: `concepts, importance and maps`."""
    return f" {word} ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def counted(count: int, noun: str) -> str:
    """As one says it: `1 photograph`, `2 photographs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def in_digits(weight: float) -> str:
    """A λ in three digits, as people write numbers."""
    rounded = float(f"{weight:.3g}")
    return f"{rounded:,.0f}" if 1e3 <= rounded < 1e7 else f"{rounded:.3g}"


def first_line(error: BaseException) -> str:
    """What an error of another library says first, short enough to stand in a sentence; its kind where it's silent."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:200]

"""How the packages of an extra are installed, in the words of all errors that miss one."""

from __future__ import annotations


def installing(extra: str) -> str:
    """What to do where a package of an extra of `pyproject.toml` is missing.

    face_jax is on no index: what a command with its name alone would install from there is somebody else's.
    """
    return f"in the folder of face_jax's repository: pip install '.[{extra}]'"

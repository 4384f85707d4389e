"""Randomness of what isn't compiled: NumPy's from a JAX key, and what other packages draw from."""

from __future__ import annotations

import random
import sys
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key


def generator(key: Key[Array, ""]) -> np.random.Generator:
    """A NumPy generator; the same key gives the same numbers."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())


def seed_from(key: Key[Array, ""]) -> int:
    """A seed for a package that takes a whole number."""
    return int(generator(key).integers(2**31))


def generator_states() -> list[Any]:
    """The states of the generators that transforms draw from."""
    torch = sys.modules.get("torch")
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002 (the one that transforms draw from)
    states: list[Any] = [random.getstate(), (kind, keys.tobytes(), *rest)]  # pyright: ignore[reportAttributeAccessIssue]
    return states if torch is None else [*states, torch.get_rng_state().numpy().tobytes()]


def put_back(states: list[Any]) -> None:
    """Nobody's random numbers are others because a function was refused."""
    random.setstate(states[0])
    kind, keys, *rest = states[1]
    np.random.set_state((kind, np.frombuffer(keys, np.uint32), *rest))  # noqa: NPY002
    if len(states) > 2:
        torch = sys.modules["torch"]
        torch.set_rng_state(torch.frombuffer(bytearray(states[2]), dtype=torch.uint8))

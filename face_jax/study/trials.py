"""The records of a study: trials that ask, and lessons that show."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Key, UInt8

from ..support import randomness
from ..support.reprs import short_repr

Kind = Literal["intruder", "binary", "utility"]


@dataclasses.dataclass(frozen=True, eq=False)
class Picture:
    """A picture in a study.

    **Arguments:**

    - `pixels`: what is shown.
    - `says`: what is read out in its place; the same for all pictures of a trial that could be told apart by it.
    """

    pixels: UInt8[np.ndarray, "y x 3"]
    says: str

    __repr__ = short_repr


@dataclasses.dataclass(frozen=True, eq=False)
class Option:
    """One of the answers that can be chosen: pictures, a word, or both."""

    pictures: tuple[Picture, ...] = ()
    label: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Trial:
    """One question with one correct answer.

    **Arguments:**

    - `name`: what answers call it; it says nothing about the trial.
    - `kind`: the experiment.
    - `condition`: what is compared within an experiment, such as concepts with sub-concepts. The page doesn't say it.
    - `question`: what is asked.
    - `shown`: pictures above the options.
    - `options`: what can be chosen.
    - `correct`: which option is right, counted from 0. The page doesn't say it.
    - `session`: trials of one session stay together; sessions stay in their order.
    - `catch`: whether it only tests that somebody pays attention; such trials count in no score.
    - `about`: what else an evaluation might want: concepts, photographs. The page doesn't say it.
    """

    name: str
    kind: Kind
    condition: str
    question: str
    shown: tuple[Picture, ...]
    options: tuple[Option, ...]
    correct: int
    session: int = 0
    catch: bool = False
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """A photograph with the model's decision on it and, perhaps, the concepts in it."""

    picture: Picture
    decision: str
    details: tuple[Picture, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Lesson:
    """What people study before a session's questions; they can look at it again while they answer.

    **Arguments:**

    - `session`: whose trials come after it.
    - `text`: what to do.
    - `examples`: photographs with the model's decisions.
    - `concepts`: for each concept that is explained, its name and its strongest crops.
    """

    session: int
    text: str
    examples: tuple[Example, ...]
    concepts: tuple[Option, ...] = ()


def trial_name(key: Key[Array, ""], *parts: Any) -> str:
    """A name of eight hexadecimal digits that depends on the key and tells nothing."""
    text = "\0".join([str(np.asarray(jax.random.key_data(key)).tolist()), *(str(part) for part in parts)])
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def generator(key: Key[Array, ""], *parts: int) -> np.random.Generator:
    """NumPy's generator, for choices among things of any number, from JAX's key."""
    for part in parts:
        key = jax.random.fold_in(key, part)
    return randomness.generator(key)

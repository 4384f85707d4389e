"""A torch classifier with what one must know to use it."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import logging
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from face_jax.model import Preprocess, SplitModel
from face_jax.outputs import MultiLabelled
from face_jax.support.extras import installing

from ..splitting.cutting import split
from ..splitting.listing import Layer, layers
from ..splitting.surveying import Survey, example, survey


class UnknownModelError(ValueError):
    """A name that no known classifier has."""


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A torch classifier and what one must know to use it.

    **Arguments:**

    - `model`: the module, in evaluation mode.
    - `preprocess`: how photographs become its input.
    - `classes`: its classes' names, in the order of the logits.
    - `name`: the name it was loaded by.
    - `notes`: what should be known of its weights and its preprocessing, where a file left a choice; explanations
        have them among theirs.
    - `multi_label`: whether each logit is a label by itself, as for `split`.
    """

    model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()
    multi_label: MultiLabelled = None

    _surveys: dict[Any, Survey] = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def seen(self) -> Survey:
        """Its operations, followed once for each state of the weights, and what two images of noise showed of them."""
        tensors = (*self.model.parameters(), *self.model.buffers())
        state = tuple((tensor.data_ptr(), tensor._version, tensor.dtype) for tensor in tensors)
        if state not in self._surveys:
            self._surveys.clear()
            images = example(self.model, None, self.preprocess.size, self.preprocess.shape[2])
            self._surveys[state] = survey(self.model, images, self.multi_label)
        return self._surveys[state]

    def layers(self) -> tuple[Layer, ...]:
        """`face_jax.bridges.layers` of this model."""
        return layers(self.model, size=self.preprocess.size, seen=self.seen)

    def split(self, layer: str, *, grid: tuple[int, int] | None = None, prefix: int = 0) -> SplitModel:
        """`face_jax.bridges.split` at `layer`, with this model's preprocessing and names; `grid`, `prefix` as there."""
        own: Any = {"preprocess": self.preprocess, "classes": self.classes, "name": self.name, "seen": self.seen}
        cut = split(self.model, layer, grid=grid, prefix=prefix, **own)
        return dataclasses.replace(cut, notes=(*self.notes, *cut.notes))


def nearest(name: str, names: Iterable[str]) -> str:
    """The known names that are most like one, in words."""
    known = list(names)
    return ", ".join(difflib.get_close_matches(name, known, n=5, cutoff=0.4) or known[:5])


def optional(package: str, name: str) -> Any:
    """An optional package, or an error that says how to install it for the model of this name."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        raise ImportError(f"name={name!r} needs {package}, which is not installed; {installing(package)}") from error


def quietly(library: str, make: Callable[[], Any]) -> Any:
    """What a library makes, without its log: errors and notes here say what matters."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return make()
    finally:
        logger.setLevel(level)


def prepared_otherwise(file: str, name: str, preprocess: Preprocess) -> str:
    """What to say of a file of weights, which doesn't tell how photographs were prepared."""
    resize, size = preprocess.resize, preprocess.size
    resized = f"short side {resize}" if isinstance(resize, int) else f"{preprocess.fit} to {resize[0]} × {resize[1]}"
    centre = size if isinstance(size, int) else f"{size[0]} × {size[1]}"
    return (
        f"{pathlib.Path(file).name} doesn't say how photographs were prepared in training; they are prepared as for "
        f"the published {name}: {resized} pixels, centre {centre}, mean "
        f"{', '.join(f'{value:.3g}' for value in preprocess.mean)}, deviation "
        f"{', '.join(f'{value:.3g}' for value in preprocess.std)}. Where it was trained otherwise, give "
        "face_jax.bridges.load preprocess=face_jax.Preprocess(…): without it, predictions are others."
    )

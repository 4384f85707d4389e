"""A classifier split at one layer: pictures in, activations in the middle, logits out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax
from jaxtyping import Array, Float, Shaped

from .heads.beside import beside
from .heads.one_logit import beside_second, binary
from .outputs import AnyOutputs, Binary, MultiClass, Outputs
from .pictures.labels import Labels, labels_of
from .pictures.photographs import NoPhotographsError, Photograph, photographs
from .pictures.preprocess import Preprocess as Preprocess
from .pictures.transform import Transform as Transform
from .support.arguments import callable_with, instance, real, several, shown, text
from .support.classes import Names, binary_names, class_names

if TYPE_CHECKING:
    Prepared = Preprocess
else:
    # What is kept; functions may be given.
    Prepared = Any


@runtime_checkable
class Head(Protocol):
    """What turns a layer's activations into logits (the papers' h).

    `affine` says whether the logits are an affine function of the activations averaged over places, which
    makes importance exact and every block of the faithful factorization convex.

    Heads are given to compiled programs as arguments, so that a head must be a pytree whose leaves are arrays: a
    dataclass under `jax.tree_util.register_dataclass`, with its arrays as fields, or a `flax.nnx.Module`. A function or
    an object of any other class is refused by `SplitModel`.
    """

    @property
    def affine(self) -> bool:
        """Whether the head is average pooling followed by an affine map."""
        ...

    # What `*args: Any, **kwargs: Any` stand for is any arguments: a head of maps alone, or of maps and tokens.
    def __call__(self, *args: Any, **kwargs: Any) -> Float[Array, "image class"]:
        """Logits of maps (`image y x channel`); of a model that has `with_tokens`, of maps and tokens."""
        ...


@dataclasses.dataclass(frozen=True)
class SplitModel:
    """A classifier cut in two at one layer: `head(features(images))` are its logits.

    **Arguments:**

    - `features`: from network input (`image y x colour`, preprocessed) to that layer's activations
        (`image y x channel`); the papers' g.
    - `head`: from those activations to logits (`image class`); the papers' h. Raises `ValueError` for one that isn't
        what `Head` says.
    - `layer`: the layer's name in the model it was cut from.
    - `preprocess`: how photographs become network input: a `Preprocess`, or a function of a Pillow picture, which
        becomes a `Transform`.
    - `classes`: the classes' names, in the order of the logits. A mapping from all numbers to names, or from all names
        to numbers, will do; kept as a tuple. A single name is a binary classifier's, whose head gives one logit z: the
        model then has the classes `("not cat", "cat")`, and its head gives the logits `[0, z]`.
    - `name`: the model's name, for reports.
    - `fingerprint`: a digest of the model's weights, of what is done with them and of the layer's name; saved
        explanations and kept activations carry it, so that they are refused by any other model.
    - `non_negative_layers`: names the layers near this one whose activations are never negative, for whom this
        one's are; None if nobody knows.
    - `lowest`: the layer's lowest activation in a trial; below zero, solvers that can't represent such are refused
        before any photograph goes through the network. None if nobody tried.
    - `notes`: what explanations should say of the model.
    - `outputs`: what the logits mean: `MultiClass()`, exclusive classes, of which the largest logit's is predicted; or
        `MultiLabel()`, labels each by itself, of which any number is predicted.
    - `with_tokens`: of a transformer's layer, network input to its activations on the picture and, `image token
        channel`, the tokens that lie on no place of it (class token, registers), in one pass. The head then takes both,
        `head(maps, tokens)`. None where the head takes maps alone.
    """

    # Network input may be NumPy's or JAX's, and a function of one alone will do: any array, for who reads types.
    features: Callable[[Shaped[Any, "image y x colour"]], Float[Array, "image y x channel"]]
    head: Head
    layer: str
    preprocess: Prepared
    classes: Names
    name: str
    fingerprint: str
    non_negative_layers: Callable[[], Sequence[str]] | None = None
    lowest: float | None = None
    notes: tuple[str, ...] = ()
    outputs: AnyOutputs = MultiClass()  # noqa: RUF009 (frozen)
    with_tokens: Callable[[Shaped[Any, "image y x colour"]], tuple[Array, Array]] | None = None

    def __post_init__(self) -> None:
        """Refuses a head that would fail in the middle of an explanation, and a model that has no choice."""
        if not callable(self.features):
            raise ValueError(f"features={shown(self.features)} can't be called; give a function of network input")
        callable_with("features", self.features, "give a function of network input alone", None)
        if self.with_tokens is not None and getattr(self.head, "affine", False):
            raise ValueError("with_tokens is given and head.affine is True; such a head takes maps alone: leave it out")
        check_head(self.head, tokens=self.with_tokens is not None)
        if self.non_negative_layers is not None:
            callable_with("non_negative_layers", self.non_negative_layers, "give a function of nothing, or None")
        if self.with_tokens is not None:
            callable_with("with_tokens", self.with_tokens, "give a function of network input alone, or None", None)
        if self.lowest is not None:
            real("lowest", self.lowest, "activation")
        for note in several("notes", self.notes, "texts"):
            text("notes", note, "a text")
        text("layer", self.layer, "a layer's name")
        text("name", self.name, "a model's name")
        text("fingerprint", self.fingerprint, "a digest of the model")
        if callable(self.preprocess) and not isinstance(self.preprocess, Preprocess | type):
            object.__setattr__(self, "preprocess", Transform(self.preprocess))
        instance("preprocess", self.preprocess, Preprocess, "Preprocess()")
        instance("outputs", self.outputs, Outputs, "MultiClass() or MultiLabel()")
        object.__setattr__(self, "classes", class_names(self.classes))
        if not self.classes:
            raise ValueError("classes is empty; name the class of each logit")
        if len(self.classes) == 1 and self.outputs.exclusive:
            object.__setattr__(self, "classes", binary_names(self.classes))
            object.__setattr__(self, "head", binary(self.head))
            object.__setattr__(self, "outputs", Binary())
        if isinstance(self.outputs, Binary) and len(self.classes) != 2:
            raise ValueError(
                f"outputs=Binary() has two classes and classes has {len(self.classes)} names; give MultiClass() as "
                "outputs for exclusive classes, or MultiLabel() for labels"
            )
        self.outputs.check(self.classes)

    def head_for(self, target: int) -> Head:
        """The head whose logit of a class says what decides for it: behind one logit z, `−z` for the first class."""
        return beside_second(self.head) if isinstance(self.outputs, Binary) and target == 0 else self.head

    def halves(self, images: Any) -> tuple[Any, Any]:
        """Activations of network input, and the head that gives their logits."""
        if self.with_tokens is None:
            return self.features(images), self.head
        maps, kept = self.with_tokens(images)
        return maps, beside(self.head, kept)


def photographs_for(model: SplitModel, images: Any) -> tuple[Photograph, ...]:
    """`photographs`, with as many channels as the model's preprocessing reads; raises `ValueError` that names it."""
    reads = model.preprocess.reads
    try:
        return photographs(images, channels=reads)
    except NoPhotographsError:
        raise
    except ValueError as error:
        if reads == 3 or "channel" not in str(error):
            raise
        height, width, channels = model.preprocess.shape
        raise ValueError(
            f"{error} ({model.name} takes {width} × {height} pixels of {channels} "
            f"{'channel' if channels == 1 else 'channels'})"
        ) from error


def labelled_photographs_for(model: SplitModel, images: Any, labels: Any) -> Labels:
    """`photographs_for` with what they really show, of the model's classes; raises `ValueError` as `labels_of` does."""
    return labels_of(photographs_for(model, images), labels, model.classes)


def check_model(model: Any, name: str = "model") -> None:
    """Raises `ValueError` for what stands for a split model, such as its name or the network itself."""
    if not isinstance(model, SplitModel):
        raise ValueError(
            f"{name} is a {type(model).__name__}; give a SplitModel, such as face_jax.bridges.split(network, layer)"
        )


def check_head(head: Any, *, affine: bool = True, tokens: bool = False) -> None:
    """Raises `ValueError` for a head that JAX can't pass to programs, or that, if asked, doesn't say if it's affine.

    With `tokens`, for one that doesn't take them beside the maps.
    """
    remedy = (
        "write it as a dataclass under jax.tree_util.register_dataclass with its arrays as fields, or as a "
        "flax.nnx.Module, with the attribute affine and __call__ from maps to logits"
    )
    kind = type(head).__name__
    if not callable(head):
        raise ValueError(f"head is a {kind}, which can't be called; {remedy}")
    callable_with("head", head, remedy, *([None, None] if tokens else [None]))
    if affine and not hasattr(head, "affine"):
        raise ValueError(f"head is a {kind} without the attribute affine, which is True or False; {remedy}")
    try:
        jax.eval_shape(_nothing, head)
    except (TypeError, ValueError) as error:
        raise ValueError(f"head is a {kind}, which JAX can't pass to programs; {remedy}") from error


def _nothing(head: Any) -> None:
    """Takes a head as programs do."""

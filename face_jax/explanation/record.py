"""An explanation: every stage's result in one object, which can be looked at, saved and drawn."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, Literal, overload

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..activations import Crops, Readable, activations_of
from ..activations import pooled as average
from ..attribution import Method, attribution_method, upsampled_codes
from ..model import SplitModel, photographs_for
from ..nmf.encoding import encode_maps
from ..pictures.photographs import Photograph
from ..support.arguments import Concepts, Seed, Whole, check_count, flag, whole
from ..support.classes import Target as Class
from ..support.concepts import concepts_of
from ..support.fields import elsewhere
from ..support.interrupts import interruptible
from ..support.precision import full_precision
from ..support.progress import Stopwatch
from ..support.progress_line import Watched, progress_of
from ..support.sentences import first_of
from .concepts import Concept
from .parts import Bank, Fit, Importance, Pictures, Provenance, Scores, Target
from .reasons import Why, why
from .sub_concepts import Recursion


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The concepts that a classifier uses for one class, and how far they can be trusted.

    `face_jax.explain` makes it. Concepts are in the order of their importance everywhere.

    **Arguments:**

    - `model`: the split classifier.
    - `target`: the class.
    - `pictures`: the photographs and their crops, with what the model makes of them.
    - `bank`: the concepts, and how much of each is where.
    - `importance`: what each concept weighs.
    - `scores`: how the concepts do on pictures held out, beside controls.
    - `fit`: how they were found.
    - `provenance`: what it takes to make it again, and what a reader should know before believing it.
    - `recursion`: the parts of its concepts at earlier layers, if `face_jax.recurse` looked for them.
    """

    model: SplitModel = dataclasses.field(metadata=elsewhere())
    target: Target
    pictures: Pictures
    bank: Bank
    importance: Importance
    scores: Scores
    fit: Fit
    provenance: Provenance
    recursion: Recursion | None = None

    def __repr__(self) -> str:
        """What it is of, without its arrays."""
        return (
            f"<Explanation of {self.target_name!r} by {self.model.name}: {len(self.concepts)} concepts of layer "
            f"{self.model.layer!r} in {len(self.photographs)} photographs>"
        )

    @property
    def target_name(self) -> str:
        """The class's name."""
        return self.model.classes[self.target.index]

    @property
    def photographs(self) -> tuple[Photograph, ...]:
        """The photographs that the model puts in the class."""
        return self.pictures.photographs

    @property
    def crops(self) -> Crops:
        """Where the crops lie."""
        return self.pictures.crops

    @property
    def crop_codes(self) -> Float[np.ndarray, "crop concept"]:
        """How much of each concept each crop has."""
        return self.bank.crop_codes

    @property
    def dictionary(self) -> Float[np.ndarray, "concept channel"]:
        """The concepts, of unit length."""
        return self.bank.dictionary

    @property
    def codes(self) -> Float[np.ndarray, "image y x concept"]:
        """How much of each concept is at each place of each photograph."""
        return self.bank.codes

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """One entry a concept, the most important first."""
        return self.bank.concepts

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know before believing it."""
        return self.provenance.notes

    @property
    def single(self) -> bool:
        """Whether it explains one photograph, from its crops."""
        return len(self.photographs) == 1

    @overload
    def encode(
        self, images: Any, *, pooled: Literal[False] = False, batch: Whole = 32, progress: Watched = None
    ) -> Float[np.ndarray, "image y x concept"]: ...
    @overload
    def encode(
        self, images: Any, *, pooled: Literal[True], batch: Whole = 32, progress: Watched = None
    ) -> Float[np.ndarray, "image concept"]: ...
    @interruptible()
    @full_precision
    def encode(
        self, images: Any, *, pooled: bool = False, batch: Whole = 32, progress: Watched = None
    ) -> Float[np.ndarray, "image y x concept"] | Float[np.ndarray, "image concept"]:
        """How much of each concept other photographs have, by non-negative least squares.

        **Arguments:**

        - `images`: anything that `face_jax.photographs` takes.
        - `pooled`: encode each photograph's average activations, as its crops were, in place of every place.
        - `batch`: photographs that go through the network together.
        - `progress`: told how far it is.

        **Returns:** codes on the layer's grid; if pooled, one number a concept for each photograph. They are in the
        order of `face_jax.photographs(images)`: a file that can't be read has NaN for codes, and a warning names it.
        """
        batch, pooled = check_count("batch", batch, "pictures"), flag("pooled", pooled)
        readable = Readable(photographs_for(self.model, images), self.model.preprocess)
        batches = activations_of(
            self.model,
            iter(readable),
            len(readable),
            "Photographs through the network",
            min(batch, len(readable)),
            progress_of(progress),
            Stopwatch(),
        )
        codes = np.concatenate(
            [encode_maps(average(maps) if pooled else maps, self.dictionary) for _, maps, _ in batches]
        )
        return _in_place(codes[:, 0, 0] if pooled else codes, readable)

    @interruptible()
    @full_precision
    def maps(
        self,
        images: Any,
        *,
        method: str | Method = "codes",
        concepts: Concepts = None,
        key: Seed = None,
        progress: Watched = None,
    ) -> Float[np.ndarray, "concept image y x"]:
        """Where concepts are in photographs, on the pixels that the network sees.

        **Arguments:**

        - `images`: anything that `face_jax.photographs` takes.
        - `method`: a word of `face_jax.attribution.METHODS`, or an object with settings such as `RISE(masks=4000)`.
            `"codes"` enlarges the codes on the layer's grid, which is no attribution; `"saliency"` is `|∂ΣU_k/∂X|`
            (the sum over places) summed over colours; all white-box methods are exact through the factorization and
            the network.
        - `concepts`: which concepts, or which one, counted from 0; all by default.
        - `key`: for methods that draw at random.
        - `progress`: told how far it is, by methods that look at many variants of each picture.

        **Returns:** one map a concept and image, in the size of the network's input and in the order of
        `face_jax.photographs(images)`: a file that can't be read has NaN for maps, and a warning names it. How many
        pictures go through the network together is the method's own setting.
        """
        chosen = attribution_method(method)
        wanted = concepts_of(concepts, len(self.dictionary))
        readable = Readable(photographs_for(self.model, images), self.model.preprocess)
        inputs = jnp.asarray(np.stack(list(readable)))
        maps = chosen(self.model, self.dictionary, inputs, concepts=wanted, pooled=False, key=key, progress=progress)
        return np.moveaxis(_in_place(np.moveaxis(maps, 1, 0), readable), 0, 1)

    @interruptible()
    @full_precision
    def why(
        self,
        image: Any,
        instead_of: Class | None = None,
        *,
        target: Class | None = None,
        permutations: Whole = 64,
        most: Whole = 3,
        key: Seed = None,
    ) -> Why:
        """Why the classifier says this of a picture and not that, concept by concept.

        The difference of two logits, `logit[target] − logit[instead_of]`, is divided among the concepts, what they
        leave out, and what the head says of no activations at all. Behind an affine head that is exact; behind any
        other parts are Shapley values over the concepts and what they leave out, exact where ten parts are there at
        most, else sampled, with their standard errors. The parts' sum is the difference either way.

        **Arguments:**

        - `image`: one photograph: anything that `face_jax.photographs` takes.
        - `instead_of`: the other class, by name or number; by default the one with the largest other logit.
        - `target`: the class; by default the explanation's.
        - `permutations`: orders that are drawn for sampled values.
        - `most`: for so many concepts that decide most there are maps.
        - `key`: for the orders, or a seed.

        **Returns:** the parts. Raises `ValueError` for several photographs and for the same class twice,
        `UnknownClassError` for a class that the model doesn't have, `UnreadablePhotographError`.
        """
        of = self.target.index if target is None else target
        options: Any = {"permutations": permutations, "most": most, "key": key}
        return why(self.model, self.dictionary, image, of, instead_of, **options)

    def maps_of(self, number: Whole) -> Float[np.ndarray, "concept y x"]:
        """The enlarged codes of one of the explanation's own photographs, by its place in `photographs`."""
        number = whole("number", number, "a photograph", most=len(self.photographs) - 1)
        enlarged = upsampled_codes(jnp.asarray(self.codes[number : number + 1]), self.model.preprocess.size)
        return np.moveaxis(enlarged[0], -1, 0)


def _in_place(values: Float[np.ndarray, "readable ..."], readable: Readable) -> Float[np.ndarray, "image ..."]:
    """Values of the photographs that could be read, in the places of all; NaN in the others', and a warning."""
    if not readable.skipped:
        return values
    warnings.warn(
        f"{len(readable.skipped)} of {len(readable)} files can't be read, and have NaN in their places: "
        + first_of(readable.skipped),
        stacklevel=3,
    )
    every = np.full((len(readable), *values.shape[1:]), np.nan, values.dtype)
    every[readable.index] = values
    return every

"""An explanation: every stage's result in one object, which can be looked at, saved and drawn."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any, Literal, overload

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..activations import Collected, Crops, Readable, activations_of
from ..activations import pooled as average
from ..attribution import Method, attribution_method, upsampled_codes
from ..faithfulness import Path
from ..importance import TCAV, GradientTimesCode, Sobol
from ..metrics import Score
from ..model import SplitModel
from ..nmf import RankScan
from ..nmf.encoding import encode_maps
from ..pictures.photographs import Photograph, photographs
from ..support.arguments import Concepts, Seed, Whole, check_count, concepts_of, flag, whole
from ..support.interrupts import interruptible
from ..support.progress import Stopwatch
from ..support.progress_line import Watched, progress_of
from ..support.sentences import first_of
from .concepts import Concept
from .sub_concepts import Recursion


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The concepts that a classifier uses for one class, and how far they can be trusted.

    `face_jax.explain` makes it. Concepts are in the order of their importance everywhere.

    **Arguments:**

    - `model`: the split classifier.
    - `target`: the class; `target_chosen` says how it was chosen.
    - `photographs`: those that the model puts in this class, with their activations and logits in `collected`.
    - `fitted`, `held_out`: which of them the concepts were found in, and which they are scored on. A single
        photograph is in both: other crops of it are held out.
    - `crops`: where the crops lie; their `image` counts `photographs`.
    - `crop_activations`: the rows that were factorized.
    - `crop_codes`: how much of each concept each crop has.
    - `dictionary`: the concepts, of unit length.
    - `codes`: how much of each concept is at each place of each photograph, by non-negative least squares.
    - `importance`: total Sobol indices in the pictures fitted; behind a head that isn't affine, in some of them.
    - `importance_index`: which pictures the rows of `importance`, `tcav` and `gradient_times_code` are of: numbers in
        `photographs`, or in `crops` if a single photograph is explained.
    - `tcav`, `gradient_times_code`: what these say of the concepts in the same pictures, to compare.
    - `concepts`: one entry a concept, the most important first.
    - `scores`: this explanation first, then its controls; on pictures held out.
    - `accuracy_of_nothing`: share of held-out pictures for which the target is predicted from no activations at all.
    - `fit`: what the solver says: result, steps, objective, residual.
    - `notes`: what a reader should know before believing it.
    - `settings`: everything needed to run it again.
    - `seconds`: where the time went.
    - `path`: how λ of the faithfulness was chosen, if it was.
    - `rank_scan`: how the number of concepts was chosen, if it was.
    - `recursion`: the parts of its concepts at earlier layers, if `face_jax.recurse` looked for them.
    """

    model: SplitModel
    target: int
    target_chosen: str
    photographs: tuple[Photograph, ...]
    collected: Collected
    fitted: Int[np.ndarray, " fitted"]
    held_out: Int[np.ndarray, " held_out"]
    crops: Crops
    crop_activations: Float[np.ndarray, "crop channel"]
    crop_codes: Float[np.ndarray, "crop concept"]
    dictionary: Float[np.ndarray, "concept channel"]
    codes: Float[np.ndarray, "image y x concept"]
    importance: Sobol
    importance_index: Int[np.ndarray, " looked_at"]
    tcav: TCAV
    gradient_times_code: GradientTimesCode
    concepts: tuple[Concept, ...]
    scores: tuple[Score, ...]
    accuracy_of_nothing: float
    fit: dict[str, Any]
    notes: tuple[str, ...]
    settings: dict[str, Any]
    seconds: dict[str, float]
    path: Path | None = None
    rank_scan: RankScan | None = None
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
        return self.model.classes[self.target]

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
        readable = Readable(photographs(images), self.model.preprocess)
        batches = activations_of(
            self.model,
            iter(readable),
            len(readable),
            "Photographs through the network",
            min(batch, len(readable)),
            progress_of(progress),
            Stopwatch(),
        )
        codes = np.concatenate([encode_maps(average(maps) if pooled else maps, self.dictionary) for _, maps in batches])
        return _in_place(codes[:, 0, 0] if pooled else codes, readable)

    @interruptible()
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
        readable = Readable(photographs(images), self.model.preprocess)
        inputs = jnp.asarray(np.stack(list(readable)))
        maps = chosen(self.model, self.dictionary, inputs, concepts=wanted, pooled=False, key=key, progress=progress)
        return np.moveaxis(_in_place(np.moveaxis(maps, 1, 0), readable), 0, 1)

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

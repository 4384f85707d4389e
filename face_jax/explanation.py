"""An explanation: every stage's result in one object, which can be looked at, saved and drawn."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Literal, overload

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from .activations import Collected, Crops
from .attribution import Method, attribution_method, upsampled_codes
from .attribution.visualization import Visualization
from .concepts import Concept, encode_maps
from .factorize import RankScan
from .faithfulness import Path
from .importance import TCAV, GradientTimesCode, Sobol
from .metrics import Score
from .model import SplitModel
from .photographs import Photograph, network_input, photographs
from .progress import Progress, silent
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

    @property
    def target_name(self) -> str:
        """The class's name."""
        return self.model.classes[self.target]

    @property
    def single(self) -> bool:
        """Whether it explains one photograph, from its crops."""
        return len(self.photographs) == 1

    @overload
    def encode(self, images: Any, *, pooled: Literal[False] = False) -> Float[np.ndarray, "image y x concept"]: ...
    @overload
    def encode(self, images: Any, *, pooled: Literal[True]) -> Float[np.ndarray, "image concept"]: ...
    def encode(
        self, images: Any, *, pooled: bool = False
    ) -> Float[np.ndarray, "image y x concept"] | Float[np.ndarray, "image concept"]:
        """How much of each concept other photographs have, by non-negative least squares.

        **Arguments:**

        - `images`: anything that `face_jax.photographs` takes.
        - `pooled`: encode each photograph's average activations, as its crops were, in place of every place.

        **Returns:** codes on the layer's grid; if pooled, one number a concept for each photograph.
        """
        maps = self._activations(images)
        if pooled:
            return encode_maps(maps.mean(axis=(1, 2), keepdims=True), self.dictionary)[:, 0, 0, :]
        return encode_maps(maps, self.dictionary)

    def maps(
        self,
        images: Any,
        *,
        method: str | Method = "codes",
        concepts: tuple[int, ...] | None = None,
        key: Key[Array, ""] | None = None,
        progress: Progress = silent,
    ) -> Float[np.ndarray, "concept image y x"]:
        """Where concepts are in photographs, on the pixels that the network sees.

        **Arguments:**

        - `images`: anything that `face_jax.photographs` takes.
        - `method`: a word of `face_jax.attribution.METHODS`, or an object with settings such as `RISE(masks=4000)`.
            `"codes"` enlarges the codes on the layer's grid, which is no attribution; `"gradient"` is `|∂ΣU_k/∂X|`
            (the sum over places) summed over colours; all white-box methods are exact through the factorization and
            the network.
        - `concepts`: which concepts, counted from 0; all by default.
        - `key`: for methods that draw at random.
        - `progress`: told how far it is, by methods that look at many variants of each picture.

        **Returns:** one map a concept and image, in the size of the network's input.
        """
        chosen = attribution_method(method)
        inputs = self._inputs(images)
        return chosen(self.model, self.dictionary, inputs, concepts=concepts, pooled=False, key=key, progress=progress)

    def maps_of(self, number: int) -> Float[np.ndarray, "concept y x"]:
        """The enlarged codes of one of the explanation's own photographs, by its place in `photographs`."""
        enlarged = upsampled_codes(jnp.asarray(self.codes[number : number + 1]), self.model.preprocess.size)
        return np.moveaxis(enlarged[0], -1, 0)

    def save(self, folder: str | pathlib.Path) -> pathlib.Path:
        """Write `explanation.json` and what it was computed from into a folder; `face_jax.load` reads it again."""
        from .saving import save

        return save(self, pathlib.Path(folder))

    @staticmethod
    def load(folder: str | pathlib.Path, model: SplitModel, *, images: Any = None) -> Explanation:
        """The explanation that was saved in a folder: `face_jax.load`, which says more."""
        from .loading import load

        return load(folder, model, images=images)

    def report(
        self,
        folder: str | pathlib.Path,
        *,
        command: str | None = None,
        visualization: Visualization | None = None,
        sanity: Any = None,
    ) -> pathlib.Path:
        """Write `report.html` into a folder: one file that needs no other, readable without explanation.

        **Arguments:**

        - `folder`: where it goes; made if need be.
        - `command`: the command line that made the explanation, if one did; the report repeats it.
        - `visualization`: from `face_jax.visualize` of this explanation's dictionary.
        - `sanity`: from `face_jax.sanity_check` of this explanation.

        **Returns:** the file.
        """
        from .report import write_report

        return write_report(self, pathlib.Path(folder), command=command, visualization=visualization, sanity=sanity)

    def _inputs(self, images: Any) -> Float[Array, "image y x colour"]:
        pictures = [network_input(photograph.pixels(), self.model.preprocess) for photograph in photographs(images)]
        return jnp.asarray(np.stack(pictures))

    def _activations(self, images: Any) -> Float[np.ndarray, "image y x channel"]:
        return np.asarray(self.model.features(self._inputs(images)))

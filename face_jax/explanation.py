"""An explanation: every stage's result in one object, which can be looked at, saved and drawn."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .activations import Collected, Crops
from .attribution import concept_gradients, upsampled_codes
from .concepts import Concept, encode_maps
from .factorize import RankScan
from .faithfulness import Path
from .importance import Sobol
from .metrics import Score
from .model import SplitModel
from .photographs import Photograph, network_input, photographs


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
    - `importance`: total Sobol indices of the pictures fitted.
    - `concepts`: one entry a concept, the most important first.
    - `scores`: this explanation first, then its controls; on pictures held out.
    - `accuracy_of_nothing`: share of held-out pictures for which the target is predicted from no activations at all.
    - `fit`: what the solver says: result, steps, objective, residual.
    - `notes`: what a reader should know before believing it.
    - `settings`: everything needed to run it again.
    - `seconds`: where the time went.
    - `path`: how λ of the faithfulness was chosen, if it was.
    - `rank_scan`: how the number of concepts was chosen, if it was.
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
    concepts: tuple[Concept, ...]
    scores: tuple[Score, ...]
    accuracy_of_nothing: float
    fit: dict[str, Any]
    notes: tuple[str, ...]
    settings: dict[str, Any]
    seconds: dict[str, float]
    path: Path | None = None
    rank_scan: RankScan | None = None

    @property
    def target_name(self) -> str:
        """The class's name."""
        return self.model.classes[self.target]

    @property
    def single(self) -> bool:
        """Whether it explains one photograph, from its crops."""
        return len(self.photographs) == 1

    def encode(self, images: Any) -> Float[np.ndarray, "image y x concept"]:
        """How much of each concept is at each place of other photographs.

        **Arguments:**

        - `images`: anything that `face_jax.photographs` takes.

        **Returns:** codes on the layer's grid.
        """
        return encode_maps(self._activations(images), self.dictionary)

    def maps(
        self, images: Any, *, method: Literal["codes", "gradient"] = "codes", concepts: tuple[int, ...] | None = None
    ) -> Float[np.ndarray, "concept image y x"]:
        """Where concepts are in photographs, on the pixels that the network sees.

        **Arguments:**

        - `images`: anything that `face_jax.photographs` takes.
        - `method`: `"codes"` enlarges the codes on the layer's grid; `"gradient"` is `|∂ΣU_k/∂X|` (the
            sum over places) summed over colours, exact through the factorization and the network.
        - `concepts`: which concepts, counted from 0; all by default.

        **Returns:** one map a concept and image, in the size of the network's input.
        """
        wanted = tuple(range(len(self.concepts))) if concepts is None else concepts
        if method == "codes":
            enlarged = upsampled_codes(jnp.asarray(self.encode(images)), self.model.preprocess.size)
            return np.moveaxis(enlarged, -1, 0)[list(wanted)]
        if method != "gradient":
            raise ValueError(f"method={method!r} is unknown; give 'codes' or 'gradient'")
        gradients = concept_gradients(self.model, self.dictionary, self._inputs(images), concepts=wanted, pooled=False)
        return np.abs(np.asarray(gradients)).sum(-1)

    def maps_of(self, number: int) -> Float[np.ndarray, "concept y x"]:
        """The enlarged codes of one of the explanation's own photographs, by its place in `photographs`."""
        enlarged = upsampled_codes(jnp.asarray(self.codes[number : number + 1]), self.model.preprocess.size)
        return np.moveaxis(enlarged[0], -1, 0)

    def save(self, folder: str | pathlib.Path) -> pathlib.Path:
        """Write `explanation.json` and the bank of concepts, `bank.safetensors`, into a folder."""
        from .saving import save

        return save(self, pathlib.Path(folder))

    def report(self, folder: str | pathlib.Path, *, command: str | None = None) -> pathlib.Path:
        """Write `report.html` into a folder: one file that needs no other, readable without explanation.

        `command` is the command line that made the explanation, if one did; the report repeats it.
        """
        from .report import write_report

        return write_report(self, pathlib.Path(folder), command=command)

    def _inputs(self, images: Any) -> Float[Array, "image y x colour"]:
        pictures = [network_input(photograph.pixels(), self.model.preprocess) for photograph in photographs(images)]
        return jnp.asarray(np.stack(pictures))

    def _activations(self, images: Any) -> Float[np.ndarray, "image y x channel"]:
        return np.asarray(self.model.features(self._inputs(images)))

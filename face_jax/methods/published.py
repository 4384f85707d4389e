"""Papers' settings from end to end, as objects: crops, rank, method, inference, importance and metrics."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from ..pictures.crop_and_resize import pair_of
from ..pictures.crop_rules import Cropping, GridCrops, NativeCrops
from ..pictures.preprocess import Preprocess
from ..support.arguments import instance
from .bank import Method
from .factorizations import CRAFT, FACE, ICE
from .inference import Inference, LeastSquares, NonNegativeLeastSquares
from .weighing import ByDirectionalDerivative, ByHaltonSobol, Weighing

# The side of the papers' crops and of the network's input that they are taken from, and what the next one covers again.
_SIDE, _INPUT, _OVERLAP = 64, 224, 0.2


@dataclasses.dataclass(frozen=True)
class Published:
    """What a paper did, as far as it or its code says.

    Its crops are in `crops_of`, everything that `score_bank` needs in `scoring`:

        paper = fj.methods.PUBLISHED["craft"]
        bank = paper.method.fit(activations, paper.rank, key)  # of FACE paper.method.prepared(model, fitted)
        fj.score_bank(model, held_out, bank, target=…, fitted=fitted, **paper.scoring())

    The papers scored on the pictures that they had fitted; `score_bank` refuses that.

    **Arguments:**

    - `name`: the paper's.
    - `method`: solver, start, λ and its unit, and which rows are factorized. `explain` takes any method whose bank has
        codes and concepts of at least 0 and no offset.
    - `rank`: how many concepts.
    - `cropping`: `"native"`: crops of the network's input at their own size; `"resized"`: the same places as large as
        the input; None: whole pictures.
    - `inference`, `importance`: its rules.
    - `averaged`: whether pictures are averaged over their places before they are encoded.
    - `deletion`: whose definition of C-Del its numbers have, for `metrics.c_deletion`.
    - `source`: where that is from.
    - `differs`: what it does, and where `explain` does something else by default, in words.
    """

    name: str
    method: Method
    rank: int
    cropping: Literal["native", "resized"] | None
    inference: Inference
    importance: Weighing
    averaged: bool
    deletion: str
    source: str = ""
    differs: str = ""

    def crops_of(self, preprocess: Any) -> Cropping | None:
        """The paper's rule for crops, for `explain(crops=…)`; None for whole pictures.

        **Arguments:**

        - `preprocess`: the model's.

        Raises `ValueError` for a network's input smaller than the paper's crops.
        """
        instance("preprocess", preprocess, Preprocess, "model.preprocess")
        if self.cropping == "native":
            height, width = pair_of(preprocess.size)
            if min(height, width) < _SIDE:
                raise ValueError(
                    f"crops of {_SIDE} × {_SIDE} pixels are the setting of {self.name!r}, and the network's input has "
                    f"{height} × {width}; give crops, such as NativeCrops(model.preprocess, size="
                    f"{max(1, round(min(height, width) * _SIDE / _INPUT))})"
                )
            return NativeCrops(preprocess, size=_SIDE, overlap=_OVERLAP)
        return GridCrops(size=_SIDE / _INPUT, overlap=_OVERLAP) if self.cropping == "resized" else None

    def scoring(self) -> dict[str, Any]:
        """The arguments of `score_bank` that are the paper's."""
        return {"inference": self.inference, "importance": self.importance, "averaged": self.averaged}


_SCIKIT = "by scikit-learn's NMF as it comes, where the default goes on until it converges; no faithfulness term"
_HALTON = "importance is estimated by total Sobol indices on 32 Halton points, where the default's are exact or closer"

PUBLISHED = {
    each.name: each
    for each in (
        # arXiv 2510.11675, section 4 and appendix B, and its code for what these don't say.
        Published(
            "face", FACE.published(), 25, "native", LeastSquares(), ByHaltonSobol(), True, "code",
            source="FACE (NeurIPS 2025, arXiv 2510.11675, and its code)",
            differs="crops of 64 × 64 pixels of the network's input at their own size, where the default takes random "
            "ones and enlarges them; Adam from NNDSVD until the loss changes by less than 1e-3 a step, where the "
            "default goes on until it converges; a small λ, in means, on the predictions of crops, where the default "
            "chooses λ so that those of whole photographs are kept; codes by least squares, which may be below zero, "
            f"where the default's may not; {_HALTON}",
        ),
        # CVPR 2023; crops as in its code 0.0.3, where the paper draws them at random. Codes at every place.
        Published(
            "craft", CRAFT(), 25, "resized", NonNegativeLeastSquares(), ByHaltonSobol(), False, "code",
            source="CRAFT (CVPR 2023, and its code 0.0.3)",
            differs="crops of a grid, two sevenths of the photograph's short side wide and enlarged to the network's "
            f"input, where the default takes random ones; {_SCIKIT}; codes of photographs at every place, where the "
            f"default encodes averages if the head averages first; {_HALTON}",
        ),
        # AAAI 2021; the rank is that of FACE's comparison.
        Published(
            "ice", ICE(), 25, None, NonNegativeLeastSquares(), ByDirectionalDerivative(), False, "ice",
            source="ICE (AAAI 2021), with the number of concepts that FACE compares it at",
            differs="every place of whole photographs is factorized, where the default takes averages of crops; "
            f"{_SCIKIT}; codes of photographs at every place; importance is the size of the class score's derivative "
            "along each concept, where the default's is the total Sobol index",
        ),
    )
}  # fmt: skip

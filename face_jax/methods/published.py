"""Papers' settings from end to end, as objects: crops, rank, method, inference, importance and metrics."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

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
    - `method`: solver, start, λ and its unit, and which rows are factorized.
    - `rank`: how many concepts.
    - `cropping`: `"native"`: crops of the network's input at their own size; `"resized"`: the same places as large as
        the input; None: whole pictures.
    - `inference`, `importance`: its rules.
    - `averaged`: whether pictures are averaged over their places before they are encoded.
    - `deletion`: whose definition of C-Del its numbers have, for `metrics.c_deletion`.
    """

    name: str
    method: Method
    rank: int
    cropping: Literal["native", "resized"] | None
    inference: Inference
    importance: Weighing
    averaged: bool
    deletion: str

    def crops_of(self, preprocess: Any) -> Cropping | None:
        """The paper's rule for crops, for `explain(crops=…)`; None for whole pictures.

        **Arguments:**

        - `preprocess`: the model's.
        """
        instance("preprocess", preprocess, Preprocess, "model.preprocess")
        if self.cropping == "native":
            return NativeCrops(preprocess, size=_SIDE, overlap=_OVERLAP)
        return GridCrops(size=_SIDE / _INPUT, overlap=_OVERLAP) if self.cropping == "resized" else None

    def scoring(self) -> dict[str, Any]:
        """The arguments of `score_bank` that are the paper's."""
        return {"inference": self.inference, "importance": self.importance, "averaged": self.averaged}


PUBLISHED = {
    each.name: each
    for each in (
        # arXiv 2510.11675, section 4 and appendix B, and its code for what these don't say.
        Published("face", FACE.published(), 25, "native", LeastSquares(), ByHaltonSobol(), True, "code"),
        # CVPR 2023; crops as in its code 0.0.3, where the paper draws them at random. Codes at every place.
        Published("craft", CRAFT(), 25, "resized", NonNegativeLeastSquares(), ByHaltonSobol(), False, "code"),
        # AAAI 2021; the rank is that of FACE's comparison.
        Published("ice", ICE(), 25, None, NonNegativeLeastSquares(), ByDirectionalDerivative(), False, "ice"),
    )
}

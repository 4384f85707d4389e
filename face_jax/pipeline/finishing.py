"""What follows on concepts that were found: what they weigh, how they score, what each does, and the record of it."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float

from ..activations import Survey
from ..explanation.concepts import Concept
from ..explanation.parts import Bank, Fit, Importance, Provenance, Scores, Target
from ..explanation.record import Explanation
from ..model import SplitModel
from ..nmf.encoding import encode_maps
from ..support.progress import Progress, Stopwatch
from .controls import Banks, scores_of
from .effects import with_effects
from .fitting import Fitted
from .material import Keys, Material
from .presets import Preset
from .ranking import describe, weighed


@dataclasses.dataclass(frozen=True)
class Finished:
    """Everything of an explanation but where it comes from.

    **Arguments:**

    - `model`, `target`, `material`: what is explained, and in which pictures.
    - `importance`, `scores`: of the concepts.
    - `dictionary`, `crop_codes`, `codes`, `concepts`: these, in the order of importance.
    """

    model: SplitModel
    target: Target
    material: Material
    importance: Importance
    scores: Scores
    dictionary: Float[np.ndarray, "concept channel"]
    crop_codes: Float[np.ndarray, "crop concept"]
    codes: Float[np.ndarray, "image y x concept"]
    concepts: tuple[Concept, ...]

    def explanation(self, fit: Fit, provenance: Provenance) -> Explanation:
        """The record."""
        return Explanation(
            model=self.model,
            target=self.target,
            pictures=self.material.pictures,
            bank=Bank(self.dictionary, self.crop_codes, self.codes, self.concepts),
            importance=self.importance,
            scores=self.scores,
            fit=fit,
            provenance=provenance,
        )


def finished(
    model: SplitModel,
    target: Target,
    material: Material,
    fitting: Fitted,
    seen: Survey,
    keys: Keys,
    *,
    strongest: int,
    one_each: bool,
    progress: Progress,
    stopwatch: Stopwatch,
    preset: Preset | None = None,
    banks: Banks | None = None,
) -> Finished:
    """Weighs and scores concepts, and looks at what each does.

    **Arguments:**

    - `model`, `target`, `material`, `seen`: what is explained, and in which pictures.
    - `fitting`: the concepts.
    - `keys`: from `keys_of`.
    - `strongest`, `one_each`: as for `explain`.
    - `progress`, `stopwatch`: told how far it is, and what the time went into.
    - `preset`: the paper's settings, if these were asked for.
    - `banks`: controls, if they are there already.

    **Returns:** all that.
    """
    number = target.index
    with stopwatch("importance"):
        importance, dictionary, crop_codes = weighed(model, material, fitting, number, keys, progress, preset)
    with stopwatch("scores and controls"):
        scores = scores_of(
            model, material, fitting, dictionary, importance, number, keys, progress, preset, banks=banks
        )
    with stopwatch("codes of whole photographs"):
        codes = encode_maps(seen.kept.maps, dictionary)
    concepts = describe(model, material, importance.sobol, dictionary, crop_codes, number, strongest, one_each)
    with stopwatch("what each concept does"):
        concepts = with_effects(concepts, model, seen.kept, codes, dictionary, number, keys["removals"])
    return Finished(model, target, material, importance, scores, dictionary, crop_codes, codes, concepts)

"""Controls: banks that learned nothing or less (random, mean direction, start of the solver, λ = 0), scored alike."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .. import metrics
from ..blocks.row_blocks import RowBlocks
from ..explanation.parts import Importance, Scores
from ..faithfulness.rows import in_jax
from ..methods import MeanDirection, NNDSVDStart, RandomDirections
from ..metrics import Score, unit_length
from ..model import SplitModel
from ..nmf import NNDSVD, factorize
from ..nmf.out_of_core import begun_dictionary, mean_of
from ..support.progress import Progress, silent
from .fitting import Fitted, filled_up
from .material import Keys, Material
from .presets import Preset
from .ranking import codes_by, importance_by, importance_of

Banks = dict[str, Float[np.ndarray, "concept channel"]]
WITHOUT_TERM = "λ = 0: the same without the faithfulness term"


def control_banks(fitting: Fitted, rank: int, keys: Keys, *, alike: bool = False) -> Banks:
    """Banks whose scores say what this explanation's are worth; with `alike`, of programs that problems share."""
    first, second = jax.random.split(keys["controls"])
    rows, banks = fitting.rows, {}
    if fitting.objective.terms:
        settings: dict[str, Any] = {"solver": fitting.solver, "start": fitting.start, "key": keys["start"]}
        filled = filled_up(rows, None, rank, settings)[0] if alike else rows
        plain = factorize(in_jax(filled), rank, **settings)
        banks[WITHOUT_TERM] = np.asarray(plain.dictionary)
    # Beside concepts of either sign random ones have signs, too: they'd be at a loss else, not without knowledge.
    signed = fitting.solver.signed_dictionary
    drawn = (NNDSVDStart, keys["start"]), (MeanDirection, first), (RandomDirections, second)
    if isinstance(rows, RowBlocks):
        begun = begun_dictionary(rows, rank, NNDSVD(), signed=signed, key=keys["start"])
        banks[NNDSVDStart.name] = unit_length(np.asarray(begun))
        # The others know no more of the rows than their mean.
        rows, drawn = mean_of(rows)[None], drawn[1:]
    return banks | {kind.name: kind(signed=signed).fit(rows, rank, key).dictionary for kind, key in drawn}


def scores_of(
    model: SplitModel,
    material: Material,
    fitting: Fitted,
    dictionary: Float[np.ndarray, "concept channel"],
    importance: Importance,
    target: int,
    keys: Keys,
    progress: Progress,
    preset: Preset | None = None,
    *,
    banks: Banks | None = None,
) -> Scores:
    """The explanation's scores, and those of its controls, each with an importance of its own; all by one rule."""
    scored = material.scored
    banks = control_banks(fitting, len(dictionary), keys) if banks is None else banks

    def row(name: str, bank: Float[np.ndarray, "concept channel"], weights: Float[np.ndarray, " concept"]) -> Score:
        codes = None if preset is None else codes_by(preset, model, scored, bank)
        return metrics.score(name, model.head, scored, bank, target, weights, model.outputs, codes=codes)

    rows = [row("this explanation", dictionary, importance.deciding)]
    with progress("Controls", len(banks)) as advance:
        for name, bank in banks.items():
            given = (model, material.fitted, bank, target, keys["importance"])
            measured = importance_of(*given, silent) if preset is None else importance_by(preset, *given)
            rows.append(row(name, bank, measured.per_class))
            advance(1)
    # Tokens that are kept beside the maps say something of each picture even then.
    some = scored[:1] if scored.kept is None else scored
    nothing = np.asarray(some.head(model.head)(jnp.zeros_like(jnp.asarray(some.maps))))
    return Scores(tuple(rows), accuracy_of_nothing=float(model.outputs.has(nothing, target).mean()))

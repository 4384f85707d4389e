"""λ chosen on some of the pictures fitted, by a path on the others, and where to begin with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from ..activations import Collected
from ..nmf import Given, encode
from ..nmf.options import AnyStart
from ..outputs import Outputs
from .lambda_path import Path, faithfulness_path
from .lambda_units import InSums, Unit
from .rows import faithful_rows


def path_judged_on(
    pictures: Collected,
    learned: Int[np.ndarray, " learned"],
    judged: Int[np.ndarray, " judged"],
    head: Any,
    crops: Float[np.ndarray, "crop channel"],
    rank: int,
    *,
    outputs: Outputs,
    unit: Unit = InSums(),  # noqa: B008 (settings: frozen)
    **settings: Any,
) -> Path:
    """Solutions along λ, judged on pictures that nothing is learned from.

    **Arguments:**

    - `pictures`: those fitted; `learned` and `judged` number them.
    - `head`: from activations to logits.
    - `crops`: averaged activations of crops of the pictures that are learned from.
    - `rank`: how many concepts.
    - `outputs`: what the logits mean.
    - `unit`: what λ means.
    - `settings`: others of `faithfulness_path`.

    **Returns:** the path.
    """
    fitting, judging = pictures[learned], pictures[judged]
    rows, term = faithful_rows(fitting.head(head), crops, fitting.maps, outputs)
    held_out, held_out_term = faithful_rows(judging.head(head), crops[:0], judging.maps, outputs)
    return faithfulness_path(
        jnp.asarray(rows),
        rank,
        dataclasses.replace(term, unit=unit),
        jnp.asarray(held_out),
        held_out_term=dataclasses.replace(held_out_term, unit=unit),
        outputs=outputs,
        **settings,
    )


def start_along(path: Path, rows: Float[np.ndarray, "row channel"], usual: AnyStart) -> AnyStart:
    """The path's solution as a start for all rows: at a large λ it's a long way from anywhere else."""
    if path.solution is None or path.weight <= 0:
        return usual
    known = path.solution.dictionary
    return Given(encode(jnp.asarray(rows), known), known)

"""Scores of one bank of concepts on pictures that it was not fitted on."""

from __future__ import annotations

import collections
import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..activations import Collected
from ..blocks.room import parts_of
from ..heads import shifted
from ..heads.beside import of_pictures
from ..model import Head, check_head
from ..nmf.encoding import encode_maps
from ..outputs import AnyOutputs, MultiClass
from ..support.arguments import Whole, instance, real_array
from ..support.fields import within
from ..support.precision import full_precision
from .curves import Fidelity, fidelity, gini, mean_fidelity
from .faithfulness import certificates, mean_error, relative_squared_error
from .predictions import logits_of


@dataclasses.dataclass(frozen=True)
class Score:
    """How one bank of concepts does on pictures that it was not fitted on.

    **Arguments:**

    - `name`: whose score it is.
    - `relative_error`: `‖A − UWᵀ‖² / ‖A‖²`.
    - `kl`, `l1`: mean divergence and distance between the predictions, per picture; see `Certificates`.
    - `kl_quantiles`: 50, 90 and 100 % of the pictures are below these.
    - `agreement`: share of pictures whose predicted class survives; of labels, the share that stay predicted or not.
    - `becomes`: the classes that the other pictures are put in, with their numbers, most frequent first; of labels,
        those that are predicted for a picture or not as they weren't.
    - `gini`: how unequally importance is shared.
    - `fidelity`: insertion and deletion.
    """

    name: str
    relative_error: float = dataclasses.field(metadata=within(0, unknown=True))
    kl: float = dataclasses.field(metadata=within(-1e-3, unknown=True))
    kl_quantiles: tuple[float, float, float] = dataclasses.field(metadata=within(-1e-3, unknown=True))
    l1: float = dataclasses.field(metadata=within(0, 2 + 1e-3, unknown=True))
    agreement: float = dataclasses.field(metadata=within(0, 1 + 1e-6))
    becomes: tuple[tuple[int, int], ...] = dataclasses.field(metadata=within(0, 10**7))
    gini: float = dataclasses.field(metadata=within(-1e-6, 1))
    fidelity: Fidelity


@full_precision
def score(
    name: str,
    head: Head,
    units: Collected,
    dictionary: Float[np.ndarray, "concept channel"],
    target: Whole,
    importance: Float[np.ndarray, " concept"],
    outputs: AnyOutputs = MultiClass(),  # noqa: B008 (settings: frozen)
    *,
    codes: Float[np.ndarray, "image y x concept"] | None = None,
    offset: Float[np.ndarray, " channel"] | None = None,
) -> Score:
    """Scores one bank of concepts: codes by non-negative least squares, for every bank alike, unless given.

    **Arguments:**

    - `name`: what the row is called.
    - `head`: from activations to logits; of a layer with tokens beside its maps, from both.
    - `units`: the pictures it's scored on.
    - `dictionary`: the concepts.
    - `target`: the class.
    - `importance`: the concepts', found on other pictures; sets the order of insertion and deletion.
    - `outputs`: what the logits mean, `model.outputs`: `MultiClass()`, or `MultiLabel()` for labels.
    - `codes`: how much of each concept is at each place, if by another rule.
    - `offset`: what codes of zero stand for, such as a mean; activations are rebuilt as `offset + codes @ dictionary`,
        and insertion begins with it. Nothing if None.

    **Returns:** the row.

    **Example:**

    >>> held_out = explanation.pictures.collected[explanation.pictures.held_out]
    >>> own = fj.metrics.score("mine", model.head, held_out, explanation.dictionary, 0, np.ones(4))
    >>> 0 <= own.agreement <= 1
    True
    """
    instance("units", units, Collected, "explanation.pictures.collected")
    check_head(head, affine=False, tokens=units.kept is not None)
    dictionary = real_array("dictionary", dictionary, "concept × channel")
    importance = real_array("importance", importance, "concept")
    if len(importance) != len(dictionary):
        raise ValueError(f"importance has {len(importance)} numbers for {len(dictionary)} concepts; give one for each")
    head, maps = units.head(shifted(head, offset)), units.maps
    if offset is not None:
        maps = maps - real_array("offset", offset, "channel").astype(maps.dtype)
    if codes is not None:
        codes = real_array("codes", codes, "image × y × x × concept")
        if codes.shape != (*maps.shape[:3], len(dictionary)):
            raise ValueError(f"codes has shape {codes.shape}; give {(*maps.shape[:3], len(dictionary))}")
    # As encoded or given in the maps' type, so that no program meets two.
    dictionary, order = np.asarray(dictionary, maps.dtype), np.argsort(-importance, kind="stable")
    said, errors, squares, curves = [], [], [], []
    for part in parts_of(maps):
        some = np.asarray(maps[part])
        mine = head if len(some) == len(maps) else of_pictures(head, np.arange(part.start, part.stop))
        inside = np.asarray(encode_maps(some, dictionary) if codes is None else codes[part], maps.dtype)
        rebuilt = inside @ dictionary
        said.append(logits_of(mine, rebuilt))
        whole = some if offset is None else units.maps[part]
        errors.append(relative_squared_error(whole, rebuilt if offset is None else rebuilt + (whole - some)))
        squares.append(float(np.square(whole, dtype=np.float64).sum()))
        curves.append(fidelity(mine, jnp.asarray(inside), jnp.asarray(dictionary), target, order, outputs))
    logits = np.concatenate(said)
    certified = certificates(units.logits, logits, outputs)
    changed = collections.Counter(outputs.becomes(units.logits, logits))
    half, most, worst = np.quantile(certified.kl, [0.5, 0.9, 1.0]).tolist()
    return Score(
        name=name,
        relative_error=errors[0] if len(errors) == 1 else mean_error(errors, squares),
        kl=float(certified.kl.mean()),
        kl_quantiles=(half, most, worst),
        l1=float(certified.l1.mean()),
        agreement=float(certified.agreement.mean()),
        becomes=tuple(changed.most_common()),
        gini=gini(importance),
        fidelity=curves[0] if len(curves) == 1 else mean_fidelity(curves, [len(each) for each in said]),
    )

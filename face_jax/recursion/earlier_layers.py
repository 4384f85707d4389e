"""Earlier layers: which suit the levels of a recursion, and the activations of crops there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..activation_checks import below_zero
from ..blocks.room import Room
from ..explanation.record import Explanation
from ..model import SplitModel, check_model
from ..nmf.options import AnySolver
from ..pictures.photographs import network_input
from ..pipeline.selection import Activator, place_average
from ..signs import Signs, are_apart, signs_apart, without_negative
from ..support.progress import Progress, Stopwatch

# Logits of one network through two cuts differ by rounding, relative to the largest of them, by less than this.
_SAME_LOGITS = 1e-2


@runtime_checkable
class Place(Protocol):
    """A layer on offer, such as `face_jax.bridges.layers` lists in the order that data flows."""

    @property
    def name(self) -> str:
        """What it's called."""
        ...

    @property
    def aliases(self) -> tuple[str, ...]:
        """Its other names."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """`y x channel`."""
        ...

    @property
    def non_negative(self) -> bool:
        """Whether its activations are never below zero."""
        ...


def earlier_layers(places: Sequence[Place], layer: str, depth: int) -> tuple[str, ...]:
    """Layers for the levels of a recursion, as `suitable_before` has them.

    **Arguments:**

    - `places`: the layers on offer, in the order that data flows.
    - `layer`: the explanation's.
    - `depth`: how many are wanted.

    **Returns:** names, the nearest first. Raises `ValueError` if there are fewer, naming those there are.
    """
    found = suitable_before(places, layer)
    if len(found) < depth:
        there = ", ".join(found) or "none"
        raise ValueError(
            f"depth={depth} needs as many earlier layers, each on a finer grid than the one behind it or, where the "
            f"network keeps one grid, half as deep in it; before {layer!r} there are: {there}"
        )
    return found[:depth]


def suitable_before(places: Sequence[Place], layer: str) -> tuple[str, ...]:
    """Layers that parts of concepts can be found at: before `layer`, the last one of each finer grid.

    Layers of one grid differ by a block or two; from grid to grid parts become smaller. On each grid the last layer is
    taken that is never below zero, or the last of all if there is none on it. A transformer has the same grid from
    its first block to its last: there it's the block half as deep, then the one half as deep as that, and so on.

    **Arguments:**

    - `places`: the layers on offer, in the order that data flows.
    - `layer`: the explanation's.

    **Returns:** all their names, the nearest first. Raises `ValueError` for a layer that isn't among the places.
    """
    at = next((i for i, place in enumerate(places) if layer == place.name or layer in place.aliases), None)
    if at is None:
        raise ValueError(f"layer={layer!r} is none of the layers on offer: {', '.join(place.name for place in places)}")
    before = [place for place in places[:at] if getattr(place, "told", True)]
    found = _last_of_each_grid(before, places[at])
    if not found or getattr(places[at], "prefix", 0):
        # Before the first block nothing has been mixed yet: patches are colours there.
        found, blocks = [], [place for place in before if _alike(place, places[at])]
        deep = len(blocks)
        while deep:
            deep //= 2
            found.append(blocks[deep])
    return tuple(place.name for place in found)


def _alike(place: Place, layer: Place) -> bool:
    """Whether a place is the result of a block on the layer's own grid, with the same tokens beside it."""
    grid = (place.shape[:2], getattr(place, "prefix", 0))
    return getattr(place, "stage", True) and grid == (layer.shape[:2], getattr(layer, "prefix", 0))


def _last_of_each_grid(before: Sequence[Place], layer: Place) -> list[Place]:
    found: list[Place] = []
    for place in reversed(before):
        grid, finest = (each.shape[0] * each.shape[1] for each in (place, found[-1] if found else layer))
        if grid > finest:
            found.append(place)
        elif found and grid == finest and place.non_negative and not found[-1].non_negative:
            found[-1] = place
    return found


def crop_rows(
    explanation: Explanation,
    model: SplitModel,
    crops: Int[np.ndarray, " crop"],
    *,
    batch: int,
    cache: Callable[..., Any],
    progress: Progress,
    signs: Signs,
    solver: AnySolver | None = None,
    room: Room | None = None,
) -> tuple[SplitModel, Float[np.ndarray, "crop channel"]]:
    """Averaged activations of some of the explanation's crops at another layer, in a file where `room` says so.

    And the model that gives them: with its signs apart if any activation is below zero and `signs` says so.
    """

    def of(model: SplitModel) -> Float[np.ndarray, "crop channel"]:
        # Nobody needs the rest of the network here, which is most of the work. Without it it's another model: what it
        # gives has no logits, and is kept apart from what the whole one gives.
        headless = dataclasses.replace(
            model, head=_NoHead(), with_tokens=None, fingerprint=f"{model.fingerprint} without a head"
        )
        wanted = solver if signs == "mixed" else None
        activator = Activator(headless, batch, cache, progress, Stopwatch(), wanted, room)
        return place_average(activator.crops(explanation.photographs, explanation.crops[crops], maps=False))

    if signs == "mixed" or are_apart(model):
        return model, of(model)
    # Signs have to be put apart before activations are averaged.
    if model.lowest is not None and model.lowest >= 0:
        rows = of(model)
        if not below_zero(rows):
            return model, rows
    apart = signs_apart(model)
    rows = of(apart)
    positive = without_negative(rows)
    return (apart, rows) if positive is None else (model, positive)


@jax.tree_util.register_static
class _NoHead:
    """No logits."""

    affine = True

    def __call__(self, maps: Float[Array, "image y x channel"]) -> Float[Array, "image class"]:
        return jnp.zeros((maps.shape[0], 0), maps.dtype)


def check_same_model(explanation: Explanation, model: SplitModel, level: int) -> None:
    """Refuses a cut of another network, by what it says of one photograph."""
    check_model(model, f"earlier's model for level {level}")
    pixels = network_input(explanation.photographs[0].pixels(model.preprocess.reads), model.preprocess)
    maps, head = model.halves(jnp.asarray(pixels[None]))
    logits = np.asarray(head(maps))[0]
    known = explanation.pictures.collected.logits[0]
    apart = np.inf if logits.shape != known.shape else float(np.abs(logits - known).max())
    if apart > _SAME_LOGITS * max(float(np.abs(known).max()), 1e-30):
        raise ValueError(
            f"earlier: the cut of {model.name} at layer={model.layer!r} for level {level} is of another model than the "
            f"explanation's {explanation.model.name}: its logits of {explanation.photographs[0].name} differ by "
            f"{apart:.3g}; cut the same network, with the same weights and preprocessing"
        )

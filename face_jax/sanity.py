"""The sanity check: does an explanation fall apart when the model forgets what it learned?"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from .activation_checks import below_zero, check_signs
from .attribution import Method, attribution_method
from .explanation.record import Explanation
from .metrics.ranks import rank_correlation
from .metrics.ssim import structural_similarity
from .model import SplitModel, check_model
from .nmf import NNDSVD
from .nmf.matching import matched
from .nmf.options import AnySolver, AnyStart
from .nmf.settings import solver_or, start_or
from .pictures.photographs import network_input
from .pictures.showing import view_of
from .pipeline.checks import Folder, room_of, streams
from .pipeline.material import some_places
from .pipeline.ranking import importance_of
from .pipeline.refit import refitted
from .pipeline.selection import Activator, of_class, place_average, units
from .signs import are_apart, signs_apart
from .support.arguments import Real, Seed, Whole, check_count, instance, key_of, shown, text
from .support.cache import no_cache
from .support.interrupts import interruptible
from .support.precision import full_precision
from .support.progress import Advance, Progress, Stopwatch, silent
from .support.progress_line import Watched, progress_of
from .support.randomness import generator
from .support.reprs import short_repr

# Maps are compared in pictures that have the concept: in half of what one reaches that clearly has it, or more.
_PRESENT = 0.5
_SHUFFLES = 20


@dataclasses.dataclass(frozen=True, eq=False)
class SanityStage:
    """An explanation's likeness to that of the same photographs by a model which forgot some of its weights.

    **Arguments:**

    - `name`: the stage.
    - `dictionary`: mean cosine between concepts, matched one to one for the largest sum.
    - `importance`: Spearman's rank correlation of the matched concepts' importance; NaN where one of the two is the
        same for all concepts.
    - `maps`: mean structural similarity of matched concepts' maps in the pictures that have the concept; maps are
        compared without sign, each scaled to a largest value of 1.
    - `logit_agreement`: share of the photographs in which the model still sees the class.
    - `shown`: maps of the photograph that is drawn, of the concepts matched with the explanation's first ones.
    """

    name: str
    dictionary: float
    importance: float
    maps: float
    logit_agreement: float
    shown: Float[np.ndarray, "concept y x"]

    __repr__ = short_repr


@dataclasses.dataclass(frozen=True, eq=False)
class SanityCheck:
    """What remains of an explanation while the model forgets.

    **Arguments:**

    - `stages`: in the order in which they were given.
    - `dictionary_floor`: the matched cosine that concepts reach whose channels are shuffled.
    - `importance_floor`: the rank correlation that 95 % of random orders stay below in absolute value.
    - `maps_floor`: the mean structural similarity of different concepts' maps in the same picture.
    - `photograph`: the one that is drawn, as the network sees it.
    - `shown`: the explanation's own maps of it.
    """

    stages: tuple[SanityStage, ...]
    dictionary_floor: float
    importance_floor: float
    maps_floor: float
    photograph: UInt8[np.ndarray, "y x 3"]
    shown: Float[np.ndarray, "concept y x"]

    __repr__ = short_repr


@interruptible()
@full_precision
def sanity_check(
    explanation: Explanation,
    stages: Iterable[tuple[str, SplitModel]],
    *,
    method: str | Method = "codes",
    pictures: Whole = 8,
    solver: AnySolver | None = None,
    start: AnyStart | None = None,
    batch: Whole = 32,
    memory: Real | None = None,
    store: Folder = None,
    progress: Watched = None,
    key: Seed = None,
) -> SanityCheck:
    """Explains the same photographs, in the same crops, by models that forgot some of their weights, and compares.

    Concepts that depend on what the model learned must fall apart (CRAFT, appendix G; Adebayo et al. 2018): every
    likeness must come down to about its floor. Begin with a stage of unchanged weights, which shows how much of the
    explanation another run finds again.

    **Arguments:**

    - `explanation`: what is checked.
    - `stages`: names and models, each the explained model with some of its weights drawn again
        (`bridges.randomized` makes them from a torch model); may be made one by one. Where the explanation has positive
        and negative activations as channels of their own, so have these.
    - `method`: how maps are made, a word of `face_jax.attribution.METHODS` or an object; by default the codes on the
        layer's grid.
    - `pictures`: photographs whose maps are compared.
    - `solver`, `start`: for `factorize`; as `explain` has it, `ADMM()`, or `SemiNMF()` where concepts have either
        sign, and `NNDSVD()` by default. The faithfulness term is used as the explanation has it (not that of an
        `objective` of your own, nor a preset's).
    - `batch`: pictures that go through the network together.
    - `memory`, `store`: as for `explain`, of each stage's activations, which go with the stage.
    - `progress`: told how far it is.
    - `key`: for starts, sampled importance and floors.

    **Returns:** the likeness at each stage, and floors. Raises `ValueError` for models of another shape, and
    `SignedActivationsError` for a non-negative `solver` where activations are below zero.

    **Example:**

    >>> check = fj.sanity_check(explanation, [("trained", model), ("again", model)])
    >>> round(check.stages[0].logit_agreement, 2)
    1.0
    """
    key, progress = key_of(key), progress_of(progress)
    instance("explanation", explanation, Explanation, "the result of explain or load")
    pictures, batch = check_count("pictures", pictures, "pictures"), check_count("batch", batch, "pictures")
    solver, start = solver_or(None, solver), start_or(NNDSVD(), start)
    room_of(memory, store)
    if not isinstance(stages, Iterable) or getattr(stages, "shape", None) == ():
        raise ValueError(f"stages={shown(stages)} isn't a list; give pairs of a name and a model")
    chosen = attribution_method(method)
    reference = _Reference.of(explanation, chosen, pictures, key)
    found = []
    steps = len(explanation.crops) + len(explanation.photographs)
    for stage in stages:
        if not isinstance(stage, tuple) or len(stage) != 2:
            raise ValueError(
                f"stages holds a {type(stage).__name__}; give pairs of a name and a model, as bridges.randomized does"
            )
        name, model = stage
        text("stages", name, "a stage's name")
        check_model(model, f"the model of stage {name!r}")
        if are_apart(explanation.model) and not are_apart(model):
            model = signs_apart(model)
        check_signs(model, solver)
        with progress(f"Sanity check, {name}", steps) as advance:
            activator = Activator(
                model, batch, no_cache, _part_of(advance), Stopwatch(), solver, room_of(memory, store),
                streams(solver, start, None),
            )  # fmt: skip
            found.append(_stage(explanation, reference, name, activator, chosen, solver, start, key))
    if not found:
        raise ValueError("stages is empty; give the models that forgot, such as those of bridges.randomized")
    random = generator(key)
    return SanityCheck(
        stages=tuple(found),
        dictionary_floor=_shuffled_channels(explanation.dictionary, random),
        importance_floor=_random_orders(len(explanation.dictionary), random),
        maps_floor=reference.floor(),
        photograph=view_of(explanation.photographs[reference.chosen[0]], explanation.model.preprocess),
        shown=reference.maps[:, 0],
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _Reference:
    """The explanation's own maps of some photographs, scaled, and which photographs have which concept."""

    chosen: Int[np.ndarray, " image"]
    inputs: Float[Array, "image y x colour"]
    maps: Float[np.ndarray, "concept image y x"]
    present: Bool[np.ndarray, "concept image"]

    @staticmethod
    def of(explanation: Explanation, method: Method, pictures: int, key: Key[Array, ""]) -> _Reference:
        # Held-out photographs first: the explanation was not made from them.
        held_out = explanation.pictures.held_out
        order = np.concatenate([held_out, np.setdiff1d(explanation.pictures.fitted, held_out)])
        chosen = order[:pictures]
        preprocess = explanation.model.preprocess
        inputs = jnp.asarray(
            np.stack(
                [
                    network_input(explanation.photographs[number].pixels(preprocess.reads), preprocess)
                    for number in chosen
                ]
            )
        )
        strength = explanation.codes.max(axis=(1, 2))
        strong = np.maximum(np.quantile(strength, 0.9, axis=0), np.finfo(strength.dtype).tiny)
        present = (strength[chosen] >= _PRESENT * strong).T
        return _Reference(
            chosen, inputs, _scaled(method(explanation.model, explanation.dictionary, inputs, key=key)), present
        )

    def likeness(self, maps: Float[np.ndarray, "concept image y x"]) -> float:
        """Mean structural similarity where the concept is."""
        return float(structural_similarity(self.maps, maps)[self.present].mean()) if self.present.any() else np.nan

    def floor(self) -> float:
        """The likeness of maps that are each another concept's."""
        turned = [self.likeness(np.roll(self.maps, shift, axis=0)) for shift in range(1, len(self.maps))]
        return float(np.mean(turned)) if turned else np.nan


def _stage(
    explanation: Explanation,
    reference: _Reference,
    name: str,
    activator: Activator,
    method: Method,
    solver: AnySolver | None,
    start: AnyStart,
    key: Key[Array, ""],
) -> SanityStage:
    model = activator.model
    # A single photograph's importance is that in its crops, which a head that isn't affine wants whole.
    maps = explanation.single and not model.head.affine
    crops = activator.crops(explanation.photographs, explanation.crops, maps=maps)
    rows = place_average(crops)
    if rows.shape[1] != explanation.dictionary.shape[1] or len(model.classes) != len(explanation.model.classes):
        raise ValueError(
            f"stages: {name!r} has {rows.shape[1]} channels and {len(model.classes)} classes, the explained model "
            f"{explanation.dictionary.shape[1]} and {len(explanation.model.classes)}; give the same network, cut alike"
        )
    if model.outputs != explanation.model.outputs:
        raise ValueError(
            f"stages: {name!r} has outputs={model.outputs!r} and the explained model {explanation.model.outputs!r}; "
            "cut both alike (multi_label of bridges.split and bridges.randomized)"
        )
    start_key, importance_key = jax.random.split(key)
    seen = activator.survey(explanation.photographs, None).kept
    # The explanation's own rule at all stages, too.
    own = explanation.dictionary, explanation.pictures.collected.maps
    signed = below_zero(*own, seen.maps, rows)
    fitted = (
        crops[of_class(model, crops, explanation.target.index)]
        if explanation.single
        else units(seen, explanation.pictures.fitted, affine=model.head.affine)
    )
    found_there = explanation.fit.of_places and explanation.provenance.settings.preset is None
    places = some_places([seen.maps], [explanation.pictures.fitted]) if found_there else None
    dictionary = refitted(
        explanation, model, rows, fitted, places=places, solver=solver, signed=signed, start=start, key=start_key
    )
    importance = importance_of(model, fitted, dictionary, explanation.target.index, importance_key, silent).per_class
    match, cosine = matched(explanation.dictionary, dictionary)
    own = _scaled(method(model, dictionary, reference.inputs, key=key)[match])
    return SanityStage(
        name=name,
        dictionary=cosine,
        importance=rank_correlation(explanation.importance.sobol.per_class, importance[match]),
        maps=reference.likeness(own),
        logit_agreement=float(model.outputs.has(seen.logits, explanation.target.index).mean()),
        shown=own[:, 0],
    )


def _part_of(advance: Advance) -> Progress:
    """A `Progress` whose steps count in a stage that has begun already."""

    @contextlib.contextmanager
    def progress(stage: str, total: int) -> Iterator[Advance]:
        del stage, total
        yield advance

    return progress


def _scaled(maps: Float[np.ndarray, "concept image y x"]) -> Float[np.ndarray, "concept image y x"]:
    """Each map without its sign and with a largest value of 1; an empty one stays."""
    maps = np.abs(maps)
    largest = maps.max(axis=(2, 3), keepdims=True)
    return maps / np.where(largest > 0, largest, 1)


def _shuffled_channels(dictionary: Float[np.ndarray, "concept channel"], generator: np.random.Generator) -> float:
    shuffled = (generator.permuted(dictionary, axis=1) for _ in range(_SHUFFLES))
    return float(np.mean([matched(dictionary, other)[1] for other in shuffled]))


def _random_orders(concepts: int, generator: np.random.Generator) -> float:
    orders = [rank_correlation(np.arange(concepts), generator.permutation(concepts)) for _ in range(2000)]
    return float(np.quantile(np.abs(orders), 0.95))

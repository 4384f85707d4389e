"""`layers`: where a torch classifier can be split, and what its activations are like there."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch import fx, nn

from face_jax.support.arguments import check_count, instance, several, text

from ..wrappers import plain_name, unwrapped
from .affine_heads import affine_from, affine_head
from .finding import find
from .layer_table import LayerTable
from .surveying import Survey, example, survey


@dataclasses.dataclass(frozen=True)
class Layer:
    """A place where a classifier can be split.

    **Arguments:**

    - `name`: what to give to `split`.
    - `aliases`: its other names.
    - `kind`: the module or operation whose result it is.
    - `shape`: `y x channel` of one image's activations.
    - `minimum`: the lowest activation seen in the batch.
    - `negative`: the share of activations below zero in the batch.
    - `affine`: whether the logits behind it are an affine map of its averages.
    - `prefix`: how many tokens lie beside the maps: class and distillation tokens, registers.
    - `told`: whether it's known where on the picture its places lie; where not, `split` has to be told their grid.
    - `reaches`: whether the maps reach the logits; behind the last block of a network that reads its class token alone
        they don't, and it can't be split there.
    - `stage`: whether it's what a module returns, such as a block of a transformer.
    - `taken`: when the command takes it: `"by default"`, or `"by --depth 1"` and so on; empty if it doesn't.
    """

    name: str
    aliases: tuple[str, ...]
    kind: str
    shape: tuple[int, int, int]
    minimum: float
    negative: float
    affine: bool
    prefix: int = 0
    told: bool = True
    reaches: bool = True
    stage: bool = False
    taken: str = ""

    @property
    def non_negative(self) -> bool:
        """Whether no activation in the batch was below zero, as a non-negative factorization needs."""
        return self.minimum >= 0


# So many levels of a recursion are marked.
_LEVELS = 3


def _hands_on(kind: str) -> bool:
    """Whether an operation only hands on (or pads) what it's given: the place before has the same activations."""
    return any(word in kind.lower() for word in ("dropout", "identity", "clone", "contiguous", "pad"))


def layers(
    model: nn.Module, *, example_inputs: Any = None, size: int | tuple[int, int] = 224, seen: Survey | None = None
) -> tuple[Layer, ...]:
    """All places where a classifier can be split, in the order that data flows.

    Use it to choose a layer: non-negative ones suit a non-negative factorization, affine heads make importance exact.

    **Arguments:**

    - `model`: a torch classifier, images to logits; also inside `DataParallel`, `torch.compile`'s module and the like.
    - `example_inputs`: a batch to look at, preprocessed: a JAX or NumPy array `image y x colour`, or a torch tensor
        `image colour y x`. By default two images of noise, which show signs well but no typical values.
    - `size`: height and width of that noise in pixels, or both in one number.
    - `seen`: what `survey` found of it before, which saves following its operations again.

    **Returns:** the places. Those beside which other tensors flow (inside a residual block) are none; dropouts and
    paddings, which add nothing to the place before them, are left out, and so is what lies before a place where the
    network detaches its tensors, as its logits have no derivative there. Raises `ValueError` for a model that returns
    no logits, doesn't take such pictures, or can't be followed.

    **Example:**

    >>> [place.name for place in bridges.layers(network, size=16)][0]
    'conv'
    """
    model = unwrapped(model)
    seen = survey(model, example(model, example_inputs, size)) if seen is None else seen
    position = {node: index for index, node in enumerate(seen.traced.nodes)}
    affine_tail = affine_from(seen.traced)
    found = []
    results = {result for calls in seen.traced.calls.values() for result in calls.values()}
    for node in seen.listed:
        if _hands_on(_kind(node, seen.traced.root)):
            continue
        affine = position[node] >= affine_tail and (
            affine_head(seen.head_at(node), seen.layouts[node], seen.map_shape(node)) is not None
        )
        name, *aliases = seen.traced.names[node]
        found.append(
            Layer(
                name=name,
                aliases=tuple(aliases),
                kind=_kind(node, seen.traced.root),
                shape=seen.map_shape(node),
                minimum=seen.minimum[node],
                negative=seen.negative[node],
                affine=affine,
                prefix=seen.layouts[node].prefix,
                told=seen.layouts[node].told,
                reaches=node not in seen.spent,
                stage=node in results,
            )
        )
    return LayerTable(_with_choices(found, seen.logits.shape[1]))


def _with_choices(places: list[Layer], classes: int) -> list[Layer]:
    """The places, with a word at those that are taken where none is named."""
    from face_jax.recursion.earlier_layers import suitable_before

    chosen = suggest_layer(places, classes=classes)
    if chosen is None:
        return places
    taken = {chosen.name: "by default"}
    for level, name in enumerate(suitable_before(places, chosen.name)[:_LEVELS], start=1):
        taken[name] = f"by --depth {level}"
    return [dataclasses.replace(place, taken=taken.get(place.name, "")) for place in places]


def non_negative_layers(
    model: nn.Module, *, near: str, example_inputs: Any = None, size: int | tuple[int, int] = 224, count: int = 3
) -> tuple[str, ...]:
    """Names of the layers nearest to one layer whose activations are maps and never below zero, nearest first.

    **Arguments:**

    - `model`, `example_inputs`, `size`: as for `layers`.
    - `near`: a layer's name.
    - `count`: how many names at most.

    **Returns:** the names; fewer, or none, if the network has no more such places.

    **Example:**

    >>> bridges.non_negative_layers(network, near="conv", size=16)[0]
    'relu'
    """
    near, count = text("near", near, "a layer's name"), check_count("count", count, "names")
    near, model = plain_name(model, near), unwrapped(model)
    return non_negative_near(survey(model, example(model, example_inputs, size)), model, near, count)


def non_negative_near(seen: Survey, model: nn.Module, near: str, count: int = 3) -> tuple[str, ...]:
    """`non_negative_layers` of a network that was surveyed before."""
    origin = seen.traced.nodes.index(find(seen, model, near))
    distance = {
        node: abs(seen.traced.nodes.index(node) - origin)
        for node in seen.splittable
        if seen.minimum[node] >= 0
        and seen.map_shape(node)[:2] != (1, 1)
        and not _hands_on(_kind(node, seen.traced.root))
    }
    return tuple(seen.traced.names[node][0] for node in sorted(distance, key=distance.__getitem__)[:count])


def suggest_layer(places: Sequence[Layer], *, classes: int | None = None) -> Layer | None:
    """The place that suits concepts best.

    The last maps with an affine head are, those that are never negative before others: importance is exact there, and
    maps are as near to the logits as they can be. Where no head is affine, the last maps are taken whose grid is 7 × 7
    or finer (of small pictures, an eighth of the finest grid). A network with a class token is cut in the middle
    instead: in its last blocks the class token has read the picture already, and patches rebuilt in any way are
    predicted like the picture that it was read from.

    **Arguments:**

    - `places`: what `layers` returned.
    - `classes`: how many logits there are: maps with a channel a class (in SqueezeNet) are the answer already, and
        are passed over.

    **Returns:** one of them, or None if there are no maps.

    **Example:**

    >>> bridges.suggest_layer(bridges.layers(network, size=16)).name
    'relu'
    """
    places = several("places", places, "layers")
    for place in places:
        instance("places", place, Layer, "those that face_jax.bridges.layers returns")
    classes = None if classes is None else check_count("classes", classes, "classes")
    maps = [
        place
        for place in places
        if place.shape[:2] != (1, 1) and place.shape[2] != classes and place.told and place.reaches
    ]
    affine = [place for place in maps if place.affine]
    if affine or not maps:
        return _best(affine) if affine else None
    if maps[-1].prefix:
        blocks = [place for place in maps if place.prefix]
        blocks = [place for place in blocks if place.stage] or blocks
        # What makes the tokens isn't one of the blocks.
        blocks = [place for place in blocks if "embed" not in place.name.rpartition(".")[2].lower()] or blocks
        return blocks[(len(blocks) - 1) // 2]
    finest = max(min(place.shape[:2]) for place in maps)
    # Of small pictures no layer may have so many places.
    fine = [place for place in maps if min(place.shape[:2]) >= min(_FINE, -(-finest // 8))]
    # As late as the last of them, and never negative if there is such a place on the same grid.
    late = [place for place in fine if place.shape[:2] == fine[-1].shape[:2]]
    return _best(late)


def _best(places: list[Layer]) -> Layer:
    """The last one that is never negative, if there is such a place, and has a name that says what it is."""
    same = [place for place in places if place.non_negative] or places
    # What only takes tokens away or turns axes has none of its own; what it's given has one.
    return ([place for place in same if place.stage or place.kind not in _REARRANGES] or same)[-1]


# Coarser grids say little of where a concept is.
_FINE = 7
_REARRANGES = ("getitem", "slice", "reshape", "view", "flatten", "unflatten", "permute", "transpose")


def _kind(node: fx.Node, root: nn.Module) -> str:
    if node.op == "call_module":
        return type(root.get_submodule(str(node.target))).__name__
    return getattr(node.target, "__name__", str(node.target)).split(".")[0]

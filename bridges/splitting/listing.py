"""`layers`: where a torch classifier can be split, and what its activations are like there."""

from __future__ import annotations

import bisect
import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn

from face_jax.outputs import Binary, MultiLabelled, Outputs, check_multi_label, outputs_of
from face_jax.support.arguments import whole

from ..arrays import Layout, to_torch
from ..torch_features import home_of
from ..wrappers import plain_name, unwrapped
from .affine_heads import affine_from, affine_head
from .dominators import NotACutError, cut_at, cuttable, passing_beside
from .endings import in_columns, without_sigmoid
from .first_run import colours_of, depends_on, first_run
from .layer_table import LayerTable
from .layouts import Marks
from .tracing import Traced, evaluating, run_watched, trace


class UnknownLayerError(ValueError):
    """A name that no place in the network has."""


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
    """

    name: str
    aliases: tuple[str, ...]
    kind: str
    shape: tuple[int, int, int]
    minimum: float
    negative: float
    affine: bool

    @property
    def non_negative(self) -> bool:
        """Whether no activation in the batch was below zero, as a non-negative factorization needs."""
        return self.minimum >= 0


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """A traced network and what one batch showed of it.

    `logits` are `image class`, before the sigmoid if one was taken off; `outputs` is what they mean, and `told` whether
    the network's end, and nobody else, said so. `flat` says that the network gives no axis for its one logit.
    """

    traced: Traced
    places: tuple[fx.Node, ...]
    shapes: dict[fx.Node, tuple[int, ...]]
    layouts: dict[fx.Node, Layout]
    minimum: dict[fx.Node, float]
    negative: dict[fx.Node, float]
    logits: torch.Tensor
    detached: int = 0
    outputs: Outputs = dataclasses.field(kw_only=True)
    sigmoid: bool = dataclasses.field(kw_only=True)
    told: bool = dataclasses.field(kw_only=True)
    flat: bool = dataclasses.field(kw_only=True)

    def head_at(self, node: fx.Node) -> fx.GraphModule:
        """The network behind a place, which gives logits in columns: one where it has one."""
        head = cut_at(self.traced, node).head
        return in_columns(head, binary=False) if self.flat else head

    @property
    def binary(self) -> bool:
        """Whether one logit stands for two classes."""
        return isinstance(self.outputs, Binary)

    @property
    def splittable(self) -> tuple[fx.Node, ...]:
        """The places that logits can be differentiated by; the first `detached` ones are none."""
        return self.places[self.detached :]

    def map_shape(self, node: fx.Node) -> tuple[int, int, int]:
        """`y x channel` at a place."""
        shape, layout = self.shapes[node], self.layouts[node]
        y, x, channel = layout.to_maps(torch.empty(shape, device="meta")).shape[1:]
        return y, x, channel


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
    for node in seen.splittable:
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
            )
        )
    return LayerTable(found)


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
    """The place that suits concepts best: the last with maps and an affine head, never negative ones if there are such.

    Where no head is affine, the last with maps, again never negative ones if there are such.

    **Arguments:**

    - `places`: what `layers` returned.
    - `classes`: how many logits there are: maps with a channel a class (in SqueezeNet) are the answer already, and
        are passed over.

    **Returns:** one of them, or None if there are no maps.

    **Example:**

    >>> bridges.suggest_layer(bridges.layers(network, size=16)).name
    'relu'
    """
    maps = [place for place in places if place.shape[:2] != (1, 1) and place.shape[2] != classes]
    best = [place for place in maps if place.affine] or maps
    return ([place for place in best if place.non_negative] or best or [None])[-1]


def example(model: Any, given: Any, size: int | tuple[int, int], likely: int = 3) -> torch.Tensor:
    """A batch `image colour y x` on the model's device: the one that was given, or two images of noise.

    `likely` is how many colours the network takes if nothing in it says so.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model={model!r} is no torch module; give a torch.nn.Module, "
            "such as the model of face_jax.bridges.load('resnet50')"
        )
    device, dtype = home_of(model)
    if isinstance(given, torch.Tensor):
        return given.detach().to(device=device, dtype=dtype)
    if given is not None:
        return to_torch(given, device=device, dtype=dtype).movedim(-1, 1)
    height, width = (
        whole("size", side, "pixels", least=1) for side in (size if isinstance(size, tuple) else (size,) * 2)
    )
    colours, _ = colours_of(model, (height, width), device=device, dtype=dtype, likely=likely)
    noise = torch.randn(2, height, width, colours, generator=torch.Generator().manual_seed(0))
    return noise.to(device=device, dtype=dtype).movedim(-1, 1)


def survey(model: nn.Module, images: torch.Tensor, multi_label: MultiLabelled = None) -> Survey:
    """Run a classifier on `images` (`image colour y x`), trace it, and look at every operation of it.

    `multi_label` is as for `split`: a sigmoid at the end is taken off unless exclusive classes were asked for.
    """
    check_multi_label(multi_label)
    logits, path = first_run(model, images)
    count = logits.shape[1]
    with evaluating(model):
        traced = trace(model, images, path)
    keeps = multi_label is not None and not multi_label and count > 1
    traced, sigmoid = (traced, False) if keeps else without_sigmoid(traced)
    told = multi_label is None and sigmoid and count > 1
    outputs = outputs_of(True if told else multi_label, count)
    shapes: dict[fx.Node, tuple[int, ...]] = {}
    minimum: dict[fx.Node, float] = {}
    negative: dict[fx.Node, float] = {}
    candidates = set(cuttable(traced))
    marks = Marks(traced, len(images))

    def watch(node: fx.Node, value: Any) -> None:
        marks.watch(node, value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return
        shapes[node] = tuple(value.shape)
        if node in candidates and value.numel():
            minimum[node] = float(value.min())
            negative[node] = float((value < 0).float().mean())

    logits = run_watched(traced, images, watch)
    known = {node: layout for node in candidates if (layout := marks.layout(node)) is not None}
    places = tuple(node for node in traced.nodes if node in known)
    detached = _detached(traced, places, images)
    found = (traced, places, shapes, known, minimum, negative, logits.reshape(len(images), count), detached)
    return Survey(*found, outputs=outputs, sigmoid=sigmoid, told=told, flat=logits.ndim == 1)


def _detached(traced: Traced, places: tuple[fx.Node, ...], images: torch.Tensor) -> int:
    """How many of the first places the logits don't depend on, as torch differentiates.

    All data flows through every place. So what depends on one depends on all behind it, and the first is enough to look
    at where nothing is detached.
    """

    def depends(place: fx.Node) -> bool:
        cut = cut_at(traced, place)
        with torch.inference_mode(False), evaluating(cut.features), evaluating(cut.head):
            with torch.no_grad():
                maps = cut.features(images.clone())
            with torch.enable_grad():
                leaf = maps.clone().requires_grad_()
                # Cloned once more: a head that overwrites its input can't be given a leaf.
                return depends_on(cut.head(leaf.clone()), leaf)

    return 0 if not places or depends(places[0]) else bisect.bisect_left(places, True, lo=1, key=depends)


def find(seen: Survey, model: nn.Module, layer: Any) -> fx.Node:
    """The operation that a layer's name means.

    Raises `UnknownLayerError` with the nearest right names, or `NotACutError` with what flows beside it.
    """
    node = _named(seen, model, layer)
    if node in seen.places:
        return node
    if node is seen.traced.logits:
        raise NotACutError(f"layer={layer!r} is the logits themselves; choose a layer before it")
    if node is seen.traced.input:
        raise NotACutError(f"layer={layer!r} is the input itself; choose a layer behind it")
    beside = passing_beside(seen.traced, node)
    position = seen.traced.nodes.index(node)
    around = sorted(seen.splittable, key=lambda place: abs(seen.traced.nodes.index(place) - position))[:3]
    reason = f"{', '.join(beside[:4])} flows past it" if beside else "it is no feature map"
    raise NotACutError(
        f"layer={layer!r} doesn't carry everything: {reason}; near it the model can be split at "
        f"{', '.join(seen.traced.names[place][0] for place in around)}"
    )


def _named(seen: Survey, model: nn.Module, layer: Any) -> fx.Node:
    if not isinstance(layer, str):
        raise TypeError(f"layer={layer!r} is no name; give one, such as {_nearest(seen, str(layer))}")
    traced = seen.traced
    names = traced.by_name
    if layer in names:
        return names[layer]
    modules = dict(model.named_modules(remove_duplicate=False))
    if layer in modules:
        # One module under several names: the calls are listed under the first of them.
        for other, module in modules.items():
            calls = traced.calls.get(other, {})
            if module is modules[layer] and calls:
                if len(calls) == 1 and calls[other] in traced.names:
                    return calls[other]
                raise UnknownLayerError(
                    f"layer={layer!r} is a module that runs {len(calls)} times; name the call: {', '.join(calls)}"
                )
        raise UnknownLayerError(
            f"layer={layer!r} is in the model, but no single tensor of its own reaches the logits; "
            f"nearest that does: {_nearest(seen, layer)}"
        )
    raise UnknownLayerError(f"layer={layer!r} is not in the model; nearest: {_nearest(seen, layer)}")


def _nearest(seen: Survey, layer: str) -> str:
    names = [name for place in seen.splittable for name in seen.traced.names[place]]
    maps = [seen.traced.names[place][0] for place in seen.splittable if seen.map_shape(place)[:2] != (1, 1)]
    # Without the name of the part that the layer is in.
    close = [name for name in names if name.endswith(f".{layer}") and not layer.isdigit()][:5]
    close = close or difflib.get_close_matches(layer, names, n=5, cutoff=0.6)
    return ", ".join(close or maps[-3:]) + " (face_jax.bridges.layers lists all)"


def _kind(node: fx.Node, root: nn.Module) -> str:
    if node.op == "call_module":
        return type(root.get_submodule(str(node.target))).__name__
    return getattr(node.target, "__name__", str(node.target)).split(".")[0]

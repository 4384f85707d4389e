"""A classifier run once and looked at: its places, what their tensors are like, and which of them reach the logits."""

from __future__ import annotations

import bisect
import copy
import dataclasses
from typing import Any

import torch
from torch import fx, nn

from face_jax.outputs import Binary, MultiLabelled, Outputs, check_multi_label, outputs_of
from face_jax.support.arguments import whole

from ..arrays import Layout, to_torch
from ..torch_features import home_of
from .dominators import cut_at, cuttable
from .endings import in_columns, without_sigmoid
from .first_run import colours_of, depends_on, first_run
from .layouts import Marks
from .places import Places
from .tracing import Traced, evaluating, run_watched, trace


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
    spent: frozenset[fx.Node] = frozenset()
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
    def listed(self) -> tuple[fx.Node, ...]:
        """The places that logits can be differentiated by; the first `detached` ones are none."""
        return self.places[self.detached :]

    @property
    def splittable(self) -> tuple[fx.Node, ...]:
        """Those whose maps reach the logits; of those that are `spent` only other tokens do, such as a class token."""
        return tuple(node for node in self.listed if node not in self.spent)

    def map_shape(self, node: fx.Node) -> tuple[int, int, int]:
        """`y x channel` at a place."""
        return self.layouts[node].map_shape(self.shapes[node])


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
    on_the_picture = Places(marks)

    def watch(node: fx.Node, value: Any) -> None:
        marks.watch(node, value)
        on_the_picture.watch(node, value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            return
        shapes[node] = tuple(value.shape)
        if node in candidates and value.numel():
            minimum[node] = float(value.min())
            negative[node] = float((value < 0).float().mean())

    logits = run_watched(traced, images, watch)
    known = {
        node: on_the_picture.layout(node, layout) for node in candidates if (layout := marks.layout(node)) is not None
    }
    places = tuple(node for node in traced.nodes if node in known)
    detached = _detached(traced, places, images)
    spent = _spent(traced, places[detached:], known, images)
    found = (traced, places, shapes, known, minimum, negative, logits.reshape(len(images), count), detached, spent)
    return Survey(*found, outputs=outputs, sigmoid=sigmoid, told=told, flat=logits.ndim == 1)


def _detached(traced: Traced, places: tuple[fx.Node, ...], images: torch.Tensor) -> int:
    """How many of the first places the logits don't depend on, as torch differentiates.

    All data flows through every place. So what depends on one depends on all behind it, and the first is enough to look
    at where nothing is detached.
    """

    def depends(place: fx.Node) -> bool:
        cut = cut_at(traced, place)
        leaf, logits = _behind(cut.head, cut.features, images)
        return depends_on(logits, leaf)

    return 0 if not places or depends(places[0]) else bisect.bisect_left(places, True, lo=1, key=depends)


def _spent(
    traced: Traced, places: tuple[fx.Node, ...], layouts: dict[fx.Node, Layout], images: torch.Tensor
) -> frozenset[fx.Node]:
    """The places whose maps have no part in the logits, because the network only reads the tokens beside them there.

    The derivative says so. Behind the first such place are such places only, so that few need to be looked at.
    """
    with_prefix = [place for place in places if layouts[place].prefix]

    def spent(place: fx.Node) -> bool:
        cut, layout = cut_at(traced, place), layouts[place]
        head = cut.head
        for _ in range(2):
            leaf, logits = _behind(head, cut.features, images)
            if not depends_on(logits, leaf):
                return False
            weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits)
            (slope,) = torch.autograd.grad((logits * weights).sum(), leaf)
            if bool((layout.to_maps(slope) != 0).any()):
                return False
            if bool((layout.to_prefix(slope) != 0).any()):
                return True
            # Untrained classifiers may start with a last layer of zeros, behind which nothing has a slope.
            head = _drawn(cut.head)
        return False

    return frozenset(with_prefix[bisect.bisect_left(with_prefix, True, key=spent) :])


def _behind(head: nn.Module, features: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A place's tensor, and the logits that torch can differentiate by it."""
    with torch.inference_mode(False), evaluating(features), evaluating(head):
        with torch.no_grad():
            maps = features(images.clone())
        with torch.enable_grad():
            leaf = maps.clone().requires_grad_()
            # Cloned once more: a head that overwrites its input can't be given a leaf.
            return leaf, head(leaf.clone())


def _drawn(head: nn.Module) -> nn.Module:
    """A copy of a network with weights drawn at random."""
    head = copy.deepcopy(head)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 1.0
            parameter.copy_(scale * torch.randn(parameter.shape, generator=random))
    return head

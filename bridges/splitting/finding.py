"""The operation that a layer's name means, or what to name instead."""

from __future__ import annotations

import difflib
from typing import Any

from torch import fx, nn

from .dominators import NotACutError, passing_beside
from .surveying import Survey


class UnknownLayerError(ValueError):
    """A name that no place in the network has."""


def find(seen: Survey, model: nn.Module, layer: Any) -> fx.Node:
    """The operation that a layer's name means.

    Raises `UnknownLayerError` with the nearest right names, or `NotACutError` with what flows beside it.
    """
    node = _named(seen, model, layer)
    if node in seen.spent:
        nearest = _nearest_before(seen, node)
        raise NotACutError(
            f"layer={layer!r} lies behind the last place where the picture's own tokens reach the logits: from there "
            f"on the network reads {_in_words(seen.layouts[node].prefix)} alone, and concepts of the others "
            f"could explain nothing; {nearest}"
        )
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


def _nearest_before(seen: Survey, node: fx.Node) -> str:
    """What to do instead of splitting at a place whose maps don't matter any more."""
    position = seen.traced.nodes.index(node)
    before = [
        seen.traced.names[place][0]
        for place in seen.splittable
        if seen.traced.nodes.index(place) < position and seen.map_shape(place)[:2] != (1, 1)
    ]
    return f"choose an earlier layer, such as {before[-1]!r}" if before else "this network can't be split before it"


def _in_words(tokens: int) -> str:
    return "its class token" if tokens == 1 else f"the {tokens} tokens beside them"


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

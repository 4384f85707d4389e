"""Cutting a traced graph in two at a tensor that everything flows through."""

from __future__ import annotations

import dataclasses

from torch import fx, nn

from .tracing import Traced, batch_size_of, is_inplace


class NotACutError(ValueError):
    """A place beside which other tensors carry information from the images to the logits."""


@dataclasses.dataclass(frozen=True, eq=False)
class Cut:
    """The two halves of a network.

    **Arguments:**

    - `features`: images to the tensor at the cut, in torch's layout.
    - `head`: that tensor to logits.
    """

    features: fx.GraphModule
    head: fx.GraphModule


def dependent(traced: Traced) -> set[fx.Node]:
    """Operations whose value depends on the images, lengths of the batch axis aside."""
    found = {traced.input}
    for node in traced.nodes[1:]:
        if batch_size_of(node) is None and any(argument in found for argument in node.all_input_nodes):
            found.add(node)
    return found


def cuttable(traced: Traced) -> tuple[fx.Node, ...]:
    """Every operation whose value alone decides the logits, in order, the images and the logits themselves left out.

    A value that is made before a place and used after it passes beside it; so a place is a cut when nothing made
    before it is used later. One sweep finds all of them.
    """
    depends = dependent(traced)
    position = {node: index for index, node in enumerate(traced.nodes)}
    last_use = dict.fromkeys(depends, -1)
    for node in depends:
        for argument in node.all_input_nodes:
            if argument in depends:
                last_use[argument] = max(last_use[argument], position[node])
    found, reaches = [], -1
    for node in traced.nodes:
        if node not in depends:
            continue
        if reaches <= position[node] and node is not traced.input and node is not traced.logits:
            found.append(node)
        reaches = max(reaches, last_use[node])
    return tuple(found)


def passing_beside(traced: Traced, cut: fx.Node) -> tuple[str, ...]:
    """Names of what else flows from before `cut` to after it."""
    depends = dependent(traced)
    position = {node: index for index, node in enumerate(traced.nodes)}
    return tuple(
        traced.names[node][0]
        for node in traced.nodes
        if node in depends
        and position[node] < position[cut]
        and any(user in depends and position[user] > position[cut] for user in node.users)
    )


def cut_at(traced: Traced, node: fx.Node) -> Cut:
    """Divide the network at `node`, which must be one of `cuttable(traced)`."""
    before = _closure(node, stop=None)
    features = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for member in traced.nodes:
        if member in before:
            copies[member] = features.node_copy(member, lambda n: copies[n])
            if member is traced.input:
                copies[member] = _guarded(features, copies[member], traced, member, before)
    features.output(copies[node])

    after = _closure(traced.logits, stop=node)
    head = fx.Graph()
    given = head.placeholder("activations")
    copies = {node: _guarded(head, given, traced, node, after)}
    for member in traced.nodes:
        if member not in after or member is node:
            continue
        tensor = batch_size_of(member)
        if tensor is not None and (tensor is node or tensor not in after):
            copies[member] = head.call_method("size", (given, 0))
        else:
            copies[member] = head.node_copy(member, lambda n: copies[n])
    head.output(copies[traced.logits])
    return Cut(fx.GraphModule(traced.root, features, "Features"), fx.GraphModule(traced.root, head, "Head"))


def _closure(node: fx.Node, *, stop: fx.Node | None) -> set[fx.Node]:
    """`node` and all that it is made from; what's behind `stop` and behind lengths of the batch is left out."""
    depends_on_stop: set[fx.Node] = set()
    if stop is not None:
        depends_on_stop.add(stop)
        for later in stop.graph.nodes:
            if any(argument in depends_on_stop for argument in later.all_input_nodes):
                depends_on_stop.add(later)
    found, waiting = set(), [node]
    while waiting:
        member = waiting.pop()
        if member in found:
            continue
        found.add(member)
        tensor = batch_size_of(member)
        if member is stop or (stop is not None and tensor is not None and tensor not in depends_on_stop):
            continue
        waiting.extend(member.all_input_nodes)
    return found


# What these return is new memory, so overwriting it leaves their argument alone.
_FRESH_MODULES = (
    nn.modules.conv._ConvNd,
    nn.modules.batchnorm._BatchNorm,
    nn.Linear,
    nn.LayerNorm,
    nn.MultiheadAttention,
)
_FRESH_FUNCTIONS = {"conv2d", "linear", "batch_norm", "layer_norm", "add", "mul", "cat", "mean", "matmul", "softmax"}


def _guarded(graph: fx.Graph, given: fx.Node, traced: Traced, start: fx.Node, members: set[fx.Node]) -> fx.Node:
    """`given`, or a copy of it where an operation in place might overwrite the caller's array."""
    aliases = {start}
    for node in traced.nodes:
        if node not in members or not any(argument in aliases for argument in node.all_input_nodes):
            continue
        if is_inplace(node, traced.root):
            return graph.call_method("clone", (given,))
        fresh = (
            isinstance(traced.root.get_submodule(str(node.target)), _FRESH_MODULES)
            if node.op == "call_module"
            else getattr(node.target, "__name__", str(node.target)) in _FRESH_FUNCTIONS
        )
        if not fresh:
            aliases.add(node)
    return given

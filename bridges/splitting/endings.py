"""What a network's end says of its logits: a sigmoid there is taken off, and one logit is brought into columns."""

from __future__ import annotations

import dataclasses

import torch
from torch import fx, nn

from face_jax.support.arguments import shown
from face_jax.support.classes import ClassNames, binary_names, class_names

from .affine_heads import AFFINE, WITH_WEIGHTS, operation
from .tracing import Traced, batch_size_of

# What is behind a sigmoid and only rearranges its values, or changes their type.
_REARRANGING = {
    *("flatten", "view", "reshape", "squeeze", "unsqueeze", "ravel", "permute", "transpose", "t"),
    *("contiguous", "clone", "identity", "alias", "getitem", "select", "slice", "dropout", "detach"),
    *("float", "double", "to", "type_as", "_to_copy"),
}
_SIGMOIDS = {"sigmoid", "sigmoid_", "special_expit", "expit"}


def without_sigmoid(traced: Traced) -> tuple[Traced, bool]:
    """The network without the sigmoid at its end, and whether there was one.

    Behind it values may be rearranged (`.squeeze(1)`), which a sigmoid doesn't mind: what is left are exactly the
    logits whose sigmoid the network gives. The graph is changed, the network isn't.
    """
    node = traced.logits
    while operation(node, traced.root) in _REARRANGING:
        given = node.args[0] if node.args else None
        others = [each for each in node.all_input_nodes if each is not given]
        if not isinstance(given, fx.Node) or any(batch_size_of(each) is None for each in others):
            return traced, False
        node = given
    if operation(node, traced.root) not in _SIGMOIDS or len(node.all_input_nodes) != 1:
        return traced, False
    (before,) = node.all_input_nodes
    node.replace_all_uses_with(before)
    names = {each: found for each, found in traced.names.items() if each is not node}
    nodes = tuple(each for each in traced.nodes if each is not node)
    logits = before if traced.logits is node else traced.logits
    return dataclasses.replace(traced, nodes=nodes, logits=logits, names=names), True


def gives_probabilities(traced: Traced, given: torch.Tensor) -> bool:
    """Whether outputs lie between 0 and 1, and something that isn't affine makes them at the end."""
    if not bool(((given >= 0) & (given <= 1)).all()):
        return False
    behind: list[str] = []
    for node in reversed(traced.nodes):
        name = operation(node, traced.root)
        if name in WITH_WEIGHTS:
            break
        if node.op not in ("placeholder", "output", "get_attr"):
            behind.append(name)
    return any(name not in AFFINE | _REARRANGING for name in behind)


def in_columns(head: fx.GraphModule, *, binary: bool) -> fx.GraphModule:
    """A head that gives one logit an image, of any shape, as one column; if binary, behind a column of zeros."""
    output = next(node for node in head.graph.nodes if node.op == "output")
    with head.graph.inserting_before(output):
        logit = head.graph.call_method("reshape", (output.args[0], -1, 1))
        if binary:
            zero = head.graph.call_function(torch.zeros_like, (logit,))
            logit = head.graph.call_function(torch.cat, ([zero, logit], 1))
    output.args = (logit,)
    head.recompile()
    return head


def names_for(classes: ClassNames | None, logits: int, *, binary: bool) -> tuple[str, ...]:
    """The classes' names: those given, or numbers; of a binary network with one logit both classes'.

    **Arguments:**

    - `classes`: what the user gave; a binary network's may be the one name of its logit.
    - `logits`: how many there are.
    - `binary`: whether one logit stands for two classes.

    **Returns:** the names. Raises `ValueError` for as many names as there can't be.
    """
    if classes is None:
        return tuple(f"class {index}" for index in range(2 if binary else logits))
    if not binary:
        return class_names(classes, logits)
    if isinstance(classes, str):
        if len(classes) == 2:
            raise ValueError(
                f"classes={shown(classes)} of a network with one logit may be one name or two letters; give "
                f"[{classes!r}] or {list(classes)}"
            )
        classes = [classes]
    names = class_names(classes)
    if len(names) not in (1, 2):
        raise ValueError(
            f"classes has {len(names)} names and the model gives 1 logit; name what it says yes to, as "
            'classes=["cat"], or both classes, the one that it says no to first'
        )
    return binary_names(names)


def sigmoid_note(model: nn.Module, labels: int) -> str:
    """What explanations say of a network whose labels nobody has asked for."""
    return (
        f"{type(model).__name__} ends in a sigmoid, so that its {labels} outputs are taken for labels, each by itself "
        "(multi-label); they are explained by the logits before the sigmoid. If each photograph is of one class only, "
        "give multi_label=False (--multi-class)."
    )

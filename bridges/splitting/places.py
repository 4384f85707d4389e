"""Where in the picture each token of a network lies, and which tokens lie nowhere in it."""

from __future__ import annotations

import string
from typing import Any

import torch
from torch import fx

from ..arrays import Layout, Tokens
from .layouts import CHANNEL_SECOND, PRODUCTS, Marks, axes_of, each, few_of, name_of, numbered

# Two places are one where they lie nearer than this, in pixels: averages of equal numbers differ by rounding.
_NEAR = 0.01
# What keeps a tensor's shape and not the order of its elements, or takes some of them.
_REORDERING = ("sort", "topk", "gather", "scatter", "take")


class Places:
    """The line and the column of the picture beside every element of every tensor of a network, in pixels.

    They are followed as `Marks` follows channels: the pixels' own, through everything that moves elements, averaged
    wherever elements are put together. Class tokens, distillation tokens and registers come from parameters, and have
    no place, which is NaN here. So it makes no difference how patches are made (by a convolution, by moving pixels
    about), in which order they come, on which side of them the other tokens stand, or how many places each side has.

    **Arguments:**

    - `marks`: what is known of the network's axes; it watches each operation first.
    """

    def __init__(self, marks: Marks) -> None:
        self.marks, self.traced = marks, marks.traced
        self.lines: dict[fx.Node, Any] = {}
        self.columns: dict[fx.Node, Any] = {}

    def watch(self, node: fx.Node, value: Any) -> None:
        """Note the places of the elements of an operation's result, after those of everything before it."""
        if not numbered(value):
            return
        if node is self.traced.input:
            self.lines[node], self.columns[node] = _along(value, 2), _along(value, 3)
            return
        for known in (self.lines, self.columns):
            moved = self._moved(node, known)
            known[node] = each(value, lambda v, known=known: self._of(node, v, known)) if moved is None else moved

    def layout(self, node: fx.Node, known: Layout) -> Layout:
        """A layout that also says which tokens lie on the picture, in which order, and which don't.

        Without that for maps whose axes are the picture's already, and where it can't be told: then `told` is False.
        """
        lines, columns = self.lines.get(node), self.columns.get(node)
        if known.axes == 2 or not isinstance(lines, torch.Tensor) or not isinstance(columns, torch.Tensor):
            return known
        lines, columns = (_of_tokens(places, known.channel) for places in (lines, columns))
        shape = tuple(lines.shape)
        lines, columns = lines.flatten(), columns.flatten()
        if len(lines) == 1:
            return Layout(known.axes, known.channel, Tokens((1, 1), (0,), (), shape)) if known.axes == 3 else known
        there = ~(lines.isnan() | columns.isnan())
        found = _grid(lines[there], columns[there])
        if found is None:
            return known
        grid, order = found
        places = tuple(there.nonzero().flatten()[order].tolist())
        if known.axes == 4 and grid == shape and places == tuple(range(len(lines))):
            return known
        prefix = tuple((~there).nonzero().flatten().tolist())
        return Layout(known.axes, known.channel, Tokens(grid, places, prefix, shape))

    def _moved(self, node: fx.Node, known: dict[fx.Node, Any]) -> Any:
        if name_of(node, self.traced) in ("cat", "concat", "concatenate"):
            given, *rest = node.args or (node.kwargs.get("tensors"),)
            parts = given if isinstance(given, list | tuple) else ()
            found = [known[part] for part in parts if isinstance(part, fx.Node) and part in known]
            if not parts or len(found) < len(parts):
                return None
            axis = rest[0] if rest else node.kwargs.get("dim", node.kwargs.get("axis", 0))
            return _compact(torch.cat(found, axis)) if isinstance(axis, int) else None
        if name_of(node, self.traced) in ("unfold", "im2col") and self._makes_columns(node):
            pixels, *how = node.args
            if not isinstance(pixels, fx.Node) or pixels not in known or known[pixels].ndim != 4:
                return None
            if node.op == "call_module":
                return _compact(self.traced.root.get_submodule(str(node.target))(known[pixels]))
            return _compact(node.target(known[pixels], *how, **node.kwargs))  # pyright: ignore[reportCallIssue]
        return self.marks.moved(node, known, _compact)

    def _makes_columns(self, node: fx.Node) -> bool:
        return name_of(node, self.traced) == "im2col" or self.marks.makes_columns(node)

    def _of(self, node: fx.Node, value: torch.Tensor, known: dict[fx.Node, Any]) -> torch.Tensor:
        """Places of what an operation makes anew."""
        name = name_of(node, self.traced)
        nowhere = value.new_full([1] * value.ndim, torch.nan, dtype=torch.float32).expand(value.shape)
        given = [known[a] for a in node.all_input_nodes if isinstance(known.get(a), torch.Tensor)]
        if not given or any(word in name for word in _REORDERING):
            return nowhere
        first = given[0]
        if name == "einsum" and isinstance(node.args[0], str):
            operands = node.args[1] if isinstance(node.args[1], list | tuple) else node.args[1:]
            return _einsum(node.args[0], [known.get(a) for a in operands if isinstance(a, fx.Node)], value, nowhere)
        if name in PRODUCTS:
            operands = [known.get(a) for a in node.args[PRODUCTS[name] :][:2] if isinstance(a, fx.Node)]
            operands = [a for a in operands if isinstance(a, torch.Tensor) and a.ndim >= 2]
            if len(operands) == 2:
                lead = string.ascii_lowercase[: value.ndim - 2]
                left, right = (lead[max(0, len(lead) - a.ndim + 2) :] for a in operands)
                return _einsum(f"{left}XZ,{right}ZY->{lead}XY", operands, value, nowhere)
            return nowhere
        second = any(word in name for word in CHANNEL_SECOND)
        if ("linear" in name and not second) or any(
            word in name for word in ("multihead", "scaled_dot_product", "rnn", "lstm", "gru")
        ):
            return _resized(first, value, -1, nowhere) if first.shape[:-1] == value.shape[:-1] else nowhere
        alike = [a for a in given if a.shape == value.shape]
        if not alike and (second or "pad" in name):
            return _resized(first, value, 1 if "pad" not in name else None, nowhere)
        if not alike:
            alike = [a.expand(value.shape) for a in given if _expands(a, value)]
        # What is the same everywhere, such as a channel's weight, says nothing beside what lies somewhere.
        alike = [a for a in alike if axes_of(a)] or alike
        if len(alike) < 2:
            return alike[0] if alike else nowhere
        # Few numbers, put side by side: those that differ.
        return _compact(torch.stack(torch.broadcast_tensors(*map(few_of, alike))).nanmean(0).expand(value.shape))


def _grid(lines: torch.Tensor, columns: torch.Tensor) -> tuple[tuple[int, int], torch.Tensor] | None:
    """Height and width of the grid that places lie on, and their order line by line; None if they lie on none."""
    line, column = _ranks(lines), _ranks(columns)
    if not len(line):
        return None
    grid = int(line.max()) + 1, int(column.max()) + 1
    number = line * grid[1] + column
    order = number.argsort()
    every = torch.arange(grid[0] * grid[1], device=number.device)
    return (grid, order) if torch.equal(number[order], every) else None


def _ranks(places: torch.Tensor) -> torch.Tensor:
    """The number of each place among the different ones, in order."""
    sorted_, order = places.sort()
    steps = torch.diff(sorted_, prepend=sorted_[:1]) > _NEAR
    return torch.zeros_like(order).scatter(0, order, steps.cumsum(0))


def _of_tokens(places: torch.Tensor, channel: int) -> torch.Tensor:
    """Places of an image's tokens: the average over a token's channels."""
    return _mean(places[:1].movedim(channel, -1), -1)[0]


def _along(value: torch.Tensor, axis: int) -> torch.Tensor:
    lengths = [value.shape[axis] if a == axis else 1 for a in range(value.ndim)]
    return torch.arange(value.shape[axis], dtype=torch.float32, device=value.device).view(lengths).expand(value.shape)


def _mean(places: torch.Tensor, axis: int) -> torch.Tensor:
    """The average over an axis of those that lie somewhere."""
    # Kept once for an axis along which nothing varies, they needn't be averaged.
    return places.nanmean(axis) if axis % places.ndim in axes_of(places) else places.select(axis, 0)


def _compact(places: torch.Tensor) -> torch.Tensor:
    """The same places, kept once for every axis along which they don't vary."""
    few = few_of(places)
    for axis in range(places.ndim):
        one = few.narrow(axis, 0, 1)
        apart = (few - one).abs().gt(_NEAR / 10) | (few.isnan() != one.isnan())
        few = few if bool(apart.any()) else one
    return few.expand(places.shape)


def _expands(places: torch.Tensor, value: torch.Tensor) -> bool:
    return places.ndim <= value.ndim and all(
        own in (1, length) for own, length in zip(places.shape[::-1], value.shape[::-1], strict=False)
    )


def _resized(places: torch.Tensor, value: torch.Tensor, channel: int | None, nowhere: torch.Tensor) -> torch.Tensor:
    """Places after channels were made anew, and axes lengthened or shortened, as convolutions and pools do."""
    if places.ndim != value.ndim or places.shape[0] != value.shape[0]:
        return nowhere
    for axis in range(1, value.ndim):
        length = value.shape[axis]
        if channel is not None and axis == channel % value.ndim:
            places = _mean(places, axis).unsqueeze(axis)
        elif places.shape[axis] != length and axis in axes_of(places):
            position = (torch.arange(length, device=places.device) + 0.5) * places.shape[axis] / length - 0.5
            position = position.clamp(0, places.shape[axis] - 1)
            below = position.floor().long()
            above = (below + 1).clamp(max=places.shape[axis] - 1)
            share = (position - below).view([-1 if a == axis else 1 for a in range(value.ndim)])
            places = places.index_select(axis, below) * (1 - share) + places.index_select(axis, above) * share
        elif places.shape[axis] != length:
            places = places.narrow(axis, 0, 1)
        places = places.expand([length if a == axis else -1 for a in range(value.ndim)])
    return _compact(places)


def _einsum(equation: str, operands: list[Any], value: torch.Tensor, nowhere: torch.Tensor) -> torch.Tensor:
    """Places of a product: those of the first factor whose places lie along an axis that remains."""
    given, _, result = equation.replace(" ", "").partition("->")
    if "." in equation or not result or len(set(result)) != value.ndim:
        return nowhere
    for letters, places in zip(given.split(","), operands, strict=False):
        if not isinstance(places, torch.Tensor) or len(letters) != places.ndim:
            continue
        kept = [letter for letter in result if letter in letters]
        for axis in range(places.ndim - 1, -1, -1):
            if letters[axis] not in result:
                places = _mean(places, axis)
        letters = [letter for letter in letters if letter in result]
        places = places.permute([letters.index(letter) for letter in kept])
        places = places.reshape([value.shape[i] if c in kept else 1 for i, c in enumerate(result)])
        found = _compact(places.expand(value.shape))
        if axes_of(found):
            return found
    return nowhere

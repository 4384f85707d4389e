"""The table of ATen operators: a name, and the JAX function that does the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .layout import ChannelsLast, aligned, torch_order_everywhere

Operator = Callable[..., Any]

OPERATORS: dict[str, Operator] = {}


def _add(names: tuple[str, ...], function: Operator) -> None:
    for name in names:
        if name in OPERATORS:
            raise ValueError(f"{name} is in the table already; remove one of its two definitions")
        OPERATORS[name] = function


def operator(*names: str) -> Callable[[Operator], Operator]:
    """Register a function of arrays in torch's order; its arguments are ATen's, by position and name."""

    def register(function: Operator) -> Operator:
        @functools.wraps(function)
        def in_order(*arguments: Any, **options: Any) -> Any:
            options = {name: torch_order_everywhere(value) for name, value in options.items()}
            return function(*torch_order_everywhere(arguments), **options)

        _add(names, in_order)
        return function

    return register


def layout_operator(*names: str) -> Callable[[Operator], Operator]:
    """Register a function that deals with `ChannelsLast` values itself."""

    def register(function: Operator) -> Operator:
        _add(names, function)
        return function

    return register


def elementwise(*names: str) -> Callable[[Operator], Operator]:
    """Register a function that works place by place: its arrays come in one layout and of one rank."""

    def register(function: Operator) -> Operator:
        @functools.wraps(function)
        def in_one_layout(*arguments: Any, **options: Any) -> Any:
            values, last = aligned((*arguments, *options.values()))
            options = dict(zip(options, values[len(arguments) :], strict=True))
            result = function(*values[: len(arguments)], **options)
            return ChannelsLast(result) if last else result

        _add(names, in_one_layout)
        return function

    return register

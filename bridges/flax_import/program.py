"""A torch program without torch: its instructions as plain, hashable data, and the loop that runs them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from . import (
    convolution,
    creation,
    elementwise,
    indexing,
    normalization,
    ordering,
    pooling,
    products,
    reductions,
    shapes,
)
from .table import OPERATORS

# Imported for what they register
_ = (convolution, creation, elementwise, indexing, normalization, ordering, pooling, products, reductions, shapes)

# Arithmetic on shapes: torch keeps the batch size symbolic, here it is a number by the time the program is traced
_NUMBERS: dict[str, Callable[..., Any]] = {
    **{f"{name}": getattr(operator, name) for name in ("add", "sub", "mul", "floordiv", "mod", "neg", "truediv")},
    **{name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge", "getitem", "pow")},
    "ceil": math.ceil,
    "floor": math.floor,
    "trunc": math.trunc,
    "sym_float": float,
    "sym_int": int,
    "sym_max": max,
    "sym_min": min,
    "sym_not": operator.not_,
    "sym_sum": sum,
}


def _size(x: Any, dim: int) -> int:
    return x.shape[dim]


def _nothing(*_: Any, **__: Any) -> None:
    return None


_NUMBERS |= {
    "aten.sym_size.int": _size,
    # Facts about shapes that torch found while exporting (the shapes are checked when the network is called), and about
    # values, which compiled programs have no way to check
    "aten._assert_async.msg": _nothing,
    "aten._assert_scalar.default": _nothing,
    "aten._assert_tensor_metadata.default": _nothing,
    "aten.sym_constrain_range_for_size.default": _nothing,
    "aten.sym_constrain_range.default": _nothing,
}


def implementation(name: str) -> Callable[..., Any] | None:
    """The function behind an operator's name, or None if there is none."""
    return OPERATORS.get(name) or _NUMBERS.get(name)


@dataclasses.dataclass(frozen=True)
class Reference:
    """Stands for the result of an earlier instruction, or for an input or weight."""

    name: str


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One operator applied to constants and to earlier results.

    **Arguments:**

    - `result`: the name under which the result is kept.
    - `operator`: the ATen operator, such as `aten.relu.default`.
    - `arguments`, `options`: by position and by name; `Reference` stands for earlier results.
    - `module`: the torch module in whose forward it was called.
    - `last_uses`: the results that no later instruction reads.
    """

    result: str
    operator: str
    arguments: tuple[Any, ...]
    options: tuple[tuple[str, Any], ...]
    module: str
    last_uses: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Instructions in order; equal programs hash alike, so that JAX compiles them once.

    **Arguments:**

    - `inputs`: the names of the user's arrays.
    - `shapes`: their shapes in torch's order; None where the batch's size goes.
    - `weights`: what the instructions call a weight, and its name in torch's `state_dict`.
    - `instructions`: what to do.
    - `outputs`: the results to return, nested as the torch module nests them.
    """

    inputs: tuple[str, ...]
    shapes: tuple[tuple[int | None, ...], ...]
    weights: tuple[tuple[str, str], ...]
    instructions: tuple[Instruction, ...]
    outputs: Any

    @functools.cached_property
    def _digest(self) -> str:
        parts = (self.inputs, self.shapes, self.weights, self.instructions, self.outputs)
        return hashlib.sha256(repr(parts).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        """Whether the same instructions are run on the same names."""
        return self is other or (isinstance(other, Program) and self._digest == other._digest)

    def __hash__(self) -> int:
        """Of the instructions, computed once."""
        return hash(self._digest)

    def __repr__(self) -> str:
        return f"Program({len(self.instructions)} instructions, {self._digest[:8]})"

    def run(self, values: Mapping[str, Any]) -> Any:
        """Run all instructions.

        **Arguments:**

        - `values`: the inputs and weights, by the names that the instructions use.

        **Returns:**

        The outputs, nested as in torch; arrays in torch's order or `ChannelsLast`.
        """
        known = dict(values)
        for step in self.instructions:
            arguments = resolved(step.arguments, known)
            options = {name: resolved(value, known) for name, value in step.options}
            function = implementation(step.operator)
            if function is None:
                raise NotImplementedError(f"no JAX counterpart for {step.operator}, which {step.module} calls")
            try:
                known[step.result] = function(*arguments, **options)
            except Exception as error:
                error.add_note(f"in {step.operator}, which {step.module} calls")
                raise
            for name in step.last_uses:
                del known[name]
        return resolved(self.outputs, known)


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """`function` of every leaf in nested tuples, lists and dictionaries, whose order stays (JAX would sort keys)."""
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(mapped(function, part) for part in value))
    if isinstance(value, tuple | list):
        return type(value)(mapped(function, part) for part in value)
    if isinstance(value, dict):
        return {name: mapped(function, part) for name, part in value.items()}
    return function(value)


def resolved(value: Any, known: Mapping[str, Any]) -> Any:
    """`value` with every `Reference` in it replaced by what it stands for."""
    return mapped(lambda part: known[part.name] if isinstance(part, Reference) else part, value)


def references(value: Any) -> set[str]:
    """The names that `value` refers to."""
    if isinstance(value, Reference):
        return {value.name}
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return set().union(*(references(part) for part in value))
    return set()

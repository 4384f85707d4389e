"""From a torch module to a program of ATen operators, by way of `torch.export`."""

from __future__ import annotations

import contextlib
import inspect
import operator as python_operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch._decomp import decomposition_table
from torch.export.graph_signature import InputKind, OutputKind
from torch.utils import _pytree as torch_tree

from .errors import ExportError, UnsupportedOperatorError
from .program import Instruction, Program, Reference, implementation, references


@contextlib.contextmanager
def evaluating(module: torch.nn.Module) -> Iterator[None]:
    """Eval mode for `module` and everything in it, and afterwards each part's own mode again."""
    modes = [(part, part.training) for part in module.modules()]
    fast_path = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    # The fused transformer kernels compute the same and would be one more operator
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.enable_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for part, mode in modes:
            part.training = mode


def _functional(graph: torch.fx.Graph) -> None:
    """Replace in-place operators by their plain versions where nobody else can see the overwritten values.

    torch would do so itself for all of them, but decomposes each on the way, which takes most of an export's time.
    """
    for node in graph.nodes:
        target = node.target
        if not isinstance(target, torch._ops.OpOverload) or not target._schema.name.endswith("_") or not node.args:
            continue
        before = node.args[0]
        if not isinstance(before, torch.fx.Node) or set(before.users) != {node} or before.op != "call_function":
            continue
        if not isinstance(before.target, torch._ops.OpOverload):
            continue
        if any(result.alias_info is not None for result in before.target._schema.returns):
            continue
        packet = getattr(torch.ops.aten, target._schema.name.removeprefix("aten::")[:-1], None)
        plain = getattr(packet, target._overloadname, None)
        if plain is not None:
            node.target = plain


def _name(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload):
        return str(target)
    return getattr(target, "__name__", str(target)).rstrip("_") if callable(target) else str(target)


def _plain(value: Any) -> Any:
    """An argument of the graph as hashable data that JAX understands."""
    if isinstance(value, torch.fx.Node):
        return Reference(value.name)
    if isinstance(value, tuple | list):
        return tuple(_plain(part) for part in value)
    if isinstance(value, torch.dtype):
        return np.dtype(bool) if value == torch.bool else _numpy_dtype(value)
    if isinstance(value, torch.device | torch.memory_format | torch.layout):
        return None
    return value


def _numpy_dtype(dtype: torch.dtype) -> np.dtype:
    import ml_dtypes

    name = str(dtype).removeprefix("torch.")
    return np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)


def _module(node: torch.fx.Node) -> str:
    """The path and class of the torch module that a node came from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "the module itself"
    path, kind = stack[-1]
    kind = kind if isinstance(kind, str) else kind.__name__
    return f"`{path or 'the module itself'}` ({kind.rsplit('.', 1)[-1]})"


def _with_last_uses(steps: list[Instruction], outputs: Any) -> tuple[Instruction, ...]:
    """The same instructions, each with the names that may be forgotten after it."""
    seen = references(outputs)
    result = []
    for step in reversed(steps):
        used = references((step.arguments, dict(step.options))) | {step.result}
        result.append(
            Instruction(
                step.result, step.operator, step.arguments, step.options, step.module, tuple(sorted(used - seen))
            )
        )
        seen |= used
    return tuple(reversed(result))


def _unknown(graph: torch.fx.Graph) -> list[Any]:
    targets = {node.target for node in graph.nodes if node.op == "call_function"}
    return [target for target in targets if implementation(_name(target)) is None]


def refuse_examples(module: torch.nn.Module, examples: tuple[torch.Tensor, ...]) -> Any:
    """What the module returns for the examples; `ValueError` if it does not take them."""
    try:
        with torch.no_grad():
            return module(*(example.clone() for example in examples))
    except Exception as error:
        given = ", ".join(f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}" for value in examples)
        kinds = dict.fromkeys(str(weight.dtype).removeprefix("torch.") for weight in module.parameters())
        weights = f" (its parameters are {' and '.join(kinds)})" if kinds else ""
        first = next(iter(str(error).strip().splitlines()), "no message")
        raise ValueError(
            f"module{weights} does not take example_inputs ({given}): {type(error).__name__}: {first.rstrip('.')}. "
            "Give what its forward takes: tensors of its parameters' type, the batch along their first axes, pictures "
            "as image, channel, y, x"
        ) from error


def _graph(module: torch.nn.Module, examples: tuple[torch.Tensor, ...]) -> torch.export.ExportedProgram:
    free = tuple({0: torch.export.Dim("batch", min=1)} for _ in examples)
    kinds = [parameter.kind for parameter in inspect.signature(module.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        # torch takes what `*inputs` catches as one argument, a tuple
        named = kinds.index(inspect.Parameter.VAR_POSITIONAL)
        free = (*free[:named], free[named:])
    try:
        exported = torch.export.export(module, examples, dynamic_shapes=free)
    except Exception as error:
        refuse_examples(module, examples)
        raise ExportError(type(module).__name__, str(error)) from error
    _functional(exported.graph)
    exported.graph_module.recompile()
    decompositions = torch.export.default_decompositions()
    for overload in list(decompositions):
        # What the table knows stays whole; everything else is taken apart into core operators
        if implementation(str(overload)):
            decompositions.pop(overload)
    try:
        exported = exported.run_decompositions(decompositions)
        # A few are neither core operators nor taken apart by default
        rest = {target: how for target in _unknown(exported.graph) if (how := decomposition_table.get(target))}
        return exported.run_decompositions(rest) if rest else exported
    except Exception as error:
        raise ExportError(type(module).__name__, str(error)) from error


def exported_program(
    module: torch.nn.Module, examples: tuple[torch.Tensor, ...]
) -> tuple[Program, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A module as a program, with the parameters and the buffers that it reads.

    **Arguments:**

    - `module`: in eval mode.
    - `examples`: its inputs, in a batch of at least two.

    **Returns:**

    The program, the parameters and the buffers (with constants), by their names in torch's `state_dict`.
    """
    exported = _graph(module, examples)
    signature = exported.graph_signature
    mutated = [spec.target for spec in signature.output_specs if spec.kind == OutputKind.BUFFER_MUTATION]
    if mutated:
        raise ExportError(type(module).__name__, f"its forward overwrites the buffers {', '.join(map(str, mutated))}")

    inputs, shapes, weights = [], [], []
    parameters: dict[str, torch.Tensor] = {}
    buffers: dict[str, torch.Tensor] = {}
    placeholders = {node.name: node for node in exported.graph.nodes if node.op == "placeholder"}
    for spec in signature.input_specs:
        node = placeholders[spec.arg.name]
        if spec.kind == InputKind.USER_INPUT:
            inputs.append(node.name)
            shapes.append((None, *(int(size) for size in node.meta["val"].shape[1:])))
        elif node.users:
            name = str(spec.target)
            kept = parameters if spec.kind == InputKind.PARAMETER else buffers
            value = exported.constants[name] if name in exported.constants else exported.state_dict[name]
            if not isinstance(value, torch.Tensor):
                raise ExportError(type(module).__name__, f"{name} is {type(value).__name__}, no tensor")
            kept[name] = value
            weights.append((node.name, name))

    steps, missing, outputs = [], [], None
    for node in exported.graph.nodes:
        if node.op == "output":
            # Inputs and constants that forward overwrites are results too, which nobody asked for
            pairs = zip(signature.output_specs, node.args[0], strict=True)
            results = [_plain(result) for spec, result in pairs if spec.kind == OutputKind.USER_OUTPUT]
            assert exported.call_spec.out_spec is not None
            if not any(isinstance(result, torch.fx.Node) for result in node.args[0]):
                raise ExportError(type(module).__name__, "its forward returns no tensor")
            outputs = torch_tree.tree_unflatten(results, exported.call_spec.out_spec)
        elif node.op == "call_function":
            name, origin = _name(node.target), _module(node)
            if implementation(name) is None and (name, origin) not in missing:
                missing.append((name, origin))
            _refuse_pool_indices(node, missing)
            _refuse_masks(node, missing)
            options = tuple((key, _plain(value)) for key, value in node.kwargs.items())
            steps.append(Instruction(node.name, name, tuple(_plain(a) for a in node.args), options, origin))
        elif node.op == "get_attr":
            missing.append((f"a sub-graph ({node.target})", _module(node)))
    if missing:
        raise UnsupportedOperatorError(missing)
    program = Program(tuple(inputs), tuple(shapes), tuple(weights), _with_last_uses(steps, outputs), outputs)
    return program, parameters, buffers


def _refuse_pool_indices(node: torch.fx.Node, missing: list[tuple[str, str]]) -> None:
    """Max-pooling returns where its maxima are as well; nothing here can use that."""
    source = node.args[0] if node.args else None
    if node.target is not python_operator.getitem or node.args[1] != 1 or not isinstance(source, torch.fx.Node):
        return
    if "max_pool" in str(source.target) and node.users:
        missing.append((f"{source.target}'s indices", _module(node)))


def _refuse_masks(node: torch.fx.Node, missing: list[tuple[str, str]]) -> None:
    """Reading where a mask is true gives a number of values that depends on the values; JAX's shapes do not."""
    if _name(node.target) not in ("aten.index.Tensor", "aten._unsafe_index.Tensor"):
        return
    indices = torch_tree.tree_leaves(node.args[1])
    if any(isinstance(index, torch.fx.Node) and index.meta["val"].dtype == torch.bool for index in indices):
        missing.append((f"{node.target} with a mask", _module(node)))

"""A torch classifier as a graph of named operations, and the places where one tensor carries everything."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import functools
import inspect
import itertools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx, nn
from torchvision.models.feature_extraction import NodePathTracer

from face_jax.support.sentences import first_line

from .outputs import Path, at, described, returning
from .torch_transformers import UNFOLDED, without_fast_attention


class UntraceableModelError(ValueError):
    """A model whose operations can be followed neither symbolically nor by export."""


class UnsuitableModelError(UntraceableModelError):
    """A model that can be followed, and takes or returns something else than a classifier does."""


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put `module` in evaluation mode for a while, each part back to its own mode afterwards."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """A model's operations in the order they run, dead ones left out.

    **Arguments:**

    - `root`: the module that the graph's parameters and leaf modules live in.
    - `nodes`: every operation that the logits depend on, the input and parameters among them.
    - `input`, `logits`: those that the images come in by and the logits go out by.
    - `names`: every name of every operation; the first is the one to show.
    - `calls`: names of modules, to the operations that return each call's result, by the call's name.
    """

    root: nn.Module
    nodes: tuple[fx.Node, ...]
    input: fx.Node
    logits: fx.Node
    names: dict[fx.Node, tuple[str, ...]]
    calls: dict[str, dict[str, fx.Node]]

    @property
    def by_name(self) -> dict[str, fx.Node]:
        """Operations by any of their names."""
        return {name: node for node, names in self.names.items() for name in names}


def trace(model: nn.Module, example: torch.Tensor, path: Path = ()) -> Traced:
    """Follow a classifier's operations.

    Symbolically where that works, because it leaves height and width free; by `torch.export` for models with
    Python control flow on their input and for those that overwrite tensors out of sight, which leaves them free where
    there is no attention.

    **Arguments:**

    - `model`: a module of one input, in evaluation mode.
    - `example`: an input to run it on, `image channel y x`.
    - `path`: where the logits are in what it returns.

    **Returns:** its graph. Raises `UntraceableModelError` with both reasons when neither way works.
    """
    try:
        return _trace_symbolically(model, path)
    except UnsuitableModelError:
        raise
    except Exception as symbolic:
        try:
            return _trace_by_export(model, example, path)
        except UnsuitableModelError:
            raise
        except Exception as exported:
            raise UntraceableModelError(
                f"model={type(model).__name__} can't be followed: torch.fx says {first_line(symbolic)!r}, "
                f"torch.export says {first_line(exported)!r}; remove control flow that depends on tensor values"
            ) from exported


class _Tracer(NodePathTracer):
    """Also notes which operation returns each module call's result."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: dict[str, list[fx.Node]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualname: str) -> bool:
        return type(m) not in UNFOLDED and super().is_leaf_module(m, module_qualname)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        unfolded = UNFOLDED.get(type(m))
        result = super().call_module(m, functools.partial(unfolded, m) if unfolded else forward, args, kwargs)
        if isinstance(result, fx.Proxy):
            self.returned.setdefault(self.path_of_module(m), []).append(result.node)
        return result


def _trace_symbolically(model: nn.Module, path: Path) -> Traced:
    parameters = list(inspect.signature(model.forward).parameters.values())
    # Flags such as `return_features=False` keep their defaults; without this they would be symbols as well.
    defaults = {
        p.name: p.default
        for p in parameters[1:]
        if p.default is not inspect.Parameter.empty and p.kind is not p.VAR_KEYWORD
    }
    tracer = _Tracer()
    graph = tracer.trace(model, concrete_args=defaults or None)
    for node in graph.nodes:
        if not node.users and is_inplace(node, model):
            raise UntraceableModelError(
                f"{tracer.node_to_qualname.get(node, node.name)} overwrites a tensor out of sight"
            )
    own = dict(tracer.node_to_qualname.items())
    calls = {name: tuple(nodes) for name, nodes in tracer.returned.items()}
    return _finish(model, graph, own, calls, at(_output_of(graph), path))


def _trace_by_export(model: nn.Module, example: torch.Tensor, to_logits: Path) -> Traced:
    auto = torch.export.Dim.AUTO
    # Attention is mostly over so many places as it was built for; symbols for their number take minutes to reckon with.
    attentive = any("attention" in type(part).__name__.lower() for part in model.modules())
    shapes = ({axis: auto for axis in ((0,) if attentive else range(example.ndim)) if axis != 1},)
    with torch.no_grad(), without_fast_attention(), returning(model, to_logits):
        program = torch.export.export(model, (example,), dynamic_shapes=shapes, strict=False)
        # Decomposition also turns operations in place into pure ones.
        module = program.run_decompositions({}).module(check_guards=False)
    own: dict[fx.Node, str] = {}
    inside: dict[str, list[fx.Node]] = {}
    for node in module.graph.nodes:
        if node.target in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
            # Fused attention lays its result out otherwise where derivatives are wanted; a view takes one way alone.
            node.target = torch.ops.aten.reshape.default
        paths = [path.replace("@", "_") for path, _ in (node.meta.get("nn_module_stack") or {}).values() if path]
        own[node] = f"{paths[-1]}.{node.name}" if paths else node.name
        if node.op == "call_function":
            for path in paths:
                inside.setdefault(path, []).append(node)
    calls = {}
    for path, nodes in inside.items():
        members = set(nodes)
        # Lengths of axes that a later module reads as well are no results.
        tensors = [node for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)]
        leaving = [node for node in tensors if any(user not in members for user in node.users)]
        if len(leaving) == 1:
            calls[path] = (leaving[0],)
    result = _output_of(module.graph)
    # Export makes a tuple of what the model returns.
    result = result[0] if isinstance(result, (tuple, list)) and len(result) == 1 else result
    return _finish(module, module.graph, own, calls, result)


def _output_of(graph: fx.Graph) -> Any:
    return next(node for node in graph.nodes if node.op == "output").args[0]


def _finish(
    root: nn.Module,
    graph: fx.Graph,
    own: dict[fx.Node, str],
    calls: dict[str, tuple[fx.Node, ...]],
    result: Any,
) -> Traced:
    if not isinstance(result, fx.Node):
        raise UnsuitableModelError(
            f"model={type(root).__name__} returns {described(result)}; wrap it in a module that returns the logits "
            "alone"
        )
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    alive = {result}
    for node in reversed(list(graph.nodes)):
        if node in alive:
            alive.update(node.all_input_nodes)
    used = [node for node in placeholders if node in alive]
    if used != placeholders[:1]:
        raise UnsuitableModelError(
            f"model={type(root).__name__} takes {len(used)} tensors ({', '.join(n.name for n in used)}); "
            "wrap it in a module of one input, the images"
        )
    nodes = tuple(node for node in graph.nodes if node in alive)
    names: dict[fx.Node, list[str]] = {node: [] for node in nodes}
    taken = {*calls, *(path for path, _ in root.named_modules())}
    named = {path: dict(zip(_call_names(path, taken), results, strict=False)) for path, results in calls.items()}
    for results in named.values():
        for name, node in results.items():
            if node in names:
                names[node].append(name)
    taken = taken.union(*named.values())
    for node in nodes:
        # A module's name is what people know; the longest is the nearest to the operation.
        names[node].sort(key=lambda name: (name.count("."), len(name)))
        name = str(own.get(node, node.name))
        if not names[node]:
            name = next(free for free in _call_names(name, taken) if free not in taken)
        if name not in taken:
            names[node].append(name)
            taken.add(name)
    return Traced(root, nodes, placeholders[0], result, {node: tuple(found) for node, found in names.items()}, named)


def _call_names(path: str, taken: set[str]) -> Iterator[str]:
    """Names for the calls of one module: its own, then numbered ones that nothing else has."""
    yield path
    yield from (name for number in itertools.count(1) if (name := f"{path}_{number}") not in taken)


_INPLACE_OPERATORS = {
    getattr(operator, name) for name in ("iadd", "isub", "imul", "itruediv", "ipow", "iand", "ior", "ixor", "setitem")
}


def is_inplace(node: fx.Node, root: nn.Module) -> bool:
    """Whether an operation overwrites its argument."""
    if node.op == "call_module":
        return bool(getattr(root.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        name = str(node.target)
        return name.endswith("_") and not name.endswith("__")
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "").split(".")[0]
        return (
            node.target in _INPLACE_OPERATORS
            or bool(node.kwargs.get("inplace", False))
            or (name.endswith("_") and not name.endswith("__"))
        )
    return False


def batch_size_of(node: fx.Node) -> fx.Node | None:
    """The tensor whose first axis' length an operation reads, or None if it does something else."""
    if node.op == "call_method" and node.target == "size":
        if (len(node.args) == 2 and node.args[1] == 0) or node.kwargs.get("dim") == 0:
            return _node(node.args[0])
    elif node.op == "call_function" and node.target is operator.getitem and node.args[1:] == (0,):
        shape = _node(node.args[0])
        if shape is None:
            return None
        if shape.op == "call_method" and shape.target == "size" and len(shape.args) == 1 and not shape.kwargs:
            return _node(shape.args[0])
        if shape.op == "call_function" and shape.target is builtins.getattr and shape.args[1:] == ("shape",):
            return _node(shape.args[0])
    elif node.op == "call_function" and node.target is torch.ops.aten.sym_size.int and node.args[1:] == (0,):
        return _node(node.args[0])
    return None


def _node(value: Any) -> fx.Node | None:
    return value if isinstance(value, fx.Node) else None


class _Watcher(fx.Interpreter):
    def __init__(self, traced: Traced, watch: Callable[[fx.Node, Any], None]) -> None:
        super().__init__(traced.root, graph=traced.nodes[0].graph)
        self.wanted, self.watch = set(traced.nodes), watch
        self.last, self.logits = traced.logits, torch.empty(0)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.wanted:
            # Looked at here and now: a later operation may overwrite it.
            self.watch(n, result)
        if n is self.last:
            self.logits = result
        return result


def run_watched(traced: Traced, images: torch.Tensor, watch: Callable[[fx.Node, Any], None]) -> torch.Tensor:
    """Run the graph on `images` (`image channel y x`) and show `watch` every operation with its value.

    **Returns:** the logits.
    """
    with torch.no_grad(), evaluating(traced.root):
        watcher = _Watcher(traced, watch)
        watcher.run(images.clone())
    return watcher.logits

"""A torch module as an operation of JAX with derivatives in both directions.

Three primitives: the module's value; its derivative applied to a tangent (push), and to a cotangent (pull). Push
and pull are linear in their second argument and each other's transposes, which is all that JAX must know for
`jvp`, `vjp`, `linearize` and `linear_transpose`. All of them treat images apart, so that an axis from `vmap` just
makes more images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array


@runtime_checkable
class Runner(Protocol):
    """What runs a torch module on NumPy arrays; compared by identity."""

    classes: int

    def run(self, maps: np.ndarray) -> np.ndarray:
        """Logits."""
        ...

    def run_push(self, maps: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        """The derivative at `maps` along `tangent`."""
        ...

    def run_pull(self, maps: np.ndarray, cotangent: np.ndarray) -> np.ndarray:
        """The derivative's transpose at `maps`, applied to `cotangent`."""
        ...


def _primitive(name: str, method: str, *, like_maps: bool = False) -> Primitive:
    """An operation that calls a method of its runner; what comes back is logits, or as large as maps."""
    primitive = Primitive(name)

    def shape_of(*given: Any, runner: Runner) -> ShapedArray:
        shape = given[0].shape if like_maps else (given[0].shape[0], runner.classes)
        return ShapedArray(shape, given[0].dtype)

    def run(runner: Runner, given: Sequence[Any]) -> np.ndarray:
        return getattr(runner, method)(*map(np.asarray, given))

    def called(*given: Array, runner: Runner) -> Array:
        """On numbers that are there already, torch is called like any function."""
        devices = given[0].devices() if isinstance(given[0], jax.Array) else ()
        return jax.device_put(run(runner, given), next(iter(devices)) if len(devices) == 1 else None)

    def called_back(*given: Array, runner: Runner) -> Array:
        told = shape_of(*given, runner=runner)
        shape = jax.ShapeDtypeStruct(told.shape, told.dtype)
        return jax.pure_callback(lambda *some: run(runner, some), shape, *given)

    many_devices = mlir.lower_fun(called_back, multiple_results=False)

    def lowered(ctx: Any, *operands: Any, runner: Runner) -> Any:
        # `pure_callback` makes JAX's arrays of what it's given and waits until they're copied; on a single core by the
        # very thread that waits, for ever. What comes here is NumPy's.
        if getattr(ctx.module_context.axis_context, "num_devices", 1) != 1:
            return many_devices(ctx, *operands, runner=runner)
        result, _, _ = mlir.emit_python_callback(
            ctx, lambda *given: (run(runner, given),), None, list(operands), ctx.avals_in, ctx.avals_out,
            has_side_effect=False, returns_token=False,
        )  # fmt: skip
        return result

    primitive.def_impl(called)
    primitive.def_abstract_eval(shape_of)
    mlir.register_lowering(primitive, lowered, cacheable=False)
    batching.primitive_batchers[primitive] = lambda given, axes, *, runner: _batched(primitive, given, axes, runner)
    return primitive


def _batched(primitive: Primitive, given: Sequence[Array], axes: Sequence[Any], runner: Runner) -> tuple[Array, int]:
    size = next(g.shape[axis] for g, axis in zip(given, axes, strict=True) if axis is not None)
    flat = []
    for array, axis in zip(given, axes, strict=True):
        ahead = jnp.broadcast_to(array[None], (size, *array.shape)) if axis is None else jnp.moveaxis(array, axis, 0)
        flat.append(ahead.reshape(-1, *ahead.shape[2:]))
    result = primitive.bind(*flat, runner=runner)
    return result.reshape(size, -1, *result.shape[1:]), 0


value_p = _primitive("torch_value", "run")
push_p = _primitive("torch_push", "run_push")
pull_p = _primitive("torch_pull", "run_pull", like_maps=True)


def _value_jvp(primals: Sequence[Array], tangents: Sequence[Any], *, runner: Runner) -> tuple[Array, Any]:
    (maps,), (tangent,) = primals, tangents
    logits = value_p.bind(maps, runner=runner)
    if isinstance(tangent, ad.Zero):
        return logits, ad.Zero(ShapedArray(logits.shape, logits.dtype))
    return logits, push_p.bind(maps, tangent, runner=runner)


def _linear_jvp(primitive: Primitive) -> Callable[..., tuple[Array, Any]]:
    def rule(primals: Sequence[Array], tangents: Sequence[Any], *, runner: Runner) -> tuple[Array, Any]:
        (maps, vector), (d_maps, d_vector) = primals, tangents
        if not isinstance(d_maps, ad.Zero):
            raise NotImplementedError(
                "a torch head has no second derivatives in JAX; bring it to JAX with face_jax.bridges.to_flax"
            )
        result = primitive.bind(maps, vector, runner=runner)
        if isinstance(d_vector, ad.Zero):
            return result, ad.Zero(ShapedArray(result.shape, result.dtype))
        return result, primitive.bind(maps, d_vector, runner=runner)

    return rule


def _transpose_of(other: Callable[[], Primitive]) -> Callable[..., tuple[None, Any]]:
    def rule(given: Any, maps: Array, vector: Any, *, runner: Runner) -> tuple[None, Any]:
        if isinstance(given, ad.Zero):
            return None, ad.Zero(vector.aval)
        return None, other().bind(maps, given, runner=runner)

    return rule


ad.primitive_jvps[value_p] = _value_jvp
ad.primitive_jvps[push_p] = _linear_jvp(push_p)
ad.primitive_jvps[pull_p] = _linear_jvp(pull_p)
ad.primitive_transposes[push_p] = _transpose_of(lambda: pull_p)
ad.primitive_transposes[pull_p] = _transpose_of(lambda: push_p)

"""Rows that are spread over devices: into how many equal parts, and functions of rows that each device does alone.

Nothing here moves data. Under `jit` XLA decides where arrays lie, and it isn't known yet while a program is traced; so
programs are written such that whatever it decides, rows stay where they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from jax.core import Tracer
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array


def row_shards(rows: int) -> int:
    """The most equal parts in which rows may lie on devices; 1 where a program sees one device's only."""
    if jax.device_count() == 1 or jax.sharding.get_abstract_mesh().manual_axes:
        return 1
    return math.gcd(rows, jax.device_count())


def explicit(x: Any) -> bool:
    """Whether an array's sharding is part of its type, along some axis of its mesh."""
    return hasattr(x, "aval") and bool(jax.typeof(x).sharding.mesh.explicit_axes)


def in_auto_axes(function: Callable[..., Any], out: Callable[[Any], Any], *arguments: Any) -> Any:
    """`function(*arguments)` for arrays whose shardings are part of their types: inside, XLA decides where they lie.

    **Arguments:**

    - `function`: what to call.
    - `out`: from where the rows of the first argument lie to the results' specs, as a prefix of their tree.
    - `arguments`: pytrees.
    """
    leaves, tree = jax.tree.flatten(arguments)
    typed = list(map(explicit, leaves))
    arrays = [leaf for leaf, one in zip(leaves, typed, strict=True) if one]
    where = jax.typeof(leaves[0]).sharding.spec[0] if typed[0] else None
    first = arrays[0]
    mesh = jax.typeof(first).sharding.mesh if isinstance(first, Tracer) else first.sharding.mesh

    def with_arrays(*arrays: Array) -> Any:
        given = iter(arrays)
        whole = [next(given) if one else leaf for leaf, one in zip(leaves, typed, strict=True)]
        return function(*jax.tree.unflatten(tree, whole))

    is_spec = lambda x: isinstance(x, PartitionSpec)  # noqa: E731
    shardings = jax.tree.map(lambda spec: NamedSharding(mesh, spec), out(where), is_leaf=is_spec)
    return jax.sharding.auto_axes(with_arrays, out_sharding=shardings)(*arrays)


def untyped(x: Array) -> Array:
    """An array whose sharding is part of its type as one whose sharding isn't, where it lies."""
    if isinstance(x, Tracer) or not explicit(x):
        return x
    sharding: Any = x.sharding
    kinds = (jax.sharding.AxisType.Auto,) * len(sharding.mesh.axis_names)
    mesh = jax.sharding.Mesh(sharding.mesh.devices, sharding.mesh.axis_names, axis_types=kinds)
    return jax.device_put(x, NamedSharding(mesh, sharding.spec))


def by_shard(x: Array, shards: int) -> Array:
    """Rows in so many parts, the parts on the leading axis: no row goes to another device."""
    return x.reshape(shards, x.shape[0] // shards, *x.shape[1:])


def on_each_device(function: Callable[..., Array], axes: tuple[int | None, ...], out: int, *arrays: Array) -> Array:
    """`function(*arrays)`, each device computing its own rows' results, from all of what has no rows.

    Under `vmap`, and where a program runs on one device, it's the plain function. Not differentiable by itself.

    **Arguments:**

    - `function`: what it gives for a row doesn't depend on other rows.
    - `axes`: which axis of each array is that of the rows, None if it has none.
    - `out`: which axis of the result is.
    - `arrays`: its arguments.
    """
    rows = next(array.shape[axis] for array, axis in zip(arrays, axes, strict=True) if axis is not None)
    if row_shards(rows) == 1:
        return function(*arrays)

    @jax.custom_batching.custom_vmap
    def alone(*arrays: Array) -> Array:
        return _partitioned(function, axes, out)(*arrays)

    @alone.def_vmap
    def _(axis_size: int, batched: list[bool], *arrays: Array) -> tuple[Array, bool]:
        mapped = tuple(0 if one else None for one in batched)
        return jax.vmap(function, mapped, axis_size=axis_size)(*arrays), True

    return alone(*arrays)


def _partitioned(function: Callable[..., Array], axes: tuple[int | None, ...], out: int) -> Callable[..., Array]:
    call = custom_partitioning(function)

    def spec(ndim: int, axis: int | None, where: Any) -> PartitionSpec:
        return PartitionSpec(*(where if at == axis else None for at in range(ndim)))

    def partition(mesh: Any, given: tuple[Any, ...], result: Any) -> tuple[Any, ...]:
        where = tuple(result.sharding.spec)[out : out + 1] or (None,)
        shardings = tuple(
            NamedSharding(mesh, spec(len(one.shape), axis, where[0])) for one, axis in zip(given, axes, strict=True)
        )
        return mesh, function, NamedSharding(mesh, spec(len(result.shape), out, where[0])), shardings

    def rule(mesh: Any, given: Any, results: Any) -> tuple[str, dict[str, tuple[str, ...]]]:
        del mesh
        whole: list[str] = []

        def factors(ndim: int, axis: int | None) -> str:
            names = []
            for at in range(ndim):
                names.append("rows" if at == axis else f"x{len(whole)}")
                whole.extend(names[-1:] if at != axis else [])
            return " ".join(names)

        operands = ", ".join(factors(len(one.shape), axis) for one, axis in zip(given, axes, strict=True))
        return f"{operands} -> {factors(len(results[0].shape), out)}", {"need_replication_factors": tuple(whole)}

    call.def_partition(partition=partition, sharding_rule=rule)
    return call

"""Loops and branches of `jax.lax` for programs that may run inside `shard_map`, too.

There JAX knows of each value whether it differs between devices, and wants a loop's first values to be told to differ
where its later ones do, and both branches' results alike. Elsewhere these are `jax.lax`'s own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

Axes = frozenset[Any]


def while_loop(going: Callable[[Any], Array], body: Callable[[Any], Any], init: Any) -> Any:
    """`jax.lax.while_loop`."""
    if not _manual():
        return jax.lax.while_loop(going, body, init)
    init, axes = _settled(body, init)
    return jax.lax.while_loop(going, lambda x: _varying(body(x), axes), init)


def fori_loop(lower: Any, upper: Any, body: Callable[[Any, Any], Any], init: Any) -> Any:
    """`jax.lax.fori_loop`."""
    if not _manual():
        return jax.lax.fori_loop(lower, upper, body, init)
    init, axes = _settled(lambda x: body(lower, x), init)
    return jax.lax.fori_loop(lower, upper, lambda i, x: _varying(body(i, x), axes), init)


def cond(which: Array, yes: Callable[[], Any], no: Callable[[], Any]) -> Any:
    """`jax.lax.cond` of functions without arguments."""
    if not _manual():
        return jax.lax.cond(which, yes, no)
    axes = jax.tree.map(frozenset.union, _axes_of(yes), _axes_of(no))
    return jax.lax.cond(which, lambda: _varying(yes(), axes), lambda: _varying(no(), axes))


def after(x: Any, known: Array) -> Any:
    """`x`, which can't be used before the number `known` is there.

    On processors, what processes send each other has no order but that of the data. A branch or loop that sends
    something runs beside whatever doesn't need its result, so that a message of one process can meet the next message
    of another, which ends both (seen with JAX 0.10.2 and gloo). Whatever else is sent has to need the result, then.
    `jax.lax.optimization_barrier` isn't enough: it's gone before operations are put in order.

    **Arguments:**

    - `x`: a pytree of arrays of floats.
    - `known`: a scalar, of floats or a count.

    **Returns:** `x`; NaN where `known` is NaN, or a count below 0, so that it's really needed.
    """
    lost = jnp.isnan(known) if jnp.issubdtype(known.dtype, jnp.inexact) else known < 0
    return jax.tree.map(lambda x: jnp.where(lost, jnp.nan, x), x)


def alike(*arrays: Any) -> Any:
    """Pytrees of arrays, all of them told to differ between devices if any is: no operation has to do so later."""
    if not _manual():
        return arrays
    axes = frozenset().union(*map(_axes, jax.tree.leaves(arrays)))
    return _varying(arrays, jax.tree.map(lambda _: axes, arrays))


def _manual() -> bool:
    return bool(jax.sharding.get_abstract_mesh().manual_axes)


def _settled(body: Callable[[Any], Any], init: Any) -> tuple[Any, Any]:
    """The first values, told to differ along all axes that later ones do; and which these are."""
    init = jax.tree.map(jnp.asarray, init)
    axes = jax.tree.map(_axes, init)
    while (more := jax.tree.map(frozenset.union, axes, _axes_of(body, init))) != axes:
        axes, init = more, _varying(init, more)
    return init, axes


def _axes_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Along which axes each of a function's results differs."""
    found = []

    def look(*arguments: Any) -> None:
        found.append(jax.tree.map(_axes, function(*arguments)))

    jax.eval_shape(look, *arguments)
    return found[-1]


def _axes(x: Any) -> Axes:
    return frozenset(jax.typeof(x).mat.varying)


def _varying(x: Any, axes: Any) -> Any:
    """The same values, told to differ along these axes at least."""

    def cast(x: Any, axes: Axes) -> Array:
        more = tuple(axes - _axes(x))
        return jax.lax.pcast(x, more, to="varying") if more else x

    return jax.tree.map(cast, x, axes)

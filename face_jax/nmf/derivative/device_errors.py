"""Errors for what is found out on the device: raised at once where values are known, else by the compiled program."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir
from jaxtyping import Array, Bool, Float

from ...linalg.conjugate_gradients import CGStats
from ..results import RESULTS, FactorizationError

_check_p = Primitive("check_derivative")


def checked(x: Any, stats: CGStats, near: Bool[Array, ""], settled: Bool[Array, ""]) -> Any:
    """The same arrays; `FactorizationError` if they are no derivative, or of factors not `near` enough or `settled`.

    Under `jit` it's the runtime that raises, with that error's text.
    """
    residual = _check_p.bind(stats.residual, stats.solved, stats.defined, near, settled)
    # A value that the result depends on, so that the check can't be dropped.
    return jax.tree.map(lambda leaf: jnp.where(residual >= 0, leaf, jnp.nan), x)


def _raise(residual: Any, solved: Any, defined: Any, near: Any, settled: Any) -> Any:
    # Far from a solution it can't be told whether it's unique; in a family of them no zero may ever be settled.
    if not np.all(near):
        raise FactorizationError(RESULTS.derivative_unsettled.message)
    if not np.all(defined):
        told = np.all(settled) or np.asarray(residual).dtype == np.float64
        more = "" if told else " (As far as this dtype can tell; in float64 they may be unique.)"
        raise FactorizationError(RESULTS.derivative_undefined.message + more)
    if not np.all(settled):
        raise FactorizationError(RESULTS.derivative_unsettled.message)
    if not np.all(solved):
        raise FactorizationError(f"{RESULTS.derivative_inexact.message} (Residual {float(np.max(residual)):.1e}.)")
    # float64 that was switched on for one thread only isn't on in the thread of callbacks.
    return np.asarray(residual)


def _later(residual: Array, solved: Array, defined: Array, near: Array, settled: Array) -> Float[Array, "*batch"]:
    shape = jax.ShapeDtypeStruct(residual.shape, residual.dtype)
    return jax.pure_callback(_raise, shape, residual, solved, defined, near, settled, vmap_method="expand_dims")


def _batched(arguments: tuple[Array, ...], axes: tuple[Any, ...]) -> tuple[Array, int]:
    size = next(x.shape[axis] for x, axis in zip(arguments, axes, strict=True) if axis is not None)
    moved = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(arguments, axes, strict=True)
    ]
    return _check_p.bind(*moved), 0


_check_p.def_impl(lambda *told: jnp.asarray(_raise(*told)))
_check_p.def_abstract_eval(lambda residual, *_: residual)
mlir.register_lowering(_check_p, mlir.lower_fun(_later, multiple_results=False))
batching.primitive_batchers[_check_p] = _batched

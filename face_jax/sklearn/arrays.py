"""Arrays of any package come in where they are, and results go out as the package's own.

Dense arrays of JAX, torch and CuPy stay on their device: they are JAX's by DLPack, which shares their memory, and so
are results. All others are NumPy's or SciPy's. So are those whose device JAX doesn't have, and torch's on the processor
of a machine with an accelerator, where the arithmetic is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.core import Tracer
from jaxtyping import Array

from ..nmf.sparse import matrix_of_jax
from ..support.arguments import shown

_PLATFORMS = {1: "cpu", 2: "cuda", 10: "rocm"}  # DLPack's numbers for devices


@dataclasses.dataclass(frozen=True)
class Taken:
    """What an array holds, and what makes results arrays of its package.

    **Arguments:**

    - `values`: NumPy's, JAX's on the array's own device, a sparse matrix of SciPy, or whatever scikit-learn's own
        checks take (lists, data frames).
    - `back`: from an array of NumPy or JAX.
    """

    values: Any
    back: Callable[[Any], Any]


def taken(name: str, value: Any) -> Taken:
    """An array of NumPy, SciPy, JAX, torch or CuPy, or anything that scikit-learn reads.

    Raises `ValueError` for values that are only known inside `jit`.
    """
    if isinstance(value, Tracer):
        raise ValueError(
            f"{name} is traced, and an estimator keeps numbers; call it outside of jit and grad, or take "
            "face_jax.factorize, which can be traced"
        )
    if isinstance(value, jax.Array):
        real = any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))
        return Taken(value if real else np.asarray(value), _to_jax(value))
    if hasattr(value, "todense") and type(value).__module__.partition(".")[0] == "jax":
        return Taken(matrix_of_jax(name, value), _to_jax(value.data))
    package = _package(value)
    if package == "torch":
        return Taken(_of_torch(name, value), lambda found: _to_torch(found, value))
    if package == "cupy":
        return Taken(_shared(_cupy().ascontiguousarray(value)) if _reachable(value) else value.get(), _to_cupy)
    return Taken(value, lambda found: found)


def on_host(name: str, value: Any) -> Any:
    """The same as NumPy or SciPy has it, or whatever scikit-learn's own checks take."""
    found = taken(name, value).values
    return np.asarray(found) if isinstance(found, jax.Array) else found


def namespace(x: Any) -> Any:
    """Whose functions an array is for: JAX's, where it stays on its device, or NumPy's."""
    return jnp if isinstance(x, jax.Array) else np


def _reachable(value: Any) -> bool:
    """Whether JAX computes on the device that an array says it's on."""
    if not hasattr(value, "__dlpack_device__"):
        return False
    platform = _PLATFORMS.get(int(value.__dlpack_device__()[0]))
    if platform is None or platform == "cpu":
        return platform == jax.default_backend()
    try:
        return bool(jax.devices(platform))
    except RuntimeError:
        return False


def _shared(value: Any) -> Array:
    """JAX's array of the same memory, which has to lie row by row for that."""
    with jax.enable_x64(True):
        return jax.dlpack.from_dlpack(value)


def _to_jax(like: Any) -> Callable[[Any], Any]:
    device = next(iter(like.devices())) if len(like.devices()) == 1 else None

    def back(found: Any) -> Any:
        if isinstance(found, jax.Array):
            return found
        with jax.enable_x64(found.dtype == np.float64 or jax.config.read("jax_enable_x64")):
            return jax.device_put(jnp.asarray(found), device)

    return back


def _package(value: Any) -> str:
    """The package that an array's class, or one that it's derived from, is of."""
    names = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
    return next((name for name in ("torch", "cupy") if name in names and hasattr(value, "dtype")), "")


def _of_torch(name: str, value: Any) -> Any:
    if value.layout is not _torch().strided:
        coo = value.detach().cpu().to_sparse_coo().coalesce()
        if coo.sparse_dim() != 2 or coo.dense_dim():
            raise ValueError(f"{name} is a sparse tensor of shape {shown(value)}; give a matrix of two axes")
        data = coo.values().numpy(force=True)
        return scipy.sparse.coo_array((data, tuple(coo.indices().numpy())), shape=tuple(value.shape)).tocsr()
    value = value.detach()
    if str(value.dtype) in ("torch.bfloat16", "torch.float16"):
        value = value.float()
    if not value.is_complex() and _reachable(value):
        return _shared(value.resolve_neg().contiguous())
    return value.cpu().numpy(force=True)


def _to_torch(found: Any, like: Any) -> Any:
    if isinstance(found, jax.Array):
        # Nobody else has it, so that it may be written to.
        return _torch().from_dlpack(found.block_until_ready())
    return _torch().as_tensor(np.require(found, requirements="W"), device=like.device)


def _torch() -> Any:
    # Whoever has a tensor has loaded it.
    import torch

    return torch


def _to_cupy(found: Any) -> Any:
    if isinstance(found, jax.Array):
        return _cupy().from_dlpack(found.block_until_ready())
    return _cupy().asarray(found)


def _cupy() -> Any:
    import cupy  # pyright: ignore[reportMissingImports]

    return cupy

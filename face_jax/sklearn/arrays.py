"""Arrays of any package come in as NumPy's or SciPy's, and results go out as the package's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse
from jax.core import Tracer

from ..nmf.sparse import matrix_of_jax
from ..support.arguments import shown


@dataclasses.dataclass(frozen=True)
class Taken:
    """What an array holds, and what makes results arrays of its package.

    **Arguments:**

    - `values`: NumPy's, a sparse matrix of SciPy, or whatever scikit-learn's own checks take (lists, data frames).
    - `back`: from a NumPy array.
    """

    values: Any
    back: Callable[[np.ndarray], Any]


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
        return Taken(np.asarray(value), _to_jax(value))
    if hasattr(value, "todense") and type(value).__module__.partition(".")[0] == "jax":
        return Taken(matrix_of_jax(name, value), _to_jax(value.data))
    package = _package(value)
    if package == "torch":
        return Taken(_of_torch(name, value), lambda found: _to_torch(found, value))
    if package == "cupy":
        return Taken(value.get(), _to_cupy)
    return Taken(value, lambda found: found)


def _to_jax(like: Any) -> Callable[[np.ndarray], Any]:
    device = next(iter(like.devices())) if len(like.devices()) == 1 else None

    def back(found: np.ndarray) -> Any:
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
    return value.cpu().numpy(force=True)


def _to_torch(found: np.ndarray, like: Any) -> Any:
    return _torch().as_tensor(np.require(found, requirements="W"), device=like.device)


def _torch() -> Any:
    # Whoever has a tensor has loaded it.
    import torch

    return torch


def _to_cupy(found: np.ndarray) -> Any:
    import cupy  # pyright: ignore[reportMissingImports]

    return cupy.asarray(found)

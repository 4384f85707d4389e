"""A JAX function inside torch's autograd."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import torch

from face_jax.support.arguments import function as checked_function

from .arrays import refuse_unusual, share_with_jax, to_torch


def as_torch(function: Callable[..., Any]) -> Callable[..., Any]:
    """A JAX function as a function of torch tensors that torch differentiates.

    Use it to put a JAX computation behind a torch network: values pass by DLPack without a copy where layouts allow,
    the derivative is JAX's own, and each is compiled once for each set of shapes. The forward pass keeps what the
    backward pass needs, so several backward passes share it. Second derivatives aren't there and raise an error.

    **Arguments:**

    - `function`: of one or more arrays, to an array or a pytree of arrays; it must be possible to `jax.jit` it.

    **Returns:** the same function of tensors. Results are on the first tensor's device; tensors of integers get no
    gradient, complex ones torch's (the conjugate of JAX's). Sparse, quantized, nested and meta tensors are refused by
    a `TypeError`.

    **Example:**

    >>> squares = bridges.as_torch(lambda x: x**2)
    >>> squares(torch.tensor([1.0, 2.0])).tolist()
    [1.0, 4.0]
    """
    compiled = _Compiled(checked_function("function", function, "a function of JAX arrays"))

    @functools.wraps(function)
    def apply(*tensors: Any) -> Any:
        for number, tensor in enumerate(tensors):
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(
                    f"argument {number} is a {type(tensor).__name__}; give torch tensors, "
                    "and close over everything else"
                )
            refuse_unusual(tensor, f"argument {number}")
        if not tensors:
            raise TypeError("no arguments; give at least one torch tensor, which says where the results go")
        structure, *results = _Function.apply(compiled, *tensors)
        return jax.tree.unflatten(structure, results)

    return apply


class _Compiled:
    """A function's compiled value, and its compiled value with derivative for each choice of arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.value = jax.jit(function)
        self.linearized = jax.jit(self._linearize, static_argnums=0)
        # What `jax.vjp` returns is a pytree with the residuals as leaves, so it passes between two compiled functions.
        self.pullback = jax.jit(lambda pull, cotangents: pull(cotangents))

    def _linearize(self, wanted: tuple[bool, ...], *arrays: Any) -> tuple[Any, Any]:
        moving = [array for array, want in zip(arrays, wanted, strict=True) if want]

        def of_moving(*values: Any) -> tuple[list[Any], Any]:
            given = iter(values)
            result = self.function(*(next(given) if w else a for a, w in zip(arrays, wanted, strict=True)))
            result = jax.tree.map(jnp.asarray, result)
            floating = [leaf for leaf in jax.tree.leaves(result) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
            return floating, result

        _, pull, result = jax.vjp(of_moving, *moving, has_aux=True)
        return result, pull


class _Function(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compiled: _Compiled, *tensors: torch.Tensor) -> tuple[Any, ...]:
        device = tensors[0].device
        arrays = [share_with_jax(tensor) for tensor in tensors]
        wanted = tuple(
            bool(needed) and jnp.issubdtype(array.dtype, jnp.inexact)
            for needed, array in zip(ctx.needs_input_grad[1:], arrays, strict=True)
        )
        if any(wanted):
            result, pull = compiled.linearized(wanted, *arrays)
        else:
            result, pull = compiled.value(*arrays), None
        leaves, structure = jax.tree.flatten(result)
        inputs = {tensor.data_ptr() for tensor in tensors}
        results = []
        for leaf in leaves:
            tensor = to_torch(leaf, device=device)
            # JAX hands an unchanged argument through; torch must not see one memory as two tensors.
            results.append(tensor.clone() if tensor.data_ptr() in inputs else tensor)
        ctx.mark_non_differentiable(*(result for result in results if not _continuous(result)))
        if pull is not None:
            ctx.compiled, ctx.pull, ctx.wanted = compiled, pull, wanted
            ctx.floating = [_continuous(result) for result in results]
            # The residuals may share these tensors' memory: saved, torch notices if someone overwrites them.
            ctx.save_for_backward(*tensors, *results)
        # Another shape may have another structure: it goes out with its results, not by way of `compiled`.
        return structure, *results

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> tuple[torch.Tensor | None, ...]:
        cotangents = cotangents[1:]  # the first is the structure's, and None
        tensors = ctx.saved_tensors[: len(ctx.wanted)]
        # A gradient with respect to a complex number is the conjugate of JAX's in torch.
        given = [
            share_with_jax(cotangent.conj().contiguous())
            for cotangent, use in zip(cotangents, ctx.floating, strict=True)
            if use
        ]
        with torch.no_grad():
            gradients = iter(ctx.compiled.pullback(ctx.pull, given))
            found = [
                to_torch(next(gradients), device=tensor.device, dtype=tensor.dtype).conj() if want else None
                for tensor, want in zip(tensors, ctx.wanted, strict=True)
            ]
        if torch.is_grad_enabled():
            # Someone asked for a graph of this derivative: without this it would silently count as constant.
            found = [None if g is None else _NoSecondDerivative.apply(g, *tensors, *cotangents) for g in found]
        return None, *found


def _continuous(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


class _NoSecondDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: torch.Tensor, *depends_on: torch.Tensor) -> torch.Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Any:
        raise NotImplementedError(
            "a JAX function in torch has no second derivative; differentiate twice in JAX, or leave create_graph=False"
        )

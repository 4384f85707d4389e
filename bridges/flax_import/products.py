"""Matrix products and attention."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .promotion import widened
from .table import operator


def _plus(x: Any, bias: Any) -> Any:
    return x if bias is None else x + bias.reshape((1,) * (x.ndim - bias.ndim) + bias.shape)


@operator("aten.linear.default")
def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    return _plus(lax.dot_general(x, weight, (((x.ndim - 1,), (1,)), ((), ()))), bias)


@operator("aten.addmm.default", "aten.baddbmm.default")
def _addmm(bias: Any, x: Any, other: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    product = jnp.matmul(x, other)
    return _plus(product if alpha == 1 else alpha * product, bias if beta == 1 else beta * bias)


@operator("aten.mm.default", "aten.bmm.default", "aten.mv.default", "aten.dot.default")
def _mm(x: Any, other: Any) -> Any:
    return jnp.matmul(x, other)


@operator("aten.matmul.default")
def _matmul(x: Any, other: Any) -> Any:
    rank = max(x.ndim, other.ndim)
    if min(x.ndim, other.ndim) >= 2:
        x, other = (value.reshape((1,) * (rank - value.ndim) + value.shape) for value in (x, other))
    return jnp.matmul(x, other)


@operator("aten.einsum.default")
def _einsum(equation: str, tensors: tuple[Any, ...], path: Any = None) -> Any:
    return jnp.einsum(equation.replace(" ", ""), *tensors)


@operator("aten.scaled_dot_product_attention.default")
def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if dropout_p:
        raise ValueError(
            f"scaled_dot_product_attention has dropout_p={dropout_p}, which is random; "
            "let the module pass 0 when it is in eval mode"
        )
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (jnp.repeat(part, repeats, axis=-3) for part in (key, value))
    scores, kind = widened(jnp.matmul(query, jnp.swapaxes(key, -1, -2)))
    scores = scores * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    if attn_mask is None:
        weights = jax.nn.softmax(scores, axis=-1)
    else:
        mask = attn_mask.reshape((1,) * (scores.ndim - attn_mask.ndim) + attn_mask.shape)
        if mask.dtype == jnp.bool_:
            scores = jnp.where(mask, scores, jnp.asarray(-jnp.inf, scores.dtype))
        else:
            scores = scores + mask.astype(scores.dtype)
        # A row with nothing to attend to has weights 0, not 0 / 0
        empty = jnp.all(jnp.isneginf(scores), axis=-1, keepdims=True)
        zero = jnp.zeros((), scores.dtype)
        weights = jnp.where(empty, zero, jax.nn.softmax(jnp.where(empty, zero, scores), axis=-1))
    return jnp.matmul(weights.astype(kind), value)

"""Operators that work place by place: arithmetic, activations, comparisons."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .promotion import cast, floating, promoted, result_type
from .table import elementwise, layout_operator, operator


@layout_operator(
    "aten.alias.default",
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.lift_fresh_copy.default",
)
def _same(x: Any, *_: Any, **__: Any) -> Any:
    return x


@elementwise("aten.detach.default")
def _detach(x: Any) -> Any:
    return lax.stop_gradient(x)


@elementwise("aten._to_copy.default", "aten.to.dtype", "prims.convert_element_type.default")
def _to_copy(x: Any, dtype: Any = None, *_: Any, **__: Any) -> Any:
    return x if dtype is None else cast(x, dtype)


# Arithmetic


@elementwise("aten.add.Tensor", "aten.add.Scalar")
def _add(x: Any, other: Any, alpha: Any = 1) -> Any:
    x, other = promoted(x, other)
    return x + other if alpha == 1 else x + alpha * other


@elementwise("aten.sub.Tensor", "aten.sub.Scalar")
def _sub(x: Any, other: Any, alpha: Any = 1) -> Any:
    x, other = promoted(x, other)
    return x - other if alpha == 1 else x - alpha * other


@elementwise("aten.rsub.Scalar", "aten.rsub.Tensor")
def _rsub(x: Any, other: Any, alpha: Any = 1) -> Any:
    return _sub(other, x, alpha)


@elementwise("aten.mul.Tensor", "aten.mul.Scalar")
def _mul(x: Any, other: Any) -> Any:
    x, other = promoted(x, other)
    return x * other


@elementwise("aten.div.Tensor", "aten.div.Scalar")
def _div(x: Any, other: Any) -> Any:
    x, other = promoted(floating(x), other)
    return x / other


@elementwise("aten.div.Tensor_mode", "aten.div.Scalar_mode")
def _div_mode(x: Any, other: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode is None:
        return _div(x, other)
    x, other = promoted(x, other)
    if rounding_mode == "floor":
        return jnp.floor_divide(x, other)
    if jnp.issubdtype(result_type(x, other), jnp.integer):
        return lax.div(*jnp.broadcast_arrays(x, jnp.asarray(other, x.dtype)))
    return jnp.trunc(x / other)


@elementwise("aten.floor_divide.default")
def _floor_divide(x: Any, other: Any) -> Any:
    return _div_mode(x, other, "floor")


@elementwise("aten.fmod.Scalar", "aten.fmod.Tensor")
def _fmod(x: Any, other: Any) -> Any:
    x, other = promoted(x, other)
    return jnp.fmod(x, other)


@elementwise("aten.remainder.Scalar", "aten.remainder.Tensor")
def _remainder(x: Any, other: Any) -> Any:
    x, other = promoted(x, other)
    return jnp.remainder(x, other)


@elementwise("aten.pow.Tensor_Scalar", "aten.pow.Tensor_Tensor", "aten.pow.Scalar")
def _pow(x: Any, exponent: Any) -> Any:
    if isinstance(exponent, float) and exponent.is_integer() and abs(exponent) < 2**31 and hasattr(x, "dtype"):
        # x ** 2.0 by logarithms has no derivative at x <= 0
        return lax.integer_pow(floating(x), int(exponent))
    x, exponent = promoted(x, exponent)
    return x**exponent


@elementwise("aten.addcmul.default")
def _addcmul(x: Any, first: Any, second: Any, value: Any = 1) -> Any:
    return _add(x, _mul(first, second), value)


@elementwise("aten.maximum.default")
def _maximum(x: Any, other: Any) -> Any:
    return jnp.maximum(*promoted(x, other))


@elementwise("aten.minimum.default")
def _minimum(x: Any, other: Any) -> Any:
    return jnp.minimum(*promoted(x, other))


# Functions of one number

_FUNCTIONS = {
    "abs": jnp.abs,
    "ceil": jnp.ceil,
    "floor": jnp.floor,
    "neg": jnp.negative,
    "relu": jax.nn.relu,
    "round": jnp.round,
    "sign": jnp.sign,
    "square": jnp.square,
    "trunc": jnp.trunc,
    "isnan": jnp.isnan,
    "isinf": jnp.isinf,
    "logical_not": jnp.logical_not,
    "bitwise_not": jnp.bitwise_not,
}
_REAL_FUNCTIONS = {
    "atan": jnp.atan,
    "cos": jnp.cos,
    "erf": jax.scipy.special.erf,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "log2": jnp.log2,
    "log_sigmoid": jax.nn.log_sigmoid,
    "mish": jax.nn.mish,
    "reciprocal": jnp.reciprocal,
    "rsqrt": lax.rsqrt,
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "sin": jnp.sin,
    "sqrt": jnp.sqrt,
    "tan": jnp.tan,
    "tanh": jnp.tanh,
}


def _register(name: str, function: Any) -> None:
    elementwise(f"aten.{name}.default")(lambda x: function(x))


for _name, _function in _FUNCTIONS.items():
    _register(_name, _function)
for _name, _function in _REAL_FUNCTIONS.items():
    _register(_name, lambda x, function=_function: function(floating(x)))


@elementwise("aten.hardtanh.default")
def _hardtanh(x: Any, min_val: Any = -1.0, max_val: Any = 1.0) -> Any:
    # lax.clamp's derivative is 0 on the bounds, as that of torch's hardtanh is
    low, high = (jnp.asarray(bound, x.dtype) for bound in (min_val, max_val))
    return lax.clamp(low, x, high)


@elementwise("aten.relu6.default")
def _relu6(x: Any) -> Any:
    return _hardtanh(x, 0.0, 6.0)


@elementwise("aten.hardsigmoid.default")
def _hardsigmoid(x: Any) -> Any:
    return _hardtanh(x + 3.0, 0.0, 6.0) / 6.0


@elementwise("aten.hardswish.default")
def _hardswish(x: Any) -> Any:
    return x * _hardsigmoid(x)


@elementwise("aten.clamp.default")
def _clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    # As in torch, the derivative is 0 on a bound that is a number, and shared where the bound is an array
    if min is not None:
        x, bound = promoted(x, min)
        x = jnp.where(x <= bound, jnp.asarray(bound, x.dtype), x)
    if max is not None:
        x, bound = promoted(x, max)
        x = jnp.where(x >= bound, jnp.asarray(bound, x.dtype), x)
    return x


@elementwise("aten.clamp.Tensor")
def _clamp_tensor(x: Any, min: Any = None, max: Any = None) -> Any:
    x = x if min is None else jnp.maximum(*promoted(x, min))
    return x if max is None else jnp.minimum(*promoted(x, max))


@elementwise("aten.clamp_min.default")
def _clamp_min(x: Any, min: Any) -> Any:
    return _clamp(x, min=min)


@elementwise("aten.clamp_max.default")
def _clamp_max(x: Any, max: Any) -> Any:
    return _clamp(x, max=max)


@elementwise("aten.gelu.default")
def _gelu(x: Any, approximate: str = "none") -> Any:
    return jax.nn.gelu(x, approximate=approximate == "tanh")


@elementwise("aten.elu.default")
def _elu(x: Any, alpha: Any = 1.0, scale: Any = 1.0, input_scale: Any = 1.0) -> Any:
    # expm1 of the positive side could overflow, and its infinity would spoil the derivative
    return jnp.where(x > 0, scale * x, scale * alpha * jnp.expm1(input_scale * jnp.minimum(x, 0.0)))


@elementwise("aten.leaky_relu.default")
def _leaky_relu(x: Any, negative_slope: Any = 0.01) -> Any:
    return jnp.where(x > 0, x, negative_slope * x)


@operator("aten.rrelu_with_noise_functional.default")
def _rrelu(x: Any, noise: Any, lower: Any = 1 / 8, upper: Any = 1 / 3, *_: Any) -> tuple[Any, Any]:
    # In eval mode the slope is the middle of those drawn in training
    return _leaky_relu(x, (lower + upper) / 2), noise


@elementwise("aten.softplus.default")
def _softplus(x: Any, beta: Any = 1, threshold: Any = 20) -> Any:
    return jnp.where(x * beta > threshold, x, jax.nn.softplus(jnp.minimum(x * beta, threshold)) / beta)


# Truth values


def _compare(name: str, function: Any) -> None:
    elementwise(f"aten.{name}.Scalar", f"aten.{name}.Tensor")(lambda x, other: function(*promoted(x, other)))


for _name, _function in {
    "eq": jnp.equal,
    "ne": jnp.not_equal,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
}.items():
    _compare(_name, _function)


@elementwise("aten.logical_and.default", "aten.bitwise_and.Tensor")
def _logical_and(x: Any, other: Any) -> Any:
    return x & other


@elementwise("aten.logical_or.default", "aten.bitwise_or.Tensor")
def _logical_or(x: Any, other: Any) -> Any:
    return x | other


@elementwise("aten.where.self", "aten.where.ScalarOther", "aten.where.ScalarSelf", "aten.where.Scalar")
def _where(condition: Any, x: Any, other: Any) -> Any:
    dtype = result_type(x, other)
    return jnp.where(condition, *(jnp.asarray(cast(value, dtype), dtype) for value in (x, other)))


@elementwise("aten.masked_fill.Scalar", "aten.masked_fill.Tensor")
def _masked_fill(x: Any, mask: Any, value: Any) -> Any:
    return jnp.where(mask, jnp.asarray(cast(value, x.dtype), x.dtype), x)

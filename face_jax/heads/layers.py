"""The layers that classifiers' heads are made of, as Flax modules whose weights are given, not drawn.

They compute what a trained network does when it predicts: batch norms use their running statistics, dropout is absent.
Maps are `image y x channel`; weights keep their own dtype, which the activations have to share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

Maps = Float[Array, "image y x channel"]
Layer = Callable[[Array], Array]


class Dense(nnx.Module):
    """`x @ kernel + bias` on the last axis."""

    def __init__(self, kernel: Float[Array, "channel out"], bias: Float[Array, " out"] | None) -> None:
        self.kernel = nnx.Param(kernel)
        self.bias = None if bias is None else nnx.Param(bias)

    def __call__(self, x: Float[Array, "*batch channel"]) -> Float[Array, "*batch out"]:
        """The product."""
        y = x @ self.kernel[...]
        return y if self.bias is None else y + jnp.expand_dims(self.bias[...], tuple(range(y.ndim - 1)))


class Convolution(nnx.Module):
    """A convolution of maps with torch's explicit padding."""

    def __init__(
        self,
        kernel: Float[Array, "height width channel out"],
        bias: Float[Array, " out"] | None,
        *,
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> None:
        self.kernel = nnx.Param(kernel)
        self.bias = None if bias is None else nnx.Param(bias)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def __call__(self, x: Maps) -> Float[Array, "image height width out"]:
        """The convolution."""
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...],
            window_strides=self.stride,
            padding=[(pad, pad) for pad in self.padding],
            rhs_dilation=self.dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )
        return y if self.bias is None else y + self.bias[...][None, None, None]


class BatchNormalization(nnx.Module):
    """`(x − mean) / √(variance + ε) · scale + shift` with running statistics."""

    def __init__(
        self,
        mean: Float[Array, " channel"],
        variance: Float[Array, " channel"],
        scale: Float[Array, " channel"],
        shift: Float[Array, " channel"],
        epsilon: float,
    ) -> None:
        self.mean, self.variance = nnx.BatchStat(mean), nnx.BatchStat(variance)
        self.scale, self.shift = nnx.Param(scale), nnx.Param(shift)
        self.epsilon = epsilon

    def __call__(self, x: Maps) -> Maps:
        """Normalized maps."""
        factor = self.scale[...] / jnp.sqrt(self.variance[...] + self.epsilon)
        return (x - self.mean[...][None, None, None]) * factor[None, None, None] + self.shift[...][None, None, None]


class LayerNormalization(nnx.Module):
    """Mean 0 and variance 1 over the channels of each place, then scale and shift."""

    def __init__(self, scale: Float[Array, " channel"], shift: Float[Array, " channel"], epsilon: float) -> None:
        self.scale, self.shift = nnx.Param(scale), nnx.Param(shift)
        self.epsilon = epsilon

    def __call__(self, x: Float[Array, "*batch channel"]) -> Float[Array, "*batch channel"]:
        """Normalized channels."""
        middle = x - jnp.mean(x, axis=-1, keepdims=True)
        unit = middle / jnp.sqrt(jnp.mean(middle**2, axis=-1, keepdims=True) + self.epsilon)
        spread = tuple(range(x.ndim - 1))
        return unit * jnp.expand_dims(self.scale[...], spread) + jnp.expand_dims(self.shift[...], spread)


class Scaling(nnx.Module):
    """Each channel times a number that was learned."""

    def __init__(self, scale: Float[Array, " channel"]) -> None:
        self.scale = nnx.Param(scale)

    def __call__(self, x: Maps) -> Maps:
        """The product."""
        return x * self.scale[...][None, None, None]


class Activation(nnx.Module):
    """A function of single numbers, by torch's name of it."""

    def __init__(self, name: str) -> None:
        if name not in _ACTIVATIONS:
            raise ValueError(f"activation {name!r} is none of {', '.join(_ACTIVATIONS)}; use face_jax.bridges.to_flax")
        self.name = name

    def __call__(self, x: Array) -> Array:
        """The function's values."""
        return _ACTIVATIONS[self.name](x)


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)


_ACTIVATIONS: dict[str, Layer] = {
    "ReLU": jax.nn.relu,
    "ReLU6": _relu6,
    "SiLU": jax.nn.silu,
    "GELU": lambda x: jax.nn.gelu(x, approximate=False),
    "Sigmoid": jax.nn.sigmoid,
    "Hardsigmoid": lambda x: _relu6(x + 3) / 6,
    "Hardswish": lambda x: x * (_relu6(x + 3) / 6),
}


class MaxPool(nnx.Module):
    """The largest value in each window."""

    def __init__(self, window: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> None:
        self.window, self.stride, self.padding = window, stride, padding

    def __call__(self, x: Maps) -> Float[Array, "image height width channel"]:
        """The windows' maxima."""
        padding = [(0, 0), *((pad, pad) for pad in self.padding), (0, 0)]
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *self.window, 1), (1, *self.stride, 1), padding)


class Pooling(nnx.Module):
    """Averages over a coarser grid, windows as torch's adaptive pooling lays them; a 1 × 1 grid is the mean."""

    def __init__(self, grid: tuple[int, int]) -> None:
        self.grid = grid

    def __call__(self, x: Maps) -> Float[Array, "image height width channel"]:
        """The averages."""
        if self.grid == (1, 1):
            return jnp.mean(x, axis=(1, 2), keepdims=True)
        rows, columns = (_windows(x.shape[axis], self.grid[axis - 1]).astype(x.dtype) for axis in (1, 2))
        return jnp.einsum("hy,wx,nyxc->nhwc", jnp.asarray(rows), jnp.asarray(columns), x, optimize="optimal")


def _windows(size: int, count: int) -> np.ndarray:
    matrix = np.zeros((count, size))
    for number in range(count):
        first, last = number * size // count, -(-(number + 1) * size // count)
        matrix[number, first:last] = 1 / (last - first)
    return matrix


class Flatten(nnx.Module):
    """Maps as vectors in torch's order, channels first."""

    def __call__(self, x: Float[Array, "image *place channel"]) -> Float[Array, "image number"]:
        """The vectors; vectors as they are."""
        return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)


class Chain(nnx.Module):
    """Layers one after the other."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self.layers = nnx.List(layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __call__(self, x: Array) -> Array:
        """The last layer's result."""
        for layer in self.layers:
            x = layer(x)
        return x


class Residual(nnx.Module):
    """`finish(body(x) + shortcut(x))`; without a shortcut, x itself is added."""

    def __init__(self, body: Layer, shortcut: Layer | None = None, finish: Layer | None = None) -> None:
        self.body, self.shortcut, self.finish = body, shortcut, finish

    def __call__(self, x: Array) -> Array:
        """The sum."""
        y = self.body(x) + (x if self.shortcut is None else self.shortcut(x))
        return y if self.finish is None else self.finish(y)


class Gate(nnx.Module):
    """Squeeze and excitation: channels weighed by a function of their averages."""

    def __init__(self, body: Layer) -> None:
        self.body = body

    def __call__(self, x: Maps) -> Maps:
        """The weighed channels."""
        return x * self.body(jnp.mean(x, axis=(1, 2), keepdims=True))


class Attention(nnx.Module):
    """Multi-head self-attention of tokens."""

    def __init__(self, inward: Layer, outward: Layer, heads: int) -> None:
        self.inward, self.outward, self.heads = inward, outward, heads

    def __call__(self, x: Float[Array, "image token channel"]) -> Float[Array, "image token channel"]:
        """What each token takes from the others."""
        images, tokens, channels = x.shape
        parts = self.inward(x).reshape(images, tokens, 3, self.heads, channels // self.heads)
        query, key, value = (parts[:, :, number] for number in range(3))
        scores = jnp.einsum("nqhd,nkhd->nhqk", query, key) / np.sqrt(channels // self.heads).astype(x.dtype)
        mixed = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores, axis=-1), value)
        return self.outward(mixed.reshape(x.shape))


def channels_taken(layer: Layer) -> int | None:
    """How many channels a layer takes; None if it takes any number."""
    match layer:
        case Dense():
            return layer.kernel.shape[0]
        case Convolution():
            return layer.kernel.shape[2] * layer.groups
        case BatchNormalization() | LayerNormalization() | Scaling():
            return layer.scale.shape[0]
        case Residual() | Gate():
            return channels_taken(layer.body)
        case Attention():
            return channels_taken(layer.inward)
        case Chain():
            return next((known for one in layer.layers if (known := channels_taken(one)) is not None), None)
    return None

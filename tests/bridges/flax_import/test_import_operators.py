"""Operators with a trap in them, each compared in float64 with values and gradients of torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch", reason="the import of torch modules needs the torch extra")

import torch
from face_jax.bridges.flax_import import to_flax
from face_jax.bridges.flax_import.check import relative_error, to_jax
from side_by_side import SideBySide
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Lambda(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def conv(*arguments: int | tuple[int, int], **options: object) -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(*arguments, **options)  # pyright: ignore[reportArgumentType]


CONVOLUTIONS = {
    "plain": conv(4, 6, 3, padding=1),
    "pointwise": conv(4, 6, 1),
    "pointwise with stride": conv(4, 6, 1, stride=2, bias=False),
    "pointwise with padding": conv(4, 6, 1, padding=1),
    "stride": conv(4, 6, 3, stride=2, padding=1),
    "dilation": conv(4, 6, 3, dilation=2, padding=(2, 1)),
    "oblong": conv(4, 6, (1, 3), padding=(0, 1), stride=(2, 1)),
    "patches": conv(4, 6, 3, stride=3),
    "grouped": conv(4, 6, 3, groups=2, padding=1),
    "depthwise": conv(4, 4, 3, groups=4, padding=1),
    "depthwise with stride and dilation": conv(4, 4, 3, groups=4, stride=2, padding=2, dilation=2),
    "depthwise multiplied": conv(4, 8, 3, groups=4, padding=1),
    "same padding, odd reach": conv(4, 6, 4, padding="same"),
    "reflected": conv(4, 6, 3, padding=1, padding_mode="reflect"),
    "transposed": nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
    "transposed, grouped": nn.ConvTranspose2d(4, 6, (3, 2), stride=(2, 3), groups=2, dilation=2),
    "asymmetric padding": nn.Sequential(nn.ZeroPad2d((0, 1, 2, 0)), conv(4, 6, 3, stride=2)),
    "negative padding": nn.Sequential(nn.ZeroPad2d((-1, 1, 2, -2)), conv(4, 6, 3)),
    "volumes": nn.Sequential(
        nn.Unflatten(1, (2, 2)), nn.Conv3d(2, 4, 2, stride=(1, 2, 3), padding=1, dilation=(1, 2, 1), groups=2)
    ),
    "volumes, transposed": nn.Sequential(
        nn.Unflatten(1, (2, 2)),
        nn.ConvTranspose3d(2, 4, 3, stride=2, padding=1, output_padding=(0, 1, 1), groups=2, bias=False),
    ),
}


@pytest.fixture(scope="module")
def convolutions() -> SideBySide:
    with warnings.catch_warnings():
        # torch says that it may have to copy for the odd reach
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel lengths")
        return SideBySide(CONVOLUTIONS, 4, 8, 7)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions(convolutions: SideBySide, name: str) -> None:
    convolutions.assert_same(name)


POOLS = {
    # Negative inputs: zeros in the padding would win
    "max, padded": lambda x: F.max_pool2d(-x.abs() - 1, 3, 2, 1),
    "max, ceil_mode": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max, ceil_mode, last window in the padding": nn.MaxPool2d(2, 3, 1, ceil_mode=True),
    "max, dilated": nn.MaxPool2d(2, 1, dilation=2),
    "max, large window": nn.MaxPool2d(7, 1, 3),
    "max of ties": lambda x: F.max_pool2d(F.relu(x - 0.5), 3, 2),
    "average": nn.AvgPool2d(3, 2, 1),
    "average without padding": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average, ceil_mode": nn.AvgPool2d(2, 2, ceil_mode=True),
    "average, ceil_mode, padded": nn.AvgPool2d(3, 2, 1, ceil_mode=True),
    "average, ceil_mode without padding": nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "average, own divisor": nn.AvgPool2d(3, 2, divisor_override=5),
    "average, large window": nn.AvgPool2d(7, 1, 3),
    "adaptive, divides": nn.AdaptiveAvgPool2d((4, 7)),
    "adaptive, does not divide": nn.AdaptiveAvgPool2d((3, 5)),
    "adaptive, larger than the picture": nn.AdaptiveAvgPool2d((11, 10)),
    "adaptive, one side kept": nn.AdaptiveAvgPool2d((None, 2)),
    "adaptive maximum": nn.AdaptiveMaxPool2d((3, 5)),
    "adaptive maximum, divides": nn.AdaptiveMaxPool2d((4, 7)),
}


@pytest.fixture(scope="module")
def pools() -> SideBySide:
    return SideBySide(POOLS, 4, 8, 7)


@pytest.mark.parametrize("name", POOLS)
def test_pools(pools: SideBySide, name: str) -> None:
    pools.assert_same(name)


ACTIVATIONS = {
    "hardswish": F.hardswish,
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "clamp between arrays": lambda x: x.clamp(x.new_tensor(-0.5), x[:, :1]),
    "relu in place": lambda x: F.relu_(x * 2),
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "elu": F.elu,
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.5),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "rrelu": lambda x: F.rrelu(x, 0.1, 0.4),
    "atan and tan": lambda x: torch.atan(x) + torch.tan(torch.tanh(x)),
    "softplus": lambda x: F.softplus(30 * x),
    "logsigmoid": F.logsigmoid,
    "softsign": F.softsign,
    "tanhshrink": F.tanhshrink,
    "glu": lambda x: F.glu(x, 1),
    "softmax": lambda x: x.softmax(1),
    "log_softmax": lambda x: x.log_softmax(-1),
    "clamp": lambda x: x.clamp(-0.5, 0.75),
    "powers": lambda x: x**2 + x.pow(3) + (x * x + 1) ** -0.5 + 2**x,
    "norm": lambda x: x / x.norm(dim=1, keepdim=True),
    "normalize": lambda x: F.normalize(x, dim=1),
    "variance": lambda x: x.var(1) + x.std((2, 3), keepdim=True)[:, 0],
    "mean over channels": lambda x: x.mean(1, keepdim=True) * x + x.mean((0, 1))[None, None],
    "sum over everything": lambda x: x * x.sum(),
    "largest": lambda x: x.amax((2, 3)) - x.amin((2, 3)) + x.max(),
    "variance and mean": lambda x: torch.var_mean(x, 1)[0] * torch.var_mean(x, 1)[1] + sum(torch.std_mean(x)),
    "largest along an axis": lambda x: x.max(1).values - x.min(1, keepdim=True).values[:, 0],
    "largest of ties": lambda x: torch.cat([x, x.detach()], 1).max(1).values + torch.cat([x, x.detach()], 1).min(1)[0],
    "where the largest are": lambda x: x * x.max(1).indices[:, None] * x.argmax(2, keepdim=True) + x * x.argmin(),
    "sorted": lambda x: x.sort(-1, descending=True).values * x[..., :1] + x.sort(dim=-1, stable=True).values,
    "some of the largest": lambda x: x.topk(3, 2).values - x.topk(3, 2, largest=False).values * x.topk(3, 2).indices,
    "one-hot": lambda x: x.mean((2, 3)) * F.one_hot(x.mean((2, 3)).argmax(1), 4),
}


@pytest.fixture(scope="module")
def activations() -> SideBySide:
    return SideBySide(ACTIVATIONS, 4, 8, 7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_functions_of_numbers(activations: SideBySide, name: str) -> None:
    activations.assert_same(name)


def test_hardsigmoid_to_the_precision_of_torch() -> None:
    # In float64 torch differentiates it with 1.0f / 6.0f
    x = torch.linspace(-4, 4, 40, dtype=torch.float64).reshape(4, 10)
    network = to_flax(Lambda(F.hardsigmoid), x, gradient_rtol=1e-7)
    assert network.errors is not None
    assert network.errors.values <= 1e-10


@pytest.mark.parametrize("name", ["hardtanh", "relu6", "hardswish", "clamp"])
def test_derivatives_on_the_bounds_are_those_of_torch(name: str) -> None:
    points = torch.tensor([[-3.0, -1.0, -0.5, 0.0, 0.75, 1.0, 3.0, 6.0]], dtype=torch.float64)
    module = Lambda(ACTIVATIONS[name])
    network = to_flax(module, points, check=False)
    ours = jax.grad(lambda x: network(x).sum())(to_jax(points))
    module(points.requires_grad_()).sum().backward()
    np.testing.assert_allclose(ours, np.asarray(points.grad), atol=1e-12)


def _shifted_windows(x: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = x.shape
    x = torch.roll(x.permute(0, 2, 3, 1), shifts=(-1, -2), dims=(1, 2))
    x = x.view(batch, height // 2, 2, width // 2, 2, channels).permute(0, 1, 3, 2, 4, 5)
    mask = x.new_zeros((height, width))
    for place, rows in enumerate((slice(0, -2), slice(-2, None))):
        mask[rows, :3] = place
    return x.reshape(-1, 4, channels) * (1 + mask.reshape(-1, 4).sum(1)[0])


def _in_place(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, 1] += 3
    view = y[:, :2]
    view.mul_(x[:, 2:])
    y.add_(1).relu_()
    return y


def _written_under_masks(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[y < -1] = 0.5
    y[x.mean((2, 3)) > 0] = x[0, 0]
    y[:, torch.tensor([True, False, True, False])] = x[:, 1:2]
    return y


def _written_at_places(x: torch.Tensor) -> torch.Tensor:
    y = x * 2
    y[:, [2, 0]] = x[:, 1:3]
    y[:, :, torch.tensor([1, 3]), torch.tensor([0, 2])] = 0.5
    return y.index_add(1, torch.tensor([3, 3]), x[:, :2])


def _scattered(x: torch.Tensor) -> torch.Tensor:
    places, zeros = x.argsort(1), torch.zeros_like(x)
    replaced = (x * 2).scatter(1, places[:, :2], x[:, :2]).scatter(1, places[:, 2:3, :5], 0.5)
    return replaced + zeros.scatter_add(1, places // 2, x)


SHAPES = {
    "windows rolled by an attention": _shifted_windows,
    "in place, through a view": _in_place,
    "batch in view and expand": lambda x: x.view(x.shape[0] * 2, -1) + x.new_ones(1).expand(x.shape[0] * 2, 1),
    "expanded token": lambda x: torch.cat([x.new_full((1, 1, 6), 0.5).expand(x.shape[0], -1, -1), x.mean(1)], 1),
    "channel shuffle": lambda x: x.view(-1, 2, 2, 8, 6).transpose(1, 2).reshape(x.shape[0], -1, 8, 6),
    "pixel shuffle": lambda x: F.pixel_shuffle(x, 2),
    "patches unfolded": lambda x: F.unfold(x, 3),
    "chunks of unequal size": lambda x: torch.cat(list(x.chunk(4, 3))[::-1], 3),
    "channels split and joined": lambda x: torch.cat([part * k for k, part in enumerate(x.split([1, 3], 1))], 1),
    "slices from the end": lambda x: x[:, -3:-1, ::2] + x[:, :1, 1::2],
    "select and stack": lambda x: torch.stack([x[:, 0], x[:, -1]], -1),
    "index by an array": lambda x: x[:, [3, 0]] * x[:, :1, torch.tensor([1]), torch.tensor([2])][..., None],
    "gathered": lambda x: x.gather(1, x.argsort(1)[:, :2, 1:6]),
    "written under masks": _written_under_masks,
    "written at places": _written_at_places,
    "scattered": _scattered,
    "diagonal": lambda x: x.diagonal(1, 2, 3)[:, :, :4] + x.diagonal(dim1=1, dim2=3)[:, :4],
    "flip and repeat": lambda x: x.flip(1, 3).repeat(1, 2, 1, 1),
    "squeeze": lambda x: x.mean((2, 3), keepdim=True).squeeze(-1).squeeze(),
    "upsampled, bilinear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "upsampled, nearest": lambda x: F.interpolate(x, size=(5, 9)),
    "einsum": lambda x: torch.einsum("b c h w, d c -> b d h w", x, x[0, :, :, 0].t()),
    "product over the last axis": lambda x: x @ x.transpose(-1, -2) @ x[0, 0],
}


@pytest.fixture(scope="module")
def shapes() -> SideBySide:
    return SideBySide(SHAPES, 4, 8, 6)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(shapes: SideBySide, name: str) -> None:
    shapes.assert_same(name)


def _attention(x: torch.Tensor, **options: object) -> torch.Tensor:
    return F.scaled_dot_product_attention(x, x * 2 - 1, x + 1, **options)  # pyright: ignore[reportArgumentType]


class Attention(nn.Module):
    """Attention of an input to itself under a mask."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.options = options
        for name, value in options.items():
            if isinstance(value, torch.Tensor):
                self.register_buffer(name, value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _attention(x, **{name: getattr(self, name, value) for name, value in self.options.items()})


def layer(layer: nn.Module) -> nn.Module:
    """A layer whose weights and statistics are all random and positive."""
    generator = torch.Generator().manual_seed(0)
    for tensor in (*layer.parameters(), *layer.buffers()):
        if tensor.is_floating_point():
            tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return layer


_MASK = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
LAYERS = {
    "attention": Attention(),
    "attention, causal": Attention(is_causal=True),
    "attention, scaled": Attention(scale=0.3),
    "attention, mask of truth values": Attention(attn_mask=(_MASK > 0) | torch.eye(8, dtype=torch.bool)),
    "attention, added mask": Attention(attn_mask=_MASK),
    "attention, a row with nothing to see": Attention(attn_mask=(_MASK > 0) & (torch.arange(8) != 3)[:, None]),
    "batch norm, eps": layer(nn.BatchNorm2d(4, eps=0.3)),
    "batch norm without weights": layer(nn.BatchNorm2d(4, affine=False)),
    "batch norm, the batch's own statistics": layer(nn.BatchNorm2d(4, eps=0.2, track_running_stats=False)),
    "group norm": layer(nn.GroupNorm(2, 4, eps=0.2)),
    "layer norm": layer(nn.LayerNorm([8, 6], eps=0.2)),
    "layer norm over everything": nn.LayerNorm([4, 8, 6], elementwise_affine=False),
    "instance norm": layer(nn.InstanceNorm2d(4, eps=0.2, affine=True)),
    "instance norm, stored statistics": layer(nn.InstanceNorm2d(4, eps=0.2, affine=True, track_running_stats=True)),
    "local response norm": nn.LocalResponseNorm(3, alpha=0.5),
    "dropout": nn.Dropout(0.7),
    "prelu": layer(nn.PReLU(4)),
    "linear on the last axis": layer(nn.Linear(6, 5)),
    "sequence": nn.Sequential(nn.Flatten(2), layer(nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2))),
}


@pytest.fixture(scope="module")
def layers() -> SideBySide:
    return SideBySide(LAYERS, 4, 8, 6)


@pytest.mark.parametrize("name", LAYERS)
def test_layers(layers: SideBySide, name: str) -> None:
    layers.assert_same(name)


def test_transformer_layers_do_not_take_the_fused_path() -> None:
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(12, 3, 16, batch_first=True).requires_grad_(False)
    network = to_flax(encoder.double(), torch.randn(2, 5, 12, dtype=torch.float64))
    assert torch.backends.mha.get_fastpath_enabled()
    assert network.errors is not None
    assert network.errors.gradients <= 1e-10


def test_truth_values_and_integers_are_promoted_as_torch_does() -> None:
    def promoted(x: torch.Tensor) -> torch.Tensor:
        count = torch.arange(x.shape[1])
        chosen = torch.where(count % 2 == 0, count, 2.5)
        return x * (x > 0) + count / 2 + chosen * torch.tensor(2, dtype=torch.float64) + (count // 2) * 0.5

    x = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    module = Lambda(promoted)
    result = to_flax(module, x)(to_jax(x))
    assert result.dtype == jnp.float32
    assert relative_error(result, module(x)) <= 1e-6

"""The channels' axis: found in networks that move it about, however they write that."""

from typing import Any

import numpy as np
import pytest
import small_models as small
import torch
import torchvision
from torch import nn

from face_jax import bridges
from face_jax.model import Preprocess

EIGHT = Preprocess(size=8, resize=8)
IMAGES = np.random.default_rng(0).standard_normal((3, 8, 8, 3)).astype(np.float32)


class Moving(nn.Module):
    """A convolution, an activation after some moving about of axes, and a classifier of averages.

    There are as many channels as places on a side, and as places after pooling: lengths tell nothing.
    """

    def __init__(self, move, places):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d((2, 4))
        self.unfold = nn.Unfold(2, stride=2)
        self.norm = nn.LayerNorm(8)
        self.mixed = nn.Linear(8, 8)
        self.act = nn.ReLU()
        self.fc = nn.LazyLinear(5)
        self.move, self.places = move, places
        self(torch.zeros(1, 3, 8, 8))

    def forward(self, x):
        return self.fc(self.act(self.move(self, self.conv(x))).mean(self.places))


def movedim(net, x):
    return net.norm(x.movedim(1, -1)).movedim(-1, 1)


def moveaxis(net, x):
    return torch.moveaxis(x, 1, -1)


def swapdims(net, x):
    return net.pool(x).flatten(2).swapdims(1, 2)


def transposed(net, x):
    return net.pool(x).flatten(2).mT


def adjoint(net, x):
    return net.pool(x).flatten(2).adjoint()


def mixed_places(net, x):
    return net.mixed(net.pool(x).flatten(2))


def mixed_places_by_product(net, x):
    return (net.mixed.weight @ net.pool(x).flatten(2).mT).mT


def mixer(net, x):
    x = net.pool(x).flatten(2).transpose(1, 2)
    return x + net.mixed(net.norm(x).transpose(1, 2)).transpose(1, 2)


def shuffle(net, x):
    image, channel, y, column = x.shape
    return x.reshape(image, 2, channel // 2, y, column).transpose(1, 2).reshape(image, channel, y, column)


def windows(net, x):
    image, channel, y, column = x.shape
    x = x.view(image, channel, y // 4, 4, column // 4, 4).permute(0, 2, 4, 3, 5, 1).reshape(-1, 16, channel)
    x = net.mixed(x).view(image, y // 4, column // 4, 4, 4, channel)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(image, channel, y, column)


def unfolded(net, x):
    return net.unfold(x)


def layer_norm_of_maps(net, x):
    return nn.functional.layer_norm(x, (8, 8, 8))


def reduced(net, x):
    return x.amax(3).transpose(1, 2)


def halves(net, x):
    first, second = x.movedim(1, -1).chunk(2, dim=-1)
    return torch.cat([second, first], dim=-1)


def heads(net, x):
    x = net.pool(x).flatten(2).transpose(1, 2)
    query = net.mixed(x).unflatten(2, (2, 4)).transpose(1, 2)
    return ((query @ query.transpose(2, 3)).softmax(-1) @ query).transpose(1, 2).flatten(2)


def attention_of_channels(net, x):
    x = net.pool(x).flatten(2)
    return (x @ x.transpose(1, 2)).softmax(-1) @ x


# What is done, the channels' axis of the activation, the axes of places
MOVES = [
    (movedim, 1, (2, 3)),
    (moveaxis, 3, (1, 2)),
    (swapdims, 2, 1),
    (transposed, 2, 1),
    (adjoint, 2, 1),
    (mixed_places, 1, 2),
    (mixed_places_by_product, 1, 2),
    (mixer, 2, 1),
    (shuffle, 1, (2, 3)),
    (windows, 1, (2, 3)),
    (unfolded, 1, 2),
    (layer_norm_of_maps, 1, (2, 3)),
    (reduced, 2, 1),
    (halves, 3, (1, 2)),
    (heads, 2, 1),
    (attention_of_channels, 1, 2),
]


# Each token is made of all places: they lie nowhere on the picture.
NEW_TOKENS = (mixed_places, mixed_places_by_product)


def activation(model, layer):
    """What a module hands on, as a hook sees it."""
    seen = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, given, result: seen.append(result))
    with torch.no_grad():
        model(torch.from_numpy(IMAGES).movedim(-1, 1))
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(("move", "axis", "places"), MOVES, ids=[move.__name__ for move, *_ in MOVES])
def test_channels_come_last_wherever_they_were(move, axis, places):
    model = small.randomized(Moving(move, places))
    grid: dict[str, Any] = {"grid": (8, 1)} if move in NEW_TOKENS else {}
    maps = np.asarray(bridges.split(model, "act", preprocess=EIGHT, **grid).features(IMAGES))
    expected = activation(model, "act").movedim(axis, -1)
    if expected.ndim == 3:
        expected = expected.reshape(maps.shape)
    assert maps.shape == expected.shape
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("move", "axis", "places"), MOVES[4:9], ids=[move.__name__ for move, *_ in MOVES[4:9]])
def test_channels_come_last_in_exported_networks_as_well(move, axis, places):
    class Exported(Moving):
        def forward(self, x):
            return super().forward(x if x.shape[-1] > 4 else 2 * x)  # control flow, which symbols can't follow

    model = small.randomized(Exported(move, places))
    grid: dict[str, Any] = {"grid": (8, 1)} if move in NEW_TOKENS else {}
    maps = np.asarray(bridges.split(model, "act", preprocess=EIGHT, **grid).features(IMAGES))
    expected = activation(model, "act").movedim(axis, -1)
    np.testing.assert_allclose(maps.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("shufflenet_v2_x0_5", "stage4", (2, 2, 192)),
        ("swin_t", "features.5", (4, 4, 384)),
        ("convnext_tiny", "features.5", (4, 4, 384)),
    ],
)
def test_stages_of_torchvisions_networks(name, layer, shape):
    model = torchvision.models.get_model(name, weights=None).eval()
    found = {place.name: place.shape for place in bridges.layers(model, size=64)}
    assert found[layer] == shape


class Ensemble(nn.Module):
    """The logits of as many classifiers as the default example has images, stacked and averaged."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.first, self.second = nn.Linear(8, 5), nn.Linear(8, 5)

    def forward(self, x):
        x = self.conv(x).relu().mean((2, 3))
        return torch.stack([self.first(x), self.second(x)]).mean(0)


def test_a_first_axis_that_is_not_the_images_is_no_place():
    names = [place.name for place in bridges.layers(small.randomized(Ensemble()), size=8)]
    assert names == ["conv", "relu", "mean"]


def test_two_axes_of_channels_are_no_place():
    def two_axes(net, x):
        return net.pool(x).flatten(2).unflatten(1, (2, 4))

    model = small.randomized(Moving(two_axes, (2, 3)))
    names = [place.name for place in bridges.layers(model, size=8)]
    assert "flatten" in names
    assert "act" not in names
    assert "mean" in names

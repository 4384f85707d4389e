"""Tokens' places on the picture: found however patches are made and ordered, with any tokens beside them."""

import numpy as np
import pytest
import small_models as small
import torch
import torchvision
from face_jax.bridges.splitting.dominators import NotACutError
from torch import nn

from face_jax import bridges
from face_jax.model import Preprocess

SIDE = Preprocess(size=16, resize=16)
# One quadrant is bright, in pictures that are higher than wide: 4 × 3 patches of 4 × 4 pixels.
BRIGHT = np.zeros((2, 16, 12, 3), np.float32)
BRIGHT[:, :8, :4] = 1.0
WHERE = np.zeros((4, 3))
WHERE[:2, :1] = 1.0


class Patches(nn.Module):
    """Tokens whose first channel is how bright their patch is, made and rearranged in some way, then attention."""

    def __init__(self, make, arrange=None, read=None, prefix=0):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4, bias=False)
        self.embed = nn.Linear(48, 8, bias=False)
        self.unfold = nn.Unfold(4, stride=4)
        self.token = nn.Parameter(torch.randn(1, prefix, 8, generator=torch.Generator().manual_seed(0)))
        self.act = nn.ReLU()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 5)
        self.make, self.arrange, self.read = make, arrange, read
        small.randomized(self)
        with torch.no_grad():
            self.conv.weight[0] = self.embed.weight[0] = 0.0
            self.conv.weight[0], self.embed.weight[0] = 1 / 48, 1 / 48

    def forward(self, x):
        x = self.make(self, x)
        x = self.act(x if self.arrange is None else self.arrange(self, x))
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.fc(x.mean(1) if self.read is None else self.read(self, x))


def by_convolution(net, x):
    return net.conv(x).flatten(2).transpose(1, 2)


def by_moving_pixels(net, x):
    image, colour, y, column = x.shape
    x = x.reshape(image, colour, y // 4, 4, column // 4, 4).permute(0, 2, 4, 3, 5, 1)
    return net.embed(x.flatten(3).flatten(1, 2))


def by_unfolding(net, x):
    return net.embed(net.unfold(x).transpose(1, 2))


def by_columns(net, x):
    return net.conv(x).transpose(2, 3).flatten(2).transpose(1, 2)


def upside_down(net, x):
    return net.conv(x.flip(2)).flatten(2).transpose(1, 2)


def channels_last(net, x):
    return net.conv(x).permute(0, 2, 3, 1).flatten(1, 2)


@pytest.mark.parametrize(
    "make", [by_convolution, by_moving_pixels, by_unfolding, by_columns, upside_down, channels_last]
)
def test_a_bright_quadrant_is_where_it_is_however_patches_are_made(make):
    split = bridges.split(Patches(make).eval(), "act", preprocess=SIDE, example_inputs=BRIGHT)
    maps = np.asarray(split.features(BRIGHT))
    assert maps.shape == (2, 4, 3, 8)
    np.testing.assert_allclose(maps[0, :, :, 0], WHERE, atol=1e-6)
    assert split.with_tokens is None


def before(net, x):
    return torch.cat([net.token.expand(x.shape[0], -1, -1), x], dim=1)


def behind(net, x):
    return torch.cat([x, net.token.expand(x.shape[0], -1, -1)], dim=1)


def on_both_sides(net, x):
    first, last = net.token.expand(x.shape[0], -1, -1).split([1, 2], dim=1)
    return torch.cat([first, x, last], dim=1)


def turned_and_with_positions(net, x):
    x = before(net, x) + torch.linspace(0, 1e-4, x.shape[1] + 3)[None, :, None]
    return x.roll(5, dims=1)


@pytest.mark.parametrize("arrange", [before, behind, on_both_sides, turned_and_with_positions])
def test_tokens_beside_the_patches_are_told_from_them_wherever_they_stand(arrange):
    model = Patches(by_convolution, arrange, lambda net, x: x[:, :2].mean(1), prefix=3).eval()
    split = bridges.split(model, "act", preprocess=SIDE, example_inputs=BRIGHT)
    maps, tokens = split.with_tokens(BRIGHT)
    np.testing.assert_allclose(maps[0, :, :, 0], WHERE, atol=1e-3)
    np.testing.assert_allclose(tokens[1], model.token[0].detach().relu(), atol=1e-3)
    with torch.no_grad():
        logits = model(torch.from_numpy(BRIGHT).movedim(-1, 1))
    np.testing.assert_allclose(split.head(maps, tokens), logits, rtol=1e-4, atol=1e-5)
    (place,) = [place for place in bridges.layers(model, example_inputs=BRIGHT) if place.name == "act"]
    assert (place.shape, place.prefix, place.told, place.reaches) == ((4, 3, 8), 3, True, True)


def test_tokens_pooled_by_attention_are_a_map_before_it_and_one_place_behind():
    def pooled(net, x):
        return net.attention(net.token.expand(x.shape[0], -1, -1), x, x, need_weights=False)[0][:, 0]

    model = Patches(by_convolution, None, pooled, prefix=1).eval()
    found = {place.name: place for place in bridges.layers(model, example_inputs=BRIGHT)}
    assert (found["act"].shape, found["act"].prefix) == ((4, 3, 8), 0)
    assert all(place.reaches for place in found.values())
    assert [place.shape for place in found.values()][-1] == (1, 1, 8)


def sorted_tokens(net, x):
    return x.sort(1)[0]


def of_all_places(net, x):
    return nn.functional.linear(x.transpose(1, 2), net.embed.weight.flatten()[:144].view(12, 12)).transpose(1, 2)


@pytest.mark.parametrize("arrange", [sorted_tokens, of_all_places])
def test_where_places_cannot_be_told_their_grid_is_asked_for(arrange):
    model = Patches(by_convolution, arrange).eval()
    with pytest.raises(ValueError, match=r"'act' has a row of 12 tokens, .*grid=\(14, 14\), prefix=1"):
        bridges.split(model, "act", preprocess=SIDE, example_inputs=BRIGHT)
    split = bridges.split(model, "act", preprocess=SIDE, example_inputs=BRIGHT, grid=(2, 5), prefix=2)
    maps, tokens = split.with_tokens(BRIGHT)
    assert (maps.shape, tokens.shape) == ((2, 2, 5, 8), (2, 2, 8))
    places = bridges.layers(model, example_inputs=BRIGHT)
    assert [place.told for place in places if place.name == "act"] == [False]
    assert "with grid=(y, x)" in repr(places)
    assert bridges.suggest_layer(places).told


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"grid": (4, 4)}, r"grid=\(4, 4\) and prefix=0 make 16 tokens, and layer='act' has 12"),
        ({"grid": 12}, "grid=12 is no height and width"),
        ({"prefix": 1}, r"prefix=1 is given without the grid"),
        ({"grid": (4, 3), "layer": "conv"}, r"layer='conv' has no row of tokens"),
    ],
)
def test_grids_that_do_not_fit_are_refused(given, said):
    model = Patches(by_convolution).eval()
    with pytest.raises(ValueError, match=said):
        bridges.split(model, **{"layer": "act", "preprocess": SIDE, "example_inputs": BRIGHT, **given})


def test_pictures_of_another_size_are_refused_in_words():
    split = bridges.split(Patches(by_convolution).eval(), "act", preprocess=SIDE)
    with pytest.raises(ValueError, match=r"12 tokens of these pictures, and had 16 .* split the network for these"):
        split.features(BRIGHT)


def tiny_vit(**settings):
    """Torchvision's vision transformer; as many places on a side as there are channels in a head."""
    torch.manual_seed(0)
    return torchvision.models.VisionTransformer(
        image_size=16, patch_size=4, num_layers=5, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=5, **settings
    ).eval()


@pytest.mark.parametrize("trained", [True, False], ids=["trained", "a last layer of zeros"])
def test_a_vision_transformer_is_split_where_its_patches_reach_the_logits(trained):
    model = tiny_vit()
    if trained:
        nn.init.normal_(model.heads.head.weight)
    places = bridges.layers(model, size=16)
    blocks = {place.name: place for place in places if place.name.startswith("encoder.layers")}
    assert all(place.shape == (4, 4, 8) and place.prefix == 1 for place in blocks.values())
    reached = [name for name, place in blocks.items() if place.reaches]
    assert reached[-1] == "encoder.layers.encoder_layer_4.add" or reached[-1] == "encoder.layers.encoder_layer_3"
    assert not blocks["encoder.layers"].reaches
    with pytest.raises(NotACutError, match=r"reads its class token alone.*choose an earlier layer, such as 'encoder"):
        bridges.split(model, "encoder.layers", preprocess=SIDE)
    (taken,) = [place.name for place in places if place.taken == "by default"]
    assert taken == bridges.suggest_layer(places).name == "encoder.layers.encoder_layer_1"
    assert [place.name for place in places if place.taken == "by --depth 1"] == ["encoder.layers.encoder_layer_0"]
    if trained:
        # Torch's derivative says the same.
        tokens = torch.randn(2, 17, 8, requires_grad=True)
        model.heads(model.encoder.ln(tokens)[:, 0]).sum().backward()
        assert not tokens.grad[:, 1:].any()


def test_patches_partitioned_into_windows_are_put_back_on_the_picture():
    model = torchvision.models.MaxVit(
        input_size=(32, 32), stem_channels=8, block_channels=[8], block_layers=[1], partition_size=2, head_dim=8,
        stochastic_depth_prob=0.0,
    ).eval()  # fmt: skip
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3)).astype(np.float32)
    seen = {}
    block = model.blocks[0].layers[0].layers
    block.MBconv.register_forward_hook(lambda module, given, result: seen.update(maps=result))
    with torch.no_grad():
        model(torch.from_numpy(images).movedim(-1, 1))
    block.MBconv._forward_hooks.clear()
    name = "blocks.0.layers.0.layers.window_attention.partition_op"
    split = bridges.split(model, name, preprocess=Preprocess(size=32, resize=32))
    np.testing.assert_allclose(split.features(images), seen["maps"].movedim(1, -1), rtol=1e-5, atol=1e-5)

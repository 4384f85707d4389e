"""Torch networks of any channels, of inputs that aren't square too: split, or refused with both numbers."""

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import transforms

import face_jax as fj
from face_jax import bridges
from face_jax.attribution import attribution_method


def network(channels: int) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 6, 4, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2)
    ).eval()


def plain(channels: int, **settings) -> fj.Preprocess:
    return fj.Preprocess(size=(24, 40), resize=40, mean=(0.0,) * channels, std=(1.0,) * channels, **settings)


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_networks_take_what_their_preprocessing_makes(channels):
    model = network(channels)
    split = bridges.split(model, "1", preprocess=plain(channels))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 50, 60, channels), np.uint8)
    inputs = split.preprocess(pixels)
    assert inputs.shape == (2, 24, 40, channels)
    with torch.no_grad():
        expected = model[:2](torch.from_numpy(np.moveaxis(inputs, -1, 1))).movedim(1, -1)
    np.testing.assert_allclose(split.features(inputs), expected, rtol=1e-5, atol=1e-6)
    assert bridges.load(model, preprocess=plain(channels)).split("1").fingerprint == split.fingerprint
    assert bridges.layers(model, size=(24, 40))[0].shape == (6, 10, 6)
    maps = attribution_method("saliency")(split, np.eye(6, dtype=np.float32)[:2], inputs)
    assert maps.shape == (2, 2, 24, 40)


@pytest.mark.parametrize(("takes", "makes"), [(1, 3), (3, 1), (4, 3), (5, 4)])
def test_a_network_of_other_channels_than_its_preprocessing_is_refused_with_both(takes, makes):
    said = (
        rf"takes pictures of {takes} channels? \(its layer '0'\), and preprocess makes {makes} channels? .*{takes} numb"
    )
    with pytest.raises(ValueError, match=said):
        bridges.split(network(takes), "1", preprocess=plain(makes))


def test_a_network_without_convolutions_takes_as_many_channels_as_it_runs_with():
    class OfPlaces(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.act, self.fc = nn.Linear(28, 5), nn.ReLU(), nn.Linear(5, 2)

        def forward(self, images):
            return self.fc(self.act(self.inner(images.reshape(len(images), 1, 28, 28))).mean((1, 2)))

    model = OfPlaces().eval()
    mnist = fj.Preprocess(size=28, resize=28, mean=(0.13,), std=(0.31,))
    assert bridges.split(model, "act", preprocess=mnist).preprocess.shape == (28, 28, 1)
    with pytest.raises(ValueError, match="takes pictures of 1 channel, and preprocess makes 3 channels"):
        bridges.split(model, "act", preprocess=fj.Preprocess(size=28, resize=28))


def test_transforms_and_functions_of_other_sizes_are_split_with():
    grey = transforms.Compose([transforms.Resize((24, 40)), transforms.Grayscale(), transforms.ToTensor()])
    split = bridges.split(network(1), "1", preprocess=grey)
    assert isinstance(split.preprocess, fj.Transform)
    assert split.preprocess.shape == (24, 40, 1)
    with pytest.raises(ValueError, match=r"takes pictures of 3 channels .* preprocess makes 1 channel"):
        bridges.split(network(3), "1", preprocess=grey)

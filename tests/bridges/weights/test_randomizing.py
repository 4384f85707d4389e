"""Networks that forget, from the top."""

import numpy as np
import pytest
import torch
import torchvision
from face_jax.bridges.weights.randomizing import Reinitialized, Shuffled, randomized
from torch import nn

from face_jax import bridges
from face_jax.model import Preprocess


class Scale(nn.Module):
    """A parameter of its own and no way to reset it."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 5)[None, :, None, None])

    def forward(self, x):
        return x * self.scale


class Small(nn.Module):
    """Its modules are declared in another order than they run in."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(5, 3)
        self.first = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 5, 3)
        self.scale = Scale()
        self.relu = nn.ReLU()

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        return self.last(self.relu(self.scale(self.second(x))).mean((2, 3)))


def trained() -> Small:
    generator = torch.Generator().manual_seed(3)
    model = Small()
    with torch.no_grad():
        for tensor in (*model.parameters(), model.norm.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        model.norm.running_var.copy_(torch.rand(4, generator=generator) + 0.5)
    return model.eval()


OPTIONS = {"preprocess": Preprocess(size=8, resize=8), "classes": ("a", "b", "c")}
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


def logits(split) -> np.ndarray:
    return np.asarray(split.head(split.features(IMAGES)))


@pytest.fixture(scope="module")
def stages():
    return dict(randomized(trained(), "relu", steps=5, **OPTIONS))


def test_modules_are_forgotten_in_the_order_in_which_they_run(stages):
    passed = ["last", "scale", "second", "norm", "first"]
    assert list(stages) == ["as trained", *(f"down to {name}" for name in passed), "all at once"]


def test_each_stage_changes_the_network_and_the_model_stays():
    model = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    stages = list(randomized(model, "relu", steps=5, **OPTIONS))
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
    with torch.no_grad():
        expected = model(torch.from_numpy(IMAGES).movedim(-1, 1)).numpy()
    np.testing.assert_allclose(logits(stages[0][1]), expected, rtol=1e-5, atol=1e-5)
    every = [logits(split) for _, split in stages]
    for first in range(len(every)):
        for second in range(first):
            assert np.abs(every[first] - every[second]).max() > 1e-4
    # Above the layer only the head has changed.
    np.testing.assert_array_equal(stages[1][1].features(IMAGES), stages[0][1].features(IMAGES))
    assert len({split.fingerprint for _, split in stages}) == len(stages)


def test_a_seed_fixes_the_numbers():
    runs = [[logits(s) for _, s in randomized(trained(), "relu", steps=2, seed=seed, **OPTIONS)] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0][1] - runs[2][1]).max() > 1e-4


def test_reinitialized_modules_are_as_before_training(stages):
    module = stages["down to first"].features.module
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    assert [float(norm.running_mean.abs().max()) for norm in norms] == [0.0]
    scale = Scale()
    mean, spread = float(scale.scale.detach().mean()), float(scale.scale.detach().std())
    with torch.no_grad():
        Reinitialized()(scale)
    assert not torch.equal(scale.scale, Scale().scale)
    assert abs(float(scale.scale.detach().mean()) - mean) < 3 * spread


def test_shuffled_modules_keep_their_values():
    module = trained().norm
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.no_grad():
        Shuffled()(module)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor.flatten().sort().values, before[name].flatten().sort().values)
    assert any(not torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


class Gain(nn.Module):
    """A number of its own, statistics that are saved, a table that isn't, and a mask."""

    mean: torch.Tensor
    mask: torch.Tensor
    table: torch.Tensor

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor([3.0]))
        self.register_buffer("mean", torch.full((4,), -2.0))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.register_buffer("table", torch.linspace(0, 1, 4), persistent=False)


@pytest.mark.parametrize("fresh", [Reinitialized(), Shuffled()])
def test_nothing_trained_is_left(fresh):
    frozen = torchvision.ops.FrozenBatchNorm2d(200)
    generator = torch.Generator().manual_seed(1)
    for name, buffer in frozen.named_buffers():
        buffer.copy_(torch.rand(200, generator=generator) - (0.5 if name in ("bias", "running_mean") else 0))
    gain = Gain()
    before = [
        {name: tensor.clone() for name, tensor in module.named_buffers()} | dict(module.named_parameters())
        for module in (frozen, gain)
    ]
    before[1]["gain"] = gain.gain.detach().clone()
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        fresh(frozen)
        fresh(gain)
    assert all((tensor != before[0][name]).float().mean() > 0.9 for name, tensor in frozen.named_buffers())
    assert frozen.running_var.min() >= 0
    assert frozen.weight.min() >= 0
    assert frozen.running_mean.min() < 0
    assert gain.gain.item() != 3
    assert gain.gain.item() > 0
    assert isinstance(fresh, Shuffled) or (gain.mean != before[1]["mean"]).all()
    assert torch.equal(gain.mask, before[1]["mask"])
    assert torch.equal(gain.table, before[1]["table"])


def test_what_cannot_be_forgotten_is_said():
    with pytest.raises(ValueError, match="steps=0"):
        randomized(trained(), "relu", steps=0, **OPTIONS)
    with pytest.raises(ValueError, match="has no weights"):
        randomized(nn.Sequential(nn.ReLU(), nn.Flatten()), "0", **OPTIONS)


def test_it_is_public():
    assert bridges.randomized is randomized

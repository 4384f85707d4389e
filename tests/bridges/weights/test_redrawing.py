"""That nothing trained is left, wherever a network keeps its weights."""

from typing import Any

import numpy as np
import pytest
import torch
from face_jax.bridges import TorchHead
from face_jax.bridges.torch_features import features_of
from face_jax.bridges.weights.randomizing import Reinitialized, Shuffled, randomized
from torch import nn
from torch.nn.utils import parametrizations, prune

from face_jax.heads import Affine
from face_jax.model import Preprocess

OPTIONS = {"preprocess": Preprocess(size=8, resize=8), "steps": 1}
IMAGES = torch.from_numpy(np.random.default_rng(0).random((2, 3, 8, 8), np.float32))


class Colours(nn.Module):
    """A convolution, a rectifier and a linear layer, one of which a test replaces."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.act = nn.ReLU()
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.act(self.conv(x)).mean((2, 3)))


class PartlyReset(nn.Conv2d):
    """Its reset forgets the kernel and half of another parameter, which is less than it has."""

    def __init__(self):
        super().__init__(3, 6, 3)
        self.gain = nn.Parameter(torch.rand(6))
        self.levels = nn.Parameter(torch.rand(2, 6))

    def reset_parameters(self):
        super().reset_parameters()
        if hasattr(self, "levels"):
            self.levels[0].zero_()

    def forward(self, input):
        return super().forward(input) * self.gain[:, None, None] + self.levels.sum(0)[:, None, None]


class ResetWithArgument(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(6))

    def reset_parameters(self, spread):
        self.weight.normal_(0, spread)

    def forward(self, x):
        return x * self.weight[:, None, None]


class OtherNumbers(nn.Module):
    """Complex and whole numbers, a short integer table of weights, positions, and a tensor that nobody registered."""

    short: torch.Tensor
    position: torch.Tensor

    def __init__(self):
        super().__init__()
        self.wave = nn.Parameter(torch.randn(6, dtype=torch.cfloat))
        self.whole = nn.Parameter(torch.tensor([1, -2, 3, 4, -5, 6]), requires_grad=False)
        self.register_buffer("short", torch.tensor([7, -8, 9, 1, 2, 3], dtype=torch.int8))
        self.register_buffer("position", torch.arange(6))
        self.plain = torch.rand(6, requires_grad=True)

    def forward(self, x):
        scale = self.wave.real * self.whole * self.short * self.plain
        return x * scale[self.position][:, None, None]


def behind(part):
    def build(model):
        model.conv = nn.Sequential(model.conv, part())

    return build


def replaced(name, change):
    def build(model):
        setattr(model, name, change(getattr(model, name)))

    return build


def twice_pruned(model):
    prune.l1_unstructured(model.fc, "weight", 0.5)
    prune.random_unstructured(model.fc, "weight", 0.3)


def tied(model):
    model.conv = nn.Sequential(model.conv, nn.Conv2d(6, 6, 1), nn.ReLU(), nn.Conv2d(6, 6, 1))
    model.conv[3].weight = model.conv[1].weight


NETWORKS = {
    "weight norm": replaced("conv", nn.utils.weight_norm),
    "weight norm, fc": replaced("fc", nn.utils.weight_norm),
    "spectral norm": replaced("conv", nn.utils.spectral_norm),
    "spectral norm, fc": replaced("fc", nn.utils.spectral_norm),
    "parametrized weight norm": replaced("conv", parametrizations.weight_norm),
    "parametrized spectral norm": replaced("conv", parametrizations.spectral_norm),
    "orthogonal": replaced("fc", parametrizations.orthogonal),
    "both": replaced("conv", lambda conv: parametrizations.spectral_norm(parametrizations.weight_norm(conv))),
    "pruned": twice_pruned,
    "partly reset": replaced("conv", lambda conv: PartlyReset()),
    "reset with an argument": behind(ResetWithArgument),
    "other numbers": behind(OtherNumbers),
    "tied": tied,
    "statistics": behind(lambda: nn.BatchNorm2d(6, affine=False)),
    "no parameters": behind(lambda: nn.GroupNorm(2, 6, affine=False)),
}


def trained(build) -> Any:
    torch.manual_seed(0)
    model = Colours()
    build(model)
    with torch.no_grad():
        model.train()(IMAGES)
        for part in model.modules():
            if isinstance(getattr(part, "bias", None), nn.Parameter):
                part.bias.normal_()  # pyright: ignore[reportCallIssue]
    return model.eval()


def tensors(model):
    plain = {
        f"{name}.{key}": value
        for name, part in model.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, torch.Tensor) and value.requires_grad
    }
    return {**model.state_dict(), **plain}


@pytest.mark.filterwarnings("ignore:`torch.nn.utils")
@pytest.mark.parametrize("fresh", [Reinitialized(), Shuffled()], ids=["reinitialized", "shuffled"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_number_that_was_trained_is_another_one(network, fresh):
    model = trained(NETWORKS[network])
    before = {name: tensor.clone() for name, tensor in tensors(model).items()}
    *_, (title, last) = randomized(model, "act", fresh=fresh, **OPTIONS)
    assert title == "all at once"
    after = tensors(features_of(last).module)
    if not last.head.affine:
        assert isinstance(last.head, TorchHead)
        after |= tensors(last.head.module)
    compared = [name for name in after if name in before and not name.endswith(("position", "num_batches_tracked"))]
    assert compared
    left = [name for name in compared if torch.equal(after[name], before[name])]
    # A pruned or spectrally normed part that isn't redrawn shows in what the network computes, too.
    assert not left
    images = IMAGES.movedim(1, -1).numpy()
    assert np.isfinite(np.asarray(last.head(last.features(images)))).all()
    if last.head.affine:
        assert isinstance(last.head, Affine)
        own = model.fc.weight.detach().numpy().T
        assert np.abs(np.asarray(last.head.kernel) - own).max() > 1e-3


def test_elements_that_a_reset_leaves_alone_are_drawn():
    module = PartlyReset()
    before = module.levels.detach().clone(), module.gain.detach().clone()
    with torch.no_grad():
        Reinitialized()(module)
    assert torch.equal(module.levels[0], torch.zeros(6))
    assert bool((module.levels[1] != before[0][1]).all())
    assert bool((module.gain != before[1]).all())
    assert module.gain.min() >= 0


@pytest.mark.filterwarnings("ignore:`torch.nn.utils")
@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, parametrizations.spectral_norm])
def test_spectral_norms_are_one_with_the_new_weights(norm):
    model = trained(replaced("conv", norm))
    *_, (_, last) = randomized(model, "act", **OPTIONS)
    network = features_of(last).module
    with torch.no_grad():
        network(IMAGES)
    weight = network.get_submodule("conv").weight.detach().flatten(1)  # pyright: ignore[reportCallIssue]
    assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1, rel=1e-2)


def test_orthogonal_weights_stay_orthogonal():
    model = trained(replaced("fc", parametrizations.orthogonal))
    *_, (_, last) = randomized(model, "act", **OPTIONS)
    assert isinstance(last.head, Affine)
    kernel = np.asarray(last.head.kernel)
    np.testing.assert_allclose(kernel.T @ kernel, np.eye(4), atol=1e-5)


def test_masks_stay_masks_of_as_many_ones():
    model = trained(twice_pruned)
    before = model.fc.weight_mask.clone()
    with torch.no_grad():
        Reinitialized()(model.fc)
    after = model.fc.weight_mask
    assert not torch.equal(after, before)
    assert set(after.unique().tolist()) == {0.0, 1.0}
    assert after.sum() == before.sum()


def test_a_table_that_its_reset_makes_again_is_no_error():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.empty(6))
            self.reset_parameters()

        @torch.no_grad()
        def reset_parameters(self):
            self.table.copy_(torch.sin(torch.arange(6.0)))

        def forward(self, x):
            return x + self.table[:, None, None]

    *_, (_, last) = randomized(trained(behind(Table)), "act", **OPTIONS)
    assert torch.equal(features_of(last).module.state_dict()["conv.1.table"], torch.sin(torch.arange(6.0)))


def test_a_rule_that_leaves_weights_is_refused_by_their_name():
    class Forgetful:
        def __call__(self, module):
            if isinstance(module, nn.Conv2d):
                module.weight.normal_()

        def __repr__(self):
            return "Forgetful()"

    with pytest.raises(ValueError, match=r"fresh=Forgetful\(\) left fc\.weight, fc\.bias as trained"):
        list(randomized(trained(lambda model: None), "act", fresh=Forgetful(), **OPTIONS))


def test_a_reset_that_fails_is_named():
    class Failing(ResetWithArgument):
        def reset_parameters(self, spread=1.0):
            raise RuntimeError("call setup() first")

    with pytest.raises(ValueError, match=r"conv\.1 \(Failing\) can't be drawn again .*call setup\(\) first"):
        list(randomized(trained(behind(Failing)), "act", **OPTIONS))


def test_weights_in_a_list_of_pythons_are_refused():
    model = trained(lambda model: None)
    model.blocks = [nn.Conv2d(6, 6, 1)]
    with pytest.raises(ValueError, match=r"blocks of the model holds modules .* in a list, .*torch\.nn\.ModuleList"):
        list(randomized(model, "act", **OPTIONS))

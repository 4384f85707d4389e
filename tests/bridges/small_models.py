"""Small torch classifiers with random, non-trivial weights, each with one trap in it."""

from typing import Any

import torch
from torch import nn


def randomized(model: nn.Module, seed: int = 0) -> Any:
    """Random weights everywhere, batch-norm statistics too, so that no error hides behind a zero or a one.

    Gives the module, whose parts torch can't tell the types of.
    """
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(0.2 * torch.randn(module.running_mean.shape, generator=random))
                module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=random))
                module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=random))
                module.bias.copy_(0.2 * torch.randn(module.bias.shape, generator=random))
            elif isinstance(module, nn.Linear | nn.Conv2d):
                scale = (2 / module.weight[0].numel()) ** 0.5
                module.weight.copy_(scale * torch.randn(module.weight.shape, generator=random))
                if module.bias is not None:
                    module.bias.copy_(0.2 * torch.randn(module.bias.shape, generator=random))
            elif isinstance(module, nn.MultiheadAttention | Tokens):
                # Parameters that belong to no layer of their own. (torch starts attention from its global state.)
                for parameter in module.parameters(recurse=False):
                    scale = parameter.shape[-1] ** -0.5
                    parameter.copy_(scale * torch.randn(parameter.shape, generator=random))
    return model.eval()


class Plain(nn.Module):
    """Convolution, batch norm, ReLU in place, twice; average; linear: a head that is affine."""

    def __init__(self, channels: int = 6, classes: int = 5):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.Conv2d(4, channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        return self.fc(self.dropout(torch.flatten(self.pool(self.body(x)), 1)))


class SharedActivation(nn.Module):
    """One ReLU under two names that runs three times, around a residual."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.also = self.act
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        batch = x.size(0)
        x = self.act(self.first(x))
        y = self.also(self.second(x))
        x = self.act(self.second(y) + x)
        return self.fc(x.mean((2, 3)).view(batch, -1))


class Branching(nn.Module):
    """Python control flow on the input's shape, which symbols can't follow; a flag with a default."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU()
        self.fc = nn.Linear(6, 5)

    def forward(self, x, scale: float = 2.0):
        x = self.act(self.conv(x))
        x = x * scale if x.shape[-1] > 4 else x
        return self.fc(x.mean((2, 3)))


class OutOfSight(nn.Module):
    """Overwrites a tensor and drops the result, which symbolic tracing loses."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.conv(x)
        self.act(x)
        return self.fc(x.mean((2, 3)))


class ValueDependent(nn.Module):
    """Control flow on a tensor's value: nothing can follow it."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 5)

    def forward(self, x):
        x = x.mean((2, 3))
        return self.fc(x) if x.sum() > 0 else self.fc(-x)


class Tokens(nn.Module):
    """Patches as tokens behind a class token, one block of attention: a vision transformer in small."""

    def __init__(self, width: int = 8):
        super().__init__()
        self.patch = nn.Conv2d(3, width, 4, stride=4)
        self.token = nn.Parameter(torch.ones(1, 1, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.final = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 5)

    def forward(self, x):
        x = self.patch(x).flatten(2).permute(0, 2, 1)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.fc(self.final(x)[:, 0])


class ChannelsLast(nn.Module):
    """Keeps channels last in four axes, as transformers on grids do; a square of as many places as channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.act = nn.ReLU()
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.act(self.norm(self.conv(x).permute(0, 2, 3, 1)))
        return self.fc(x.permute(0, 3, 1, 2).mean((2, 3)))


class NormedHead(nn.Module):
    """A batch norm between average and linear layer: affine, but of two parts."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU()
        self.norm = nn.BatchNorm1d(6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.norm(self.act(self.conv(x)).mean((2, 3))))


class FlatHead(nn.Module):
    """A linear layer over all places: affine in the map, but not in its averages."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.fc = nn.Linear(6 * 64, 5)

    def forward(self, x):
        return self.fc(torch.flatten(self.act(self.conv(x)), 1))


class ClassToken(nn.Module):
    """A linear layer of zeros on one place: looks affine in the averages, as zero times anything."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU()
        self.fc = nn.Linear(6, 5)
        nn.init.zeros_(self.fc.weight)

    def forward(self, x):
        return self.fc(self.act(self.conv(x)).flatten(2).permute(0, 2, 1)[:, 0])


class Squeezing(nn.Module):
    """Drops every axis of one, of a batch of one too."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.hidden = nn.Linear(6, 6)
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        return self.fc(self.act(self.hidden(self.pool(self.conv(x)).squeeze())))


class NumberedNames(nn.Module):
    """A ReLU that runs twice, and another that is called as the first one's second run would be."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 1), nn.Conv2d(6, 6, 1)
        self.relu, self.relu_1 = nn.ReLU(), nn.ReLU()
        self.also = self.relu
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.relu(self.second(self.relu(self.first(x))))
        return self.fc(self.relu_1(self.third(x)).mean((2, 3)))


class Encoder(nn.Module):
    """Torch's own transformer over patches; with `branch`, behind control flow that symbols can't follow."""

    def __init__(self, *, norm_first: bool = False, branch: bool = False):
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, stride=4)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(8), enable_nested_tensor=False)
        self.fc = nn.Linear(8, 5)
        self.branch = branch

    def forward(self, x):
        x = 2 * x if self.branch and x.shape[-1] > 4 else x
        return self.fc(self.encoder(self.patch(x).flatten(2).transpose(1, 2)).mean(1))

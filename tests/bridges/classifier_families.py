"""torchvision's classification families, each cut down to a few blocks, with random weights that matter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision.models as tv
from torch import nn
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.maxvit import MaxVit
from torchvision.models.mobilenetv3 import InvertedResidualConfig
from torchvision.models.regnet import BlockParams
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2
from torchvision.models.vgg import VGG, make_layers


def _thin(model: nn.Module, by: int) -> nn.Module:
    """The model with so many times fewer channels: convolutions in float64 take long on CPUs."""
    for name, module in list(model.named_modules()):
        parent = model.get_submodule(name.rpartition(".")[0])
        if isinstance(module, nn.Conv2d):
            inside = 3 if module.in_channels == 3 else module.in_channels // by
            outside = module.out_channels // by
            options = {key: getattr(module, key) for key in ("stride", "padding", "dilation", "groups")}
            made = nn.Conv2d(inside, outside, module.kernel_size, bias=module.bias is not None, **options)  # pyright: ignore
        elif isinstance(module, nn.BatchNorm2d):
            made = nn.BatchNorm2d(module.num_features // by, module.eps)
        elif name == "fc" and isinstance(module, nn.Linear):
            made = nn.Linear(module.in_features // by, module.out_features)
        else:
            continue
        setattr(parent, name.rpartition(".")[2], made)
    return model


def _resnet(by: int, *given: Any, **options: Any) -> nn.Module:
    return _thin(tv.ResNet(*given, num_classes=10, **options), by)


def _alexnet() -> nn.Module:
    model = _thin(tv.AlexNet(), 8)
    model.classifier = nn.Sequential(nn.Dropout(), nn.Linear(32 * 36, 24), nn.ReLU(True), nn.Linear(24, 10))
    return model


def _without(model: nn.Module, *repeated: str) -> nn.Module:
    """The model without blocks that repeat the one before them."""
    for name in repeated:
        setattr(model, name, nn.Identity())
    return model


def _inception() -> nn.Module:
    model = tv.inception_v3(init_weights=False, num_classes=10)
    model.AuxLogits = None  # of training alone
    return _without(_thin(model, 8), "Mixed_5d", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7c")


def _googlenet() -> nn.Module:
    model = tv.googlenet(init_weights=False, num_classes=10)
    model.aux1 = model.aux2 = None  # of training alone
    return _without(_thin(model, 8), "inception4b", "inception4c", "inception5a")


def _mnasnet() -> nn.Module:
    model = tv.MNASNet(0.35, num_classes=10)
    for place, stack in enumerate(model.layers):
        if isinstance(stack, nn.Sequential):
            model.layers[place] = stack[: 1 + place % 2]
    return model


def _vgg(*, norm: bool) -> nn.Module:
    layers = [8, "M", 16, "M", 16, 16, "M", 32, "M", 512, "M"]
    model = VGG(make_layers(layers, batch_norm=norm), num_classes=10, init_weights=False)
    model.classifier = nn.Sequential(nn.Linear(512 * 49, 24), nn.ReLU(True), nn.Dropout(), nn.Linear(24, 10))
    return model


def _mobilenet_v3() -> nn.Module:
    config = partial(InvertedResidualConfig, width_mult=0.5)
    blocks = [
        config(16, 3, 16, 16, True, "RE", 2, 1),
        config(16, 3, 72, 24, False, "RE", 2, 1),
        config(24, 5, 96, 40, True, "HS", 2, 1),
        config(40, 5, 240, 40, True, "HS", 1, 2),
    ]
    return tv.MobileNetV3(blocks, 64, num_classes=10)


def _efficientnet() -> nn.Module:
    blocks = [MBConvConfig(1, 3, 1, 8, 8, 1), MBConvConfig(6, 5, 2, 8, 8, 2)]
    return tv.EfficientNet(blocks, dropout=0.2, num_classes=10)


def _efficientnet_v2() -> nn.Module:
    blocks = [
        FusedMBConvConfig(1, 3, 1, 8, 8, 1),
        FusedMBConvConfig(4, 3, 2, 8, 16, 2),
        MBConvConfig(4, 3, 2, 16, 24, 2),
    ]
    return tv.EfficientNet(blocks, dropout=0.2, num_classes=10, last_channel=64)


def _regnet() -> nn.Module:
    blocks = BlockParams.from_init_params(depth=4, w_0=16, w_a=8.0, w_m=2.0, group_width=8, se_ratio=0.25)
    return tv.RegNet(blocks, num_classes=10)


def _swin(**options: object) -> nn.Module:
    # Nine patches a side: windows of four must be padded as well as rolled
    return SwinTransformer([4, 4], 16, [2, 1], [2, 4], [4, 4], num_classes=10, **options)


FAMILIES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "alexnet": (_alexnet, 64),
    "vgg": (partial(_vgg, norm=False), 32),
    "vgg_bn": (partial(_vgg, norm=True), 32),
    "resnet": (partial(_resnet, 4, BasicBlock, [2, 1, 1, 1]), 32),
    "resnext": (partial(_resnet, 2, Bottleneck, [1, 1, 1, 1], groups=32, width_per_group=4), 32),
    "wide_resnet": (partial(_resnet, 8, Bottleneck, [1, 1, 1, 1], width_per_group=128), 32),
    "squeezenet": (partial(tv.squeezenet1_1, num_classes=10), 32),
    "densenet": (partial(DenseNet, 8, (2, 1, 1, 2), 16, num_classes=10), 32),
    "inception_v3": (_inception, 75),
    "googlenet": (_googlenet, 32),
    "shufflenet_v2": (partial(tv.ShuffleNetV2, [2, 1, 1], [24, 48, 96, 192, 64], num_classes=10), 32),
    "mobilenet_v2": (
        partial(
            tv.MobileNetV2,
            10,
            0.25,
            [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 2]],
        ),
        32,
    ),
    "mobilenet_v3": (_mobilenet_v3, 32),
    "mnasnet": (_mnasnet, 32),
    "efficientnet": (_efficientnet, 32),
    "efficientnet_v2": (_efficientnet_v2, 32),
    "regnet": (_regnet, 32),
    "convnext": (
        lambda: tv.ConvNeXt([CNBlockConfig(16, 32, 2), CNBlockConfig(32, None, 1)], layer_scale=0.5, num_classes=10),
        32,
    ),
    "vit": (partial(tv.VisionTransformer, 32, 16, 2, 2, 16, 32, num_classes=10), 32),
    "swin": (_swin, 36),
    "swin_v2": (partial(_swin, block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2), 36),
    "maxvit": (lambda: MaxVit((32, 32), 8, 2, [8, 16], [1, 1], 4, 0.1, num_classes=10), 32),
}


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every parameter and statistic a value that shows if it is forgotten or misread; no weight stays zero."""
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor: torch.Tensor) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                fan = parameter[0].numel()
                parameter.copy_(normal(parameter) * (1.6 / fan) ** 0.5)
            else:
                centre = 1.0 if name.endswith("weight") else 0.0
                parameter.copy_(centre + 0.2 * normal(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.2 * normal(buffer))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


# So many pixels leave a grid behind the last block, too.
SIZES = dict.fromkeys(
    ("resnet", "resnext", "wide_resnet", "densenet", "googlenet", "shufflenet_v2", "mnasnet", "regnet"), 64
)


def family(name: str, size: int | None = None) -> tuple[nn.Module, torch.Tensor]:
    """A small member of a family, and a batch of two pictures for it, of so few pixels as it takes by default."""
    build, fewest = FAMILIES[name]
    size = fewest if size is None else size
    torch.manual_seed(0)
    return randomized(build()), torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))

"""Networks with real weights that benchmarks explain; all but one have their weights beside the checkout."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import Any

# Read when torch is first imported: its idle threads would spin on the cores that JAX computes on.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import face_jax as fj
from face_jax import bridges

Loaded = tuple[Any, fj.Preprocess]


def deit_tiny(data: pathlib.Path) -> Loaded:
    import torch
    from torchvision.models import VisionTransformer

    model = VisionTransformer(image_size=224, patch_size=16, num_layers=12, num_heads=3, hidden_dim=192, mlp_dim=768)
    weights = torch.load(data / "weights" / "deit_tiny_patch16_224_imagenet.pth", weights_only=True)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model.eval(), fj.Preprocess(interpolation="bicubic")


def mnv3s(data: pathlib.Path) -> Loaded:
    """MobileNetV3-small, padded as it was trained."""
    import torchvision

    model = torchvision.models.mobilenet_v3_small()
    _load_padded(model, data / "weights" / "mobilenet_v3_small_imagenet_qat.pth")
    return model.eval(), fj.Preprocess(mean=(128 / 255,) * 3, std=(127 / 255,) * 3)


def mnv2(data: pathlib.Path) -> Loaded:
    """MobileNetV2, padded as it was trained."""
    import torchvision

    model = torchvision.models.mobilenet_v2()
    _load_padded(model, data / "weights" / "mobilenet_v2_imagenet_coral.pth")
    return model.eval(), fj.Preprocess(mean=(0.5,) * 3, std=(0.5,) * 3)


def _load_padded(model: Any, weights: pathlib.Path) -> None:
    """Weights trained with TensorFlow's padding: one more row and column of zeros before each stride."""
    import torch
    import torchvision

    for module in model.modules():
        if isinstance(module, torchvision.ops.Conv2dNormActivation) and module[0].stride == (2, 2):
            old = module[0]
            size = old.kernel_size[0]
            module[0] = torch.nn.Conv2d(
                old.in_channels, old.out_channels, size + 1, 2, size // 2, groups=old.groups, bias=False
            )
    trained = torch.load(weights, weights_only=True)
    own = model.state_dict()
    for name, tensor in trained.items():
        wide = own[name].shape[-2:] != tensor.shape[-2:] if tensor.ndim == 4 else False
        trained[name] = torch.nn.functional.pad(tensor.float(), (1, 0, 1, 0)) if wide else tensor.float()
    model.load_state_dict({name: trained.get(name, tensor) for name, tensor in own.items()})


def _lite0(data: pathlib.Path) -> Loaded:
    """EfficientNet-Lite0, whose weights come in a package."""
    del data
    loaded = bridges.load("efficientnet_lite0")
    return loaded.model, loaded.preprocess


def _imagenet_classes() -> tuple[str, ...]:
    return bridges.load("efficientnet_lite0").classes


@dataclasses.dataclass(frozen=True)
class Known:
    """A network, and the layer that it's split at."""

    load: Callable[[pathlib.Path], Loaded]
    layer: str | None = None


KNOWN = {
    "lite0": Known(_lite0),
    "mnv2": Known(mnv2, "features.18"),
    "mnv3s": Known(mnv3s, "features.12"),
    "deit_tiny": Known(deit_tiny, "encoder.layers.encoder_layer_10"),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network that was loaded and split, with the torch module that it was split from."""

    name: str
    module: Any
    model: fj.SplitModel


def network(name: str, data: pathlib.Path, *, weights: str | None = None, layer: str | None = None) -> Network:
    """A network of those that are known here, or any of torchvision's, timm's and transformers'.

    **Arguments:**

    - `name`: one of `KNOWN`, or what `bridges.load` understands.
    - `data`: where weights lie beside the checkout.
    - `weights`, `layer`: of the others: `"DEFAULT"` or a file; and where to split, the usual layer if None.

    **Returns:** it. Raises `SystemExit` where its weights aren't there.
    """
    known = KNOWN.get(name)
    if known is not None and weights is None:
        try:
            module, preprocess = known.load(data)
        except FileNotFoundError as error:
            raise SystemExit(f"the weights of {name} are no part of the project (--data): {error}") from error
        classes, title = _imagenet_classes(), name
        layer = layer or known.layer
    else:
        loaded = bridges.load(name, weights="DEFAULT" if weights is None else weights)
        module, preprocess, classes, title = loaded.model, loaded.preprocess, loaded.classes, loaded.name
    if layer is None:
        layer = bridges.suggest_layer(bridges.layers(module, size=preprocess.size), classes=len(classes)).name
    return Network(name, module, bridges.split(module, layer, preprocess=preprocess, classes=classes, name=title))

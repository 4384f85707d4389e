"""The heads of torchvision's families, behind any of their stages: parameters are copied from the torch module.

Each function takes the classifier and where it is cut; the head computes everything behind that.
"""

from __future__ import annotations

from typing import Any

from flax import nnx
from jaxtyping import Array, Float

from . import layers
from .from_torch import as_maps, chain, converted, dense, require

Maps = Float[Array, "image y x channel"] | Float[Array, "row channel"]


class NetworkHead(nnx.Module):
    """The rest of a convolutional classifier: stages of maps, pooling to a grid, then a classifier of vectors.

    A pytree whose leaves are the weights. Rows without places are taken as maps of one place.

    **Arguments:**

    - `stages`: what is done to maps.
    - `pooling`: how maps become a small grid.
    - `classifier`: from that to logits.
    """

    def __init__(self, stages: layers.Chain, pooling: layers.Layer, classifier: layers.Chain) -> None:
        self.stages, self.pooling, self.classifier = stages, pooling, classifier

    @property
    def affine(self) -> bool:
        """Whether it's an affine map of the average over places."""
        linear = all(isinstance(layer, (layers.Flatten, layers.Dense)) for layer in self.classifier.layers)
        return self.pools_first and linear

    @property
    def pools_first(self) -> bool:
        """Whether it sees nothing of maps but their averages over places."""
        averaging = isinstance(self.pooling, layers.Pooling) and self.pooling.grid == (1, 1)
        return len(self.stages) == 0 and averaging

    def __call__(self, maps: Maps) -> Float[Array, "image class"]:
        """Logits of feature maps, or of rows."""
        return self.classifier(self.pooling(self.stages(as_maps(maps))))


class TokenHead(nnx.Module):
    """The rest of a vision transformer: encoder blocks, the last norm, and the class token's logits.

    **Arguments:**

    - `blocks`: encoder blocks.
    - `norm`: the encoder's last norm.
    - `classifier`: from the class token to logits.
    """

    def __init__(self, blocks: layers.Chain, norm: layers.Layer, classifier: layers.Chain) -> None:
        self.blocks, self.norm, self.classifier = blocks, norm, classifier

    @property
    def affine(self) -> bool:
        """Never: the norm is in the way."""
        return False

    def __call__(
        self, tokens: Float[Array, "image token channel"] | Float[Array, "image y x channel"]
    ) -> Float[Array, "image class"]:
        """Logits of tokens, the class token first; with four axes, y and x together count the tokens."""
        tokens = tokens.reshape(tokens.shape[0], -1, tokens.shape[-1])
        return self.classifier(self.norm(self.blocks(tokens))[:, 0])


_AVERAGE = (1, 1)


def resnet(module: Any, *, after: str = "layer4") -> NetworkHead:
    """The head of a ResNet (ResNeXt, Wide ResNet): affine behind `layer4`.

    **Arguments:**

    - `module`: torchvision's classifier.
    - `after`: the stage that it's cut behind, `"layer1"` to `"layer4"`.

    **Returns:** the head.
    """
    require(module, ("layer1", "layer4", "fc"), "ResNets")
    names = ("layer1", "layer2", "layer3", "layer4")
    if after not in names:
        raise ValueError(f"after={after!r} is no stage; give one of {', '.join(names)}")
    stages = chain([getattr(module, name) for name in names[names.index(after) + 1 :]])
    return NetworkHead(stages, layers.Pooling(_AVERAGE), layers.Chain([layers.Flatten(), dense(module.fc)]))


def _of_features(module: Any, after: int | None, family: str) -> layers.Chain:
    require(module, ("features", "classifier"), family)
    parts = list(module.features)
    last = len(parts) - 1 if after is None else after
    if not 0 <= last < len(parts):
        raise ValueError(f"after={after} is no part of the features; give a number from 0 to {len(parts) - 1}")
    return chain(parts[last + 1 :])


def mobilenet_v2(module: Any, *, after: int | None = None) -> NetworkHead:
    """The head of a MobileNetV2: affine behind all features.

    **Arguments:**

    - `module`: torchvision's classifier.
    - `after`: the number of the part of `features` that it's cut behind; the last by default.

    **Returns:** the head.
    """
    stages = _of_features(module, after, "MobileNetV2s")
    classifier = layers.Chain([layers.Flatten(), *chain(module.classifier).layers])
    return NetworkHead(stages, layers.Pooling(_AVERAGE), classifier)


def mobilenet_v3(module: Any, *, after: int | None = None) -> NetworkHead:
    """The head of a MobileNetV3: two layers behind all features. Arguments as for `mobilenet_v2`."""
    return mobilenet_v2(module, after=after)


def efficientnet(module: Any, *, after: int | None = None) -> NetworkHead:
    """The head of an EfficientNet (V2 too): affine behind all features. Arguments as for `mobilenet_v2`."""
    return mobilenet_v2(module, after=after)


def convnext(module: Any, *, after: int | None = None) -> NetworkHead:
    """The head of a ConvNeXt: a layer norm of the averages, then affine. Arguments as for `mobilenet_v2`."""
    stages = _of_features(module, after, "ConvNeXts")
    return NetworkHead(stages, layers.Pooling(_AVERAGE), chain(module.classifier))


def vgg(module: Any, *, after: int | None = None) -> NetworkHead:
    """The head of a VGG: three layers on a 7 × 7 grid. Arguments as for `mobilenet_v2`."""
    stages = _of_features(module, after, "VGGs")
    classifier = layers.Chain([layers.Flatten(), *chain(module.classifier).layers])
    return NetworkHead(stages, converted(module.avgpool), classifier)


def densenet(module: Any, *, after: str = "relu") -> NetworkHead:
    """The head of a DenseNet: affine behind the last rectifier.

    **Arguments:**

    - `module`: torchvision's classifier.
    - `after`: `"relu"`, or `"denseblock4"`: before the last norm and rectifier.

    **Returns:** the head.
    """
    require(module, ("features", "classifier"), "DenseNets")
    if after not in ("relu", "denseblock4"):
        raise ValueError(f"after={after!r} is no place to cut; give 'relu' or 'denseblock4'")
    between = [] if after == "relu" else [converted(module.features.norm5), layers.Activation("ReLU")]
    classifier = layers.Chain([layers.Flatten(), dense(module.classifier)])
    return NetworkHead(layers.Chain(between), layers.Pooling(_AVERAGE), classifier)


def vit(module: Any, *, after: int | None = None) -> TokenHead:
    """The head of a vision transformer.

    **Arguments:**

    - `module`: torchvision's classifier.
    - `after`: the number of the encoder block that it's cut behind; the last by default.

    **Returns:** the head, which takes tokens with the class token first.
    """
    require(module, ("encoder", "heads"), "vision transformers")
    blocks = list(module.encoder.layers)
    last = len(blocks) - 1 if after is None else after
    if not 0 <= last < len(blocks):
        raise ValueError(f"after={after} is no encoder block; give a number from 0 to {len(blocks) - 1}")
    return TokenHead(chain(blocks[last + 1 :]), converted(module.encoder.ln), chain(module.heads))

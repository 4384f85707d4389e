"""The heads of torchvision's families, behind any of their stages: parameters are copied from the torch module.

Each function takes the classifier and where it is cut; the head computes everything behind that. Its pooling
and its last layers may have been replaced, as fine-tuning does: what isn't known is refused, nothing is passed over.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..support.precision import full_precision
from . import layers
from .from_torch import as_maps, chain, converted, of_vectors, require

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

    @property
    def channels(self) -> int | None:
        """How many channels it takes; None if its layers don't say."""
        known = layers.channels_taken(self.stages)
        if known is not None:
            return known
        known = layers.channels_taken(self.classifier)
        if known is None or not isinstance(self.classifier.layers[0], layers.Flatten):
            return known
        # Its classifier's first layer sees all places of the grid.
        return known // math.prod(self.pooling.grid) if isinstance(self.pooling, layers.Pooling) else None

    @full_precision
    def __call__(self, maps: Maps) -> Float[Array, "image class"]:
        """Logits of feature maps, or of rows. Raises `ValueError` for another number of channels."""
        _check_channels("maps", maps, self.channels)
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

    @property
    def channels(self) -> int | None:
        """How many channels it takes."""
        return layers.channels_taken(self.norm)

    @full_precision
    def __call__(
        self,
        tokens: Float[Array, "image token channel"] | Float[Array, "image y x channel"],
        kept: Float[Array, "image kept channel"] | None = None,
    ) -> Float[Array, "image class"]:
        """Logits of tokens, the class token first; with four axes, y and x together count the tokens.

        With `kept`, as `Beside` calls it, these stand before the others: the class token is the first of them. Raises
        `ValueError` for another number of channels.
        """
        _check_channels("tokens", tokens, self.channels)
        tokens = tokens.reshape(tokens.shape[0], -1, tokens.shape[-1])
        tokens = tokens if kept is None else jnp.concatenate([kept.astype(tokens.dtype), tokens], axis=1)
        return self.classifier(self.norm(self.blocks(tokens))[:, 0])


def _check_channels(name: str, given: Array, channels: int | None) -> None:
    if channels is not None and given.shape[-1] != channels:
        raise ValueError(
            f"{name} has {given.shape[-1]} channels and the head takes {channels}; give it the activations of the "
            "layer that it was cut behind"
        )


_AVERAGE = (1, 1)


def resnet(module: Any, *, after: str = "layer4") -> NetworkHead:
    """The head of a ResNet (ResNeXt, Wide ResNet): affine behind `layer4`.

    **Arguments:**

    - `module`: torchvision's classifier.
    - `after`: the stage that it's cut behind, `"layer1"` to `"layer4"`.

    **Returns:** the head.

    **Example:**

    >>> head = fj.heads.resnet(torchvision.models.resnet18().eval())
    >>> head.channels > 0
    True
    """
    require(module, ("layer1", "layer4", "avgpool", "fc"), "ResNet")
    names = ("layer1", "layer2", "layer3", "layer4")
    if after not in names:
        raise ValueError(f"after={after!r} isn't a stage; give one of {', '.join(names)}")
    stages = chain([getattr(module, name) for name in names[names.index(after) + 1 :]])
    return NetworkHead(stages, converted(module.avgpool), of_vectors(module.fc))


def _of_features(module: Any, after: int | None, family: str, *attributes: str) -> layers.Chain:
    require(module, ("features", "classifier", *attributes), family)
    parts = list(module.features)
    last = len(parts) - 1 if after is None else after
    if not 0 <= last < len(parts):
        raise ValueError(f"after={after} isn't a part of the features; give a number from 0 to {len(parts) - 1}")
    return chain(parts[last + 1 :])


def mobilenet_v2(module: Any, *, after: int | None = None) -> NetworkHead:
    """The head of a MobileNetV2: affine behind all features.

    **Arguments:**

    - `module`: torchvision's classifier.
    - `after`: the number of the part of `features` that it's cut behind; the last by default.

    **Returns:** the head.

    **Example:**

    >>> head = fj.heads.mobilenet_v2(torchvision.models.mobilenet_v2().eval())
    >>> head.channels > 0
    True
    """
    # It pools by a function, not by a module.
    return NetworkHead(
        _of_features(module, after, "MobileNetV2"), layers.Pooling(_AVERAGE), of_vectors(module.classifier)
    )


def mobilenet_v3(module: Any, *, after: int | None = None) -> NetworkHead:
    """The head of a MobileNetV3: two layers behind all features. Arguments as for `mobilenet_v2`.

    **Example:**

    >>> head = fj.heads.mobilenet_v3(torchvision.models.mobilenet_v3_small().eval())
    >>> head.channels > 0
    True
    """
    return _pooled(module, after, "MobileNetV3")


def efficientnet(module: Any, *, after: int | None = None) -> NetworkHead:
    """The head of an EfficientNet (V2 too): affine behind all features. Arguments as for `mobilenet_v2`.

    **Example:**

    >>> head = fj.heads.efficientnet(torchvision.models.efficientnet_b0().eval())
    >>> head.channels > 0
    True
    """
    return _pooled(module, after, "EfficientNet")


def convnext(module: Any, *, after: int | None = None) -> NetworkHead:
    """The head of a ConvNeXt: a layer norm of the averages, then affine. Arguments as for `mobilenet_v2`.

    **Example:**

    >>> head = fj.heads.convnext(torchvision.models.convnext_tiny().eval())
    >>> head.channels > 0
    True
    """
    # Its classifier norms maps, and flattens them itself.
    stages = _of_features(module, after, "ConvNeXt", "avgpool")
    return NetworkHead(stages, converted(module.avgpool), chain([module.classifier]))


def vgg(module: Any, *, after: int | None = None) -> NetworkHead:
    """The head of a VGG: three layers on a 7 × 7 grid. Arguments as for `mobilenet_v2`.

    **Example:**

    >>> head = fj.heads.vgg(torchvision.models.vgg11().eval())
    >>> head.channels > 0
    True
    """
    return _pooled(module, after, "VGG")


def _pooled(module: Any, after: int | None, family: str) -> NetworkHead:
    stages = _of_features(module, after, family, "avgpool")
    return NetworkHead(stages, converted(module.avgpool), of_vectors(module.classifier))


def densenet(module: Any, *, after: str = "relu") -> NetworkHead:
    """The head of a DenseNet: affine behind the last rectifier.

    **Arguments:**

    - `module`: torchvision's classifier.
    - `after`: `"relu"`, or `"denseblock4"`: before the last norm and rectifier.

    **Returns:** the head.

    **Example:**

    >>> head = fj.heads.densenet(torchvision.models.densenet121().eval())
    >>> head.channels > 0
    True
    """
    require(module, ("features", "classifier"), "DenseNet")
    if after not in ("relu", "denseblock4"):
        raise ValueError(f"after={after!r} isn't a place to cut; give 'relu' or 'denseblock4'")
    between = [] if after == "relu" else [converted(module.features.norm5), layers.Activation("ReLU")]
    return NetworkHead(layers.Chain(between), layers.Pooling(_AVERAGE), of_vectors(module.classifier))


def vit(module: Any, *, after: int | None = None) -> TokenHead:
    """The head of a vision transformer.

    **Arguments:**

    - `module`: torchvision's classifier.
    - `after`: the number of the encoder block that it's cut behind; the last by default.

    **Returns:** the head, which takes tokens with the class token first.

    **Example:**

    >>> head = fj.heads.vit(torchvision.models.vit_b_16().eval())
    >>> head.channels > 0
    True
    """
    require(module, ("encoder", "heads"), "VisionTransformer")
    blocks = list(module.encoder.layers)
    last = len(blocks) - 1 if after is None else after
    if not 0 <= last < len(blocks):
        raise ValueError(f"after={after} isn't an encoder block; give a number from 0 to {len(blocks) - 1}")
    return TokenHead(chain(blocks[last + 1 :]), converted(module.encoder.ln), chain([module.heads]))

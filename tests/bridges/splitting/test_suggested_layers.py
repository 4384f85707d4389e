"""Which layer is taken by default, a row for each family of torchvision's classifiers."""

import pytest
import torch
import torchvision
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from face_jax import bridges

models = torchvision.models
# Families in small, with random weights; what is taken by default, its grid and channels, whether its head is affine,
# whether it has no activations below zero, and the layers that a recursion takes, the nearest last.
FAMILIES = {
    "Swin": (
        lambda: models.SwinTransformer(
            patch_size=[4, 4], embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=[4, 4]
        ),
        ("permute", (8, 8, 16), True, False, ["features.1"]),
    ),
    "ConvNeXt": (
        lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)]),
        ("features", (8, 8, 16), False, False, ["features.2.0"]),
    ),
    "MaxViT": (
        lambda: models.MaxVit(
            input_size=(64, 64), stem_channels=8, block_channels=[8, 16], block_layers=[1, 1], partition_size=4,
            head_dim=8, stochastic_depth_prob=0.0,
        ),
        ("blocks.1", (8, 8, 16), False, False, ["stem", "blocks.0"]),
    ),
    "VisionTransformer": (
        lambda: models.VisionTransformer(
            image_size=64, patch_size=8, num_layers=6, num_heads=2, hidden_dim=16, mlp_dim=16
        ),
        (
            "encoder.layers.encoder_layer_2", (8, 8, 16), False, False,
            ["encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_1"],
        ),
    ),
    "ResNet": (
        lambda: models.resnet18(),
        ("layer4", (2, 2, 512), True, True, ["layer1", "layer2", "layer3"]),
    ),
    "SqueezeNet": (
        lambda: models.squeezenet1_1(),
        ("features.7", (7, 7, 256), False, True, ["features.1", "features.4"]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_the_layer_taken_by_default(family):
    build, expected = FAMILIES[family]
    torch.manual_seed(0)
    places = bridges.layers(build().eval(), size=64)
    (taken,) = [place for place in places if place.taken == "by default"]
    earlier = [place.name for place in places if place.taken.startswith("by --depth")]
    assert (taken.name, taken.shape, taken.affine, taken.non_negative, earlier) == expected
    assert bridges.suggest_layer(places, classes=1000) == taken

"""Models of timm and transformers, small and from configurations: what is before and behind a layer is the network."""

import pytest
import small_models as small
import timm
import torch
import transformers
from cut_checks import check_cut
from face_jax.bridges.splitting.surveying import example, survey

from face_jax import bridges

# A width that two heads divide, two blocks, and five classes, whatever the family.
TOKENS = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
STAGES = {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}
WINDOWS = {"img_size": 32, "window_size": 2, "embed_dim": 8, "depths": (2, 1), "num_heads": (1, 2)}
BLOCKS = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}


def of_timm(name, **options):
    return lambda: timm.create_model(name, pretrained=False, num_classes=5, **options)


def of_transformers(name, **options):
    config = getattr(transformers, f"{name}Config")
    return lambda: getattr(transformers, f"{name}ForImageClassification")(config(num_labels=5, **options))


MODELS = {
    "ViT": of_timm("vit_tiny_patch16_224", **TOKENS),
    "ViT with registers": of_timm("vit_medium_patch16_reg4_gap_256", **TOKENS),
    "DeiT, distilled": of_timm("deit_tiny_distilled_patch16_224", **TOKENS),
    "ViT with a pooling by attention": of_timm("vit_base_patch16_siglip_224", **TOKENS),
    "EVA": of_timm("eva02_tiny_patch14_224", **TOKENS),
    "BEiT": of_timm("beit_base_patch16_224", **TOKENS),
    "ConvNeXt": of_timm("convnext_atto", **STAGES),
    "Swin": of_timm("swin_tiny_patch4_window7_224", **WINDOWS),
    "MaxViT": of_timm("maxvit_rmlp_pico_rw_256", img_size=64, embed_dim=(32, 32), depths=(1, 1), stem_width=(8, 8)),
    "EfficientNet": of_timm("test_efficientnet"),
    "MobileNetV3": of_timm("mobilenetv3_small_050"),
    "RegNet": of_timm("regnety_002"),
    "ResNet": of_timm("test_resnet"),
    "transformers' ViT": of_transformers("ViT", **BLOCKS),
    "transformers' DeiT": of_transformers("DeiT", **BLOCKS),
    "transformers' BEiT": of_transformers("Beit", use_relative_position_bias=True, **BLOCKS),
    "transformers' DINOv2 with registers": of_transformers("Dinov2WithRegisters", **BLOCKS),
    "transformers' SigLIP": of_transformers("Siglip", vision_config=BLOCKS),
    "transformers' Swin": of_transformers(
        "Swin", image_size=32, patch_size=4, embed_dim=8, depths=[2, 1], num_heads=[1, 2], window_size=2
    ),
    "transformers' ConvNeXt V2": of_transformers("ConvNextV2", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1]),
    "transformers' ResNet": of_transformers("ResNet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
}


# The layer taken by default, its grid and channels, how many tokens lie beside it, whether its head is affine, and
# whether it has no activations below zero.
DEFAULTS = {
    "ViT": ("blocks.0", (4, 4, 16), 1, False, False),
    "ViT with registers": ("blocks", (4, 4, 16), 4, False, False),
    "DeiT, distilled": ("blocks.0", (4, 4, 16), 2, False, False),
    "ViT with a pooling by attention": ("norm", (4, 4, 16), 0, False, False),
    "EVA": ("blocks.1", (4, 4, 16), 1, False, False),
    "BEiT": ("blocks.1", (4, 4, 16), 1, False, False),
    "ConvNeXt": ("stages.3.downsample.0", (2, 2, 16), 0, False, False),
    "Swin": ("norm", (4, 4, 16), 0, True, False),
    "MaxViT": ("norm", (8, 8, 32), 0, True, False),
    "EfficientNet": ("blocks.4.0.bn1", (2, 2, 192), 0, False, False),
    "MobileNetV3": ("blocks.4.0.bn1", (2, 2, 144), 0, False, False),
    "RegNet": ("s3", (2, 2, 152), 0, False, True),
    "ResNet": ("layer3", (2, 2, 192), 0, False, True),
    "transformers' ViT": ("vit.layers.0", (4, 4, 16), 1, False, False),
    "transformers' DeiT": ("deit.layers.0", (4, 4, 16), 2, False, False),
    "transformers' BEiT": ("beit.layers.1", (4, 4, 16), 1, False, False),
    "transformers' DINOv2 with registers": ("dinov2_with_registers.encoder", (4, 4, 16), 5, False, False),
    "transformers' SigLIP": ("vision_model", (4, 4, 16), 0, True, False),
    "transformers' Swin": ("swin.layernorm", (4, 4, 16), 0, True, False),
    "transformers' ConvNeXt V2": ("convnextv2.encoder.stages.3.downsampling_layer.0", (2, 2, 16), 0, False, False),
    "transformers' ResNet": ("resnet.encoder", (4, 4, 16), 0, True, True),
}


@pytest.mark.parametrize("family", MODELS)
def test_a_library_s_network_is_what_is_before_a_layer_and_behind_it(family):
    model = small.randomized(MODELS[family]()).double()
    size = 64 if family == "MaxViT" else 32
    seen = survey(model, example(model, None, size))
    places = bridges.layers(model, size=size, seen=seen)
    maps = [place for place in places if place.shape[0] * place.shape[1] > 1 and place.reaches]
    assert len(maps) >= 5, [place.name for place in places]
    default = bridges.suggest_layer(places, classes=5)
    assert (default.name, default.shape, default.prefix, default.affine, default.non_negative) == DEFAULTS[family]
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for place in (default, maps[len(maps) // 2], maps[-1]):
        check_cut(model, seen, place, images)

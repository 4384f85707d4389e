"""Models of timm and transformers, small and from configurations: what is before and behind a layer is the network."""

import numpy as np
import pytest
import small_models as small
import timm
import torch
import transformers
from face_jax.bridges.splitting.surveying import example, survey

from face_jax import bridges
from face_jax.model import Preprocess

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


@pytest.mark.parametrize("family", MODELS)
def test_a_library_s_network_is_what_is_before_a_layer_and_behind_it(family):
    model = small.randomized(MODELS[family]())
    size = 64 if family == "MaxViT" else 32
    seen = survey(model, example(model, None, size))
    places = bridges.layers(model, size=size, seen=seen)
    maps = [place for place in places if place.shape[0] * place.shape[1] > 1 and place.reaches]
    assert len(maps) >= 5, [place.name for place in places]
    images = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        given = model(torch.from_numpy(images).movedim(-1, 1))
    logits = getattr(given, "logits", given).numpy()
    for place in (maps[len(maps) // 2], maps[-1]):
        split = bridges.split(model, place.name, preprocess=Preprocess(size=size, resize=size), seen=seen)
        activations, head = split.halves(images)
        assert activations.shape[1:] == place.shape
        np.testing.assert_allclose(head(activations), logits, rtol=1e-4, atol=1e-4 * np.abs(logits).max())

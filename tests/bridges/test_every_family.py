"""Every torchvision classification family, cut where it is by default and at a layer with activations below zero.

What depends on the network is tried for each. `benchmarks/every_family.py` explains each as a whole.
"""

import pytest
from classifier_families import FAMILIES, SIZES, family
from cut_checks import check_cut
from face_jax.bridges.splitting.surveying import survey

from face_jax import bridges

# Of the small members: the layer taken by default, its grid and channels, how many tokens lie beside it, whether its
# head is affine, and whether it has no activations below zero; and the last other layer on a grid that has such.
EXPECTED = {
    "alexnet": (("avgpool", (6, 6, 32), 0, False, True), "features.10"),
    "vgg": (("avgpool", (7, 7, 512), 0, False, True), "features.14"),
    "vgg_bn": (("avgpool", (7, 7, 512), 0, False, True), "features.20"),
    "resnet": (("layer4", (2, 2, 128), 0, True, True), "layer4.0.add"),
    "resnext": (("layer4", (2, 2, 1024), 0, True, True), "layer4.0.add"),
    "wide_resnet": (("layer4", (2, 2, 256), 0, True, True), "layer4.0.add"),
    "squeezenet": (("features.7", (3, 3, 256), 0, False, True), "features.7.squeeze"),
    "densenet": (("relu", (2, 2, 26), 0, True, True), "features"),
    "inception_v3": (("Mixed_5c", (7, 7, 36), 0, False, True), "Conv2d_4a_3x3.bn"),
    "googlenet": (("inception5b", (2, 2, 128), 0, True, True), "conv3.bn"),
    "shufflenet_v2": (("conv5", (2, 2, 64), 0, True, True), "conv5.1"),
    "mobilenet_v2": (("features", (4, 4, 1280), 0, True, True), "features.5.1"),
    "mobilenet_v3": (("features", (2, 2, 144), 0, False, False), "features.5.1"),
    "mnasnet": (("layers", (2, 2, 1280), 0, True, True), "layers.15"),
    "efficientnet": (("features", (8, 8, 32), 0, True, False), "features.3.1"),
    "efficientnet_v2": (("features", (4, 4, 64), 0, True, False), "features.4.1"),
    "regnet": (("trunk_output", (8, 8, 32), 0, True, True), "trunk_output.block2.block2-2.add"),
    "convnext": (("features", (4, 4, 32), 0, False, False), "features.2"),
    "vit": (("encoder.layers.encoder_layer_0", (2, 2, 16), 1, False, False), "encoder.layers.encoder_layer_0.add"),
    "swin": (("permute", (5, 5, 32), 0, True, False), "norm"),
    "swin_v2": (("permute", (5, 5, 32), 0, True, False), "norm"),
    "maxvit": (("blocks.1", (4, 4, 16), 0, False, False), "blocks.1.layers.0.layers.grid_attention.departition_swap"),
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def surveyed(request):
    model, images = family(request.param, SIZES.get(request.param))
    model, images = model.double().eval(), images.double()
    seen = survey(model, images)
    return request.param, model, images, seen, bridges.layers(model, seen=seen)


def test_the_layer_taken_by_default(surveyed):
    name, *_, places = surveyed
    default, signed = _layers(places)
    assert (default.name, default.shape, default.prefix, default.affine, default.non_negative) == EXPECTED[name][0]
    assert signed.name == EXPECTED[name][1]


@pytest.mark.parametrize("which", [0, 1], ids=["default", "signed"])
def test_halves_derivatives_and_concepts_are_the_network_s(surveyed, which):
    _, model, images, seen, places = surveyed
    check_cut(model, seen, _layers(places)[which], images)


def _layers(places):
    """The layer taken by default, and the last other one on a grid that has activations below zero."""
    default = bridges.suggest_layer(places, classes=10)
    maps = [place for place in places if place.shape[:2] != (1, 1) and place.shape[2] != 10 and place.reaches]
    return default, [place for place in maps if not place.non_negative and place.name != default.name][-1]

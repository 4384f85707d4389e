"""The list of places where a classifier can be split."""

import numpy as np
import pytest
import small_models as small
import torch

from face_jax import bridges

IMAGES = np.random.default_rng(0).standard_normal((4, 8, 8, 3)).astype(np.float32)


def test_every_place_of_a_plain_network_with_shape_sign_and_head():
    model = small.randomized(small.Plain())
    found = {layer.name: layer for layer in bridges.layers(model, example_inputs=IMAGES)}
    assert list(found) == ["body.0", "body.1", "body.2", "body.3", "body.4", "body", "pool", "flatten"]
    assert [found[name].shape for name in ("body.0", "body.2", "body", "pool")] == [
        (8, 8, 4),
        (8, 8, 4),
        (4, 4, 6),
        (1, 1, 6),
    ]
    assert found["body"].kind == "ReLU"
    assert found["body"].aliases == ("body.5",)
    assert [name for name, layer in found.items() if layer.affine] == ["body", "pool", "flatten"]
    assert [name for name, layer in found.items() if layer.non_negative] == ["body.2", "body", "pool", "flatten"]


def test_minimum_and_share_of_negatives_are_those_of_the_batch():
    model = small.randomized(small.Plain())
    found = {layer.name: layer for layer in bridges.layers(model, example_inputs=IMAGES)}
    with torch.no_grad():
        values = model.body[:2](torch.from_numpy(IMAGES).movedim(-1, 1))
    # Seen before the ReLU in place overwrites it.
    assert found["body.1"].minimum == pytest.approx(float(values.min()), rel=1e-5)
    assert found["body.1"].negative == pytest.approx(float((values < 0).float().mean()), abs=1e-3)
    assert 0.1 < found["body.1"].negative < 0.9


def test_every_listed_place_can_be_split_at():
    for build in (small.Plain, small.SharedActivation, small.Tokens, small.ChannelsLast, small.Branching):
        model = small.randomized(build())
        for layer in bridges.layers(model, size=8):
            for name in (layer.name, *layer.aliases):
                split = bridges.split(model, name, example_inputs=IMAGES)
                assert split.features(IMAGES).shape[1:] == layer.shape
                assert split.head.affine == layer.affine


def test_places_beside_a_residual_are_none():
    names = [layer.name for layer in bridges.layers(small.randomized(small.SharedActivation()), size=8)]
    assert "act" in names
    assert "act_2" in names
    assert "act_1" not in names
    assert "second" not in names


def test_torch_tensors_are_taken_in_torchs_layout():
    model = small.randomized(small.Plain())
    given = bridges.layers(model, example_inputs=IMAGES)
    assert bridges.layers(model, example_inputs=torch.from_numpy(IMAGES).movedim(-1, 1)) == given


def test_suggested_layer_is_the_last_with_non_negative_maps():
    assert bridges.suggest_layer(bridges.layers(small.randomized(small.Plain()), size=8)).name == "body"
    tokens = bridges.layers(small.randomized(small.Tokens()), size=8)
    assert bridges.suggest_layer(tokens) is None


def test_maps_with_a_channel_a_class_are_not_suggested():
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 5, 1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
    )
    places = bridges.layers(small.randomized(model), size=8)
    assert bridges.suggest_layer(places).shape[2] == 5
    assert bridges.suggest_layer(places, classes=5).name == "1"


def test_non_negative_neighbours_come_nearest_first():
    model = small.randomized(small.Plain())
    assert bridges.non_negative_layers(model, near="body.1", size=8) == ("body.2", "body")
    assert bridges.non_negative_layers(model, near="body.4", size=8, count=1) == ("body",)

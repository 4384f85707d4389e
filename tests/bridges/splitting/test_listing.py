"""The list of places where a classifier can be split."""

import numpy as np
import pytest
import small_models as small
import torch
from face_jax.bridges.splitting.finding import find
from face_jax.bridges.splitting.surveying import example, survey

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
            if not layer.reaches:
                continue
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


def test_suggested_layer_is_the_last_with_maps_non_negative_ones_if_there_are_such():
    assert bridges.suggest_layer(bridges.layers(small.randomized(small.Plain()), size=8)).name == "body"
    assert bridges.suggest_layer(()) is None


def test_layers_print_as_a_table():
    places = bridges.layers(small.randomized(small.Plain()), size=8)
    head, *lines = repr(places).splitlines()
    titles = ["layer", "y", "×", "x", "×", "channel", "below", "zero", "head", "behind", "it", "taken"]
    assert head.split() == titles
    assert len(lines) == len(places)
    for line, place in zip(lines, places, strict=True):
        assert line.startswith(place.name)
        assert " × ".join(map(str, place.shape)) in line
        assert ("none" in line) == place.non_negative
        assert ("pooling, then affine" if place.affine else "not affine") in line
        assert line.endswith("by default") == (place.name == "body")
        assert line.endswith("by --depth 1") == (place.name == "body.2")


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


def test_no_two_places_have_one_name():
    model = small.randomized(small.NumberedNames())
    places = bridges.layers(model, example_inputs=IMAGES)
    names = [name for place in places for name in (place.name, *place.aliases)]
    assert len(set(names)) == len(names)
    assert [place.name for place in places if place.kind == "ReLU"] == ["relu", "relu_2", "relu_1"]
    seen = []
    for module in (model.relu, model.relu_1):
        module.register_forward_hook(lambda module, given, result: seen.append(result.movedim(1, -1)))
    with torch.no_grad():
        model(torch.from_numpy(IMAGES).movedim(-1, 1))
    calls = list(seen)
    for name, call in zip(("relu", "relu_2", "relu_1"), calls, strict=True):
        maps = bridges.split(model, name, example_inputs=IMAGES).features(IMAGES)
        np.testing.assert_allclose(maps, call, rtol=1e-5, atol=1e-6)


def test_calls_are_offered_by_the_names_that_they_have():
    with pytest.raises(ValueError, match="name the call: relu, relu_2"):
        bridges.split(small.randomized(small.NumberedNames()), "also", example_inputs=IMAGES)


@pytest.mark.parametrize(
    ("norm_first", "branch", "listed"), [(False, False, (0, 1)), (True, False, (0, 1)), (False, True, (1,))]
)
def test_places_inside_torchs_transformer(norm_first, branch, listed):
    model = small.randomized(small.Encoder(norm_first=norm_first, branch=branch))
    found = {place.name: place.shape for place in bridges.layers(model, example_inputs=IMAGES)}
    tokens = model.patch((2 if branch else 1) * torch.from_numpy(IMAGES).movedim(-1, 1)).flatten(2).transpose(1, 2)
    for number, layer in enumerate(model.encoder.layers):
        tokens = layer(tokens).detach()
        if number in listed:
            assert found[f"encoder.layers.{number}"] == (2, 2, 8)
            split = bridges.split(model, f"encoder.layers.{number}", example_inputs=IMAGES)
            maps = np.asarray(split.features(IMAGES))
            np.testing.assert_allclose(maps.reshape(len(maps), 4, 8), tokens, rtol=1e-4, atol=1e-5)
    assert found["encoder"] == (2, 2, 8)


@pytest.mark.parametrize("model", ["resnet18", len])
def test_what_is_no_module_is_refused(model):
    # Below `layers` and `split`, whose annotations the tests enforce.
    with pytest.raises(TypeError, match=r"is no torch module; give a torch\.nn\.Module"):
        example(model, None, 8)


def test_a_layer_that_is_no_name_is_refused():
    model = small.randomized(small.Plain())
    with pytest.raises(TypeError, match=r"layer=3 is no name; give one, such as .*body \(face_jax"):
        find(survey(model, example(model, None, 8)), model, 3)


class Head(torch.nn.Module):
    """A convolution, and a head in some writing or other."""

    def __init__(self, write):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 6, 3, padding=1)
        self.act = torch.nn.ReLU()
        self.fc = torch.nn.Linear(6, 5)
        self.write = write

    def forward(self, x):
        return self.write(self.fc, self.act(self.conv(x)))


AFFINE_HEADS = {
    "scaled averages": lambda fc, x: fc(x.mean((2, 3)) * 2),
    "temperature": lambda fc, x: fc(x.mean((2, 3))) / 3,
    "product": lambda fc, x: x.mean((2, 3)) @ fc.weight.t() + fc.bias,
    "some classes": lambda fc, x: fc(x.mean((2, 3)))[:, :2],
    "sums": lambda fc, x: fc(x.sum((2, 3)) / 64),
    "shifted": lambda fc, x: 1 - fc(x.mean((2, 3)) - 0.5),
}
OTHER_HEADS = {
    "one place": lambda fc, x: fc(x[:, :, 0, 0]),
    "square": lambda fc, x: fc(x.mean((2, 3)) * x.mean((2, 3))),
    "weights by size": lambda fc, x: fc((x * x.sum((2, 3), keepdim=True)).mean((2, 3))),
    "half the places": lambda fc, x: fc(x[:, :, :4].mean((2, 3))),
    "normalized": lambda fc, x: fc(x.mean((2, 3))) / fc(x.mean((2, 3))).sum(1, keepdim=True),
}


@pytest.mark.parametrize("writing", AFFINE_HEADS)
def test_heads_are_affine_however_they_are_written(writing):
    model = small.randomized(Head(AFFINE_HEADS[writing]))
    split = bridges.split(model, "act", example_inputs=IMAGES)
    assert split.head.affine
    with torch.no_grad():
        logits = model(torch.from_numpy(IMAGES).movedim(-1, 1))
    np.testing.assert_allclose(split.head(split.features(IMAGES)), logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("writing", OTHER_HEADS)
def test_heads_that_are_not_affine_in_averages_are_told(writing):
    places = bridges.layers(small.randomized(Head(OTHER_HEADS[writing])), example_inputs=IMAGES)
    assert not next(place for place in places if place.name == "act").affine

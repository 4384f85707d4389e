"""Models that are no classifiers of photographs, or don't take these: told before anything else is done."""

import collections
import dataclasses
import types

import jax.numpy as jnp
import numpy as np
import pytest
import small_models as small
import torch
from face_jax.bridges.torch_features import features_of
from torch import nn

from face_jax import HALS, bridges, explain
from face_jax.activations import SignedActivationsError
from face_jax.model import Preprocess

EIGHT = Preprocess(size=8, resize=8)
PICTURES = np.random.default_rng(0).integers(0, 255, (3, 12, 12, 3), np.uint8)
Pair = collections.namedtuple("Pair", ["logits", "hidden"])


@dataclasses.dataclass
class Output:
    logits: torch.Tensor


class Fixed(nn.Module):
    """Small, with a result made of its logits in some way, and so many colours."""

    def __init__(self, result=lambda logits: logits, colours=3, branch=False):
        super().__init__()
        self.branch = branch
        # Declared before the first one, as some do.
        self.second = nn.Conv2d(4, 6, 3)
        self.first = nn.Conv2d(colours, 4, 3)
        self.fc = nn.Linear(6, 5)
        self.result = result

    def forward(self, x):
        if self.branch and x.shape[-1] > 4:  # which symbols can't follow
            x = 2 * x
        return self.result(self.fc(self.second(self.first(x).relu()).relu().mean((2, 3))))


@dataclasses.dataclass
class WithFeatures:
    features: torch.Tensor
    head: torch.Tensor


UNWRAPPED = {
    "tuple": lambda z: (z,),
    "list": lambda z: [z],
    "tuple with a loss": lambda z: (None, z.detach().argmax(1), z),
    "tuple with maps": lambda z: (z, [z[..., None, None], z[..., None]]),
    "namedtuple": lambda z: Pair(z, z + 1),
    "dataclass": Output,
    "dataclass without the name": lambda z: WithFeatures(z + 1, z),
    "dict": lambda z: {"embeddings": z + 1, "logits": z},
    "another word": lambda z: collections.OrderedDict(out=z, aux=z + 1),
    "nested": lambda z: {"student": {"logits": z}, "features": [z + 1]},
    "object": lambda z: types.SimpleNamespace(logits=z),
}


@pytest.mark.parametrize(
    ("kind", "by_export"),
    [*((kind, False) for kind in UNWRAPPED), ("tuple", True), ("dataclass", True), ("dict", True)],
)
def test_logits_are_taken_out_of_what_a_model_returns(kind, by_export):
    model = Fixed(UNWRAPPED[kind], branch=by_export)
    plain = Fixed(branch=by_export)
    plain.load_state_dict(model.state_dict())
    images = np.random.default_rng(1).normal(size=(3, 8, 8, 3)).astype(np.float32)
    split = bridges.split(model, "second", preprocess=EIGHT)
    with torch.no_grad():
        expected = plain(torch.from_numpy(images).movedim(-1, 1))
    np.testing.assert_allclose(split.head(split.features(images)), expected, rtol=1e-5, atol=1e-6)
    # Nothing of that stays in the model.
    assert "forward" not in vars(model)
    assert not isinstance(model(torch.zeros(1, 3, 8, 8)), torch.Tensor)


Two = collections.namedtuple("Two", ["first", "second"])
# What is returned, how it is told, and what the remedy takes of it.
REFUSED = [
    (lambda z: (z, z + 1), "a tuple of 2, in which [0] (shape (2, 5)) and [1] (shape (2, 5)) may be", "[0]"),
    (
        lambda z: [z, torch.cat([z, z], 1)],
        "a list of 2, in which [0] (shape (2, 5)) and [1] (shape (2, 10)) may",
        "[0]",
    ),
    (
        lambda z: {"a": z, "b": z + 1},
        "a dict with 'a', 'b', in which a (shape (2, 5)) and b (shape (2, 5)) may",
        "['a']",
    ),
    (lambda z: Two(z, z + 1), "a namedtuple Two with first, second, in which first (shape (2, 5)) and", ".first"),
    (
        lambda z: {"logits": {"coarse": z, "fine": z}},
        "a dict with 'logits', in which logits.coarse (shape (2, 5)) and logits.fine",
        "['logits']['coarse']",
    ),
    (lambda z: {"pooler_output": z}, "a dict with 'pooler_output', in which no tensor", "logits alone"),
    (lambda z: {"logits": z.argmax(1)}, "a dict with 'logits', in which no tensor", "logits alone"),
    (lambda z: None, "None, in which no tensor", "logits alone"),
]


@pytest.mark.parametrize(("result", "said", "remedy"), REFUSED)
def test_models_whose_logits_are_unclear_are_refused_with_what_they_return(result, said, remedy):
    model = Fixed(result)
    for call in (lambda: bridges.layers(model, size=8), lambda: bridges.split(model, "relu", preprocess=EIGHT)):
        with pytest.raises(ValueError, match="wrap it in a module that returns the logits alone") as error:
            call()
        assert str(error.value).startswith(f"model=Fixed returns {said}")
        assert str(error.value).endswith(remedy)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (lambda z: z.sum(), r"a tensor of shape \(\) for 2 images"),
        (lambda z: z[0], r"a tensor of shape \(5, 1\) for 2 images"),
        (lambda z: z[:, None], r"a tensor of shape \(2, 1, 5\) for 2 images"),
        (lambda z: z[:1], r"a tensor of shape \(1, 5\) for 2 images"),
        (lambda z: z > 0, r"a tensor of torch\.bool; .* leave out an argmax"),
    ],
)
def test_tensors_that_are_no_logits_are_refused(result, said):
    with pytest.raises(ValueError, match=said):
        bridges.split(Fixed(result), "relu", preprocess=EIGHT)


@pytest.mark.parametrize(
    ("colours", "remedy"), [(1, r"images\.mean\(1, keepdim=True\)"), (2, "2 channels"), (4, "4 channels"), (6, "6 ch")]
)
def test_other_colours_than_three_are_refused_with_the_layer(colours, remedy):
    model = Fixed(colours=colours)
    # They can be looked at, and split for other pictures than photographs.
    assert bridges.layers(model, size=8)[0].name == "first"
    with pytest.raises(ValueError, match=rf"takes pictures of {colours} channels? \(its layer 'first'\).*{remedy}"):
        bridges.split(model, "relu", preprocess=EIGHT)
    example = np.zeros((2, 8, 8, colours), np.float32)
    split = bridges.split(model, "relu", preprocess=EIGHT, example_inputs=example)
    with pytest.raises(ValueError, match=r"doesn't take pictures of 8 × 8 pixels and 3 colours .*put a module"):
        explain(split, PICTURES, rank=2, faithfulness=None)


def test_the_remedy_for_grey_networks_works():
    class Grey(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model(images.mean(1, keepdim=True))

    model = Fixed(colours=1)
    split = bridges.split(Grey(model), "model.relu", preprocess=EIGHT)
    images = np.random.default_rng(1).random((2, 8, 8, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model.first(torch.from_numpy(images.mean(-1))[:, None]).relu().movedim(1, -1)
    np.testing.assert_allclose(split.features(images), expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_spreads_colours_first_is_taken():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fold = nn.PixelUnshuffle(2)
            self.conv = nn.Conv2d(12, 6, 3)
            self.fc = nn.Linear(6, 5)

        def forward(self, x):
            return self.fc(self.conv(self.fold(x)).relu().mean((2, 3)))

    assert bridges.split(Shuffled(), "relu", preprocess=EIGHT).head.affine


def test_pictures_of_another_size_are_told_with_how_to_give_it():
    model = small.randomized(small.FlatHead())
    for call in (lambda: bridges.layers(model, size=16), lambda: bridges.split(model, "act")):
        with pytest.raises(
            ValueError, match=r"doesn't take (16|224) × .* pixels of 3 colours \(RuntimeError: mat1 .*size="
        ):
            call()
    head = bridges.split(model, "act", preprocess=EIGHT).head
    assert isinstance(head, bridges.TorchHead)
    assert head.grid == (8, 8)


def test_a_head_without_a_derivative_is_refused_when_it_is_split():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 6, 3)
            self.act = nn.ReLU()
            self.late = nn.ReLU()
            self.fc = nn.Linear(6, 5)

        def forward(self, x):
            x = self.act(self.conv(x)).detach()
            return self.fc(self.late(x**2).mean((2, 3)))

    model = small.randomized(Detached())
    with pytest.raises(
        ValueError, match=r"logits behind layer='act' that have no derivative, because it detaches them"
    ):
        bridges.split(model, "act", preprocess=EIGHT)
    behind = bridges.split(model, "late", preprocess=EIGHT)
    listed = [layer.name for layer in bridges.layers(model, size=8)]
    assert {"detach", "late"} <= set(listed)
    for name in listed:
        bridges.split(model, name, preprocess=EIGHT)
    assert set(bridges.non_negative_layers(model, near="late", size=8)) <= set(listed)
    images = np.random.default_rng(1).random((2, 8, 8, 3)).astype(np.float32)
    with pytest.raises(ValueError, match="detaches its activations from the images"):
        features_of(behind).vjp(images)
    assert behind.head.affine


class Counted(nn.Module):
    """Adds up how many images went through."""

    def __init__(self, model):
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x):
        self.images += len(x)
        return self.model(x)


def test_a_non_negative_solver_is_refused_at_a_signed_layer_before_any_picture():
    split = bridges.split(small.randomized(small.Plain()), "body.4", preprocess=EIGHT)
    assert split.lowest < 0
    assert bridges.split(small.randomized(small.Plain()), "body", preprocess=EIGHT).lowest == 0
    counted = Counted(features_of(split).module)
    features_of(split).module = counted
    with pytest.raises(SignedActivationsError, match=r"leave solver out.*choose a layer without such: body, body\.2"):
        explain(split, PICTURES, rank=2, solver=HALS())
    assert counted.images == 0


def test_signs_of_noise_alone_refuse_nothing():
    class Positive(small.Plain):
        """Photographs have no number below zero, and neither do its weights."""

        def forward(self, x):
            return self.fc(self.body[0](x).abs().mean((2, 3)) @ torch.ones(4, 6))

    model = small.randomized(Positive())
    with torch.no_grad():
        for parameter in model.body[0].parameters():
            parameter.abs_()
    preprocess = Preprocess(size=8, resize=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    split = bridges.split(model, "body.0", preprocess=preprocess)
    assert split.lowest < 0
    assert explain(split, PICTURES, rank=2, faithfulness=None).dictionary.shape == (2, 4)


def test_networks_without_non_negative_layers_are_explained():
    split = bridges.split(small.randomized(small.Tokens()), "cat", preprocess=EIGHT)
    assert split.lowest < 0
    found = explain(split, PICTURES, rank=2, faithfulness=None)
    assert found.dictionary.min() < 0 <= found.codes.min()


def test_the_two_signs_apart_are_a_layer_without_negative_activations():
    class Signs(nn.Module):
        def forward(self, x):
            return torch.cat([x.relu(), (-x).relu()], -1)

    class Apart(small.Tokens):
        def __init__(self):
            super().__init__()
            self.signs = Signs()

        def forward(self, x):
            x = self.patch(x).flatten(2).permute(0, 2, 1)
            positive, negative = self.signs(self.final(self.norm(x))).chunk(2, -1)
            return self.fc((positive - negative).mean(1))

    model = small.randomized(Apart())
    split = bridges.split(model, "signs", preprocess=EIGHT)
    assert split.lowest == 0
    images = torch.from_numpy(np.random.default_rng(1).random((2, 3, 8, 8), np.float32))
    with torch.no_grad():
        x = model.final(model.norm(model.patch(images).flatten(2).permute(0, 2, 1)))
        torch.testing.assert_close(model(images), model.fc(x.mean(1)))


def test_everything_that_is_made_of_a_model_takes_its_logits():
    model, plain = Fixed(lambda z: {"features": z + 1, "logits": z}), Fixed()
    plain.load_state_dict(model.state_dict())
    images = np.random.default_rng(1).normal(size=(2, 8, 8, 3)).astype(np.float32)
    expected = bridges.split(plain, "relu_1", preprocess=EIGHT)
    split = bridges.split(model, "relu_1", preprocess=EIGHT)
    assert split.head.affine
    np.testing.assert_array_equal(split.head(split.features(images)), expected.head(expected.features(images)))
    pictures = [(f"{number}", image) for number, image in enumerate(images)]
    pulled, others = bridges.pull(split, pictures), bridges.pull(expected, pictures)
    np.testing.assert_array_equal(pulled.activations, others.activations)
    stages = list(bridges.randomized(model, "relu_1", steps=2, preprocess=EIGHT))
    assert [stage.head(stage.features(images)).shape for _, stage in stages] == [(2, 5)] * len(stages)
    loaded = bridges.load(model, preprocess=EIGHT)
    assert len(loaded.classes) == 5
    imported = bridges.to_flax(Fixed(Output), torch.from_numpy(images).movedim(-1, 1))
    assert imported(jnp.asarray(images)).shape == (2, 5)

"""Splitting a torch classifier: what both halves compute, where it may be cut, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_models as small
import torch
import torchvision
from face_jax.bridges.splitting.dominators import NotACutError
from face_jax.bridges.splitting.finding import UnknownLayerError
from face_jax.bridges.splitting.tracing import UntraceableModelError
from face_jax.bridges.torch_features import features_of
from torch import nn

from face_jax import bridges
from face_jax.heads import Affine
from face_jax.model import Preprocess

EIGHT = Preprocess(size=8, resize=8)
IMAGES = np.random.default_rng(0).standard_normal((3, 8, 8, 3))

# model, layer, shape of one map, whether the head is affine
CUTS = [
    (small.Plain, "body", (4, 4, 6), True),
    (small.Plain, "body.1", (8, 8, 4), False),
    (small.Plain, "body.2", (8, 8, 4), False),
    (small.Plain, "body.4", (4, 4, 6), False),
    (small.Plain, "flatten", (1, 1, 6), True),
    (small.SharedActivation, "act", (8, 8, 6), False),
    (small.SharedActivation, "act_2", (8, 8, 6), True),
    (small.Branching, "act", (8, 8, 6), True),
    (small.OutOfSight, "act", (8, 8, 6), True),
    (small.Tokens, "permute", (2, 2, 8), False),
    (small.ChannelsLast, "act", (8, 8, 8), True),
    (small.NormedHead, "act", (8, 8, 6), True),
    (small.FlatHead, "act", (8, 8, 6), False),
    (small.ClassToken, "act", (8, 8, 6), False),
]


def logits(model, images):
    with torch.no_grad():
        return model(torch.from_numpy(images).movedim(-1, 1)).numpy()


@pytest.mark.parametrize(("build", "layer", "shape", "affine"), CUTS, ids=lambda v: getattr(v, "__name__", str(v)))
def test_head_of_features_is_the_model(build, layer, shape, affine):
    model = small.randomized(build()).double()
    if build is small.ClassToken:
        torch.nn.init.zeros_(model.fc.weight)
    split = bridges.split(model, layer, preprocess=EIGHT)
    maps = split.features(IMAGES)
    assert maps.shape == (3, *shape)
    assert split.head.affine is affine
    assert isinstance(split.head, Affine) is affine
    np.testing.assert_allclose(split.head(maps), logits(model, IMAGES), rtol=1e-10, atol=1e-12)


def test_maps_are_the_modules_own_output_with_channels_last():
    model = small.randomized(small.SharedActivation()).double()
    seen = []
    model.act.register_forward_hook(lambda module, given, result: seen.append(result.clone()))
    logits(model, IMAGES)
    model.act._forward_hooks.clear()
    for number, name in enumerate(["act", "act_1", "act_2"]):
        if number == 1:
            continue  # the residual passes beside it
        maps = bridges.split(model, name, preprocess=EIGHT).features(IMAGES)
        np.testing.assert_allclose(maps, seen[number].movedim(1, -1), rtol=1e-12, atol=1e-14)
    # Taken at the last call, as a hook would, the first would be wrong: the three really differ.
    assert float((seen[0] - seen[2]).abs().max()) > 0.1


def test_tokens_are_maps_on_their_grid_and_the_class_token_is_beside_them():
    model = small.randomized(small.Tokens()).double()
    seen = []
    model.patch.register_forward_hook(lambda module, given, result: seen.append(result))
    expected = logits(model, IMAGES)
    model.patch._forward_hooks.clear()
    split = bridges.split(model, "cat", preprocess=EIGHT)
    np.testing.assert_allclose(split.features(IMAGES), seen[0].movedim(1, -1), rtol=1e-12)
    maps, tokens = split.with_tokens(IMAGES)
    np.testing.assert_allclose(maps, split.features(IMAGES), rtol=1e-12)
    np.testing.assert_array_equal(tokens, np.broadcast_to(model.token.detach(), (3, 1, 8)))
    np.testing.assert_allclose(split.head(maps, tokens), expected, rtol=1e-10, atol=1e-12)


def test_affine_head_has_the_linear_layers_very_numbers():
    model = small.randomized(small.Plain())
    head = bridges.split(model, "body", preprocess=EIGHT).head
    assert isinstance(head, Affine)
    np.testing.assert_array_equal(head.kernel, model.fc.weight.detach().numpy().T)
    np.testing.assert_array_equal(head.bias, model.fc.bias.detach().numpy())
    assert head.kernel.dtype == jnp.float32


def test_affine_head_keeps_its_numbers_when_torch_trains_on():
    model = small.randomized(small.Plain())
    head = bridges.split(model, "body", preprocess=EIGHT).head
    assert isinstance(head, Affine)
    before = np.array(head.kernel), np.array(head.bias)
    with torch.no_grad():
        model.fc.weight.add_(1)
        model.fc.bias.add_(1)
    np.testing.assert_array_equal(head.kernel, before[0])
    np.testing.assert_array_equal(head.bias, before[1])


@pytest.mark.parametrize("layer", ["body.1", "body.2", "body"])
def test_operations_in_place_leave_the_callers_arrays_alone(layer):
    model = small.randomized(small.Plain()).double()
    split = bridges.split(model, layer, preprocess=EIGHT)
    images = jnp.asarray(IMAGES)
    maps = split.features(images)
    kept = np.array(maps)
    split.head(maps).block_until_ready()
    jax.grad(lambda a: split.head(a).sum())(maps).block_until_ready()
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(maps, kept)
    if layer == "body.1":
        assert float(maps.min()) < 0  # before the ReLU in place, not after


def test_training_mode_is_left_as_it_was_and_not_used():
    model = small.randomized(small.Plain()).double()
    expected = logits(model, IMAGES)
    model.train()
    model.body[1].eval()
    modes = [module.training for module in model.modules()]
    split = bridges.split(model, "body.2", preprocess=EIGHT)
    given = split.head(split.features(IMAGES))
    assert [module.training for module in model.modules()] == modes
    np.testing.assert_allclose(given, expected, rtol=1e-10)
    assert float(model.body[4].num_batches_tracked) == 0


def test_height_and_width_stay_free():
    model = small.randomized(small.Plain()).double()
    split = bridges.split(model, "body", preprocess=EIGHT)
    larger = np.random.default_rng(1).standard_normal((2, 12, 16, 3))
    maps = split.features(larger)
    assert maps.shape == (2, 6, 8, 6)
    np.testing.assert_allclose(split.head(maps), logits(model, larger), rtol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_comes_out_as_float32(dtype):
    model = small.randomized(small.Plain()).to(dtype)
    split = bridges.split(model, "body", preprocess=EIGHT)
    maps = split.features(IMAGES.astype(np.float32))
    assert maps.dtype == jnp.float32
    with torch.no_grad():
        expected = model.body(torch.from_numpy(IMAGES).to(dtype).movedim(-1, 1)).float().movedim(1, -1)
    # Bit for bit up to the rounding of a differently ordered sum in half precision.
    np.testing.assert_allclose(maps, expected, atol=float(8 * torch.finfo(dtype).eps * expected.abs().max()))
    assert isinstance(split.head, Affine)
    assert split.head.kernel.dtype == jnp.float32


def test_channels_last_weights_and_inputs_give_the_same():
    model = small.randomized(small.Plain()).double()
    expected = bridges.split(model, "body", preprocess=EIGHT).features(IMAGES)
    model.to(memory_format=torch.channels_last)
    split = bridges.split(model, "body", preprocess=EIGHT)
    np.testing.assert_allclose(split.features(np.asfortranarray(IMAGES)), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "layer", "affine"),
    [("resnet18", "layer4", True), ("resnet18", "layer3.0", False), ("squeezenet1_1", "features", False)],
)
def test_torchvision_networks_with_random_statistics(name, layer, affine):
    torch.manual_seed(0)
    model = small.randomized(torchvision.models.get_model(name, weights=None)).double()
    images = np.random.default_rng(2).standard_normal((2, 64, 64, 3))
    split = bridges.split(model, layer, preprocess=Preprocess(size=64))
    assert split.head.affine is affine
    np.testing.assert_allclose(split.head(split.features(images)), logits(model, images), rtol=1e-9, atol=1e-9)


def test_densenets_last_relu_is_not_lost():
    torch.manual_seed(0)
    model = small.randomized(
        torchvision.models.DenseNet(growth_rate=4, block_config=(1, 1), num_init_features=8, num_classes=5)
    ).double()
    images = np.random.default_rng(2).standard_normal((2, 64, 64, 3))
    before = bridges.split(model, "features", preprocess=Preprocess(size=64))
    after = bridges.split(model, "relu", preprocess=Preprocess(size=64))
    assert not before.head.affine
    assert after.head.affine
    assert float(before.features(images).min()) < 0 <= float(after.features(images).min())
    for split in (before, after):
        np.testing.assert_allclose(split.head(split.features(images)), logits(model, images), rtol=1e-9)


def test_names_classes_and_fingerprint():
    model = small.randomized(small.Plain())
    split = bridges.split(model, "body", preprocess=EIGHT, classes=list("abcde"), name="plain")
    assert (split.name, split.layer, split.classes) == ("plain", "body", tuple("abcde"))
    again = bridges.split(small.randomized(small.Plain()), "body", preprocess=EIGHT)
    assert again.fingerprint == split.fingerprint
    assert again.name == "Plain"
    others = [
        bridges.split(model, "body.2", preprocess=EIGHT).fingerprint,
        bridges.split(small.randomized(small.Plain(), seed=1), "body", preprocess=EIGHT).fingerprint,
        bridges.split(small.randomized(small.Plain()).double(), "body", preprocess=EIGHT).fingerprint,
    ]
    assert len({split.fingerprint, *others}) == 4
    with torch.no_grad():
        model.body[1].running_var[0] += 1e-6
    assert bridges.split(model, "body", preprocess=EIGHT).fingerprint != split.fingerprint


class Variable(small.Plain):
    """The same tensors in every state_dict, and something else done with them."""

    def __init__(self, limit=None, offset=1.0, hidden=0.0, higher=False, reduced=torch.mean, power=1):
        super().__init__()
        if limit:
            self.body[5] = torch.nn.Hardtanh(0, limit)
        self.offset = torch.full((6,), offset)
        self.register_buffer("hidden", torch.full((6,), hidden), persistent=False)
        self.higher, self.reduced, self.power = higher, reduced, power

    def forward(self, x):
        x = self.reduced(self.body(x), (2, 3)) * self.offset + self.hidden
        return self.fc(x**self.power).clamp(max=8 if self.higher else 9)


CHANGES = [{"limit": 0.05}, {"limit": 0.06}, {"offset": 2.0}, {"hidden": 1.0}, {"higher": True}, {"power": 2}]
CHANGES.append({"reduced": torch.amax})


def test_fingerprints_tell_apart_what_models_do_with_the_same_weights():
    def fingerprint(changes):
        model = small.randomized(Variable(**changes))
        assert set(model.state_dict()) == set(small.Plain().state_dict())
        return bridges.split(model, "body", preprocess=EIGHT).fingerprint

    found = [fingerprint(changes) for changes in [{}, *CHANGES]]
    assert len(set(found)) == len(found)
    assert [fingerprint(changes) for changes in [{}, *CHANGES]] == found


@pytest.mark.parametrize("build", [small.Branching, small.Tokens, Variable])
def test_fingerprints_of_one_model_are_the_same_however_often_it_is_split_or_built(build):
    model = small.randomized(build())
    layer = "cat" if build is small.Tokens else "act" if build is small.Branching else "body"
    # Both are alive, so that an address in what is digested would show.
    first, again, other = (
        bridges.split(each, layer, preprocess=EIGHT).fingerprint for each in (model, model, small.randomized(build()))
    )
    assert first == again == other


def test_fingerprints_of_exported_models_see_numbers_in_the_code():
    class Scaled(small.Branching):
        def forward(self, x, scale=3.0):
            return super().forward(x, scale)

    split, other = (
        bridges.split(small.randomized(build()), "act", preprocess=EIGHT) for build in (small.Branching, Scaled)
    )
    assert split.fingerprint != other.fingerprint


def test_layers_near_a_signed_one_that_are_never_negative():
    split = bridges.split(small.randomized(small.Plain()), "body.4", preprocess=EIGHT)
    assert float(split.features(IMAGES.astype(np.float32)).min()) < 0
    assert next(iter(split.non_negative_layers())) == "body"
    assert "body.2" in split.non_negative_layers()


def test_wrong_name_lists_the_nearest():
    with pytest.raises(UnknownLayerError, match=r"layer='bdy' is not in the model; nearest: .*body"):
        bridges.split(small.Plain(), "bdy", preprocess=EIGHT)


def test_alias_of_a_module_that_runs_often_asks_which_call():
    with pytest.raises(
        UnknownLayerError, match=r"'also' is a module that runs 3 times; name the call: act, act_1, act_2"
    ):
        bridges.split(small.SharedActivation(), "also", preprocess=EIGHT)


def test_place_inside_a_residual_names_what_flows_past_it():
    with pytest.raises(NotACutError, match=r"layer='act_1' doesn't carry everything: act flows past it; .*act"):
        bridges.split(small.SharedActivation(), "act_1", preprocess=EIGHT)


def test_logits_are_no_layer():
    with pytest.raises(NotACutError, match="is the logits themselves; choose a layer before it"):
        bridges.split(small.Plain(), "fc", preprocess=EIGHT)


def test_control_flow_on_values_is_refused_with_both_reasons():
    with pytest.raises(UntraceableModelError, match=r"can't be followed: torch\.fx says .* torch\.export says"):
        bridges.split(small.ValueDependent(), "fc", preprocess=EIGHT)


def test_model_that_is_random_is_refused():
    class Random(small.Plain):
        def forward(self, x):
            return self.fc(torch.nn.functional.dropout(self.body(x), 0.5).mean((2, 3)))

    with pytest.raises(UntraceableModelError, match="differ by"):
        bridges.split(small.randomized(Random()), "body", preprocess=EIGHT)


def test_model_that_returns_its_logits_in_a_dict_is_taken():
    class Dict(small.Plain):
        def forward(self, x):
            return {"logits": super().forward(x)}

    model = small.randomized(Dict())
    split = bridges.split(model, "body", preprocess=EIGHT)
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    with torch.no_grad():
        expected = model(torch.from_numpy(images).movedim(-1, 1))["logits"]
    np.testing.assert_allclose(split.head(split.features(images)), expected, rtol=1e-4, atol=1e-5)


def test_number_of_classes_is_checked():
    with pytest.raises(ValueError, match="classes has 2 names and the model gives 5 logits"):
        bridges.split(small.Plain(), "body", preprocess=EIGHT, classes=["a", "b"])


def test_classes_may_be_named_by_mappings_of_datasets_and_of_published_models():
    class_to_idx = {"e": 4, "a": 0, "c": 2, "b": 1, "d": 3}
    id2label = {number: name for name, number in class_to_idx.items()}
    for classes in (class_to_idx, id2label, "abcde"):
        found = bridges.split(small.Plain(), "body", preprocess=EIGHT, classes=classes).classes
        assert found == ("a", "b", "c", "d", "e")
    with pytest.raises(ValueError, match="no order of the logits"):
        bridges.split(small.Plain(), "body", preprocess=EIGHT, classes=set("abcde"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_probabilities_in_place_of_logits_are_noted(dtype):
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    for last, noted in ((nn.Softmax(1), True), (nn.LogSoftmax(1), False), (nn.Sigmoid(), False), (nn.ReLU(), False)):
        model = nn.Sequential(*plain, last).to(dtype).eval()
        notes = bridges.split(model, "1", preprocess=Preprocess(size=8, resize=8)).notes
        assert any("gives probabilities" in note for note in notes) is noted, last


def test_features_inside_jit_say_why_not():
    split = bridges.split(small.Plain().double(), "body", preprocess=EIGHT)
    with pytest.raises(TypeError, match="to_flax"):
        jax.jit(split.features)(jnp.asarray(IMAGES))


def test_images_need_four_axes():
    split = bridges.split(small.Plain().double(), "body", preprocess=EIGHT)
    with pytest.raises(ValueError, match="give four axes: image y x colour"):
        split.features(IMAGES[0])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_model_on_cuda():
    model = small.randomized(small.Plain()).double()
    expected = logits(model, IMAGES)
    split = bridges.split(model.cuda(), "body.2", preprocess=EIGHT)
    assert features_of(split).device.type == "cuda"
    np.testing.assert_allclose(split.head(split.features(IMAGES)), expected, rtol=1e-9)


def test_logits_that_are_not_finite_are_named():
    model = small.randomized(small.Plain())
    with torch.no_grad():
        model.body[3].weight[0] = float("nan")
    with pytest.raises(ValueError, match=r"logits that are not finite; so are its weights body\.3\.weight"):
        bridges.split(model, "body", preprocess=EIGHT)
    infinite = torch.full((2, 3, 8, 8), float("inf"))
    with pytest.raises(ValueError, match="not finite on the example; give example_inputs"):
        bridges.split(small.randomized(small.Plain()), "body", example_inputs=infinite)

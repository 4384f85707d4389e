"""Classifiers in others' wrappers: the same layers, numbers and fingerprints as without."""

import numpy as np
import pytest
import small_models as small
import torch
from face_jax.bridges.wrappers import plain_name, unwrapped
from torch import nn

from face_jax import bridges
from face_jax.heads import Affine
from face_jax.model import Preprocess

EIGHT = Preprocess(size=8, resize=8)
IMAGES = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)


class Averages(nn.Module):
    """Keeps a model and can't run, as some keepers of averages."""

    def __init__(self, model):
        super().__init__()
        self.module = model


WRAPPERS = {
    "DataParallel": (nn.DataParallel, "module."),
    "compiled": (torch.compile, "_orig_mod."),
    "averaged": (torch.optim.swa_utils.AveragedModel, "module."),
    "compiled in parallel": (lambda model: nn.DataParallel(torch.compile(model)), "module._orig_mod."),  # pyright: ignore[reportArgumentType]
    "parallel compiled": (lambda model: torch.compile(nn.DataParallel(model)), "_orig_mod.module."),
    "kept": (Averages, "module."),
}


@pytest.fixture(scope="module")
def plain():
    return small.randomized(small.Plain())


@pytest.fixture(scope="module")
def split(plain):
    return bridges.split(plain, "body", preprocess=EIGHT)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_model_is_split_as_the_model_in_it(plain, split, wrapper):
    wrap, prefix = WRAPPERS[wrapper]
    wrapped = wrap(plain)
    for layer in ("body", f"{prefix}body", f"{prefix}body.5"):
        found = bridges.split(wrapped, layer, preprocess=EIGHT)
        np.testing.assert_array_equal(found.features(IMAGES), split.features(IMAGES))
        assert isinstance(found.head, Affine)
        np.testing.assert_array_equal(found.head.kernel, split.head.kernel)
        assert found.name == "Plain"
    assert bridges.split(wrapped, f"{prefix}body", preprocess=EIGHT).fingerprint == split.fingerprint
    assert bridges.split(wrapped, f"{prefix}flatten", preprocess=EIGHT).layer == "flatten"
    assert bridges.layers(wrapped, size=8) == bridges.layers(plain, size=8)
    assert bridges.non_negative_layers(wrapped, near=f"{prefix}body.1", size=8) == ("body.2", "body")


@pytest.mark.parametrize("wrapper", ["DataParallel", "compiled", "averaged"])
def test_a_wrapped_model_forgets_as_the_model_in_it(plain, wrapper):
    stages = dict(bridges.randomized(plain, "body", steps=2, preprocess=EIGHT))
    wrapped = dict(bridges.randomized(WRAPPERS[wrapper][0](plain), "body", steps=2, preprocess=EIGHT))
    assert list(wrapped) == list(stages)
    for name, stage in stages.items():
        assert wrapped[name].fingerprint == stage.fingerprint


def test_concepts_of_a_wrapped_model_are_those_of_the_model_in_it(plain, split):
    dictionary = np.abs(np.random.default_rng(1).normal(size=(2, 6))).astype(np.float32)
    images = torch.from_numpy(IMAGES).movedim(-1, 1)
    wrapped = bridges.split(nn.DataParallel(plain), "body", preprocess=EIGHT)
    codes, expected = (bridges.ConceptModule(s, dictionary)(images).detach() for s in (wrapped, split))
    assert torch.equal(codes, expected)


def test_parts_are_taken_out_of_their_wrappers_and_share_their_weights():
    model = small.randomized(small.Plain())
    expected = bridges.layers(model, size=8)
    own = model.fc.weight
    model.body = nn.DataParallel(model.body)
    model.fc = torch.compile(model.fc)
    assert bridges.layers(model, size=8) == expected
    assert bridges.split(model, "body.module.2", preprocess=EIGHT).layer == "body.2"
    bare = unwrapped(model)
    assert bare.fc.weight is own
    assert isinstance(model.body, nn.DataParallel)
    assert plain_name(model, "body.module") == "body"
    assert plain_name(model, "fc._orig_mod") == "fc"
    with torch.no_grad():
        bare.body[1].running_mean.add_(1)
    assert torch.equal(model.body.module[1].running_mean, bare.body[1].running_mean)


@pytest.mark.parametrize(
    ("wrap", "inside"), [(nn.DataParallel, "module"), (torch.compile, "_orig_mod")], ids=["parallel", "compiled"]
)
def test_a_forward_that_reaches_into_a_wrapper_is_told_so(wrap, inside):
    class Reaching(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
            self.fc = nn.Linear(4, 5)

        def forward(self, x):
            return self.fc(getattr(self.body, inside)[1](self.body(x)).mean((2, 3)))

    for ask in (lambda: bridges.layers(Reaching(), size=8), lambda: bridges.split(Reaching(), "fc", preprocess=EIGHT)):
        with pytest.raises(ValueError, match=f"fails in its forward.*no attribute '{inside}'.*wrappers are taken off"):
            ask()


def test_a_model_without_wrappers_is_itself(plain):
    assert unwrapped(plain) is plain
    assert plain_name(plain, "module.body") == "module.body"


def test_without_the_name_of_the_part_the_whole_name_is_suggested():
    class Lightning(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = small.Plain()

        def forward(self, x):
            return self.model(x)

    model = small.randomized(Lightning())
    assert bridges.split(model, "model.body", preprocess=EIGHT).head.affine
    with pytest.raises(ValueError, match=r"layer='body' is not in the model; nearest: model\.body "):
        bridges.split(model, "body", preprocess=EIGHT)


class NoForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = small.Plain()


def _sparse():
    model = small.Plain()
    model.fc.weight = nn.Parameter(model.fc.weight.detach().to_sparse())
    return model


def _sharded():
    return type("FullyShardedDataParallel", (nn.Sequential,), {})(small.Plain())


UNUSABLE = {
    "no forward": (NoForward, r"NoForward has no forward of its own; .* \(it has \.model\)"),
    "traced": (lambda: torch.jit.trace(small.Plain().eval(), torch.ones(1, 3, 8, 8)), "scripted or traced module"),
    "meta": (lambda: small.Plain().to("meta"), r"body\.0\.weight is on the meta device and has no values"),
    "sparse": (_sparse, r"fc\.weight is sparse .*fc\.weight\.to_dense\(\)"),
    "quantized": (
        lambda: torch.ao.quantization.quantize_dynamic(small.Plain(), {nn.Linear}),
        "'fc' is quantized .*give the model of real numbers",
    ),
    "without shapes": (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), r"1\.weight has no shape yet"),
    "sharded": (_sharded, "weights in parts on several processes; load their full state dict"),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("kind", UNUSABLE)
def test_models_that_cant_be_used_are_refused_in_words(kind):
    build, said = UNUSABLE[kind]
    model = build()
    for call in (
        lambda: bridges.layers(model, size=8),
        lambda: bridges.split(model, "body", preprocess=EIGHT),
        lambda: bridges.randomized(model, "body", preprocess=EIGHT),
        lambda: bridges.load(model, preprocess=EIGHT),
        lambda: bridges.to_flax(model, torch.ones(2, 3, 8, 8)),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def test_float_models_made_for_quantization_are_taken():
    class Quantizable(small.Plain):
        def __init__(self):
            super().__init__()
            self.add = torch.ao.nn.quantized.FloatFunctional()

        def forward(self, x):
            return super().forward(x)

    assert bridges.split(small.randomized(Quantizable()), "body", preprocess=EIGHT).head.affine

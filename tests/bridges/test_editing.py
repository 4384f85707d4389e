"""Edited classifiers in torch: the JAX model's logits, the same architecture where it can be, and without JAX."""

import collections
import dataclasses
import subprocess
import sys
from typing import Any

import flax.nnx as nnx
import jax.numpy as jnp
import numpy as np
import pytest
import small_models as small
import torch
import torchvision
from torch import nn
from toy_model import pictures

import face_jax as fj
from face_jax import bridges

PREPROCESS = fj.Preprocess(size=16, resize=16)
IMAGES = pictures(12, 0)


def network(*, end=None, outputs=4):
    torch.manual_seed(2)
    stages = {
        "conv": nn.Conv2d(3, 6, 3, stride=2, padding=1),
        "relu": nn.ReLU(),
        "more": nn.Conv2d(6, 8, 3, padding=1),
        "again": nn.ReLU(),
        "pool": nn.AdaptiveAvgPool2d(1),
        "flat": nn.Flatten(),
        **(end or {}),
        "fc": nn.Linear(8, outputs),
    }
    return nn.Sequential(collections.OrderedDict(stages)).eval()


def norm():
    made = nn.BatchNorm1d(8)
    with torch.no_grad():
        for part in (made.running_mean, made.weight, made.bias):
            part.copy_(torch.rand(8) + 0.5)
        made.running_var.copy_(torch.rand(8) + 0.5)
    return made


def explained(model, **options):
    return fj.explain(model, IMAGES, rank=3, batch=12, faithfulness=None, key=0, **options)


@pytest.fixture(scope="module")
def plain():
    model = network()
    half = bridges.split(model, "again", preprocess=PREPROCESS)
    return model, half, explained(half)


def inputs():
    return np.asarray(PREPROCESS(IMAGES))


def of_torch(module):
    with torch.no_grad():
        return module(torch.from_numpy(np.moveaxis(inputs(), -1, 1).copy())).numpy()


def of_jax(model):
    maps, head = model.halves(jnp.asarray(inputs()))
    return np.asarray(head(maps))


def test_a_linear_edit_behind_an_affine_head_is_the_same_architecture(plain, tmp_path):
    model, half, explanation = plain
    edited = fj.edit(half, explanation, remove=[0], scale={1: 0.5}, codes="linear")
    module = bridges.edited_module(edited, model)
    assert type(module) is nn.Sequential
    changed = [name for name, value in module.state_dict().items() if not torch.equal(value, model.state_dict()[name])]
    assert changed == ["fc.weight"]
    np.testing.assert_allclose(of_torch(module), of_jax(edited), atol=1e-5)
    assert np.abs(of_torch(module) - of_torch(model)).max() > 1e-3
    # In a fresh process, which has torch alone.
    torch.save(module.state_dict(), tmp_path / "edited.pth")
    np.save(tmp_path / "inputs.npy", np.moveaxis(inputs(), -1, 1))
    code = (
        "import collections, sys, numpy as np, torch\n"
        "from torch import nn\n"
        "stages = {'conv': nn.Conv2d(3, 6, 3, stride=2, padding=1), 'relu': nn.ReLU(),\n"
        "  'more': nn.Conv2d(6, 8, 3, padding=1), 'again': nn.ReLU(), 'pool': nn.AdaptiveAvgPool2d(1),\n"
        "  'flat': nn.Flatten(), 'fc': nn.Linear(8, 4)}\n"
        "model = nn.Sequential(collections.OrderedDict(stages)).eval()\n"
        "model.load_state_dict(torch.load('edited.pth', weights_only=True))\n"
        "with torch.no_grad(): np.save('logits.npy', model(torch.from_numpy(np.load('inputs.npy'))).numpy())\n"
        "assert 'jax' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), of_torch(module), atol=1e-6)


def test_what_goes_with_a_concept_goes_into_the_weights_too(plain):
    model, half, explanation = plain
    along = np.random.default_rng(0).normal(size=explanation.dictionary.shape)
    for codes in ("linear", "exact"):
        edited = fj.edit(half, explanation, remove=[0], codes=codes, along=along)
        module = bridges.edited_module(edited, model)
        assert (type(module) is nn.Sequential) == (codes == "linear")
        np.testing.assert_allclose(of_torch(module), of_jax(edited), atol=1e-5)


def test_a_norm_before_the_last_layer_is_accounted_for():
    model = network(end={"norm": norm()})
    half = bridges.split(model, "again", preprocess=PREPROCESS)
    edited = fj.edit(half, explained(half), remove=[0], codes="linear")
    module = bridges.edited_module(edited, model)
    assert type(module) is nn.Sequential
    np.testing.assert_allclose(of_torch(module), of_jax(edited), atol=1e-5)


@pytest.mark.parametrize("codes", ["exact", "linear"])
def test_any_edit_is_a_module_of_the_halves_with_derivatives(plain, codes):
    _, half, explanation = plain
    edited = fj.edit(half, explanation, remove=[1], codes=codes)
    module = bridges.edited_module(edited)
    assert isinstance(module, bridges.EditedNetwork)
    np.testing.assert_allclose(of_torch(module), of_jax(edited), atol=1e-5)
    images = torch.from_numpy(np.moveaxis(inputs()[:1], -1, 1).copy()).requires_grad_()
    module(images)[0, 0].backward()
    assert images.grad.abs().max() > 0


@pytest.mark.parametrize("codes", ["exact", "linear"])
def test_behind_an_earlier_layer_it_is_the_rest_of_the_network(codes):
    model = network()
    half = bridges.split(model, "relu", preprocess=PREPROCESS)
    edited = fj.edit(half, explained(half), remove=[0], codes=codes)
    module = bridges.edited_module(edited, model)
    assert isinstance(module, bridges.EditedNetwork)
    np.testing.assert_allclose(of_torch(module), of_jax(edited), atol=1e-5)


def test_a_binary_network_keeps_its_one_logit():
    model = network(outputs=1)
    half = bridges.split(model, "again", preprocess=PREPROCESS, classes=["cat"])
    edited = fj.edit(half, explained(half), remove=[0], codes="linear")
    np.testing.assert_allclose(of_torch(bridges.edited_module(edited, model))[:, 0], of_jax(edited)[:, 1], atol=1e-5)
    np.testing.assert_allclose(of_torch(bridges.edited_module(edited)), of_jax(edited), atol=1e-5)


@pytest.mark.parametrize("affine", [False, True])
def test_signs_apart_are_put_together_again(affine):
    model = network()
    if affine:
        del model.again
    half = bridges.split(model, "more", preprocess=PREPROCESS)
    explanation = explained(half, signs="apart")
    edited = fj.edit(half, explanation, remove=[0], codes="linear")
    np.testing.assert_allclose(of_torch(bridges.edited_module(edited, model)), of_jax(edited), atol=1e-5)


@pytest.fixture(scope="module")
def with_tokens():
    settings: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "hidden_dim": 8, "mlp_dim": 16}
    model = small.randomized(torchvision.models.VisionTransformer(16, 4, **settings, num_classes=4))
    half = bridges.split(model, "encoder.layers.encoder_layer_0", preprocess=PREPROCESS)
    return model, half, {signs: explained(half, signs=signs) for signs in ("mixed", "apart")}


@pytest.mark.parametrize("codes", ["exact", "linear"])
@pytest.mark.parametrize("signs", ["mixed", "apart"])
def test_class_tokens_go_past_an_edit_of_the_patches(with_tokens, signs, codes):
    model, half, explanations = with_tokens
    edited = fj.edit(half, explanations[signs], remove=[0], codes=codes)
    np.testing.assert_array_equal(edited.with_tokens(inputs())[1], half.with_tokens(inputs())[1])
    module = bridges.edited_module(edited, model)
    assert isinstance(module, bridges.EditedNetwork)
    np.testing.assert_allclose(of_torch(module), of_jax(edited), atol=1e-5)
    assert np.abs(of_torch(module) - of_torch(model)).max() > 1e-2


class PatchesAndTokens(nnx.Module):
    """A head in JAX, which takes tokens beside the maps."""

    affine = False

    def __call__(self, maps, tokens):
        return (maps**2).mean((1, 2)) + jnp.tanh(tokens[:, 0])


def test_a_head_in_jax_is_given_the_tokens(with_tokens):
    _, half, explanations = with_tokens
    half = dataclasses.replace(half, head=PatchesAndTokens())
    edited = fj.edit(half, explanations["mixed"], remove=[0], codes="linear")
    np.testing.assert_allclose(of_torch(bridges.edited_module(edited)), of_jax(edited), atol=1e-5)


def test_what_isnt_an_edit_or_the_network_is_refused(plain):
    model, half, explanation = plain
    with pytest.raises(ValueError, match="isn't edited"):
        bridges.edited_module(half, model)
    edited = fj.edit(half, explanation, remove=[0], codes="linear")
    with pytest.raises(ValueError, match="isn't the one that was cut"):
        bridges.edited_module(edited, network(outputs=5))

"""Heads of torchvision's families against torch: random weights and running statistics, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from face_jax import heads

torch = pytest.importorskip("torch")
models = pytest.importorskip("torchvision").models


def _randomized(module, seed=0):
    """Weights that let signals through, and batch norms whose statistics are far from 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if name.endswith("num_batches_tracked"):
                continue
            draw = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(0.5 + draw.abs())
            elif value.ndim > 1:
                value.copy_(draw * (1.6 / value[0].numel()) ** 0.5)
            elif name.endswith(("weight", "layer_scale")):
                value.copy_(1 + 0.3 * draw)
            else:
                value.copy_(0.3 * draw)
    return module.eval()


def _pooled_head(module, stages):
    def run(x):
        for stage in stages:
            x = stage(x)
        return module.classifier(torch.nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))

    return run


def _resnet(block, width, after, channels):
    module = _randomized(models.ResNet(block, [1, 1, 1, 2], num_classes=10, width_per_group=width))
    stages = [module.layer1, module.layer2, module.layer3, module.layer4][int(after[-1]) :]

    def run(x):
        for stage in stages:
            x = stage(x)
        return module.fc(x.mean((2, 3)))

    return heads.resnet(module, after=after), run, channels


def _small_resnet():
    return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=10)


def _fine_tuned_resnet(pooling):
    module = _small_resnet()
    nn = torch.nn
    module.avgpool, module.fc = pooling, nn.Sequential(nn.Dropout(), nn.Sequential(nn.Flatten(), nn.Linear(512, 10)))
    module = _randomized(module)
    return heads.resnet(module), lambda x: module.fc(module.avgpool(x).flatten(1)), 512


def _features(kind, build, after, channels, classifier=None, **settings):
    module = kind(weights=None, num_classes=10, **settings)
    if classifier is not None:
        module.classifier = classifier
    module = _randomized(module)
    return build(module, after=after), _pooled_head(module, list(module.features)[after + 1 :]), channels


def _convnext():
    sizes = [(8, 12), (12, 24), (24, 48), (48, None)]
    blocks = [models.convnext.CNBlockConfig(before, after, 1) for before, after in sizes]
    module = _randomized(models.ConvNeXt(blocks, num_classes=10))
    stages = list(module.features)[6:]

    def run(x):
        for stage in stages:
            x = stage(x)
        return module.classifier(module.avgpool(x))

    return heads.convnext(module, after=5), run, 24


def _vgg():
    nn = torch.nn
    features = nn.Sequential(
        nn.MaxPool2d(2, 2), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(True), nn.MaxPool2d(2, 2)
    )
    module = models.VGG(features, num_classes=10, init_weights=False)
    module.classifier[0], module.classifier[3], module.classifier[6] = (
        nn.Linear(392, 64),
        nn.Linear(64, 32),
        nn.Linear(32, 10),
    )
    module = _randomized(module)

    def run(x):
        return module.classifier(torch.flatten(module.avgpool(module.features[1:](x)), 1))

    return heads.vgg(module, after=0), run, 8


def _densenet(after, fine_tuned=False):
    module = models.DenseNet(4, (1, 1, 1, 1), 16, num_classes=10)
    channels = module.classifier.in_features
    if fine_tuned:
        module.classifier = torch.nn.Sequential(torch.nn.Dropout(), module.classifier)
    module = _randomized(module)

    def run(x):
        x = module.features.norm5(x).relu() if after == "denseblock4" else x
        return module.classifier(x.mean((2, 3)))

    return heads.densenet(module, after=after), run, channels


CASES = {
    "resnet after layer4": lambda: _resnet(models.resnet.BasicBlock, 64, "layer4", 512),
    "resnet after layer3": lambda: _resnet(models.resnet.BasicBlock, 64, "layer3", 256),
    "resnet of bottlenecks after layer3": lambda: _resnet(models.resnet.Bottleneck, 4, "layer3", 1024),
    "resnet with a sequence of layers": lambda: _fine_tuned_resnet(torch.nn.AdaptiveAvgPool2d(1)),
    "resnet with the largest of two rows": lambda: _fine_tuned_resnet(
        torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d((2, 1)), torch.nn.MaxPool2d((2, 1)))
    ),
    "mobilenet_v2 after all": lambda: _features(models.mobilenet_v2, heads.mobilenet_v2, 18, 1280),
    "mobilenet_v2 with one layer": lambda: _features(
        models.mobilenet_v2, heads.mobilenet_v2, 18, 1280, classifier=torch.nn.Linear(1280, 10)
    ),
    "mobilenet_v2 after 13": lambda: _features(models.mobilenet_v2, heads.mobilenet_v2, 13, 96),
    "mobilenet_v3 after all": lambda: _features(models.mobilenet_v3_small, heads.mobilenet_v3, 12, 576),
    "mobilenet_v3 after 9": lambda: _features(models.mobilenet_v3_small, heads.mobilenet_v3, 9, 96),
    "efficientnet after all": lambda: _features(models.efficientnet_b0, heads.efficientnet, 8, 1280),
    "efficientnet after 6": lambda: _features(models.efficientnet_b0, heads.efficientnet, 6, 192),
    "convnext after 5": _convnext,
    "vgg on another grid": _vgg,
    "densenet after relu": lambda: _densenet("relu"),
    "densenet with a sequence of layers": lambda: _densenet("relu", fine_tuned=True),
    "densenet after denseblock4": lambda: _densenet("denseblock4"),
}
AFFINE = {
    "resnet after layer4",
    "resnet with a sequence of layers",
    "mobilenet_v2 after all",
    "mobilenet_v2 with one layer",
    "efficientnet after all",
    "densenet after relu",
    "densenet with a sequence of layers",
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name):
    head, run, channels = CASES[name]()
    maps = np.random.default_rng(1).normal(size=(2, 9, 7, channels)).astype(np.float32)
    weights = np.random.default_rng(2).normal(size=(2, 10)).astype(np.float32)
    given = torch.from_numpy(maps.transpose(0, 3, 1, 2).copy()).requires_grad_()
    logits = run(given)
    (logits * torch.from_numpy(weights)).sum().backward()
    expected, slope = logits.detach().numpy(), given.grad.permute(0, 2, 3, 1).numpy()

    def weighed(x):
        found = head(x)
        return jnp.sum(found * weights), found

    (_, found), gradient = jax.jit(jax.value_and_grad(weighed, has_aux=True))(jnp.asarray(maps))
    assert found.dtype == jnp.float32
    assert np.abs(expected).max() > 1e-2, "the logits say nothing"
    assert np.abs(slope).max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(gradient, slope, atol=1e-5 * np.abs(slope).max())
    assert head.affine == (name in AFFINE)


def _vit():
    settings = {"image_size": 32, "patch_size": 8, "num_layers": 3, "num_heads": 4, "hidden_dim": 48, "mlp_dim": 96}
    module = _randomized(models.VisionTransformer(**settings, num_classes=10))

    def run(x):
        for block in list(module.encoder.layers)[1:]:
            x = block(x)
        return module.heads(module.encoder.ln(x)[:, 0])

    return heads.vit(module, after=0), run


def test_transformers_logits_and_gradients_are_torchs():
    head, run = _vit()
    tokens = np.random.default_rng(1).normal(size=(2, 17, 48)).astype(np.float32)
    given = torch.from_numpy(tokens).requires_grad_()
    logits = run(given)
    logits[:, 3].sum().backward()
    expected, slope = logits.detach().numpy(), given.grad.numpy()
    gradient = jax.grad(lambda x: jnp.sum(head(x)[:, 3]))(jnp.asarray(tokens))
    np.testing.assert_allclose(head(jnp.asarray(tokens)), expected, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(gradient, slope, atol=1e-5 * np.abs(slope).max())
    np.testing.assert_array_equal(head(jnp.asarray(tokens)), head(jnp.asarray(tokens)[:, None]))
    assert not head.affine


def test_weights_are_copied():
    module = _randomized(models.DenseNet(4, (1, 1, 1, 1), 16, num_classes=10))
    head = heads.densenet(module)
    before = np.asarray(head(jnp.ones((1, module.classifier.in_features), jnp.float32)))
    with torch.no_grad():
        module.classifier.weight.zero_()
    np.testing.assert_array_equal(head(jnp.ones((1, module.classifier.in_features), jnp.float32)), before)


def test_heads_are_pytrees_of_their_weights():
    module = _randomized(models.DenseNet(4, (1, 1, 1, 1), 16, num_classes=10))
    head = heads.densenet(module, after="denseblock4")
    assert len(jax.tree.leaves(head)) == 6
    doubled = jax.tree.map(lambda x: x.astype(jnp.float64), head)
    assert doubled(jnp.ones((1, module.classifier.in_features))).dtype == jnp.float64


def test_another_family_is_refused():
    with pytest.raises(ValueError, match="without layer1, layer4, avgpool, fc"):
        heads.resnet(models.DenseNet(4, (1, 1, 1, 1), 16))
    with pytest.raises(ValueError, match="after='layer5'"):
        heads.resnet(models.resnet18(weights=None), after="layer5")
    with pytest.raises(ValueError, match="from 0 to 18"):
        heads.mobilenet_v2(models.mobilenet_v2(weights=None), after=19)


def _empty_vgg():
    with torch.device("meta"):
        return models.VGG(torch.nn.Sequential(), num_classes=10, init_weights=False)


@pytest.mark.parametrize("build", [heads.mobilenet_v2, heads.efficientnet, heads.convnext, heads.densenet])
def test_a_family_with_the_same_attributes_is_refused(build):
    with pytest.raises(ValueError, match=r"module is a VGG and no \w+; use face_jax\.heads\.vgg"):
        build(_empty_vgg())
    if build is not heads.densenet:
        with pytest.raises(ValueError, match=r"module is a DenseNet .*"):
            build(models.DenseNet(4, (1, 1, 1, 1), 16))


def test_a_module_of_ones_own_with_a_familys_attributes_is_taken():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            known = models.mobilenet_v2(weights=None, num_classes=10)
            self.features, self.classifier = known.features, known.classifier

    assert heads.mobilenet_v2(Own()).affine


@pytest.mark.parametrize(
    ("kind", "build"),
    [
        (_small_resnet, heads.resnet),
        (lambda: models.efficientnet_b0(weights=None), heads.efficientnet),
        (lambda: models.mobilenet_v3_small(weights=None), heads.mobilenet_v3),
        (lambda: models.ConvNeXt([models.convnext.CNBlockConfig(8, None, 2)]), heads.convnext),
    ],
)
def test_poolings_other_than_averages_are_refused(kind, build):
    module = kind()
    module.avgpool = torch.nn.AdaptiveMaxPool2d(1)
    with pytest.raises(ValueError, match=r"AdaptiveMaxPool2d is none of the modules.*to_flax"):
        build(module)
    module.avgpool = torch.nn.AdaptiveAvgPool2d((1, None))
    with pytest.raises(ValueError, match=r"output_size=\(1, None\)"):
        build(module)


def test_weights_of_half_precision_keep_their_type():
    module = _randomized(_small_resnet())
    expected = np.asarray(heads.resnet(module).classifier.layers[1].kernel[...])  # pyright: ignore[reportFunctionMemberAccess]
    for name in ("float16", "bfloat16"):
        head = heads.resnet(module.to(getattr(torch, name)))
        logits = head(jnp.ones((2, 512), name))
        assert logits.dtype == name
        np.testing.assert_allclose(
            head.classifier.layers[1].kernel[...].astype(jnp.float32),  # pyright: ignore[reportFunctionMemberAccess]
            expected,
            atol=1e-2 * np.abs(expected).max(),
        )


@pytest.mark.parametrize(
    "name", ["resnet after layer4", "mobilenet_v2 after 13", "convnext after 5", "vgg on another grid"]
)
def test_another_number_of_channels_is_refused(name):
    head, _, channels = CASES[name]()
    assert head.channels == channels
    with pytest.raises(ValueError, match=f"maps has 6 channels and the head takes {channels}"):
        head(jnp.ones((1, 9, 7, 6), jnp.float32))


def test_a_grid_of_vectors_says_its_channels():
    module = _empty_vgg()
    module.features, module.classifier = torch.nn.Sequential(torch.nn.ReLU()), torch.nn.Linear(7 * 7 * 6, 10)
    assert heads.vgg(module).channels == 6


def test_unknown_modules_are_named():
    class Odd(torch.nn.Module):
        pass

    module = models.mobilenet_v2(weights=None)
    module.features.append(Odd())
    with pytest.raises(ValueError, match=r"Odd is none of the modules.*to_flax"):
        heads.mobilenet_v2(module, after=18)
